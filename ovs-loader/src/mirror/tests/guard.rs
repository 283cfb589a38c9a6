//! What the filter on the uplinks is told.

use ovs_ebpf_common::abi::GuardKind;

use super::*;
use crate::mirror::Guards;
use crate::underlay::Receiver;

fn guards(host: &Host, receivers: &[Receiver]) -> Guards {
    Guards::make(host.all(), &host.plan(), &receivers.iter().cloned().collect())
}

/// Kinds, addresses and keys of the guards.
fn keys(guards: &Guards) -> Vec<(u8, IpAddr, u32)> {
    let key = |key: &ovs_ebpf_common::abi::GuardKey| {
        assert_eq!((key.protocol, key.dst_port), (17, 4789u16.to_be_bytes()));
        (key.kind, IpAddr::from(key.address).to_canonical(), u32::from_be_bytes(key.key))
    };
    let mut keys: Vec<_> = guards.keys.iter().map(key).collect();
    keys.sort_unstable();
    keys
}

fn device(ifindex: Option<IfIndex>, dst_port: u16) -> Receiver {
    Receiver { encap: Encap::Vxlan, dst_port, ifindex, name: "vxlan7".to_owned() }
}

#[test]
fn the_endpoint_and_every_remote_with_its_key_are_known() {
    let guards = guards(&Host::new(), &[device(Some(VXLAN), 4789)]);
    let (endpoint, remote, way) =
        (GuardKind::Endpoint as u8, GuardKind::Remote as u8, GuardKind::Way as u8);
    assert_eq!(
        keys(&guards),
        [
            (endpoint, LOCAL, 0),
            (remote, REMOTE, 0),
            (remote, OTHER_REMOTE, 0),
            (way, REMOTE, 42),
            (way, OTHER_REMOTE, 42),
        ]
    );
    assert_eq!(guards.flows[&(Encap::Vxlan, 4789)], []);
}

#[test]
fn whoever_else_may_receive_stops_the_filter() {
    for receiver in [device(Some(77), 4789), device(None, 4789)] {
        let guards = guards(&Host::new(), std::slice::from_ref(&receiver));
        assert!(guards.keys.is_empty(), "{receiver:?}");
        let why = [Why::new(Reason::XdpShared, "vxlan7")];
        assert_eq!(guards.flows[&(Encap::Vxlan, 4789)], why);
    }
    let elsewhere = Receiver { encap: Encap::Gre, dst_port: 0, ..device(None, 0) };
    let others = guards(&Host::new(), &[device(None, 8472), elsewhere]);
    assert_eq!(others, guards(&Host::new(), &[]), "they receive other packets");
}

#[test]
fn one_tunnel_that_is_not_accelerated_or_not_known_to_its_last_remote_stops_the_filter() {
    let cases: [(&str, Fact); 5] = [
        ("down", |host| host.port(VXLAN).up = false),
        ("another bridge's", |host| {
            let mut bridge = empty_bridge(20, "br-b");
            bridge.up = false;
            bridge.ports.insert(21, tunnel_port(21, "vxlan7", vxlan(7, &[REMOTE])));
            host.bridges.insert(20, bridge);
        }),
        ("a group", |host| {
            let group = "239.0.0.1".parse().expect("an address");
            host.tunnel().remotes.push(plain(group));
        }),
        ("a remote with options", |host| {
            host.tunnel().fdb.insert(FAR, &[Remote { options: "nhid 1".into(), ..plain(REMOTE) }]);
        }),
        ("no remotes", |host| {
            let mut bridge = empty_bridge(20, "br-b");
            bridge.ports.insert(21, tunnel_port(21, "vxlan7", vxlan(7, &[])));
            host.bridges.insert(20, bridge);
        }),
    ];
    for (name, change) in cases {
        let mut host = Host::new();
        change(&mut host);
        host.resolve_all();
        let guards = guards(&host, &[]);
        assert!(guards.keys.is_empty(), "{name}: {:?}", guards.keys);
    }
}

#[test]
fn a_tunnel_without_a_way_has_remotes_all_the_same() {
    let mut host = Host::new();
    *host.resolution() = no_neighbour();
    let with_neighbour = guards(&Host::new(), &[]);
    assert_eq!(guards(&host, &[]), with_neighbour);
    host.bridge().ports.insert(14, tunnel_port(14, "vxlan43", vxlan(43, &[address(9)])));
    host.resolutions.insert(
        targets(host.all()).into_iter().find(|target| target.remote == address(9)).unwrap(),
        Err(Unresolved { why: Why::from(Reason::NoRoute), route: None }),
    );
    let guards = guards(&host, &[]);
    assert!(keys(&guards).contains(&(GuardKind::Way as u8, address(9), 43)));
}

#[test]
fn an_ipv6_underlay_is_filtered_by_its_own_addresses() {
    let mut host = Host::new();
    let (local, remote): (IpAddr, IpAddr) =
        ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
    let mut tunnel = vxlan(42, &[remote]);
    tunnel.local = Some(local);
    host.port(VXLAN).device = Device::Tunnel(Box::new(tunnel));
    host.resolve_all();
    let kinds = [GuardKind::Endpoint, GuardKind::Remote, GuardKind::Way].map(|kind| kind as u8);
    let expected = [(kinds[0], local, 0), (kinds[1], remote, 0), (kinds[2], remote, 42)];
    assert_eq!(keys(&guards(&host, &[])), expected);
}
