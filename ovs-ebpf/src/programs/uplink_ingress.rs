//! Remote to container: TC ingress of an uplink.

use aya_ebpf::{macros::classifier, programs::TcContext};
use network_types::eth::EthHdr;
use ovs_ebpf_common::{
    Reason,
    abi::{FdbKey, Program},
    wire::{ecn, frame},
};

use crate::{
    counters::{self, Verdict},
    decap, fdb, lease,
    maps::TUNNEL_INDEX,
    packet::Packet,
};

/// Forwards what a known station behind a tunnel sends to a local port; leaves the rest to the kernel.
#[classifier]
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
    let outer = decap::accept(packet, kind)?;
    // SAFETY: a map value, copied at once.
    let tunnel = unsafe { TUNNEL_INDEX.get(outer.key) }.copied().ok_or(Reason::TunnelUnknown)?;
    if tunnel.uplink != packet.ifindex() {
        return Err(Reason::WrongUplink);
    }

    let header_len = kind.header_len();
    let head = packet.bytes(header_len).ok_or(Reason::Truncated)?;
    let frame_len = packet.len() - header_len as u32;
    let frame = frame::parse(&head, frame_len)?;
    let mut ethernet = [0; EthHdr::LEN];
    ethernet.copy_from_slice(&head[..EthHdr::LEN]);

    let station = |mac| FdbKey { bridge: tunnel.bridge, vlan: tunnel.vlan, mac };
    let source = fdb::source(&station(frame.source), tunnel.tunnel, true, &now)?;
    let destination = fdb::destination(&station(frame.destination), &source)?;
    if destination.is_behind_tunnel() {
        return Err(Reason::DestinationIsTunnel);
    }
    if destination.may_segment_in_hardware() && packet.gso_size() != 0 {
        return Err(Reason::HardwareGso);
    }
    if !ecn::keeps_inner(outer.tos, frame.tos) {
        return Err(Reason::EcnMark);
    }
    fdb::fits(packet, frame_len - EthHdr::LEN as u32, &destination)?;

    let action = decap::deliver(packet, kind, frame.network, &ethernet, &destination)?;
    if let Some(counters) = counters::of_tunnel(tunnel.tunnel) {
        counters.rx_packets += 1;
        counters.rx_bytes += u64::from(frame_len);
    }
    Ok(action)
}
