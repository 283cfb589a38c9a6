//! What the maps say of ports, stations and tunnels.

use ovs_ebpf_common::abi::{
    FdbFlags, FdbValue, IndexKey, NO_VLAN, PortFlags, PortValue, TEMPLATE_LEN, TunnelFlags,
    TunnelIndexFlags, TunnelIndexKey, TunnelKind,
};

use super::*;
use crate::bridge::vlans::VlanSet;
use crate::mirror::plan::TunnelEntry;
use crate::rules::TcFilters;

fn station(host: &Host, mac: Mac) -> Option<FdbValue> {
    let bridge = &host.bridges[&BRIDGE];
    entry::decide(&host.plan(), bridge, &key(mac), &bridge.fdb[&key(mac)]).value
}

fn entry_of(host: &Host, remote: IpAddr) -> Option<TunnelEntry> {
    host.plan().bridges[&BRIDGE].ports[&VXLAN].tunnels.as_ref().unwrap()[&way(remote)].entry.clone()
}

fn peer(host: &mut Host) -> &mut VethPeer {
    match &mut host.port(VETH).device {
        Device::Veth(Some(peer)) => peer,
        other => panic!("{other:?} is no veth"),
    }
}

#[test]
fn accelerated_ports_but_no_tunnels_are_in_the_ports_map() {
    let mut host = Host::new();
    let ports =
        |host: &Host| host.plan().ports().map(|(i, value, _)| (i, value)).collect::<Vec<_>>();
    let value = PortValue { bridge: BRIDGE, ..PortValue::default() };
    assert_eq!(ports(&host), [(VETH, value), (NIC, value)]);
    host.port(VETH).up = false;
    assert_eq!(ports(&host), [(NIC, value)]);
    host.bridge().up = false;
    assert_eq!(ports(&host), []);
}

/// A port with a native VLAN 10 that carries VLAN 20 with tags.
fn native() -> PortVlans {
    PortVlans {
        untagged: Some(10),
        takes_tags: true,
        carries: [10, 20].into_iter().collect(),
        strips: (10..=10).into(),
        vnis: None,
    }
}

#[test]
fn a_port_s_and_a_tunnel_s_frames_belong_to_the_vlans_that_they_say() {
    let trunk = PortVlans { untagged: None, strips: VlanSet::default(), ..native() };
    for (vlans, under, vlan, tagged) in [
        (PortVlans::default(), false, 0, false),
        (PortVlans::access(10), false, 10, false),
        (native(), false, 10, true),
        (trunk.clone(), false, NO_VLAN, true),
        // Their frames are not the bridge's.
        (native(), true, 10, false),
    ] {
        let mut host = Host::new();
        for ifindex in [VETH, VXLAN] {
            host.port(ifindex).vlans = vlans.clone();
            host.port(ifindex).under_vlan_devices = under;
        }
        let plan = host.plan();
        let flag = |flag| if tagged { flag } else { 0 };
        let (_, port, _) = plan.ports().find(|(ifindex, ..)| *ifindex == VETH).unwrap();
        assert_eq!((port.vlan, port.flags), (vlan, flag(PortFlags::TAGGED)), "{vlans:?}");
        for TunnelEntry { index, .. } in plan.entries() {
            assert_eq!((index.vlan, index.flags), (vlan, flag(TunnelIndexFlags::TAGGED)));
        }
    }
}

#[test]
fn an_entry_says_whether_its_frames_leave_with_a_tag() {
    let mut host = Host::new();
    for ifindex in [VETH, VXLAN] {
        host.port(ifindex).vlans = native();
    }
    let plan = host.plan();
    let bridge = &host.bridges[&BRIDGE];
    for port in [VETH, VXLAN] {
        let entry = FdbEntry { port, kind: FdbKind::Dynamic };
        let decide = |vlan| entry::decide(&plan, bridge, &FdbKey { vlan, mac: FAR }, &entry);
        let tagged = |vlan| decide(vlan).value.map(|value| value.flags & FdbFlags::TAGGED);
        assert_eq!(tagged(10), Some(0));
        assert_eq!(tagged(20), Some(FdbFlags::TAGGED));
        for foreign in [0, 30] {
            assert_eq!(tagged(foreign), None);
            assert_eq!(reasons(&decide(foreign).why), [Reason::FdbVlan]);
        }
    }
}

/// Open vSwitch's trunk carries VLAN 0, whose frames have no tag.
#[test]
fn frames_of_vlan_0_leave_without_a_tag() {
    let mut host = Host::new();
    host.port(VETH).vlans.strips = VlanSet::default();
    assert_eq!(station(&host, NEAR).unwrap().flags & FdbFlags::TAGGED, 0);
}

#[test]
fn a_local_station_is_at_its_port_with_the_ports_mtu() {
    let mut host = Host::new();
    host.port(NIC).mtu = 9000;
    let expected = FdbValue {
        target: NIC,
        flags: FdbFlags::HARDWARE,
        mtu: 9000,
        revalidate_seconds: 60,
        ..FdbValue::default()
    };
    assert_eq!(station(&host, WIRED), Some(expected));
}

#[test]
fn only_a_peer_with_that_mac_elsewhere_and_nothing_on_the_way_is_handed_frames_at_once() {
    let cases: [(&str, Fact, bool); 8] = [
        ("plain", |_| {}, true),
        ("another MAC", |h| peer(h).mac = WIRED, false),
        ("this namespace", |h| peer(h).other_namespace = false, false),
        ("XDP", |h| peer(h).xdp = true, false),
        ("unknown peer", |h| h.port(VETH).device = Device::Veth(None), false),
        ("no veth", |h| h.port(VETH).device = Device::Ethernet, false),
        (
            "qdisc",
            |h| {
                let qdisc = Some("qdisc tbf".to_owned());
                h.rules.tc.insert(VETH, TcFilters { qdisc, ..TcFilters::default() });
            },
            false,
        ),
        (
            "egress filter, allowed",
            |h| {
                let egress = Some("filter".to_owned());
                h.rules.tc.insert(VETH, TcFilters { egress, ..TcFilters::default() });
                h.settings.bypass_egress_filters = true;
            },
            false,
        ),
    ];
    for (name, fact, handed) in cases {
        let mut host = Host::new();
        fact(&mut host);
        let flags = station(&host, NEAR).expect(name).flags;
        assert_eq!(flags & FdbFlags::PEER != 0, handed, "{name}");
    }
}

#[test]
fn what_is_handed_to_a_peer_fits_its_mtu_too() {
    let mtu = |mtu: u32| {
        let mut host = Host::new();
        peer(&mut host).mtu = mtu;
        host.port(VETH).mtu = 1500;
        station(&host, NEAR).unwrap().mtu
    };
    assert_eq!((mtu(1400), mtu(9000)), (1400, 1500));
}

#[test]
fn isolation_is_noted_for_ports_and_tunnels() {
    let mut host = Host::new();
    host.port(NIC).isolated = true;
    host.port(VXLAN).isolated = true;
    let flags = |mac| station(&host, mac).unwrap().flags;
    assert_eq!(flags(WIRED), FdbFlags::ISOLATED | FdbFlags::HARDWARE);
    assert_eq!(flags(FAR), FdbFlags::ISOLATED | FdbFlags::TUNNEL);
    assert_eq!(flags(NEAR), FdbFlags::PEER);
}

#[test]
fn three_visits_fall_within_the_shortest_ageing_time() {
    // Configured, the bridge's ageing, the tunnel's; then what a local and a far station get.
    for (configured, bridge, tunnel, near, far) in [
        (60, 300, Some(300), 60, 60),
        (60, 90, Some(300), 30, 30),
        (60, 300, Some(31), 60, 10),
        (60, 300, None, 60, 60),
        (5, 300, Some(300), 5, 5),
        (60, 3, Some(300), 1, 1),
        (u16::MAX, 1_000_000, None, u16::MAX, u16::MAX),
    ] {
        let mut host = Host::new();
        host.settings.revalidate_seconds = configured;
        host.bridge().ageing = Duration::from_secs(bridge);
        host.tunnel().ageing = tunnel.map(Duration::from_secs);
        let seconds = |mac| station(&host, mac).unwrap().revalidate_seconds;
        assert_eq!((seconds(NEAR), seconds(FAR)), (near, far), "{configured} {bridge} {tunnel:?}");
    }
}

#[test]
fn a_far_station_is_behind_the_tunnel_to_its_own_remote_or_else_the_flood_lists() {
    let host = Host::new();
    for (mac, remote) in [(FAR, REMOTE), (OTHER_FAR, OTHER_REMOTE)] {
        let id = entry_of(&host, remote).unwrap().id;
        let value = station(&host, mac).unwrap();
        assert_eq!((value.target, value.flags, value.mtu), (id, FdbFlags::TUNNEL, 0));
    }
}

#[test]
fn a_tunnels_index_names_addresses_key_port_and_kind() {
    let entry = entry_of(&Host::new(), REMOTE).unwrap();
    let key = TunnelIndexKey {
        remote: [192, 0, 2, 2],
        local: [192, 0, 2, 1],
        key: [0, 0, 0, 42],
        dst_port: [0x12, 0xb5],
        kind: TunnelKind::VxlanIpv4 as u8,
        reserved: 0,
    };
    assert_eq!(entry.key, IndexKey::Ipv4(key));
    assert_eq!((entry.index.tunnel, entry.index.bridge), (entry.id, BRIDGE));
    assert_eq!((entry.index.uplink, entry.index.vlan), (UPLINK, 0));
}

#[test]
fn gre_keys_may_differ_by_direction_or_be_absent() {
    use TunnelKind::{GreIpv4, GreKeyIpv4};
    for (key_in, key_out, received, sent) in [
        (None, None, GreIpv4, GreIpv4),
        (Some(7), Some(8), GreKeyIpv4, GreKeyIpv4),
        (Some(0), None, GreKeyIpv4, GreIpv4),
        (None, Some(8), GreIpv4, GreKeyIpv4),
    ] {
        let mut host = Host::new();
        let tunnel = host.tunnel();
        *tunnel = vxlan(0, &[REMOTE]);
        (tunnel.encap, tunnel.dst_port) = (Encap::Gre, 0);
        (tunnel.key_in, tunnel.key_out) = (key_in, key_out);
        host.resolve_all();
        let entry = entry_of(&host, REMOTE).unwrap();
        let key = IndexKey::new(received, REMOTE, LOCAL, key_in.unwrap_or(0), 0);
        assert_eq!((entry.key, entry.value.paths[0].kind), (key, sent as u8));
        assert_eq!(host.plan().vxlan_ports, [0; 4]);
        if sent == GreKeyIpv4 {
            assert_eq!(entry.value.paths[0].header[38..42], key_out.unwrap().to_be_bytes());
        }
    }
}

type Options = fn(&mut Tunnel);

#[test]
fn a_tunnels_options_become_flags_and_values() {
    use TunnelFlags as F;
    let hides = F::READY | F::NEEDS_ID | F::TTL_INHERIT | F::TAG_HIDES;
    let cases: [(Options, u8, u8, u8); 7] = [
        (|_| {}, F::READY | F::NEEDS_ID, 0, 64),
        (|t| t.ect_1_inherits = true, F::READY | F::NEEDS_ID | F::ECT_1_INHERIT, 0, 64),
        (|t| t.df = true, F::READY, 0, 64),
        (|t| t.tos = Some(0xff), F::READY | F::NEEDS_ID, 0xfc, 64),
        (|t| t.tos = None, F::READY | F::NEEDS_ID | F::TOS_INHERIT, 0, 64),
        (|t| t.ttl = Ttl::Inherit, F::READY | F::NEEDS_ID | F::TTL_INHERIT, 0, 0),
        (|t| (t.ttl, t.ttl_behind_tag) = (Ttl::Inherit, Some(99)), hides, 0, 99),
    ];
    for (at, (change, flags, tos, ttl)) in cases.into_iter().enumerate() {
        let mut host = Host::new();
        change(host.tunnel());
        host.resolve_all();
        let value = entry_of(&host, REMOTE).unwrap().value;
        assert_eq!((value.flags, value.tos, value.ttl), (flags, tos, ttl), "case {at}");
        assert_eq!((value.source_port_min, value.source_port_span), (32768, 28231));
    }
}

#[test]
fn a_tunnel_over_ipv6_has_its_own_options_and_headers() {
    use TunnelFlags as F;
    let local: IpAddr = "2001:db8::1".parse().unwrap();
    let remote: IpAddr = "fe80::2".parse().unwrap();
    let vxlan_header = [&[0x08, 0, 0, 0][..], &[0, 0, 42, 0]].concat();
    let cases: [(Options, TunnelKind, u8, u8, u32); 5] = [
        (|_| {}, TunnelKind::VxlanIpv6, F::READY, 61, 1430),
        (|t| t.ttl = Ttl::Fixed(9), TunnelKind::VxlanIpv6, F::READY, 9, 1430),
        (
            |t| t.flow_label = FlowLabel::Flow,
            TunnelKind::VxlanIpv6,
            F::READY | F::FLOW_LABEL,
            61,
            1430,
        ),
        (gre6, TunnelKind::GreKeyIpv6, F::READY, 61, 1438),
        (
            |t| {
                gre6(t);
                (t.key_in, t.key_out) = (None, None);
            },
            TunnelKind::GreIpv6,
            F::READY,
            61,
            1442,
        ),
    ];
    for (change, kind, flags, ttl, mtu) in cases {
        let mut host = Host::new();
        let tunnel = host.tunnel();
        *tunnel = vxlan(42, &[remote]);
        (tunnel.local, tunnel.ttl) = (Some(local), Ttl::Route(64));
        change(tunnel);
        host.resolve_all();
        let entry = entry_of(&host, remote).unwrap();
        let (key, port) = match kind {
            TunnelKind::VxlanIpv6 => (42, 4789),
            TunnelKind::GreKeyIpv6 => (42, 0),
            _ => (0, 0),
        };
        assert_eq!(entry.key, IndexKey::new(kind, remote, local, key, port));
        let path = entry.value.paths[0];
        assert_eq!((entry.value.flags, entry.value.ttl, path.mtu), (flags, ttl, mtu), "{kind:?}");
        assert_eq!((path.kind, path.next_hop_family), (kind as u8, 10));
        assert_eq!(path.header[12..18], [0x86, 0xdd, 0x60, 0, 0, 0]);
        if kind == TunnelKind::VxlanIpv6 {
            assert_eq!(path.header[62..70], vxlan_header);
        }
    }
}

fn gre6(tunnel: &mut Tunnel) {
    (tunnel.encap, tunnel.dst_port) = (Encap::Gre, 0);
}

#[test]
fn a_fixed_flow_label_is_in_the_header() {
    let mut host = Host::new();
    let remote: IpAddr = "2001:db8::2".parse().unwrap();
    *host.tunnel() = vxlan(42, &[remote]);
    host.tunnel().local = Some("2001:db8::1".parse().unwrap());
    host.tunnel().flow_label = FlowLabel::Fixed(0xf_edcb);
    host.resolve_all();
    let value = entry_of(&host, remote).unwrap().value;
    assert_eq!(value.paths[0].header[14..18], [0x60, 0x0f, 0xed, 0xcb]);
    assert_eq!(value.flags & TunnelFlags::FLOW_LABEL, 0);
}

#[test]
fn a_tunnels_mtu_is_what_the_headers_leave_of_the_path_or_the_devices_own() {
    for (path_mtu, device_mtu, mtu) in
        [(1500, 1500, 1450), (1500, 1400, 1400), (9000, 1500, 1500), (40, 1500, 0)]
    {
        let mut host = Host::new();
        host.port(VXLAN).mtu = device_mtu;
        host.resolution().as_mut().unwrap().mtu = path_mtu;
        assert_eq!(entry_of(&host, REMOTE).unwrap().value.paths[0].mtu, mtu);
    }
}

#[test]
fn a_missing_neighbour_leaves_the_receiving_side() {
    let mut host = Host::new();
    let before = entry_of(&host, REMOTE).unwrap();
    *host.resolution() = no_neighbour();
    let entry = entry_of(&host, REMOTE).unwrap();
    assert_eq!((entry.id, entry.key, entry.index), (before.id, before.key, before.index));
    assert_eq!(entry.value.flags & TunnelFlags::READY, 0);
    assert_eq!(entry.value.paths[0].header, [0; TEMPLATE_LEN]);
    assert_eq!(station(&host, FAR).unwrap().target, entry.id);
    assert_eq!(host.plan().uplinks().into_keys().collect::<Vec<_>>(), [UPLINK]);
}

#[test]
fn a_missing_neighbour_beside_another_reason_leaves_nothing() {
    let mut host = Host::new();
    *host.resolution() = no_neighbour();
    host.rules.nft_netdev.insert("eth0".to_owned(), "table netdev t".to_owned());
    assert_eq!(entry_of(&host, REMOTE), None);
    assert_eq!(station(&host, FAR), None);
}

#[test]
fn the_tos_takes_part_in_the_route() {
    let mut host = Host::new();
    host.tunnel().tos = Some(0x10);
    assert!(targets(host.all()).iter().all(|target| target.tos == 0x10));
    host.tunnel().tos = None;
    assert!(targets(host.all()).iter().all(|target| target.tos == 0));
}

#[test]
fn groups_and_remotes_with_options_of_their_own_are_not_looked_up() {
    let mut host = Host::new();
    let nexthop_group = Remote { options: "nhid 5".to_owned(), ..plain(address(0)) };
    host.tunnel().fdb.insert(mac(9), &[nexthop_group]);
    host.tunnel().remotes.push(plain(IpAddr::V4(Ipv4Addr::new(239, 0, 0, 1))));
    let remotes: Vec<_> = targets(host.all()).iter().map(|target| target.remote).collect();
    assert_eq!(remotes, [REMOTE, OTHER_REMOTE]);
}

#[test]
fn a_plan_serves_changes_to_remotes_it_knows_and_no_others() {
    let mut host = Host::new();
    let plan = host.plan();
    let moved = [(BRIDGE, key(FAR))];
    assert!(plan.serves(host.all(), &moved));
    for (remote, serves) in [
        (plain(OTHER_REMOTE), true),
        (plain(address(9)), false),
        (Remote { options: "vni 7".to_owned(), ..plain(REMOTE) }, true),
    ] {
        host.tunnel().fdb.insert(FAR, std::slice::from_ref(&remote));
        assert_eq!(plan.serves(host.all(), &moved), serves, "{remote:?}");
    }
    // Another station's new remote is no change of this one.
    host.tunnel().fdb.remove(FAR);
    host.tunnel().fdb.insert(mac(9), &[plain(address(9))]);
    assert!(plan.serves(host.all(), &moved));
}

#[test]
fn a_remote_that_loses_its_options_needs_a_new_plan() {
    let mut host = Host::new();
    let options = Remote { options: "vni 7".to_owned(), ..plain(address(9)) };
    host.tunnel().fdb.insert(FAR, &[options]);
    let plan = host.plan();
    host.tunnel().fdb.insert(FAR, &[plain(address(9))]);
    assert!(!plan.serves(host.all(), &[(BRIDGE, key(FAR))]));
}

#[test]
fn only_a_tunnels_own_remotes_are_bound_to_its_device() {
    let mut host = Host::new();
    host.tunnel().link = Some(9);
    let link = |host: &Host, remote| {
        let targets = crate::mirror::targets(host.all());
        targets.into_iter().find(|target| target.remote == remote).map(|target| target.link)
    };
    assert_eq!(link(&host, REMOTE), Some(Some(9)));
    assert_eq!(link(&host, OTHER_REMOTE), Some(None));
    host.tunnel().remotes = vec![Remote { bound: false, ..plain(REMOTE) }];
    assert_eq!(link(&host, REMOTE), Some(None));
}
