//! The flow cache in front of the tables: when it answers, and when it must not.

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use ovs_ebpf_common::{
    Reason,
    abi::{FdbKey, FdbValue, IndexKey, Program, TunnelKind},
};
use ovs_ebpf_tests::vectors::{self, Encap};

use crate::host::{
    BRIDGE, Host, OTHER_PORT, PORT, RECEIVER, SENDER, UPLINK, Verdict, at_port, kind, receiver_key,
};

const PROGRAM: Program = Program::PortIngress;

/// Each CPU has a cache of its own.
fn stay_on_one_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(0).expect("a first CPU");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("it may be used");
}

/// A host with two stations, whose flow has just been looked up on the only CPU that this thread runs
/// on; and a frame of that flow.
fn host() -> (Host, Vec<u8>) {
    stay_on_one_cpu();
    with_flow(Host::new())
}

fn with_flow(mut host: Host) -> (Host, Vec<u8>) {
    let frame = vectors::encap().swap_remove(0).inner;
    host.set_station(SENDER, at_port(PORT));
    host.set_station(RECEIVER, at_port(OTHER_PORT));
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Forwarded(frame.clone()));
    (host, frame)
}

fn key(mac: [u8; 6]) -> FdbKey {
    FdbKey { bridge: BRIDGE, vlan: 0, mac }
}

#[test]
fn a_flow_is_not_looked_up_again_until_the_fdb_says_that_it_changed() {
    let (mut host, frame) = host();
    // Behind the programs' backs, which nobody does but to see whether they look.
    host.fdb.remove(&key(RECEIVER)).expect("it is there");
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Forwarded(frame.clone()));
    host.forget_flows();
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Left(Reason::DestinationUnknown));
}

#[test]
fn where_programs_may_preempt_each_other_each_packet_is_looked_up() {
    let (mut host, frame) = with_flow(Host::without_flow_cache());
    host.fdb.remove(&key(RECEIVER)).expect("it is there");
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Left(Reason::DestinationUnknown));
}

#[test]
fn neither_is_the_port_it_comes_from() {
    let (mut host, frame) = host();
    host.ports.remove(&PORT).expect("it is there");
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Forwarded(frame.clone()));
    host.forget_flows();
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Left(Reason::PortUnknown));
}

#[test]
fn neither_is_the_tunnel_it_comes_by_if_that_is_over_ipv4() {
    stay_on_one_cpu();
    let vectors = vectors::encap();
    for each in TunnelKind::ALL {
        let of_kind = |vector: &&Encap| kind(&vector.tunnel) == each;
        let vector = vectors.iter().find(of_kind).unwrap_or_else(|| panic!("no {each:?}"));
        let mut host = Host::receiving(&vector.tunnel);
        let forwarded = Verdict::Forwarded(vector.inner.clone());
        assert_eq!(host.run(Program::UplinkIngress, UPLINK, &vector.outer), forwarded);
        match receiver_key(&vector.tunnel) {
            IndexKey::Ipv4(key) => host.tunnel_index.remove(&key).expect("it is there"),
            IndexKey::Ipv6(key) => host.tunnel_index6.remove(&key).expect("it is there"),
        }
        let unknown = Verdict::Left(Reason::TunnelUnknown);
        let remembered = if each.is_ipv6() { &unknown } else { &forwarded };
        let verdict = host.run(Program::UplinkIngress, UPLINK, &vector.outer);
        assert_eq!(&verdict, remembered, "{each:?}");
        host.forget_flows();
        assert_eq!(host.run(Program::UplinkIngress, UPLINK, &vector.outer), unknown, "{each:?}");
    }
}

#[test]
fn a_frame_that_differs_in_port_or_station_is_another_flow() {
    let (mut host, frame) = host();
    host.set_port(OTHER_PORT);
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Forwarded(frame.clone()));
    host.fdb.remove(&key(RECEIVER)).expect("it is there");
    assert_eq!(host.run(PROGRAM, OTHER_PORT, &frame), Verdict::Left(Reason::SourceMoved));
    for at in [0, 1, 5, 6, 7, 11] {
        let mut other = frame.clone();
        other[at] ^= 0x40;
        let reason = if at < 6 { Reason::DestinationUnknown } else { Reason::SourceUnknown };
        assert_eq!(host.run(PROGRAM, PORT, &other), Verdict::Left(reason), "byte {at}");
    }
    // They are in other elements: the flow's own is still there.
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Forwarded(frame.clone()));
}

#[test]
fn a_source_whose_turn_it_is_visits_the_bridge_all_the_same() {
    let (mut host, frame) = host();
    let value = FdbValue { revalidate_seconds: 3600, next_revalidation: u64::MAX, ..at_port(PORT) };
    host.set_station(SENDER, value);
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Forwarded(frame.clone()));
    // An element is no older than a second.
    let due = FdbValue { next_revalidation: 0, ..value };
    host.fdb.insert(key(SENDER), due, 0).expect("fdb");
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Forwarded(frame.clone()));
    std::thread::sleep(std::time::Duration::from_millis(1_020));
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Left(Reason::Revalidation));
    assert_eq!(host.run(PROGRAM, PORT, &frame), Verdict::Forwarded(frame.clone()));
}
