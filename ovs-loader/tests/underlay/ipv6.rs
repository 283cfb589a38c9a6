//! Remotes over IPv6.

use std::net::IpAddr;

use ovs_ebpf_common::Reason;
use ovs_loader::underlay::{Path, Target};

use crate::lab::{Lab, follow, path, unresolved, vxlan};

/// Gives the host's `up0` and its neighbour addresses.
fn address(lab: &Lab) {
    for (namespace, device, number) in [("host", "up0", 1), ("left", "eth0", 2)] {
        lab.ip(namespace, &format!("addr add 2001:db8::{number}/64 dev {device} nodad"));
        lab.ip(namespace, &format!("addr add fe80::{number}/64 dev {device} nodad"));
    }
}

#[test]
fn an_on_link_remote_over_ipv6_is_its_own_next_hop() {
    Lab::run(async |lab| {
        address(lab);
        let target = vxlan("2001:db8::2");
        let mut underlay = follow(&[target]).await;
        let found = path(&mut underlay, &target, |_| true).await;
        let expected = Path {
            local: "2001:db8::1".parse().unwrap(),
            uplink: lab.index("host", "up0"),
            uplink_name: "up0".into(),
            source_mac: lab.mac("host", "up0"),
            next_hop: target.remote,
            next_hop_mac: lab.mac("left", "eth0"),
            mtu: 1500,
            hop_limit: Some(64),
        };
        assert_eq!(found, expected);
        assert!(lab.neighbour("2001:db8::2").contains("managed"));
    });
}

#[test]
fn routes_over_ipv6_are_followed_with_their_mtu_hop_limit_and_link_local_gateway() {
    Lab::run(async |lab| {
        address(lab);
        let target = vxlan("2001:db8:9::9");
        let mut underlay = follow(&[target]).await;
        unresolved(&mut underlay, &target, Reason::NoRoute, "unreachable").await;
        let route = "2001:db8:9::/48 via fe80::2 dev up0";
        lab.ip("host", &format!("route add {route}"));
        let found = path(&mut underlay, &target, |_| true).await;
        assert_eq!(found.next_hop, "fe80::2".parse::<IpAddr>().unwrap());
        assert_eq!(found.next_hop_mac, lab.mac("left", "eth0"));
        assert_eq!((found.mtu, found.hop_limit), (1500, Some(64)));
        lab.ip("host", &format!("route replace {route} mtu 1400 hoplimit 9"));
        let changed = |path: &Path| (path.mtu, path.hop_limit) == (1400, Some(9));
        path(&mut underlay, &target, changed).await;
        lab.ip("host", "link set up0 mtu 1300");
        path(&mut underlay, &target, |path| path.mtu == 1300).await;
    });
}

#[test]
fn a_rule_over_ipv6_moves_the_path_and_one_by_mark_is_told() {
    Lab::run(async |lab| {
        address(lab);
        let target = vxlan("2001:db8::2");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |_| true).await;
        assert_eq!(underlay.rules_by_mark().count(), 0);
        lab.ip("host", "-6 rule add fwmark 0x10 table 7");
        lab.ip("host", "-6 rule add to 2001:db8::2 prohibit");
        unresolved(&mut underlay, &target, Reason::NoRoute, "prohibit").await;
        let rules: Vec<_> = underlay.rules_by_mark().collect();
        assert!(rules.len() == 1 && rules[0].contains("fwmark 0x10"), "{rules:?}");
    });
}

#[test]
fn a_link_local_remote_takes_the_tunnels_device() {
    Lab::run(async |lab| {
        address(lab);
        let bound = Target { link: Some(lab.index("host", "up0")), ..vxlan("fe80::2") };
        let mut underlay = follow(&[bound]).await;
        let found = path(&mut underlay, &bound, |_| true).await;
        assert_eq!((found.local, found.next_hop), ("fe80::1".parse().unwrap(), bound.remote));
    });
}

#[test]
fn a_local_address_of_the_other_family_has_no_route() {
    Lab::run(async |lab| {
        address(lab);
        let target = Target { local: Some("192.0.2.1".parse().unwrap()), ..vxlan("2001:db8::2") };
        let mut underlay = follow(&[target]).await;
        unresolved(&mut underlay, &target, Reason::NoRoute, "another family").await;
    });
}
