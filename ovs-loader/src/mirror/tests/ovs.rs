//! What differs for Open vSwitch's bridges, and what tunnels of several bridges have to do with one
//! another.

use ovs_ebpf_common::abi::{PortFlags, TunnelIndexFlags};

use super::*;
use crate::bridge::model::TunnelDevice;
use crate::rules::TcFilters;

/// A second bridge, with one tunnel and no other ports.
const SECOND: IfIndex = 20;
const SECOND_TUNNEL: IfIndex = 21;

fn gre(key: Option<u32>, local: Option<IpAddr>, remotes: &[IpAddr]) -> Tunnel {
    Tunnel {
        encap: Encap::Gre,
        local,
        key_in: key,
        key_out: key,
        dst_port: 0,
        source_ports: (0, 0),
        ageing: None,
        ..vxlan(0, remotes)
    }
}

/// A host whose first bridge has the one tunnel, and whose second bridge, which is switched off, has the
/// other.
fn two_tunnels(one: (BridgeKind, Tunnel), other: (BridgeKind, Tunnel)) -> Host {
    let mut host = Host::new();
    host.bridge().kind = one.0;
    host.bridge().ports.insert(VXLAN, tunnel_port(VXLAN, "one", one.1));
    let mut bridge = empty_bridge(SECOND, "br-two");
    bridge.kind = other.0;
    bridge.ports.insert(SECOND_TUNNEL, tunnel_port(SECOND_TUNNEL, "other", other.1));
    host.bridges.insert(SECOND, bridge);
    host.switched_off.insert("br-two".to_owned());
    host.resolve_all();
    host
}

/// What stands against the first bridge's way to its remote.
fn against_the_first(host: &Host) -> Vec<Reason> {
    let plan = host.plan();
    let port = &plan.bridges[&BRIDGE].ports[&VXLAN];
    let way = &port.tunnels.as_ref().expect("a tunnel")[&way(REMOTE)];
    assert_eq!(way.entry.is_none(), !way.why.is_empty());
    way.why.iter().map(|why| why.reason).collect()
}

#[test]
fn open_vswitchs_ports_and_tunnels_tell_of_new_stations_and_the_kernels_do_not() {
    for (kind, events) in [(BridgeKind::Linux, 0), (BridgeKind::Ovs, 1)] {
        let mut host = Host::new();
        host.bridge().kind = kind;
        let plan = host.plan();
        assert!(plan.ports().count() > 0 && plan.entries().count() > 0);
        assert!(plan.ports().all(|(_, value, _)| value.flags == PortFlags::EVENTS * events));
        assert!(plan.entries().all(|entry| entry.index.flags == TunnelIndexFlags::EVENTS * events));
    }
}

#[test]
fn filters_of_the_device_that_tunnels_share_stand_against_each_of_them() {
    const SHARED: IfIndex = 30;
    let mut host = Host::new();
    let device = TunnelDevice { ifindex: SHARED, name: "vxlan_sys_4789".to_owned() };
    host.tunnel().device = Some(device);
    assert_eq!(against_the_first(&host), []);
    let filters = TcFilters { ingress_tcx: vec![7], ..TcFilters::default() };
    host.rules.tc.insert(VXLAN, filters.clone());
    assert_eq!(against_the_first(&host), [], "not the device's");
    host.rules.tc.insert(SHARED, filters);
    assert!(against_the_first(&host).contains(&Reason::IngressFilter));
    host.rules.tc.clear();
    host.rules.nft_netdev.insert("vxlan_sys_4789".to_owned(), "chain c".to_owned());
    assert_eq!(against_the_first(&host), [Reason::NftNetdev]);
}

#[test]
fn a_tunnel_of_a_bridge_that_is_not_accelerated_may_still_take_the_packets() {
    use BridgeKind::{Linux, Ovs};
    let (any, here, elsewhere) = (None, Some(LOCAL), Some(address(9)));
    let tunnel = |key, local| gre(key, local, &[REMOTE]);
    for (one, other, clash) in [
        // The one that names its address goes first.
        ((Ovs, tunnel(Some(7), any)), (Ovs, tunnel(Some(7), here)), true),
        ((Ovs, tunnel(Some(7), here)), (Ovs, tunnel(Some(7), any)), false),
        ((Ovs, tunnel(Some(7), any)), (Ovs, tunnel(Some(7), elsewhere)), false),
        ((Linux, tunnel(Some(7), any)), (Linux, tunnel(Some(7), here)), true),
        // Nothing tells them apart.
        ((Ovs, tunnel(Some(7), here)), (Ovs, tunnel(Some(7), here)), true),
        ((Ovs, tunnel(Some(7), any)), (Ovs, tunnel(Some(7), any)), true),
        // Another key, another remote, another encapsulation.
        ((Ovs, tunnel(Some(7), any)), (Ovs, tunnel(Some(8), any)), false),
        ((Ovs, tunnel(Some(7), any)), (Ovs, gre(Some(7), any, &[OTHER_REMOTE])), false),
        ((Ovs, tunnel(Some(42), any)), (Ovs, vxlan(42, &[REMOTE])), false),
        // No key and key 0 are the same to Open vSwitch alone.
        ((Ovs, tunnel(None, any)), (Ovs, tunnel(Some(0), any)), true),
        ((Linux, tunnel(None, any)), (Linux, tunnel(Some(0), any)), false),
        // The kernel's own tunnels go before Open vSwitch's, those to any remote too.
        ((Ovs, tunnel(Some(7), here)), (Linux, tunnel(Some(7), any)), true),
        ((Ovs, tunnel(Some(7), here)), (Linux, tunnel(Some(7), elsewhere)), false),
        ((Ovs, tunnel(Some(7), here)), (Linux, gre(Some(7), any, &[])), true),
        ((Ovs, tunnel(Some(7), here)), (Linux, gre(Some(8), any, &[])), false),
        ((Ovs, tunnel(Some(7), here)), (Ovs, gre(Some(7), any, &[])), false),
        ((Linux, tunnel(Some(7), here)), (Linux, gre(Some(7), any, &[])), false),
    ] {
        let words = format!("{one:?}\n{other:?}");
        let expected = if clash { vec![Reason::TunnelClash] } else { vec![] };
        assert_eq!(against_the_first(&two_tunnels(one, other)), expected, "{words}");
    }
}
