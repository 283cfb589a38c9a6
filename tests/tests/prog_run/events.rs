//! What the programs tell the daemon of: stations that appear or move, where it asks for that.

use std::time::{Duration, Instant};

use ovs_ebpf_common::{
    Reason,
    abi::{EVENT_INTERVAL, Event, EventFlags, Program},
};
use ovs_ebpf_tests::vectors::{self, Encap};
use ovs_loader::datapath::Events;
use tokio::time::timeout;

use crate::host::{BRIDGE, Host, OTHER_PORT, PORT, SENDER, TUNNEL, UPLINK, Verdict, at_port};

/// Where a frame's destination and its EtherType are.
const DESTINATION: std::ops::Range<usize> = 0..6;
const ETHER_TYPE: std::ops::Range<usize> = 12..14;
/// What VXLAN puts before the inner frame.
const VXLAN: usize = 50;

#[test]
fn a_station_that_appears_or_moves_is_told_of() {
    let vector = vector();
    let mut host = Host::sending(&vector.tunnel);
    let moved = (Reason::SourceMoved, EventFlags::MOVED);
    let unknown = (Reason::SourceUnknown, 0);
    for (reason, flags) in [moved, unknown] {
        if reason == Reason::SourceUnknown {
            host.remove_station(SENDER);
        }
        host.set_events(OTHER_PORT, true);
        let verdict = host.run(Program::PortIngress, OTHER_PORT, &vector.inner);
        assert_eq!(verdict, Verdict::Left(reason));
        assert_eq!(host.events(), [at(OTHER_PORT, flags)]);
    }
}

#[test]
fn a_station_behind_a_tunnel_is_told_of_too() {
    let vector = vector();
    let mut host = Host::receiving(&vector.tunnel);
    host.set_events(PORT, true);
    let tunnel = |flags| at(TUNNEL, EventFlags::TUNNEL | flags);
    host.set_station(SENDER, at_port(OTHER_PORT));
    let verdict = host.run(Program::UplinkIngress, UPLINK, &vector.outer);
    assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
    assert_eq!(host.events(), [tunnel(EventFlags::MOVED)]);
    host.set_events(PORT, true);
    host.remove_station(SENDER);
    let verdict = host.run(Program::UplinkIngress, UPLINK, &vector.outer);
    assert_eq!(verdict, Verdict::Left(Reason::SourceUnknown));
    assert_eq!(host.events(), [tunnel(0)]);
}

#[test]
fn broadcast_and_arp_tell_of_their_sender() {
    let vector = vector();
    let mut host = Host::sending(&vector.tunnel);
    let mut broadcast = vector.inner.clone();
    broadcast[DESTINATION].fill(0xff);
    let mut arp = vector.inner.clone();
    arp[ETHER_TYPE].copy_from_slice(&[0x08, 0x06]);
    for (frame, reason) in [(&broadcast, Reason::Multicast), (&arp, Reason::NotIp)] {
        host.set_events(OTHER_PORT, true);
        let verdict = host.run(Program::PortIngress, OTHER_PORT, frame);
        assert_eq!(verdict, Verdict::Left(reason));
        assert_eq!(host.events(), [at(OTHER_PORT, EventFlags::MOVED)], "{reason:?}");
        // Where it belongs there is nothing to tell.
        host.set_events(PORT, true);
        assert_eq!(host.run(Program::PortIngress, PORT, frame), Verdict::Left(reason));
        assert_eq!(host.events().len(), 0, "{reason:?}");
    }
    let mut host = Host::receiving(&vector.tunnel);
    host.set_events(PORT, true);
    host.set_station(SENDER, at_port(PORT));
    let mut outer = vector.outer.clone();
    outer[VXLAN..][DESTINATION].fill(0xff);
    let verdict = host.run(Program::UplinkIngress, UPLINK, &outer);
    assert_eq!(verdict, Verdict::Left(Reason::Multicast));
    let expected = at(TUNNEL, EventFlags::TUNNEL | EventFlags::MOVED);
    assert_eq!(host.events(), [expected]);
}

#[test]
fn what_the_bridge_does_not_learn_is_not_told() {
    let vector = vector();
    let mut host = Host::sending(&vector.tunnel);
    host.set_events(OTHER_PORT, true);
    let mut group = vector.inner.clone();
    group[6] |= 1;
    let verdict = host.run(Program::PortIngress, OTHER_PORT, &group);
    assert_eq!(verdict, Verdict::Left(Reason::SourceUnknown));
    let mut tagged = vector.inner.clone();
    tagged[ETHER_TYPE].copy_from_slice(&[0x81, 0x00]);
    let verdict = host.run(Program::PortIngress, OTHER_PORT, &tagged);
    assert_eq!(verdict, Verdict::Left(Reason::VlanStacked));
    assert_eq!(host.events().len(), 0);
}

#[test]
fn nothing_is_told_unasked() {
    let vector = vector();
    let mut host = Host::sending(&vector.tunnel);
    host.set_events(OTHER_PORT, false);
    let verdict = host.run(Program::PortIngress, OTHER_PORT, &vector.inner);
    assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
    let mut host = Host::receiving(&vector.tunnel);
    host.set_events(PORT, false);
    host.set_station(SENDER, at_port(OTHER_PORT));
    let verdict = host.run(Program::UplinkIngress, UPLINK, &vector.outer);
    assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
    assert_eq!(host.events().len(), 0);
}

#[test]
fn a_flood_of_stations_is_told_of_once_in_each_interval() {
    let vector = vector();
    let mut host = Host::sending(&vector.tunnel);
    host.set_events(PORT, true);
    let start = Instant::now();
    for station in 0..2_000u16 {
        let mut frame = vector.inner.clone();
        frame[10..12].copy_from_slice(&(0x8000 | station).to_be_bytes());
        let verdict = host.run(Program::PortIngress, PORT, &frame);
        assert_eq!(verdict, Verdict::Left(Reason::SourceUnknown));
    }
    // The programs' clock is a tick behind: up to 10 ms.
    let elapsed = start.elapsed() + Duration::from_millis(10);
    let intervals = elapsed.as_nanos() / u128::from(EVENT_INTERVAL);
    let events = host.events().len() as u128;
    assert!((1..=intervals + 1).contains(&events), "{events} events in {intervals} intervals");

    // Silence ends with the interval, and another port has its own.
    let deadline = Instant::now() + Duration::from_secs(1);
    host.set_events(OTHER_PORT, true);
    host.run(Program::PortIngress, OTHER_PORT, &vector.inner);
    assert_eq!(host.events(), [at(OTHER_PORT, EventFlags::MOVED)]);
    let again = loop {
        host.run(Program::PortIngress, OTHER_PORT, &vector.inner);
        if let [event] = host.events()[..] {
            break event;
        }
        assert!(Instant::now() < deadline, "no second event");
    };
    assert_eq!(again, at(OTHER_PORT, EventFlags::MOVED));
}

#[test]
fn the_daemon_s_reader_gives_what_is_there_and_what_comes() {
    let vector = vector();
    let mut host = Host::sending(&vector.tunnel);
    host.set_events(OTHER_PORT, true);
    let ring = host.take_events();
    let mut raise = || {
        host.set_events(OTHER_PORT, true);
        host.run(Program::PortIngress, OTHER_PORT, &vector.inner);
        at(OTHER_PORT, EventFlags::MOVED)
    };
    let there = raise();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut events = Events::new(ring).expect("a reader");
        let limit = Duration::from_secs(1);
        assert_eq!(timeout(limit, events.next()).await.expect("is there").expect("read"), there);
        for _ in 0..2 {
            let none = timeout(Duration::from_millis(20), events.next()).await;
            assert!(none.is_err(), "{none:?}");
            let comes = raise();
            assert_eq!(timeout(limit, events.next()).await.expect("comes").expect("read"), comes);
        }
    });
}

/// An event of the vectors' sender.
fn at(from: u32, flags: u16) -> Event {
    Event { bridge: BRIDGE, from, mac: SENDER, flags }
}

fn vector() -> Encap {
    let vector = vectors::encap().into_iter().find(|vector| vector.name == "vxlan_42_ipv4_udp_60");
    vector.expect("vxlan_42_ipv4_udp_60")
}
