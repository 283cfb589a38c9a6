//! Container to anywhere: TC ingress of a bridge port.

use aya_ebpf::{macros::classifier, programs::TcContext};
use network_types::eth::EthHdr;
use ovs_ebpf_common::{
    Reason,
    abi::{FdbKey, Program},
    wire::frame,
};

use crate::{
    counters::{self, Verdict},
    encap, fdb, lease,
    maps::PORTS,
    packet::Packet,
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
    let now = lease::check(lease::control()?)?;
    packet.pull(frame::MIN_LEN);
    let head = packet.bytes(0).ok_or(Reason::Truncated)?;
    if packet.has_vlan_tag() {
        return Err(Reason::VlanTagged);
    }
    let frame = frame::parse(&head, packet.len())?;
    let mut ethernet = [0; EthHdr::LEN];
    ethernet.copy_from_slice(&head[..EthHdr::LEN]);

    let ifindex = packet.ifindex();
    // SAFETY: a map value, copied at once.
    let port = unsafe { PORTS.get(ifindex) }.copied().ok_or(Reason::PortUnknown)?;
    let station = |mac| FdbKey { bridge: port.bridge, vlan: port.vlan, mac };
    let source = fdb::source(&station(frame.source), ifindex, false, &now)?;
    let destination = fdb::destination(&station(frame.destination), &source)?;

    if destination.is_behind_tunnel() {
        return encap::send(packet, destination.target, &frame, &ethernet);
    }
    fdb::fits(packet, packet.len() - EthHdr::LEN as u32, &destination)?;
    fdb::deliver(packet, &destination)
}
