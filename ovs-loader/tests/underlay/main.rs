//! The underlay against the running kernel: every answer live, everything given back.
//!
//! Needs root, `ip` and `ping`.

mod ipv6;
mod lab;
mod neighbours;

use std::net::IpAddr;
use std::time::Duration;

use lab::{DEADLINE, Lab, follow, mac, path, unresolved, vxlan};
use ovs_ebpf_common::Reason;
use ovs_loader::underlay::{Path, Receivers, Target};

#[test]
fn an_on_link_remote_is_its_own_next_hop() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        let found = path(&mut underlay, &target, |_| true).await;
        let expected = Path {
            local: "192.0.2.1".parse().unwrap(),
            uplink: lab.index("host", "up0"),
            uplink_name: "up0".into(),
            source_mac: lab.mac("host", "up0"),
            next_hop: target.remote,
            next_hop_mac: lab.mac("left", "eth0"),
            mtu: 1500,
            hop_limit: None,
        };
        assert_eq!(found, expected);
    });
}

#[test]
fn a_remote_behind_a_gateway_is_sent_to_the_gateway() {
    Lab::run(async |lab| {
        lab.ip("host", "route add 203.0.113.0/24 via 192.0.2.2");
        let target = vxlan("203.0.113.9");
        let mut underlay = follow(&[target]).await;
        let found = path(&mut underlay, &target, |_| true).await;
        assert_eq!(found.next_hop, "192.0.2.2".parse::<IpAddr>().unwrap());
        assert_eq!(found.next_hop_mac, lab.mac("left", "eth0"));
    });
}

#[test]
fn a_new_route_and_a_new_gateway_move_the_path() {
    Lab::run(async |lab| {
        lab.ip("host", "route add default via 192.0.2.2");
        let target = vxlan("203.0.113.9");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |path| path.uplink_name == "up0").await;

        lab.ip("host", "route add 203.0.113.0/24 via 192.0.2.130");
        let right = lab.mac("right", "eth0");
        let found = path(&mut underlay, &target, |path| path.uplink_name == "up1").await;
        assert_eq!(found.next_hop_mac, right);
        assert_eq!(found.local.to_string(), "192.0.2.129");

        lab.ip("host", "route replace 203.0.113.0/24 via 192.0.2.2");
        path(&mut underlay, &target, |path| path.uplink_name == "up0").await;

        lab.ip("host", "route del 203.0.113.0/24");
        lab.ip("host", "route del default");
        unresolved(&mut underlay, &target, Reason::NoRoute, "").await;
    });
}

#[test]
fn a_neighbours_new_mac_reaches_the_path() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |_| true).await;

        let new = mac("02:00:00:00:00:99");
        lab.ip("left", &format!("link set eth0 address {new}"));
        lab.ping("left", "192.0.2.1");
        path(&mut underlay, &target, |path| path.next_hop_mac == new).await;
    });
}

#[test]
fn the_uplinks_new_mac_reaches_the_path() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |_| true).await;

        let new = mac("02:00:00:00:00:98");
        lab.ip("host", &format!("link set up0 address {new}"));
        path(&mut underlay, &target, |path| path.source_mac == new).await;
    });
}

#[test]
fn the_mtu_is_the_lesser_of_the_devices_and_the_routes() {
    Lab::run(async |lab| {
        lab.ip("host", "route add 203.0.113.0/24 via 192.0.2.2 mtu 1300");
        let (near, far) = (vxlan("192.0.2.2"), vxlan("203.0.113.9"));
        let mut underlay = follow(&[near, far]).await;
        path(&mut underlay, &near, |path| path.mtu == 1500).await;
        path(&mut underlay, &far, |path| path.mtu == 1300).await;

        lab.ip("host", "link set up0 mtu 1200");
        path(&mut underlay, &near, |path| path.mtu == 1200).await;
        path(&mut underlay, &far, |path| path.mtu == 1200).await;

        lab.ip("host", "link set up0 mtu 9000");
        lab.ip("host", "route replace 203.0.113.0/24 via 192.0.2.2 mtu 1400");
        path(&mut underlay, &near, |path| path.mtu == 9000).await;
        path(&mut underlay, &far, |path| path.mtu == 1400).await;
    });
}

#[test]
fn a_path_goes_with_its_device_and_returns_with_it() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let bound = Target { link: Some(lab.index("host", "up0")), ..target };
        let mut underlay = follow(&[target, bound]).await;
        path(&mut underlay, &target, |_| true).await;
        path(&mut underlay, &bound, |_| true).await;

        lab.ip("host", "link set up0 down");
        unresolved(&mut underlay, &target, Reason::NoRoute, "").await;
        unresolved(&mut underlay, &bound, Reason::NoRoute, "").await;

        lab.ip("host", "link set up0 up");
        path(&mut underlay, &target, |_| true).await;
        path(&mut underlay, &bound, |_| true).await;

        lab.ip("host", "link del up0");
        unresolved(&mut underlay, &target, Reason::NoRoute, "").await;
    });
}

#[test]
fn a_multipath_route_without_its_first_device_takes_the_second() {
    Lab::run(async |lab| {
        lab.ip("host", "route add 203.0.113.0/24 nexthop via 192.0.2.2 nexthop via 192.0.2.130");
        let targets: Vec<_> = (1..=8).map(|host| vxlan(&format!("203.0.113.{host}"))).collect();
        let mut underlay = follow(&targets).await;
        for target in &targets {
            path(&mut underlay, target, |_| true).await;
        }
        // Multipath without a device is not announced as a route change.
        lab.ip("host", "link set up0 down");
        for target in &targets {
            path(&mut underlay, target, |path| path.uplink_name == "up1").await;
        }
    });
}

#[test]
fn a_changed_nexthop_object_moves_the_path() {
    Lab::run(async |lab| {
        lab.ip("host", "nexthop add id 7 via 192.0.2.2 dev up0");
        lab.ip("host", "route add 203.0.113.0/24 nhid 7");
        let target = vxlan("203.0.113.9");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |path| path.uplink_name == "up0").await;
        lab.ip("host", "nexthop replace id 7 via 192.0.2.130 dev up1");
        path(&mut underlay, &target, |path| path.uplink_name == "up1").await;
    });
}

#[test]
fn an_ipv6_gateway_carries_an_ipv4_remote() {
    Lab::run(async |lab| {
        lab.ip("host", "addr add 2001:db8::1/64 dev up0 nodad");
        lab.ip("left", "addr add 2001:db8::2/64 dev eth0 nodad");
        lab.ip("host", "route add 203.0.113.0/24 via inet6 2001:db8::2");
        let target = vxlan("203.0.113.9");
        let mut underlay = follow(&[target]).await;
        let found = path(&mut underlay, &target, |_| true).await;
        assert_eq!(found.next_hop.to_string(), "2001:db8::2");
        assert_eq!(found.next_hop_mac, lab.mac("left", "eth0"));
        assert_eq!(found.local.to_string(), "192.0.2.1");
    });
}

#[test]
fn a_route_that_carries_nothing_is_no_route() {
    Lab::run(async |lab| {
        let target = vxlan("203.0.113.9");
        let mut underlay = follow(&[target]).await;
        let none = "203.0.113.9: network is unreachable";
        unresolved(&mut underlay, &target, Reason::NoRoute, none).await;
        for (kind, said) in [
            ("blackhole", "203.0.113.9: blackhole route"),
            ("unreachable", "203.0.113.9: unreachable route"),
            ("prohibit", "203.0.113.9: prohibit route"),
        ] {
            lab.ip("host", &format!("route replace {kind} 203.0.113.0/24"));
            unresolved(&mut underlay, &target, Reason::NoRoute, said).await;
        }
    });
}

#[test]
fn a_local_address_that_the_host_lacks_is_no_route_until_it_is_added() {
    Lab::run(async |lab| {
        let local = Some("192.0.2.9".parse().unwrap());
        let target = Target { local, ..vxlan("192.0.2.2") };
        let mut underlay = follow(&[target]).await;
        unresolved(&mut underlay, &target, Reason::NoRoute, "").await;
        lab.ip("host", "addr add 192.0.2.9/32 dev up1");
        let found = path(&mut underlay, &target, |_| true).await;
        assert_eq!((Some(found.local), found.uplink_name.as_str()), (local, "up0"));
    });
}

#[test]
fn an_address_of_this_host_is_no_remote() {
    Lab::run(async |_| {
        let target = vxlan("192.0.2.129");
        let mut underlay = follow(&[target]).await;
        unresolved(&mut underlay, &target, Reason::RemoteIsLocal, "").await;
    });
}

#[test]
fn a_device_that_does_not_resolve_is_no_uplink() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |_| true).await;
        lab.ip("host", "link set up0 arp off");
        let noarp = "up0 is NOARP";
        let found = unresolved(&mut underlay, &target, Reason::UplinkUnsupported, noarp).await;
        assert_eq!(found.route.unwrap().uplink, lab.index("host", "up0"));
    });
}

#[test]
fn a_device_without_ethernet_is_no_uplink() {
    Lab::run(async |lab| {
        lab.ip("host", "tuntap add tun0 mode tun");
        lab.ip("host", "link set tun0 up");
        lab.ip("host", "route add 203.0.113.0/24 dev tun0 src 192.0.2.1");
        let target = vxlan("203.0.113.9");
        let mut underlay = follow(&[target]).await;
        let said = "tun0 is not an Ethernet device";
        unresolved(&mut underlay, &target, Reason::UplinkUnsupported, said).await;
    });
}

#[test]
fn a_routing_rule_decides_as_in_the_kernel() {
    Lab::run(async |lab| {
        lab.ip("host", "route add 203.0.113.0/24 via 192.0.2.2");
        lab.ip("host", "route add 203.0.113.0/24 via 192.0.2.130 table 100");
        let (ours, other_port) =
            (vxlan("203.0.113.9"), Target { dst_port: 8472, ..vxlan("203.0.113.9") });
        let mut underlay = follow(&[ours, other_port]).await;
        for target in [&ours, &other_port] {
            path(&mut underlay, target, |path| path.uplink_name == "up0").await;
        }
        lab.ip("host", "rule add to 203.0.113.0/24 ipproto udp dport 4789 lookup 100");
        path(&mut underlay, &ours, |path| path.uplink_name == "up1").await;
        assert_eq!(underlay.resolve(&other_port).unwrap().as_ref().unwrap().uplink_name, "up0");
        lab.ip("host", "rule del to 203.0.113.0/24 ipproto udp dport 4789 lookup 100");
        path(&mut underlay, &ours, |path| path.uplink_name == "up0").await;
    });
}

#[test]
fn a_rule_by_mark_is_reported_while_it_is_there() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        assert_eq!(underlay.rules_by_mark().count(), 0);
        lab.ip("host", "rule add fwmark 0x10 lookup 100 priority 50");
        underlay.resync().await.unwrap();
        assert_eq!(underlay.rules_by_mark().collect::<Vec<_>>(), ["50: fwmark 0x10/0xffffffff"]);
        lab.ip("host", "rule del fwmark 0x10 lookup 100 priority 50");
        underlay.resync().await.unwrap();
        assert_eq!(underlay.rules_by_mark().count(), 0);
    });
}

#[test]
fn a_rule_that_no_request_can_name_leaves_no_path_while_it_is_there() {
    Lab::run(async |lab| {
        let gre = Target { protocol: 47, dst_port: 0, ..vxlan("192.0.2.2") };
        let inheriting = Target { inherits_tos: true, ..vxlan("192.0.2.2") };
        let other = vxlan("192.0.2.2");
        let mut underlay = follow(&[gre, inheriting, other]).await;
        for target in [&gre, &inheriting, &other] {
            path(&mut underlay, target, |_| true).await;
        }
        for (rule, target) in [("ipproto gre", &gre), ("tos 0x10", &inheriting)] {
            lab.ip("host", &format!("rule add {rule} lookup 100 priority 50"));
            let words = format!("50: {rule}");
            unresolved(&mut underlay, target, Reason::RoutingRule, &words).await;
            path(&mut underlay, &other, |_| true).await;
            lab.ip("host", &format!("rule del {rule} lookup 100 priority 50"));
            path(&mut underlay, target, |_| true).await;
        }
        assert_eq!(underlay.rules_by_mark().count(), 0);
    });
}

#[test]
fn a_cancelled_wait_loses_no_change() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |_| true).await;
        lab.ip("host", "link set up0 mtu 1400");
        // One turn of the runtime more each time, so that every await within is cancelled once.
        for turns in 0.. {
            let cancel = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                outcome = underlay.changed() => {
                    outcome.unwrap();
                    break;
                }
                () = cancel => assert!(turns < 1_000, "the change was lost"),
            }
        }
        assert_eq!(underlay.resolve(&target).unwrap().as_ref().unwrap().mtu, 1400);
    });
}

#[test]
fn a_cancelled_read_loses_no_receiver() {
    Lab::run(async |lab| {
        // Until the kernel has announced all that it does to devices that came up (RFC 4862, section 5.4).
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut receivers = Receivers::open().await.unwrap();
        // One turn of the runtime more each time, as above.
        for turns in 0.. {
            lab.ip("host", "link add vxlan8 up type vxlan id 8 dstport 4789");
            while receivers.current().is_empty() {
                receivers.read().await.unwrap();
            }
            // Unlike others this change is announced at once, and nothing after it.
            lab.ip("host", "link del vxlan8");
            let cancel = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                outcome = receivers.read() => {
                    assert!(outcome.unwrap() && turns > 0, "it was never cancelled");
                    break;
                }
                () = cancel => {}
            }
            let changed = tokio::time::timeout(DEADLINE, receivers.changed()).await;
            changed.expect("the change was lost").unwrap();
            assert!(receivers.current().is_empty());
        }
    });
}

#[test]
fn a_change_is_found_though_its_announcement_was_lost() {
    Lab::run(async |lab| {
        // Without a route there is no neighbour, whose changes would have the route asked again.
        let target = vxlan("203.0.113.9");
        let mut underlay = follow(&[target]).await;
        unresolved(&mut underlay, &target, Reason::NoRoute, "").await;

        // More than the socket holds while nobody reads, and the change that matters last.
        let flood =
            (0..4000u32).map(|n| format!("route add blackhole 10.0.{}.{}\n", n >> 8, n & 255));
        let last = "route add 203.0.113.0/24 via 192.0.2.130\n".to_owned();
        lab.batch("host", &flood.chain([last]).collect::<String>());
        path(&mut underlay, &target, |path| path.uplink_name == "up1").await;
    });
}

#[test]
fn nothing_is_reported_while_nothing_changes() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |_| true).await;
        lab.ip("host", "route add 203.0.113.0/24 via 192.0.2.130");
        lab.ip("host", "addr add 192.0.2.200/32 dev up1");
        let quiet = tokio::time::timeout(Duration::from_millis(500), underlay.changed()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    });
}
