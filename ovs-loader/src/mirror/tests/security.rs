//! Which ports are secured, and with what.

use ovs_ebpf_common::abi::{self, AllowedKey, SecurityFlags};

use super::*;
use crate::config::{PortRule, PortSelector};
use crate::docker::spec::Given;
use crate::mirror::Secured;

const CAPACITY: u32 = 1024;

fn named(name: &str) -> PortRule {
    PortRule {
        of: PortSelector::Name(name.to_owned()),
        own: false,
        macs: BTreeSet::new(),
        addresses: BTreeSet::new(),
        flood_limit: None,
    }
}

fn flood_limited(name: &str, limit: u32) -> PortRule {
    PortRule { flood_limit: Some(limit), ..named(name) }
}

fn secured(host: &Host, rules: &[PortRule]) -> Secured {
    Secured::make(host.all(), rules, &BTreeMap::new(), CAPACITY)
}

/// What the container behind the veth was given.
fn given() -> BTreeMap<String, Given> {
    BTreeMap::from([("veth-a".to_owned(), Given { mac: NEAR, addresses: vec![address(7)] })])
}

#[test]
fn a_port_has_what_is_listed_and_the_link_local_address_of_its_mac() {
    let macs = BTreeSet::from([NEAR]);
    let rule = PortRule { macs: macs.clone(), ..named("veth-a") };
    let free_addresses = secured(&Host::new(), std::slice::from_ref(&rule));
    let value = free_addresses.ports[&VETH].value;
    assert_eq!((value.flags, value.bridge), (SecurityFlags::MACS, BRIDGE));
    assert_eq!(free_addresses.allowed().collect::<Vec<_>>(), [AllowedKey::mac(VETH, NEAR.0)]);

    let rule = PortRule { addresses: [address(7)].into(), ..rule };
    let both = secured(&Host::new(), &[rule]);
    assert_eq!(both.ports[&VETH].value.flags, SecurityFlags::MACS | SecurityFlags::ADDRESSES);
    let link_local: std::net::Ipv6Addr = "fe80::ff:fe00:1".parse().unwrap();
    assert_eq!(
        both.allowed().collect::<Vec<_>>(),
        [
            AllowedKey::mac(VETH, NEAR.0),
            AllowedKey::ipv4(VETH, [192, 0, 2, 7]),
            AllowedKey::ipv6(VETH, link_local.octets()),
        ]
    );
    assert!(both.stations(Host::new().all()).is_empty(), "nobody asks for them");
}

#[test]
fn a_name_goes_before_its_bridge_which_means_containers_alone() {
    let bridge = PortSelector::ContainersOf("br-ex".to_owned());
    let of_bridge = PortRule { of: bridge, own: true, ..named("") };
    let host = Host::new();
    let make = |rules: &[PortRule]| Secured::make(host.all(), rules, &given(), CAPACITY);
    let own = make(std::slice::from_ref(&of_bridge));
    assert_eq!(own.ports.keys().collect::<Vec<_>>(), [&VETH]);
    assert!(own.allowed().any(|key| key == AllowedKey::ipv4(VETH, [192, 0, 2, 7])));
    assert!(own.allowed().any(|key| key == AllowedKey::mac(VETH, NEAR.0)));
    let limited = make(&[of_bridge, flood_limited("veth-a", 5)]);
    assert_eq!(limited.allowed().count(), 0);
    assert_eq!(limited.ports[&VETH].flood_limit, Some(5));
}

#[test]
fn a_container_that_is_not_there_yet_is_not_limited_by_what_it_was_given() {
    let own = PortRule { own: true, flood_limit: Some(9), ..named("veth-a") };
    let mut host = Host::new();
    let peer = VethPeer { mac: NEAR, mtu: 1500, other_namespace: false, xdp: false };
    host.port(VETH).device = Device::Veth(Some(peer));
    let secured = Secured::make(host.all(), &[own], &given(), CAPACITY);
    assert_eq!(secured.ports[&VETH].why[0].reason, Reason::PortUnsecured);
    assert!(!secured.ports[&VETH].is_possible());
}

#[test]
fn what_can_not_be_secured_says_why() {
    let own = PortRule { own: true, ..named("veth-a") };
    for (rule, port, reason) in
        [(own, VETH, Reason::PortUnsecured), (flood_limited("vxlan42", 5), VXLAN, Reason::PortKind)]
    {
        let secured = secured(&Host::new(), &[rule]);
        let port = &secured.ports[&port];
        assert!(!port.is_possible());
        assert_eq!(port.why.iter().map(|why| why.reason).collect::<Vec<_>>(), [reason]);
        assert_eq!(secured.allowed().count(), 0);
    }
    let missing = secured(&Host::new(), &[flood_limited("eth7", 5)]);
    assert_eq!((missing.missing, missing.ports.len()), (vec!["eth7".to_owned()], 0));
}

#[test]
fn every_station_of_a_limited_ports_bridge_is_known_or_none_is_unknown() {
    let mut host = Host::new();
    host.bridges.insert(77, empty_bridge(77, "br-other"));
    let limit = [flood_limited("veth-a", 1000)];
    let limited = secured(&host, &limit);
    let value = limited.ports[&VETH].value;
    assert_eq!(value.flags, SecurityFlags::FLOOD | SecurityFlags::UNKNOWN);
    assert_eq!((value.interval, value.burst), (1_000_000, 99_000_000));
    let of = |mac: Mac| abi::FdbKey { bridge: BRIDGE, vlan: 0, mac: mac.0 };
    let all = [NEAR, WIRED, FAR, OTHER_FAR].map(of);
    assert_eq!(limited.stations(host.all()), all.into());
    let crowded = Secured::make(host.all(), &limit, &BTreeMap::new(), 3);
    let port = &crowded.ports[&VETH];
    assert_eq!((port.value.flags, port.why[0].reason), (SecurityFlags::FLOOD, Reason::Capacity));
    assert!(crowded.stations(host.all()).is_empty());
    // A limit of a few packets lets as many pass at once as a host sends when it begins.
    let value = secured(&host, &[flood_limited("veth-a", 2)]).ports[&VETH].value;
    assert_eq!(value.burst / value.interval, 15);
}
