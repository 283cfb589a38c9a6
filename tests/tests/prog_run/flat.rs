//! `port_ingress` on a NIC that is a port of the bridge, with containers on the host's own network.

use ovs_ebpf_common::{
    Reason,
    abi::{FdbFlags, FdbValue, Program},
};
use ovs_ebpf_tests::vectors;

use crate::host::{Host, OTHER_PORT, RECEIVER, SENDER, UPLINK, Verdict, at_port};
use crate::run::Input;

const PROGRAM: Program = Program::PortIngress;
/// The NIC, which has a MAC that no frame here is sent to.
const NIC: u32 = UPLINK;

/// A host with the sender somewhere behind its NIC, and a frame for the receiver.
fn host() -> (Host, Vec<u8>) {
    let vector =
        vectors::encap().into_iter().find(|vector| vector.name == "vxlan_42_ipv4_tcp_data");
    let vector = vector.expect("vxlan_42_ipv4_tcp_data");
    let mut host = Host::new();
    host.set_port(NIC);
    host.set_station(SENDER, FdbValue { flags: FdbFlags::HARDWARE, ..at_port(NIC) });
    (host, vector.inner)
}

#[test]
fn a_frame_goes_to_its_container_and_the_answer_to_the_nic() {
    let (mut host, frame) = host();
    host.set_station(RECEIVER, FdbValue { flags: FdbFlags::PEER, ..at_port(OTHER_PORT) });
    assert_eq!(host.run(PROGRAM, NIC, &frame), Verdict::Forwarded(frame.clone()));
    let mut answer = frame;
    answer[..12].rotate_left(6);
    host.set_port(OTHER_PORT);
    assert_eq!(host.run(PROGRAM, OTHER_PORT, &answer), Verdict::Forwarded(answer.clone()));
}

/// What the NIC has put together, the container may get whole, and the NIC may cut what a container
/// sends: neither comes out of a tunnel.
#[test]
fn segments_in_one_packet_stay_whole_in_both_directions() {
    let (mut host, mut frame) = host();
    frame.resize(3_000, 0);
    host.set_station(RECEIVER, at_port(OTHER_PORT));
    assert_eq!(host.run(PROGRAM, NIC, &frame), Verdict::Left(Reason::TooBig));
    let whole = host.run_gso(PROGRAM, NIC, &frame, 1_448);
    assert_eq!(whole, Verdict::Forwarded(frame.clone()));
    frame[..12].rotate_left(6);
    host.set_port(OTHER_PORT);
    let whole = host.run_gso(PROGRAM, OTHER_PORT, &frame, 1_448);
    assert_eq!(whole, Verdict::Forwarded(frame));
}

/// The tunnels' outer packets, where the host's own address is on the bridge, are such frames: the
/// bridge hands them to its own device, and `uplink_ingress` there takes them.
#[test]
fn a_frame_to_the_host_itself_is_left_to_the_bridge() {
    let (mut host, frame) = host();
    assert_eq!(host.run(PROGRAM, NIC, &frame), Verdict::Left(Reason::DestinationUnknown));
}

#[test]
fn a_frame_between_two_stations_behind_the_nic_is_left_to_the_bridge() {
    let (mut host, frame) = host();
    host.set_station(RECEIVER, at_port(NIC));
    assert_eq!(host.run(PROGRAM, NIC, &frame), Verdict::Left(Reason::SamePort));
}

#[test]
fn a_mark_does_not_leave_the_namespace() {
    let (mut host, frame) = host();
    let marked = Input { ifindex: NIC, frame: &frame, gso_size: 0, mark: 7 };
    for (flags, mark) in [(FdbFlags::PEER, 0), (0, 7)] {
        host.set_station(RECEIVER, FdbValue { flags, ..at_port(OTHER_PORT) });
        let (verdict, after) = host.run_input(PROGRAM, marked);
        assert_eq!(verdict, Verdict::Forwarded(frame.clone()));
        assert_eq!(after, mark, "flags {flags}");
    }
    host.remove_station(RECEIVER);
    let (verdict, after) = host.run_input(PROGRAM, marked);
    assert_eq!((verdict, after), (Verdict::Left(Reason::DestinationUnknown), 7));
}
