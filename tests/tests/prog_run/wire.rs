//! Frames that `BPF_PROG_TEST_RUN` refuses or sees otherwise, sent through a veth instead.

use std::time::{Duration, Instant};

use aya::programs::TcAttachType;
use ovs_ebpf_common::{Reason, abi::Program};
use ovs_ebpf_tests::vectors::{self, Expected};

use crate::host::{self, Host, PORT, UPLINK, sender_end};
use crate::run::too_short;
use crate::veth::Wire;

#[test]
fn a_container_s_frame_without_a_whole_ip_header_is_left_to_the_bridge() {
    let vectors = vectors::encap_punt();
    let mut host = Host::sending(&vectors[0].tunnel);
    let frames = vectors.iter().map(|vector| (vector.frame.as_slice(), vector.reason.as_str()));
    let frames = frames.filter(|(frame, _)| too_short(frame));
    check(&mut host, Program::PortIngress, PORT, frames);
}

#[test]
fn an_underlay_frame_without_a_whole_ip_header_is_left_to_the_kernel() {
    let vectors = vectors::decap();
    let mut host = Host::receiving(&vectors[0].tunnel);
    let frames = vectors.iter().filter_map(|vector| match &vector.expected {
        Expected::Reason(reason) => Some((vector.outer.as_slice(), reason.as_str())),
        Expected::Inner(_) => None,
    });
    let frames = frames.filter(|(frame, _)| too_short(frame));
    check(&mut host, Program::UplinkIngress, UPLINK, frames);
}

#[test]
fn a_container_s_frame_with_its_vlan_tag_in_metadata_is_left_to_the_bridge() {
    let vector = &vectors::encap()[0];
    let mut host = Host::sending(&vector.tunnel);
    let frame = tagged(&vector.inner);
    let reason = Reason::VlanTagged.name();
    check(&mut host, Program::PortIngress, PORT, [(frame.as_slice(), reason)].into_iter());
}

#[test]
fn a_tunnel_s_frame_with_its_vlan_tag_in_metadata_is_left_to_the_vlan_s_device() {
    let vector = &vectors::encap()[0];
    let mut host = Host::receiving(&vector.tunnel);
    let frame = tagged(&vector.outer);
    let reason = Reason::NotTunnel.name();
    check(&mut host, Program::UplinkIngress, UPLINK, [(frame.as_slice(), reason)].into_iter());
}

#[test]
fn a_packet_too_long_for_an_outer_header_s_length_is_left_to_the_bridge() {
    let vector = vectors::encap().into_iter().find(|vector| vector.name == "vxlan_42_ipv4_udp_60");
    let vector = vector.expect("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    for end in ["dev", "peer"] {
        host::ip(&format!("link set {end}{PORT} mtu 65535"));
    }
    let mut tunnel = sender_end(&vector.tunnel);
    tunnel.paths[1].mtu = u32::MAX;
    host.set_tunnel(tunnel);
    // IPv4's total length has 16 bits; IPv4, UDP and VXLAN take 36 bytes of it.
    let mut frame = vector.inner.clone();
    frame.resize(65_535 - 36 + 1, 0);
    let too_big = frame.clone();
    frame.pop();
    // What fits is beyond the 16 KB that `bpf_skb_adjust_room` adds to at most, but for GSO: the
    // frame came past the comparison.
    let frames = [(&too_big, Reason::TooBig), (&frame, Reason::EncapRefused)]
        .map(|(frame, reason)| (frame.as_slice(), reason.name()));
    check(&mut host, Program::PortIngress, PORT, frames.into_iter());
}

/// The frame within VLAN 7. Reception takes the tag out of it, before the programs see it
/// (`skb_vlan_untag` in `__netif_receive_skb_core`).
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00, 0x00, 0x07], &frame[12..]].concat()
}

/// Sends frames to a device with the program attached, and compares what each is counted under.
fn check<'a>(
    host: &mut Host,
    program: Program,
    ifindex: u32,
    frames: impl Iterator<Item = (&'a [u8], &'a str)>,
) {
    let device = format!("dev{ifindex}");
    host.program(program).attach(&device, TcAttachType::Ingress).expect("attach to ingress");
    let wire = Wire::open(ifindex + 1, false).expect("a packet socket");
    let mut sent = 0;
    for (frame, reason) in frames {
        wire.send(frame).expect("send");
        let deadline = Instant::now() + Duration::from_secs(5);
        let moved = loop {
            let moved = host.moved(program);
            if !moved.is_empty() {
                break moved;
            }
            assert!(Instant::now() < deadline, "{device} received nothing of {frame:02x?}");
            std::thread::yield_now();
        };
        let reason: Reason = host::reason(reason);
        assert_eq!(moved, [(2 + reason as usize, 1)], "{frame:02x?} should count as {reason:?}");
        sent += 1;
    }
    assert!(sent > 0, "there are no such vectors");
}
