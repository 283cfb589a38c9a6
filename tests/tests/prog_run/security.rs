//! `port_security`: what it discards, and that everything else goes on.

use std::time::Duration;

use ovs_ebpf_common::{
    Reason,
    abi::{AllowedKey, FdbKey, Program, SecurityFlags, SecurityValue},
};
use ovs_ebpf_tests::{
    lab::wait_until,
    model::{Model, Received, Tables},
    vectors::{self, Security},
};

use crate::host::{BRIDGE, Host, OTHER_PORT, PORT, RECEIVER, SENDER, reason};

const SECOND: u64 = 1_000_000_000;

/// What is the port's own in `security.json`.
fn own() -> Vec<AllowedKey> {
    let ipv6 = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address").octets();
    vec![
        AllowedKey::mac(PORT, SENDER),
        AllowedKey::ipv4(PORT, [10, 0, 0, 1]),
        AllowedKey::ipv6(PORT, ipv6("fd00::1")),
        AllowedKey::ipv6(PORT, ipv6("fe80::ff:fe00:a01")),
    ]
}

/// A host whose [`PORT`] is limited to what is its own, and in these ways.
fn secured(flags: u16) -> Host {
    let mut host = Host::new();
    for key in own() {
        host.allowed.insert(key, 1, 0).expect("allowed");
    }
    set(&mut host, SecurityValue { bridge: BRIDGE, flags, ..SecurityValue::default() });
    host
}

fn set(host: &mut Host, value: SecurityValue) {
    host.security.insert(PORT, value, 0).expect("security");
}

fn named(name: &str) -> Vec<u8> {
    let mut vectors = vectors::security().into_iter();
    vectors.find(|vector| vector.name == name).unwrap_or_else(|| panic!("no {name}")).frame
}

fn expected(vector: &Security) -> Result<(), Reason> {
    vector.reason.as_deref().map_or(Ok(()), |name| Err(reason(name)))
}

#[test]
fn each_frame_of_scapys_meets_its_verdict_of_the_program_and_of_the_model() {
    let flags = SecurityFlags::MACS | SecurityFlags::ADDRESSES;
    let mut host = secured(flags);
    let mut tables = Tables::default();
    tables.security.insert(PORT, SecurityValue { flags, ..SecurityValue::default() });
    tables.allowed.extend(own().into_iter().map(|key| (key, 1)));
    let mut model = Model::new(tables);
    let mut discarded = 0;
    for vector in vectors::security() {
        let (name, description, frame) = (&vector.name, &vector.description, &vector.frame);
        let expected = expected(&vector);
        let said = Received { device: PORT, for_host: false, tag: None, gso: None, frame };
        let said = model.run(Program::PortSecurity, 0, &said).map(drop);
        assert_eq!(said, expected, "the model on {name}: {description}");
        assert_eq!(host.secure(PORT, frame, 0), expected, "{name}: {description}");
        assert_eq!(host.secure(OTHER_PORT, frame, 0), Ok(()), "{name} from a port without limits");
        discarded += u64::from(expected.is_err());
    }
    assert_eq!(host.security.get(&PORT, 0).expect("secured").discarded, discarded);
}

#[test]
fn a_port_limited_in_one_kind_of_address_is_free_in_the_other() {
    let mut macs = secured(SecurityFlags::MACS);
    let mut addresses = secured(SecurityFlags::ADDRESSES);
    for vector in vectors::security() {
        let expected = expected(&vector);
        let without = |reason| if expected == Err(reason) { Ok(()) } else { expected };
        // What stands behind the first of two lies shows then: there is no such vector.
        let name = &vector.name;
        let seen = macs.secure(PORT, &vector.frame, 0);
        assert_eq!(seen, without(Reason::SpoofedIp), "{name}, MACs");
        let seen = addresses.secure(PORT, &vector.frame, 0);
        assert_eq!(seen, without(Reason::SpoofedMac), "{name}, addresses");
    }
}

#[test]
fn security_holds_without_a_lease_and_on_a_port_that_is_not_accelerated() {
    let mut host = secured(SecurityFlags::MACS | SecurityFlags::ADDRESSES);
    host.set_lease(1);
    host.ports.remove(&PORT).expect("ports");
    assert_eq!(host.secure(PORT, &named("arp_other"), 0), Err(Reason::SpoofedIp));
    assert_eq!(host.secure(PORT, &named("arp"), 0), Ok(()));
}

/// How many of so many copies of a frame pass.
fn passing(host: &mut Host, frame: &[u8], copies: u64, gso_size: u32) -> u64 {
    let verdicts = (0..copies).map(|_| host.secure(PORT, frame, gso_size));
    verdicts.map(|verdict| u64::from(verdict != Err(Reason::FloodLimited))).sum()
}

#[test]
fn the_bucket_lets_what_it_holds_pass_and_what_is_cut_counts_as_its_segments() {
    let (interval, burst) = (SECOND, 9 * SECOND);
    let limited = SecurityValue {
        bridge: BRIDGE,
        flags: SecurityFlags::FLOOD,
        interval,
        burst,
        ..SecurityValue::default()
    };
    let mut host = secured(0);
    let frame = named("ipv4_broadcast");
    set(&mut host, limited);
    assert_eq!(passing(&mut host, &frame, 30, 0), 10, "ten, one of them borrowed");
    assert_eq!(passing(&mut host, &named("ipv4"), 30, 0), 30, "to one station");
    set(&mut host, limited);
    // 62 bytes in pieces of 30, and one for the rest: three seconds each.
    assert_eq!(frame.len(), 62);
    assert_eq!(passing(&mut host, &frame, 30, 30), 4);
    // What it has borrowed it gives back: one in a second, and the three need less than that.
    set(&mut host, SecurityValue { burst: 0, ..limited });
    assert_eq!(passing(&mut host, &frame, 3, 0), 1);
    wait_until(Duration::from_secs(5), "the next one's turn", || host.secure(PORT, &frame, 0).ok());
}

#[test]
fn unknown_stations_are_limited_as_long_as_the_daemon_keeps_count_of_them() {
    let limited = SecurityValue {
        bridge: BRIDGE,
        flags: SecurityFlags::FLOOD | SecurityFlags::UNKNOWN,
        interval: SECOND,
        burst: 0,
        full_at: u64::MAX / 2,
        ..SecurityValue::default()
    };
    let mut host = secured(0);
    set(&mut host, limited);
    let frame = named("ipv4");
    assert_eq!(host.secure(PORT, &frame, 0), Err(Reason::FloodLimited));
    for (bridge, vlan, outcome) in [
        (BRIDGE + 1, 0, Err(Reason::FloodLimited)),
        (BRIDGE, 5, Err(Reason::FloodLimited)),
        (BRIDGE, 0, Ok(())),
    ] {
        host.stations.insert(FdbKey { bridge, vlan, mac: RECEIVER }, 1, 0).expect("stations");
        assert_eq!(host.secure(PORT, &frame, 0), outcome, "known on {bridge} in {vlan}");
    }
    let other_vlan = SecurityValue { vlan: 7, ..limited };
    set(&mut host, other_vlan);
    assert_eq!(host.secure(PORT, &frame, 0), Err(Reason::FloodLimited));
    host.set_lease(1);
    assert_eq!(host.secure(PORT, &frame, 0), Ok(()), "nobody keeps count");
    assert_eq!(host.secure(PORT, &named("ipv4_broadcast"), 0), Err(Reason::FloodLimited));
}
