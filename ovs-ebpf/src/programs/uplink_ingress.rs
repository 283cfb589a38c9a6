//! Remote to container: TC ingress of an uplink.

use aya_ebpf::{macros::classifier, programs::TcContext};
use network_types::{eth::EthHdr, ip::IpProto};
use ovs_ebpf_common::{
    Reason,
    abi::{Control, Program, TunnelKind},
    wire::{
        ecn,
        frame::{self, Head},
        vlan,
    },
};

use crate::{
    counters::{self, Verdict},
    decap::{self, Inner},
    fdb,
    flows::{self, Found, Route},
    lease::{self, Now},
    origin::Origin,
    packet::{self, Packet},
};

/// Forwards what a known station behind a tunnel sends to a local port; leaves the rest to the kernel.
#[classifier]
// The macro puts a function around it, which would call it for each packet.
#[inline(always)]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    let packet = Packet::new(&ctx);
    let len = packet.len();
    counters::conclude(&ctx, Program::UplinkIngress, len, forward(&packet))
}

#[inline(always)]
fn forward(packet: &Packet) -> Verdict {
    let control = lease::control()?;
    let kind = decap::classify(packet, control)?;
    let now = lease::check(control)?;
    match kind {
        TunnelKind::VxlanIpv4 => receive(packet, TunnelKind::VxlanIpv4, control, &now),
        TunnelKind::GreIpv4 => receive(packet, TunnelKind::GreIpv4, control, &now),
        TunnelKind::GreKeyIpv4 => receive(packet, TunnelKind::GreKeyIpv4, control, &now),
        TunnelKind::VxlanIpv6 => receive(packet, TunnelKind::VxlanIpv6, control, &now),
        TunnelKind::GreIpv6 => receive(packet, TunnelKind::GreIpv6, control, &now),
        TunnelKind::GreKeyIpv6 => receive(packet, TunnelKind::GreKeyIpv6, control, &now),
    }
}

/// `kind` is a constant at each call, so that each kind has its own straight-line code.
#[inline(always)]
fn receive(packet: &Packet, kind: TunnelKind, control: &Control, now: &Now) -> Verdict {
    let outer = decap::accept(packet, kind)?;
    let mut head: Head = packet.bytes(kind.header_len()).ok_or(Reason::Truncated)?;
    let tag = decap::untag(packet, kind, &mut head)?;
    let tag_len = if tag.is_some() { vlan::LEN as u32 } else { 0 };
    let inner_len = packet.len() - kind.header_len() as u32;
    let frame_len = inner_len - tag_len;
    let frame = frame::parse(&head, frame_len);
    let ethernet = packet::ethernet(&head);

    let key = outer.flow(packet.ifindex(), &ethernet, tag)?;
    let route = match flows::find(&key, control, now) {
        Found::Hit(route) => route,
        Found::Miss(miss) => {
            let tunnel = outer.tunnel()?;
            // SAFETY: a map value, valid until the program ends.
            if unsafe { (*tunnel).uplink } != packet.ifindex() {
                return Err(Reason::WrongUplink);
            }
            let (route, good_until) =
                Origin::tunnel(tunnel).route(tag, &head, frame.map(drop), now)?;
            miss.keep(&key, &route, good_until, now);
            route
        }
    };
    let frame = frame?;
    let Route { station, tag, tunnel } = route;

    if station.is_behind_tunnel() {
        return Err(Reason::DestinationIsTunnel);
    }
    if packet.gso_size() != 0 {
        if station.may_segment_in_hardware() {
            return Err(Reason::HardwareGso);
        }
        // `bpf_skb_adjust_room` leaves the mark of the tunnel on it. The receiving socket cuts datagrams itself
        // (`udp_rcv_segment`), looks for the tunnel's headers by that mark (`udp4_ufo_fragment`), and loses them all.
        if kind.is_vxlan() && frame.transport != IpProto::Tcp as u8 {
            return Err(Reason::UncutDatagrams);
        }
    }
    let tos = ecn::decapsulate(outer.tos, frame.tos).ok_or(Reason::EcnMark)?;
    fdb::fits(packet, frame_len - EthHdr::LEN as u32, &station)?;

    let inner = Inner { frame: &frame, tos, ethernet: &ethernet, tag_len, tag };
    let action = decap::deliver(packet, kind, &inner, &station)?;
    if let Some(counters) = counters::of_tunnel(tunnel) {
        counters.rx_packets += 1;
        counters.rx_bytes += u64::from(inner_len);
    }
    Ok(action)
}
