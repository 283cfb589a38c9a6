//! Container to anywhere: TC ingress of a bridge port.

use aya_ebpf::{macros::classifier, programs::TcContext};
use network_types::eth::EthHdr;
use ovs_ebpf_common::{
    Reason,
    abi::{FlowKey, Program},
    wire::frame,
};

use crate::{
    counters::{self, Verdict},
    encap, fdb,
    flows::{self, Found, Route},
    lease,
    maps::PORTS,
    origin::Origin,
    packet::{self, Packet, Tags},
};

/// Forwards what a station behind this port sends to a known station; leaves the rest to the bridge.
#[classifier]
pub fn port_ingress(ctx: TcContext) -> i32 {
    let packet = Packet::new(&ctx);
    let len = packet.len();
    counters::conclude(&ctx, Program::PortIngress, len, forward(&packet))
}

#[inline(always)]
fn forward(packet: &Packet) -> Verdict {
    let control = lease::control()?;
    let now = lease::check(control)?;
    let ifindex = packet.ifindex();
    packet.pull(frame::MIN_LEN);
    let head = packet.bytes(0).ok_or(Reason::Truncated)?;
    // Reception has taken the outermost tag out of the frame (`__netif_receive_skb_core`).
    let tag = packet.has_vlan_tag().then(|| packet.vlan_tag());
    let frame = frame::parse(&head, packet.len());
    let ethernet = packet::ethernet(&head);

    let [destination, source] = packet::macs(&ethernet);
    let (tpid, tci) = tag.unwrap_or((0, 0));
    let key = FlowKey { destination, source, ifindex, tag: tci, tpid, ..FlowKey::default() };
    let route = match flows::find(&key, control, &now) {
        Found::Hit(route) => route,
        Found::Miss(miss) => {
            let port = PORTS.get_ptr_mut(ifindex).ok_or(Reason::PortUnknown)?;
            let origin = Origin::port(ifindex, port);
            let (route, good_until) = origin.route(tag, &head, frame.map(drop), &now)?;
            miss.keep(&key, &route, good_until, &now);
            route
        }
    };
    let frame = frame?;

    let Route { station, tag, .. } = route;
    let tags = Tags { from: tci, to: tag };
    if station.is_behind_tunnel() {
        return encap::send(packet, station.target, &frame, &ethernet, tags);
    }
    fdb::fits(packet, packet.len() - EthHdr::LEN as u32, &station)?;
    // Only in metadata, which can't fail (`skb_vlan_push`, `skb_vlan_pop`).
    packet.retag(tags).map_err(|()| Reason::VlanTagged)?;
    fdb::deliver(packet, &station)
}
