//! Remote to container: TC ingress of an uplink.

use aya_ebpf::{macros::classifier, programs::TcContext};
use network_types::eth::EthHdr;
use ovs_ebpf_common::{
    Reason,
    abi::{Control, Program, TunnelKind},
    wire::{
        ecn,
        frame::{self, Head},
    },
};

use crate::{
    counters::{self, Verdict},
    decap,
    events::Origin,
    fdb, flows,
    lease::{self, Now},
    packet::{self, Packet},
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
    let (tunnel, outer_tos) = decap::tunnel(packet, kind)?;
    // SAFETY: a map value, valid until the program ends.
    if unsafe { (*tunnel).uplink } != packet.ifindex() {
        return Err(Reason::WrongUplink);
    }
    let origin = Origin::tunnel(tunnel);
    let head = packet.bytes(kind.header_len()).ok_or(Reason::Truncated)?;
    switch(packet, kind, outer_tos, &head, &origin, control, &now)
        .inspect_err(|&reason| origin.observe(&head, reason, &now))
}

/// Forwards the inner frame, which begins with `head`.
#[inline(always)]
fn switch(
    packet: &Packet,
    kind: TunnelKind,
    outer_tos: u8,
    head: &Head,
    origin: &Origin,
    control: &Control,
    now: &Now,
) -> Verdict {
    let frame_len = packet.len() - kind.header_len() as u32;
    let frame = frame::parse(head, frame_len)?;
    let ethernet = packet::ethernet(head);
    let destination = flows::destination(&ethernet, origin, control, now)?;
    if destination.is_behind_tunnel() {
        return Err(Reason::DestinationIsTunnel);
    }
    if destination.may_segment_in_hardware() && packet.gso_size() != 0 {
        return Err(Reason::HardwareGso);
    }
    let tos = ecn::decapsulate(outer_tos, frame.tos).ok_or(Reason::EcnMark)?;
    fdb::fits(packet, frame_len - EthHdr::LEN as u32, &destination)?;

    let action = decap::deliver(packet, kind, &frame, tos, &ethernet, &destination)?;
    if let Some(counters) = counters::of_tunnel(origin.from) {
        counters.rx_packets += 1;
        counters.rx_bytes += u64::from(frame_len);
    }
    Ok(action)
}
