//! `port_ingress` against the vectors: what a container sends.

use ovs_ebpf_common::{
    Reason,
    abi::{FdbFlags, FdbValue, Program, TunnelFlags},
};
use ovs_ebpf_tests::vectors::{self, Encap};

use crate::host::{
    Host, OTHER_PORT, PORT, RECEIVER, SENDER, SOURCE_PORTS, Verdict, at_port, behind_tunnel,
    reason, sender_end,
};
use crate::run::too_short;

const PROGRAM: Program = Program::PortIngress;
const ID: usize = 18;
const CHECKSUM: usize = 24;
/// Over IPv4.
const SOURCE_PORT: usize = 34;
/// Over IPv6.
const SOURCE_PORT_IPV6: usize = 54;

#[test]
fn every_frame_is_encapsulated_as_scapy_does() {
    let vectors = vectors::encap();
    let mut host = Host::sending(&vectors[0].tunnel);
    for vector in &vectors {
        host.set_tunnel(sender_end(&vector.tunnel));
        let before = host.tunnel_counters();
        let Verdict::Forwarded(mut frame) = host.run(PROGRAM, PORT, &vector.inner) else {
            panic!("{}: left to the bridge", vector.name)
        };
        take_own_choices(&mut frame, vector);
        assert_eq!(hex(&frame), hex(&vector.outer), "{}: {}", vector.name, vector.description);
        let after = host.tunnel_counters();
        assert_eq!(after.tx_packets, before.tx_packets + 1, "{}", vector.name);
        assert_eq!(after.tx_bytes, before.tx_bytes + vector.inner.len() as u64, "{}", vector.name);
        assert_eq!((after.rx_packets, after.rx_bytes), (0, 0), "{}", vector.name);
    }
}

/// Checks what a sender may choose, and replaces it with the vector's choice: the UDP source port,
/// and the identification of a packet that may be fragmented.
fn take_own_choices(frame: &mut [u8], vector: &Encap) {
    let is_ipv6 = vector.tunnel.remote.is_ipv6();
    if let Some(port) = vector.source_port {
        let at = if is_ipv6 { SOURCE_PORT_IPV6 } else { SOURCE_PORT };
        let own = word(frame, at);
        let (first, span) = SOURCE_PORTS;
        assert!((first..=first + span).contains(&own), "{}: source port {own}", vector.name);
        frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    }
    if !vector.tunnel.df && !is_ipv6 {
        // RFC 1624, equation 3, for an identification that becomes zero.
        let sum = u32::from(!word(frame, CHECKSUM)) + u32::from(!word(frame, ID));
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        frame[ID..ID + 2].fill(0);
    }
}

#[test]
fn a_flow_keeps_its_source_port_and_others_have_others() {
    let vector = named("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    let mut ports = Vec::new();
    for flow in 0..64u8 {
        let mut frame = vector.inner.clone();
        frame[35] = flow;
        let [first, again] = [0, 1].map(|_| match host.run(PROGRAM, PORT, &frame) {
            Verdict::Forwarded(frame) => word(&frame, SOURCE_PORT),
            Verdict::Left(reason) => panic!("{reason:?}"),
        });
        assert_eq!(first, again, "flow {flow}");
        ports.push(first);
    }
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() > 50, "64 flows share {} ports", ports.len());
}

#[test]
fn packets_that_may_be_fragmented_have_identifications_of_their_own() {
    let vector = named("gre_42_df_clear");
    let mut host = Host::sending(&vector.tunnel);
    let mut ids: Vec<_> = (0..32)
        .map(|_| match host.run(PROGRAM, PORT, &vector.inner) {
            Verdict::Forwarded(frame) => word(&frame, ID),
            Verdict::Left(reason) => panic!("{reason:?}"),
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 24, "32 packets share {} identifications", ids.len());
}

#[test]
fn what_the_bridge_decides_is_left_to_it() {
    let vectors = vectors::encap_punt();
    let mut host = Host::sending(&vectors[0].tunnel);
    for vector in vectors.iter().filter(|vector| !too_short(&vector.frame)) {
        host.set_tunnel(sender_end(&vector.tunnel));
        assert_eq!(
            host.run(PROGRAM, PORT, &vector.frame),
            Verdict::Left(reason(&vector.reason)),
            "{}: {}",
            vector.name,
            vector.description
        );
    }
}

#[test]
fn an_expired_lease_leaves_everything_to_the_bridge() {
    let vector = named("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    for deadline in [0, 1] {
        host.set_lease(deadline);
        let verdict = host.run(PROGRAM, PORT, &vector.inner);
        assert_eq!(verdict, Verdict::Left(Reason::LeaseExpired));
    }
    host.set_lease(u64::MAX);
    assert!(matches!(host.run(PROGRAM, PORT, &vector.inner), Verdict::Forwarded(_)));
}

#[test]
fn a_device_that_is_no_port_is_left_to_the_bridge() {
    let vector = named("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    let verdict = host.run(PROGRAM, OTHER_PORT, &vector.inner);
    assert_eq!(verdict, Verdict::Left(Reason::PortUnknown));
}

#[test]
fn a_station_on_another_port_than_its_own_has_moved() {
    let vector = named("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    host.set_port(OTHER_PORT);
    let verdict = host.run(PROGRAM, OTHER_PORT, &vector.inner);
    assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
    host.set_station(SENDER, behind_tunnel());
    let verdict = host.run(PROGRAM, PORT, &vector.inner);
    assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
}

#[test]
fn one_packet_per_interval_passes_the_bridge() {
    let vector = named("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    host.set_station(SENDER, FdbValue { revalidate_seconds: 3600, ..at_port(PORT) });
    let verdict = host.run(PROGRAM, PORT, &vector.inner);
    assert_eq!(verdict, Verdict::Left(Reason::Revalidation));
    for _ in 0..3 {
        assert!(matches!(host.run(PROGRAM, PORT, &vector.inner), Verdict::Forwarded(_)));
    }
}

#[test]
fn a_tunnel_without_a_way_leaves_frames_to_the_bridge() {
    let vector = named("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    let mut tunnel = sender_end(&vector.tunnel);
    tunnel.flags &= !TunnelFlags::READY;
    host.set_tunnel(tunnel);
    let verdict = host.run(PROGRAM, PORT, &vector.inner);
    assert_eq!(verdict, Verdict::Left(Reason::TunnelUnresolved));
}

#[test]
fn a_frame_between_two_ports_stays_as_it_is() {
    let vector = named("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    for flags in [0, FdbFlags::PEER] {
        host.set_station(RECEIVER, FdbValue { flags, ..at_port(OTHER_PORT) });
        let verdict = host.run(PROGRAM, PORT, &vector.inner);
        assert_eq!(verdict, Verdict::Forwarded(vector.inner.clone()));
    }
}

#[test]
fn a_frame_above_the_other_ports_mtu_is_left_to_the_bridge() {
    let vector = named("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    let packet_len = vector.inner.len() as u32 - 14;
    host.set_station(RECEIVER, FdbValue { mtu: packet_len, ..at_port(OTHER_PORT) });
    assert!(matches!(host.run(PROGRAM, PORT, &vector.inner), Verdict::Forwarded(_)));
    host.set_station(RECEIVER, FdbValue { mtu: packet_len - 1, ..at_port(OTHER_PORT) });
    assert_eq!(host.run(PROGRAM, PORT, &vector.inner), Verdict::Left(Reason::TooBig));
}

#[test]
fn the_segments_of_a_large_frame_decide_whether_it_fits() {
    let vector = named("vxlan_42_ipv4_tcp_data");
    let mut host = Host::sending(&vector.tunnel);
    let mut frame = vector.inner.clone();
    frame.resize(3000, 0);
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Left(Reason::TooBig));
    // The largest segment: 1,500 bytes less 50 of tunnel and 40 of IPv4 and TCP.
    let too_big = host.run_gso(PROGRAM, PORT, &frame, 1411);
    assert_eq!(too_big, Verdict::Left(Reason::TooBig));
    // A size without a GSO type, all that a test run can give it, is one that the kernel refuses to
    // encapsulate: the frame came past the comparison, and was left as it was.
    let fits = host.run_gso(PROGRAM, PORT, &frame, 1410);
    assert_eq!(fits, Verdict::Left(Reason::EncapRefused));
}

#[test]
fn isolated_ports_do_not_reach_one_another() {
    let vector = named("vxlan_42_ipv4_udp_60");
    let mut host = Host::sending(&vector.tunnel);
    let isolated = |value: FdbValue| FdbValue { flags: value.flags | FdbFlags::ISOLATED, ..value };
    for destination in [at_port(OTHER_PORT), behind_tunnel()] {
        host.set_station(SENDER, isolated(at_port(PORT)));
        host.set_station(RECEIVER, isolated(destination));
        assert_eq!(host.run(PROGRAM, PORT, &vector.inner), Verdict::Left(Reason::Isolated));
        host.set_station(SENDER, at_port(PORT));
        assert!(matches!(host.run(PROGRAM, PORT, &vector.inner), Verdict::Forwarded(_)));
        host.set_station(SENDER, isolated(at_port(PORT)));
        host.set_station(RECEIVER, destination);
        assert!(matches!(host.run(PROGRAM, PORT, &vector.inner), Verdict::Forwarded(_)));
    }
}

fn named(name: &str) -> Encap {
    let vector = vectors::encap().into_iter().find(|vector| vector.name == name);
    vector.unwrap_or_else(|| panic!("no vector {name:?}"))
}

fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
