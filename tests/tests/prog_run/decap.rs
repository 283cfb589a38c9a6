//! `uplink_ingress` against the vectors: what arrives from the underlay.

use ovs_ebpf_common::{
    Reason,
    abi::{FdbFlags, FdbValue, Program},
};
use ovs_ebpf_tests::vectors::{self, Encap, Expected, Tunnel};

use crate::host::{
    Host, OTHER_PORT, PORT, RECEIVER, SENDER, UPLINK, Verdict, at_port, behind_tunnel, reason,
    receiver_key,
};
use crate::run::too_short;

const PROGRAM: Program = Program::UplinkIngress;

#[test]
fn every_frame_from_scapy_is_taken_apart() {
    let vectors = vectors::encap();
    for host in [Host::receiving, Host::receiving_on_old_kernel] {
        takes_apart(&mut host(&vectors[0].tunnel), &vectors);
    }
}

fn takes_apart(host: &mut Host, vectors: &[Encap]) {
    for vector in vectors {
        host.set_tunnel_index(receiver_key(&vector.tunnel));
        for flags in [0, FdbFlags::PEER] {
            host.set_station(RECEIVER, FdbValue { flags, ..at_port(PORT) });
            let before = host.tunnel_counters();
            let verdict = host.run(PROGRAM, UPLINK, &vector.outer);
            let (name, description) = (&vector.name, &vector.description);
            assert_eq!(verdict, Verdict::Forwarded(vector.inner.clone()), "{name}: {description}");
            let after = host.tunnel_counters();
            assert_eq!(after.rx_packets, before.rx_packets + 1, "{name}");
            assert_eq!(after.rx_bytes, before.rx_bytes + vector.inner.len() as u64, "{name}");
            assert_eq!((after.tx_packets, after.tx_bytes), (0, 0), "{name}");
        }
    }
}

#[test]
fn what_is_out_of_the_ordinary_is_left_to_the_kernel() {
    let vectors = vectors::decap();
    let mut host = Host::receiving(&vectors[0].tunnel);
    let mut wrong = Vec::new();
    for vector in vectors.iter().filter(|vector| !too_short(&vector.outer)) {
        host.set_tunnel_index(receiver_key(&vector.tunnel));
        let expected = match &vector.expected {
            Expected::Inner(frame) => Verdict::Forwarded(frame.clone()),
            Expected::Reason(name) => Verdict::Left(reason(name)),
        };
        let verdict = host.run(PROGRAM, UPLINK, &vector.outer);
        if verdict != expected {
            wrong.push(format!(
                "{} ({}): {verdict:02x?}, not {expected:02x?}",
                vector.name, vector.description
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_expired_lease_leaves_everything_to_the_kernel() {
    let (tunnel, outer) = frame();
    let mut host = Host::receiving(&tunnel);
    host.set_lease(1);
    let verdict = host.run(PROGRAM, UPLINK, &outer);
    assert_eq!(verdict, Verdict::Left(Reason::LeaseExpired));
}

#[test]
fn another_device_than_the_route_s_is_the_wrong_uplink() {
    let (tunnel, mut outer) = frame();
    let mut host = Host::receiving(&tunnel);
    outer[..6].copy_from_slice(&[0x02, 0, 0, 0, 0x02, 0x01]);
    let verdict = host.run(PROGRAM, PORT, &outer);
    assert_eq!(verdict, Verdict::Left(Reason::WrongUplink));
}

#[test]
fn a_station_that_is_not_behind_this_tunnel_has_moved() {
    let (tunnel, outer) = frame();
    let mut host = Host::receiving(&tunnel);
    let elsewhere = FdbValue { target: 2, ..behind_tunnel() };
    // A port with the tunnel's number is not the tunnel.
    let same_number = at_port(behind_tunnel().target);
    for entry in [at_port(OTHER_PORT), elsewhere, same_number] {
        host.set_station(SENDER, entry);
        let verdict = host.run(PROGRAM, UPLINK, &outer);
        assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
    }
}

#[test]
fn one_packet_per_interval_passes_the_kernel() {
    let (tunnel, outer) = frame();
    let mut host = Host::receiving(&tunnel);
    host.set_station(SENDER, FdbValue { revalidate_seconds: 3600, ..behind_tunnel() });
    let verdict = host.run(PROGRAM, UPLINK, &outer);
    assert_eq!(verdict, Verdict::Left(Reason::Revalidation));
    assert!(matches!(host.run(PROGRAM, UPLINK, &outer), Verdict::Forwarded(_)));
}

#[test]
fn a_frame_from_tunnel_to_tunnel_is_left_to_the_bridge() {
    let (tunnel, outer) = frame();
    let mut host = Host::receiving(&tunnel);
    host.set_station(RECEIVER, behind_tunnel());
    assert_eq!(host.run(PROGRAM, UPLINK, &outer), Verdict::Left(Reason::SamePort));
    host.set_station(RECEIVER, FdbValue { target: 2, ..behind_tunnel() });
    let verdict = host.run(PROGRAM, UPLINK, &outer);
    assert_eq!(verdict, Verdict::Left(Reason::DestinationIsTunnel));
}

#[test]
fn an_isolated_tunnel_does_not_reach_an_isolated_port() {
    let (tunnel, outer) = frame();
    let mut host = Host::receiving(&tunnel);
    let isolated = |value: FdbValue| FdbValue { flags: value.flags | FdbFlags::ISOLATED, ..value };
    host.set_station(SENDER, isolated(behind_tunnel()));
    assert!(matches!(host.run(PROGRAM, UPLINK, &outer), Verdict::Forwarded(_)));
    host.set_station(RECEIVER, isolated(at_port(PORT)));
    assert_eq!(host.run(PROGRAM, UPLINK, &outer), Verdict::Left(Reason::Isolated));
}

#[test]
fn an_inner_frame_above_the_port_s_mtu_is_left_to_the_bridge() {
    let (tunnel, outer) = frame();
    let mut host = Host::receiving(&tunnel);
    let packet_len = outer.len() as u32 - 50 - 14;
    host.set_station(RECEIVER, FdbValue { mtu: packet_len, ..at_port(PORT) });
    assert!(matches!(host.run(PROGRAM, UPLINK, &outer), Verdict::Forwarded(_)));
    host.set_station(RECEIVER, FdbValue { mtu: packet_len - 1, ..at_port(PORT) });
    assert_eq!(host.run(PROGRAM, UPLINK, &outer), Verdict::Left(Reason::TooBig));
}

#[test]
fn a_packet_to_be_cut_is_not_left_to_hardware() {
    let (tunnel, outer) = frame();
    let mut host = Host::receiving(&tunnel);
    let hardware = FdbValue { flags: FdbFlags::HARDWARE, ..at_port(PORT) };
    host.set_station(RECEIVER, hardware);
    let cut = host.run_gso(PROGRAM, UPLINK, &outer, 20);
    assert_eq!(cut, Verdict::Left(Reason::HardwareGso));
    assert!(matches!(host.run(PROGRAM, UPLINK, &outer), Verdict::Forwarded(_)));
}

/// A VXLAN frame and the tunnel it came from.
fn frame() -> (Tunnel, Vec<u8>) {
    let vector = vectors::encap().into_iter().find(|vector| vector.name == "vxlan_42_ipv4_udp_60");
    let vector = vector.expect("vxlan_42_ipv4_udp_60");
    (vector.tunnel, vector.outer)
}
