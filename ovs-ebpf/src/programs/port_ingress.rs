//! Container to anywhere: TC ingress of a bridge port.

use aya_ebpf::{macros::classifier, programs::TcContext};
use network_types::eth::EthHdr;
use ovs_ebpf_common::{
    Reason,
    abi::{Control, Program},
    wire::frame::{self, Head},
};

use crate::{
    counters::{self, Verdict},
    encap,
    events::Origin,
    fdb, flows,
    lease::{self, Now},
    maps::PORTS,
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
    let mut origin = Origin::port(ifindex, PORTS.get_ptr_mut(ifindex).ok_or(Reason::PortUnknown)?);
    packet.pull(frame::MIN_LEN);
    let head = packet.bytes(0).ok_or(Reason::Truncated)?;
    // Reception has taken the outermost tag out of the frame (`__netif_receive_skb_core`).
    let tag = packet.has_vlan_tag().then(|| packet.vlan_tag());
    origin.enter(tag)?;
    switch(packet, &head, &origin, control, &now)
        .inspect_err(|&reason| origin.observe(&head, reason, &now))
}

#[inline(always)]
fn switch(packet: &Packet, head: &Head, origin: &Origin, control: &Control, now: &Now) -> Verdict {
    let frame = frame::parse(head, packet.len())?;
    let ethernet = packet::ethernet(head);
    let destination = flows::destination(&ethernet, origin, control, now)?;
    let tags = Tags { from: origin.tag, to: destination.tag_of(origin) };
    if destination.is_behind_tunnel() {
        return encap::send(packet, destination.target, &frame, &ethernet, tags);
    }
    fdb::fits(packet, packet.len() - EthHdr::LEN as u32, &destination)?;
    // Only in metadata, which can't fail (`skb_vlan_push`, `skb_vlan_pop`).
    packet.retag(tags).map_err(|()| Reason::VlanTagged)?;
    fdb::deliver(packet, &destination)
}
