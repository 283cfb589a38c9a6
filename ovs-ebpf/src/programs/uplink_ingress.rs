//! Remote to container: TC ingress of an uplink.

use aya_ebpf::{macros::classifier, programs::TcContext};
use network_types::eth::EthHdr;
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
    let mut origin = Origin::tunnel(tunnel);
    let mut head = packet.bytes(kind.header_len()).ok_or(Reason::Truncated)?;
    let tag = decap::untag(packet, kind, &mut head)?;
    origin.enter(tag)?;
    switch(packet, kind, outer_tos, &head, &origin, control, &now)
        .inspect_err(|&reason| origin.observe(&head, reason, &now))
}

/// Forwards the inner frame, which begins with `head` but for its VLAN tag.
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
    let tag_len = if origin.tag == 0 { 0 } else { vlan::LEN as u32 };
    let inner_len = packet.len() - kind.header_len() as u32;
    let frame_len = inner_len - tag_len;
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

    let tag = destination.tag_of(origin);
    let inner = Inner { frame: &frame, tos, ethernet: &ethernet, tag_len, tag };
    let action = decap::deliver(packet, kind, &inner, &destination)?;
    if let Some(counters) = counters::of_tunnel(origin.from) {
        counters.rx_packets += 1;
        counters.rx_bytes += u64::from(inner_len);
    }
    Ok(action)
}
