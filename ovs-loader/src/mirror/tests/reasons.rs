//! Every reason of the configuration stands against exactly what it is about, and goes when the fact
//! goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ovs_ebpf_common::Reason::{self, *};
use ovs_ebpf_common::abi::{PORT_CAPACITY, Program};

use super::*;
use crate::rules::{Direction, TcFilters, XfrmPolicy};

/// What each thing of the host is called here.
const ALL: &[&str] = &["br-ex", "veth-a", "eth1", "vxlan42", "way", "other way"];
const ENTRIES: &[&str] = &["near", "wired", "far", "other far"];
const TUNNEL: &[&str] = &["vxlan42", "way", "other way", "far", "other far"];
const WAYS: &[&str] = &["way", "other way", "far", "other far"];
const WAY: &[&str] = &["way", "far"];
const VETH_PORT: &[&str] = &["veth-a", "near"];

/// The reasons against each thing; without things that have none.
fn standing(host: &Host) -> BTreeMap<&'static str, Vec<Reason>> {
    let plan = host.plan();
    let bridge = &plan.bridges[&BRIDGE];
    let mut standing = BTreeMap::from([("br-ex", reasons(&bridge.why))]);
    for (name, ifindex) in [("veth-a", VETH), ("eth1", NIC), ("vxlan42", VXLAN)] {
        standing.insert(name, reasons(&bridge.ports[&ifindex].why));
    }
    let ways = bridge.ports[&VXLAN].tunnels.as_ref().unwrap();
    for (name, remote) in [("way", REMOTE), ("other way", OTHER_REMOTE)] {
        if let Some(way) = ways.get(&way(remote)) {
            standing.insert(name, reasons(&way.why));
        }
    }
    for (name, mac) in [("near", NEAR), ("wired", WIRED), ("far", FAR), ("other far", OTHER_FAR)] {
        standing.insert(name, reasons(&host.why(&plan, &key(mac))));
    }
    standing.retain(|_, reasons| !reasons.is_empty());
    standing
}

/// A fact, the reason it is, and what it stands against.
type Case = (Reason, Vec<&'static str>, Fact);

/// What makes it no reason.
type Setting = fn(&mut Accelerate);

fn tc(host: &mut Host, ifindex: IfIndex, change: fn(&mut TcFilters)) {
    change(host.rules.tc.entry(ifindex).or_default());
}

fn forwards_beside(host: &mut Host, reason: Reason) {
    host.bridge().unsupported.push(Why::from(reason));
}

fn not_only_forwarded(host: &mut Host, port: IfIndex, reason: Reason) {
    host.port(port).unsupported.push(Why::from(reason));
}

fn unsupported(host: &mut Host, reason: Reason) {
    host.tunnel().unsupported.push(Why::from(reason));
}

fn unresolved(host: &mut Host, reason: Reason) {
    *host.resolution() = Err(Unresolved { why: Why::from(reason), route: None });
}

fn refuse(host: &mut Host, program: Program, ifindex: IfIndex) {
    host.refused.insert((program as u32, ifindex), "Invalid argument".to_owned());
}

fn kind(host: &mut Host, kind: FdbKind) {
    host.bridge().fdb.get_mut(&key(NEAR)).unwrap().kind = kind;
}

fn ipsec(host: &mut Host) {
    host.rules.xfrm.policies.push(XfrmPolicy {
        source: (LOCAL, 32),
        destination: (REMOTE, 32),
        protocol: 0,
        source_port: (0, 0),
        destination_port: (0, 0),
        ifindex: 0,
        direction: Direction::Out,
        priority: 0,
        block: false,
        templates: true,
        sub: false,
        if_id: 0,
        conditional: false,
    });
}

fn second_tunnel(host: &mut Host, link: Option<IfIndex>) {
    let mut tunnel = vxlan(42, &[REMOTE]);
    tunnel.link = link;
    let mut bridge = empty_bridge(20, "br-two");
    bridge.ports.insert(21, tunnel_port(21, "vxlan42b", tunnel));
    host.bridges.insert(20, bridge);
    host.resolve_all();
}

fn cases() -> Vec<Case> {
    let everything = [ALL, ENTRIES].concat();
    let (tunnel, ways, way) = (TUNNEL.to_vec(), WAYS.to_vec(), WAY.to_vec());
    let veth = VETH_PORT.to_vec();
    vec![
        (SwitchedOff, everything.clone(), |h| h.switched_off = ["br-ex".to_owned()].into()),
        (NotSelected, everything.clone(), |h| h.settings.bridges = Some(vec!["br-two".to_owned()])),
        (BridgeDown, everything.clone(), |h| h.bridge().up = false),
        (VlanFiltering, everything.clone(), |h| forwards_beside(h, VlanFiltering)),
        (AgeingTooShort, everything.clone(), |h| h.bridge().ageing = Duration::from_millis(2990)),
        (AgeingTooShort, everything.clone(), |h| h.bridge().ageing = Duration::ZERO),
        (AgeingTooShort, tunnel.clone(), |h| h.tunnel().ageing = Some(Duration::from_secs(2))),
        (NftBridge, everything.clone(), |h| h.rules.nft_bridge = Some("table bridge t".to_owned())),
        (BrNetfilter, everything.clone(), |h| {
            h.bridge().nf_call = true;
            h.rules.ip_ruleset = Some("table inet t".to_owned());
        }),
        (BrNetfilter, everything.clone(), |h| {
            h.rules.br_netfilter.ip6tables = true;
            h.rules.ip_ruleset = Some("table inet t".to_owned());
        }),
        (OvsUnreachable, everything.clone(), |h| forwards_beside(h, OvsUnreachable)),
        (OvsDatapath, everything.clone(), |h| forwards_beside(h, OvsDatapath)),
        (OvsFlows, everything.clone(), |h| forwards_beside(h, OvsFlows)),
        (OvsMirror, everything.clone(), |h| forwards_beside(h, OvsMirror)),
        (OvsSampling, everything.clone(), |h| forwards_beside(h, OvsSampling)),
        (OvsBridgeFailed, everything, |h| forwards_beside(h, OvsBridgeFailed)),
        (Policing, veth.clone(), |h| not_only_forwarded(h, VETH, Policing)),
        (Qos, veth.clone(), |h| not_only_forwarded(h, VETH, Qos)),
        (Bond, veth.clone(), |h| not_only_forwarded(h, VETH, Bond)),
        (PortVlan, tunnel.clone(), |h| not_only_forwarded(h, VXLAN, PortVlan)),
        (OvsPortFailed, tunnel.clone(), |h| not_only_forwarded(h, VXLAN, OvsPortFailed)),
        (OvsPortConfig, veth.clone(), |h| not_only_forwarded(h, VETH, OvsPortConfig)),
        (StpNotForwarding, veth.clone(), |h| h.port(VETH).stp = StpState::Blocking),
        (StpNotForwarding, tunnel.clone(), |h| h.port(VXLAN).stp = StpState::Learning),
        (PortDown, veth.clone(), |h| h.port(VETH).up = false),
        (PortLocked, veth.clone(), |h| h.port(VETH).locked = true),
        (PortKind, veth.clone(), |h| h.port(VETH).device = Device::Other("can".to_owned())),
        (EgressFilter, veth.clone(), |h| tc(h, VETH, |tc| tc.egress = Some("filter".to_owned()))),
        (EgressFilter, tunnel.clone(), |h| {
            tc(h, VXLAN, |tc| tc.egress = Some("filter".to_owned()));
        }),
        (EgressFilter, tunnel.clone(), |h| {
            tc(h, VXLAN, |tc| tc.qdisc = Some("qdisc tbf".to_owned()));
        }),
        (IngressFilter, veth.clone(), |h| {
            tc(h, VETH, |tc| tc.ingress_classic = Some("u32".to_owned()));
        }),
        (IngressFilter, tunnel.clone(), |h| tc(h, VXLAN, |tc| tc.ingress_tcx = vec![7])),
        (IngressFilter, veth.clone(), |h| {
            tc(h, VETH, |tc| tc.ingress_tcx = vec![6, 100, 7]);
        }),
        (IngressFilter, ways.clone(), |h| {
            tc(h, UPLINK, |tc| tc.ingress_tcx = vec![101, 7]);
        }),
        (IngressFilter, ways.clone(), |h| {
            tc(h, UPLINK, |tc| tc.ingress_classic = Some("u32".to_owned()));
        }),
        (NftNetdev, veth.clone(), |h| {
            h.rules.nft_netdev.insert("veth-*".to_owned(), "table netdev t".to_owned());
        }),
        (NftNetdev, ways.clone(), |h| {
            h.rules.nft_netdev.insert("eth0".to_owned(), "table netdev t".to_owned());
        }),
        (AttachFailed, veth, |h| refuse(h, Program::PortIngress, VETH)),
        (AttachFailed, ways, |h| refuse(h, Program::UplinkIngress, UPLINK)),
        (TunnelExternal, tunnel.clone(), |h| unsupported(h, TunnelExternal)),
        (TunnelGpe, tunnel.clone(), |h| unsupported(h, TunnelGpe)),
        (TunnelGbp, tunnel.clone(), |h| unsupported(h, TunnelGbp)),
        (TunnelChecksum, tunnel.clone(), |h| unsupported(h, TunnelChecksum)),
        (TunnelFlow, tunnel.clone(), |h| unsupported(h, TunnelFlow)),
        (TunnelOption, tunnel.clone(), |h| unsupported(h, TunnelOption)),
        (TunnelGroup, tunnel.clone(), |h| unsupported(h, TunnelGroup)),
        (TunnelIpv6, tunnel.clone(), |h| unsupported(h, TunnelIpv6)),
        (TunnelUdpChecksum, tunnel, |h| unsupported(h, TunnelUdpChecksum)),
        (TunnelGroup, vec!["far"], |h| {
            h.tunnel().remotes = vec![plain(IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1)))];
        }),
        // The local address is IPv4.
        (TunnelOption, vec!["far"], |h| {
            h.tunnel().remotes = vec![plain(Ipv6Addr::LOCALHOST.into())];
        }),
        // Nothing but the remote says that it is IPv6.
        (TunnelUdpChecksum, vec!["far"], |h| {
            let tunnel = h.tunnel();
            tunnel.local = None;
            tunnel.over_ipv6 = Some(Why::from(TunnelUdpChecksum));
            tunnel.remotes = vec![plain(Ipv6Addr::LOCALHOST.into())];
            h.resolve_all();
        }),
        (NoRemote, vec!["far"], |h| h.tunnel().remotes.clear()),
        (NoRoute, way.clone(), |h| unresolved(h, NoRoute)),
        (NoRoute, way.clone(), |h| h.resolutions.retain(|target, _| target.remote != REMOTE)),
        (RoutingRule, way.clone(), |h| unresolved(h, RoutingRule)),
        (NoNeighbour, way.clone(), |h| *h.resolution() = no_neighbour()),
        (UplinkUnsupported, way.clone(), |h| unresolved(h, UplinkUnsupported)),
        (RemoteIsLocal, way.clone(), |h| unresolved(h, RemoteIsLocal)),
        (XfrmPolicy, way.clone(), ipsec),
        (TunnelClash, way.clone(), |h| second_tunnel(h, None)),
        (TunnelClash, way, |h| second_tunnel(h, Some(3))),
        (FdbLocal, vec!["near"], |h| kind(h, FdbKind::Local)),
        (FdbLocked, vec!["near"], |h| kind(h, FdbKind::Locked)),
        (SeveralRemotes, vec!["other far"], |h| {
            h.tunnel().fdb.insert(OTHER_FAR, &[plain(OTHER_REMOTE), plain(REMOTE)]);
        }),
        (SeveralRemotes, vec!["far"], |h| h.tunnel().remotes.push(plain(OTHER_REMOTE))),
        (RemoteOptions, vec!["other way", "other far"], |h| {
            let options = "port 4790".to_owned();
            h.tunnel().fdb.insert(OTHER_FAR, &[Remote { options, ..plain(OTHER_REMOTE) }]);
        }),
        (RemoteOptions, vec!["other far"], |h| {
            let options = "port 4790".to_owned();
            h.tunnel().fdb.insert(OTHER_FAR, &[Remote { options, ..plain(REMOTE) }]);
        }),
        (PortNotAccelerated, vec!["near"], |h| {
            h.bridge().fdb.get_mut(&key(NEAR)).unwrap().port = 99;
        }),
    ]
}

#[test]
fn a_host_with_nothing_against_it_is_accelerated_throughout() {
    assert_eq!(standing(&Host::new()), BTreeMap::new());
}

#[test]
fn each_reason_stands_against_exactly_what_it_is_about() {
    for (at, (reason, against, fact)) in cases().into_iter().enumerate() {
        let mut host = Host::new();
        fact(&mut host);
        let expected: BTreeMap<_, _> =
            against.into_iter().map(|thing| (thing, vec![reason])).collect();
        assert_eq!(standing(&host), expected, "case {at}, {reason:?}");
    }
}

#[test]
fn every_reason_of_the_configuration_has_a_case() {
    let cases: BTreeSet<_> = cases().into_iter().map(|(reason, ..)| reason).collect();
    // Those have tests of their own: the first below, metadata mode's, port security's, the filter's on
    // live hosts.
    let others = BTreeSet::from([
        FdbGroup,
        FdbVlan,
        Capacity,
        VniUnmapped,
        PortUnsecured,
        XdpUnsupported,
        XdpTaken,
        XdpPort,
        XdpShared,
    ]);
    let all = Reason::ALL.iter().filter(|reason| !reason.counts_packets()).copied();
    assert_eq!(cases.union(&others).copied().collect::<BTreeSet<_>>(), all.collect());
}

#[test]
fn what_a_setting_allows_is_bypassed() {
    let cases: [(Fact, Setting); 6] = [
        (|h| h.rules.nft_bridge = Some(String::new()), |s| s.bypass_nft_bridge = true),
        (
            |h| {
                h.bridge().nf_call = true;
                h.rules.ip_ruleset = Some(String::new());
            },
            |s| s.bypass_br_netfilter = true,
        ),
        (
            |h| drop(h.rules.nft_netdev.insert("*".to_owned(), String::new())),
            |s| s.bypass_nft_netdev = true,
        ),
        (|h| tc(h, VETH, |tc| tc.egress = Some(String::new())), |s| s.bypass_egress_filters = true),
        (
            |h| tc(h, VXLAN, |tc| tc.egress = Some(String::new())),
            |s| s.bypass_egress_filters = true,
        ),
        (|h| tc(h, VXLAN, |tc| tc.qdisc = Some(String::new())), |s| s.bypass_egress_filters = true),
    ];
    for (at, (fact, setting)) in cases.into_iter().enumerate() {
        let mut host = Host::new();
        fact(&mut host);
        assert_ne!(standing(&host), BTreeMap::new(), "case {at}");
        setting(&mut host.settings);
        assert_eq!(standing(&host), BTreeMap::new(), "case {at}");
    }
}

#[test]
fn classic_filters_run_before_our_own_but_for_those_beside_them() {
    let mut host = Host::new();
    host.hook = Hook::Clsact;
    for device in [VETH, UPLINK] {
        tc(&mut host, device, |tc| tc.ingress_classic = Some("filter u32 pref 7".to_owned()));
    }
    assert_eq!(standing(&host), BTreeMap::new());
    // But on a tunnel's device there are none of ours: nothing that is decapsulated gets there.
    tc(&mut host, VXLAN, |tc| tc.ingress_classic = Some("filter u32 pref 7".to_owned()));
    let of_tunnel: Vec<_> = standing(&host).into_values().flatten().collect();
    assert!(!of_tunnel.is_empty() && of_tunnel.iter().all(|reason| *reason == IngressFilter));
    host.rules.tc.remove(&VXLAN);
    tc(&mut host, VETH, |tc| tc.ingress_classic_last = Some("filter bpf pref 65535".to_owned()));
    let expected = ["veth-a", "near"].map(|thing| (thing, vec![IngressFilter]));
    assert_eq!(standing(&host), expected.into());
}

#[test]
fn no_setting_bypasses_ipsec_or_ingress_filters() {
    let mut host = Host::new();
    host.settings = Accelerate {
        bypass_nft_bridge: true,
        bypass_nft_netdev: true,
        bypass_br_netfilter: true,
        bypass_egress_filters: true,
        ..Accelerate::default()
    };
    ipsec(&mut host);
    tc(&mut host, VETH, |tc| tc.ingress_classic = Some(String::new()));
    let expected = [
        ("way", XfrmPolicy),
        ("far", XfrmPolicy),
        ("veth-a", IngressFilter),
        ("near", IngressFilter),
    ];
    assert_eq!(standing(&host), expected.map(|(thing, reason)| (thing, vec![reason])).into());
}

#[test]
fn several_reasons_stand_side_by_side() {
    let mut host = Host::new();
    host.bridge().up = false;
    host.port(VXLAN).up = false;
    *host.resolution() = no_neighbour();
    let standing = standing(&host);
    assert_eq!(standing["br-ex"], [BridgeDown]);
    assert_eq!(standing["vxlan42"], [BridgeDown, PortDown]);
    assert_eq!(standing["way"], [BridgeDown, PortDown, NoNeighbour]);
}

#[test]
fn tcx_programs_before_ours_are_no_reason() {
    let mut host = Host::new();
    tc(&mut host, VETH, |tc| tc.ingress_tcx = vec![6, 7, 100]);
    tc(&mut host, UPLINK, |tc| tc.ingress_tcx = vec![6, 100, 101]);
    assert_eq!(standing(&host), BTreeMap::new());
}

#[test]
fn rules_without_bridge_netfilter_and_bridge_netfilter_without_rules_are_no_reason() {
    let mut host = Host::new();
    host.rules.ip_ruleset = Some("table inet t".to_owned());
    assert_eq!(standing(&host), BTreeMap::new());
    host.rules.ip_ruleset = None;
    host.bridge().nf_call = true;
    assert_eq!(standing(&host), BTreeMap::new());
}

#[test]
fn rules_on_the_kernel_bridges_hooks_are_no_reason_on_open_vswitch() {
    let mut host = Host::new();
    host.bridge().kind = BridgeKind::Ovs;
    host.rules.nft_bridge = Some("table bridge t".to_owned());
    host.rules.br_netfilter.ip6tables = true;
    host.rules.ip_ruleset = Some("table inet t".to_owned());
    assert_eq!(standing(&host), BTreeMap::new());
}

#[test]
fn group_addresses_and_entries_of_vlans_that_their_port_does_not_carry_are_left_to_the_bridge() {
    let mut host = Host::new();
    let group = key(Mac([1, 0, 0x5e, 0, 0, 1]));
    let vlan = FdbKey { vlan: 7, mac: NEAR };
    for key in [group, vlan] {
        host.bridge().fdb.insert(key, FdbEntry { port: VETH, kind: FdbKind::Static });
    }
    assert_eq!(reasons(&host.why(&host.plan(), &group)), [FdbGroup]);
    assert_eq!(reasons(&host.why(&host.plan(), &vlan)), [FdbVlan]);
    assert_eq!(standing(&host), BTreeMap::new());
}

#[test]
fn a_fifth_udp_port_is_one_too_many_and_a_fourth_is_not() {
    let mut host = Host::new();
    for n in 1..=4u8 {
        let mut tunnel = vxlan(42, &[REMOTE]);
        tunnel.dst_port = 5000 + u16::from(n);
        let ifindex = VXLAN + u32::from(n);
        host.bridge().ports.insert(ifindex, tunnel_port(ifindex, "more", tunnel));
    }
    host.resolve_all();
    let plan = host.plan();
    let why = |n| {
        let port = &plan.bridges[&BRIDGE].ports[&(VXLAN + n)];
        reasons(&port.tunnels.as_ref().unwrap()[&way(REMOTE)].why)
    };
    assert_eq!([0, 1, 2, 3].map(why), [[]; 4]);
    assert_eq!(why(4), [Capacity]);
    assert_eq!(plan.vxlan_ports, [4789u16, 5001, 5002, 5003].map(u16::to_be));
}

#[test]
fn ports_beyond_the_maps_capacity_are_left_to_the_bridge() {
    let mut host = Host::new();
    for ifindex in 1000..1000 + PORT_CAPACITY as u32 {
        host.bridge().ports.insert(ifindex, port(ifindex, "many", Device::Ethernet));
    }
    let plan = host.plan();
    assert_eq!(plan.ports().count(), PORT_CAPACITY);
    let refused: Vec<_> =
        plan.bridges[&BRIDGE].ports.values().filter(|port| !port.why.is_empty()).collect();
    assert_eq!(
        refused.iter().map(|port| reasons(&port.why)).collect::<Vec<_>>(),
        [[Capacity], [Capacity]]
    );
}
