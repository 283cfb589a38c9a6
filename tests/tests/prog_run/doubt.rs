//! A station that is heard elsewhere than the FDB has it: until the daemon knows better, the bridge's own
//! table decides, which has learned already.

use ovs_ebpf_common::{
    Reason,
    abi::{DOUBT, DoubtValue, FdbKey, FdbValue, PortFlags, PortValue, Program},
};
use ovs_ebpf_tests::vectors::{self, Encap};

use crate::clock::now;
use crate::host::{BRIDGE, Host, OTHER_PORT, PORT, RECEIVER, SENDER, UPLINK, Verdict, at_port};

const DOUBTED: Verdict = Verdict::Left(Reason::Doubted);
/// Where VXLAN puts the inner frame.
const VXLAN: usize = 50;

fn vector() -> Encap {
    let vector = vectors::encap().into_iter().find(|vector| vector.name == "vxlan_42_ipv4_udp_60");
    vector.expect("vxlan_42_ipv4_udp_60")
}

/// The same frame the other way.
fn back(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

fn broadcast(frame: &[u8]) -> Vec<u8> {
    [&[0xff; 6], &frame[6..]].concat()
}

/// Two stations on ports that tell of stations; and a frame from the one to the other, which has just been
/// forwarded.
fn host() -> (Host, Vec<u8>) {
    let frame = vector().inner;
    let mut host = Host::new();
    host.set_station(SENDER, at_port(PORT));
    host.set_station(RECEIVER, at_port(OTHER_PORT));
    for port in [PORT, OTHER_PORT] {
        host.set_events(port, true);
    }
    assert_eq!(host.run(Program::PortIngress, PORT, &frame), Verdict::Forwarded(frame.clone()));
    (host, frame)
}

#[test]
fn what_goes_to_it_and_comes_from_it_is_the_bridge_s() {
    for unicast in [true, false] {
        let (mut host, frame) = host();
        let elsewhere = if unicast { frame.clone() } else { broadcast(&frame) };
        let reason = if unicast { Reason::SourceMoved } else { Reason::Multicast };
        let verdict = host.run(Program::PortIngress, OTHER_PORT, &elsewhere);
        assert_eq!(verdict, Verdict::Left(reason));
        // Although the cache has the one and the FDB still has both.
        assert_eq!(host.run(Program::PortIngress, PORT, &frame), DOUBTED);
        assert_eq!(host.run(Program::PortIngress, OTHER_PORT, &back(&frame)), DOUBTED);
        // Not until the daemon has written something else of it, such as another limit.
        host.set_station(SENDER, FdbValue { mtu: 9000, ..at_port(PORT) });
        assert_eq!(host.run(Program::PortIngress, PORT, &frame), DOUBTED);
        // But until it has learned where the station is.
        host.set_station(SENDER, at_port(OTHER_PORT));
        host.set_station(RECEIVER, at_port(PORT));
        let forwarded = Verdict::Forwarded(frame.clone());
        assert_eq!(host.run(Program::PortIngress, OTHER_PORT, &frame), forwarded);
    }
}

#[test]
fn a_station_that_is_heard_from_a_tunnel_is_doubted_too() {
    let vector = vector();
    let mut host = Host::receiving(&vector.tunnel);
    host.set_station(SENDER, at_port(OTHER_PORT));
    host.set_events(PORT, true);
    let local = back(&vector.inner);
    assert_eq!(host.run(Program::PortIngress, PORT, &local), Verdict::Forwarded(local.clone()));
    let verdict = host.run(Program::UplinkIngress, UPLINK, &vector.outer);
    assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
    assert_eq!(host.run(Program::PortIngress, PORT, &local), DOUBTED);
    // Heard again, not from the tunnel but from a port.
    host.set_station(SENDER, at_port(PORT));
    let mut outer = vector.outer.clone();
    outer[VXLAN..VXLAN + 6].fill(0xff);
    let verdict = host.run(Program::UplinkIngress, UPLINK, &outer);
    assert_eq!(verdict, Verdict::Left(Reason::Multicast));
    assert_eq!(host.run(Program::PortIngress, PORT, &vector.inner), DOUBTED);
}

#[test]
fn a_flood_of_contradictions_is_doubted_though_it_is_told_of_once() {
    let (mut host, frame) = host();
    let told = PortValue {
        bridge: BRIDGE,
        flags: PortFlags::EVENTS,
        next_event: u64::MAX,
        ..PortValue::default()
    };
    host.ports.insert(OTHER_PORT, told, 0).expect("ports");
    let verdict = host.run(Program::PortIngress, OTHER_PORT, &frame);
    assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
    assert_eq!(host.events(), []);
    assert_eq!(host.run(Program::PortIngress, PORT, &frame), DOUBTED);
}

#[test]
fn until_the_daemon_writes_every_flow_is_looked_up() {
    const THIRD: [u8; 6] = [2, 0, 0, 0, 0xcc, 1];
    let (mut host, frame) = host();
    host.set_station(THIRD, at_port(PORT));
    let third = [&frame[..6], &THIRD, &frame[12..]].concat();
    let verdict = host.run(Program::PortIngress, OTHER_PORT, &third);
    assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
    assert_eq!(host.run(Program::PortIngress, PORT, &frame), Verdict::Forwarded(frame.clone()));
    // Behind the programs' backs.
    host.fdb.remove(&FdbKey { bridge: BRIDGE, vlan: 0, mac: RECEIVER }).expect("it is there");
    let verdict = host.run(Program::PortIngress, PORT, &frame);
    assert_eq!(verdict, Verdict::Left(Reason::DestinationUnknown));
}

#[test]
fn who_is_not_asked_to_tell_does_not_doubt() {
    let (mut host, frame) = host();
    host.set_events(OTHER_PORT, false);
    let verdict = host.run(Program::PortIngress, OTHER_PORT, &frame);
    assert_eq!(verdict, Verdict::Left(Reason::SourceMoved));
    assert_eq!(host.run(Program::PortIngress, PORT, &frame), Verdict::Forwarded(frame));
}

#[test]
fn a_doubt_lasts_for_its_time() {
    let (mut host, frame) = host();
    let before = now();
    host.run(Program::PortIngress, OTHER_PORT, &frame);
    let key = FdbKey { bridge: BRIDGE, vlan: 0, mac: SENDER };
    let doubt = host.doubts.get(&key, 0).expect("it is there");
    let until = before + DOUBT..=now() + DOUBT;
    assert!(until.contains(&doubt.until), "{doubt:?}, {until:?}");
    assert_eq!(doubt, DoubtValue { until: doubt.until, target: PORT, is_tunnel: 0 });
    assert_eq!(host.run(Program::PortIngress, PORT, &frame), DOUBTED);
    host.doubts.insert(key, DoubtValue { until: now(), ..doubt }, 0).expect("doubts");
    assert_eq!(host.run(Program::PortIngress, PORT, &frame), Verdict::Forwarded(frame));
}
