//! Ports whose packets are larger than the tunnels beside them take.

use std::net::IpAddr;

use ovs_ebpf_common::abi::TunnelKind;

use crate::bridge::model::{AllBridges, Bridge, Device, Port};
use crate::mirror::{BridgePlan, Plan};

/// How many ports a warning names.
const NAMED: usize = 3;

/// The narrowest way out of a bridge.
struct Narrowest<'a> {
    tunnel: &'a str,
    remote: IpAddr,
    uplink: &'a str,
    /// In bytes of the packet within the Ethernet frame, outside and inside.
    underlay: u32,
    fits: u32,
}

/// One warning for each accelerated bridge that has veths whose containers send larger packets than
/// what the underlay leaves of its MTU for a tunnel's.
pub(super) fn warnings(bridges: AllBridges<'_>, plan: &Plan) -> Vec<String> {
    bridges
        .iter()
        .filter_map(|bridge| {
            let plan = plan.bridges.get(&bridge.ifindex).filter(|plan| plan.why.is_empty())?;
            let narrowest = narrowest(bridge, plan)?;
            let larger: Vec<_> = bridge
                .ports
                .values()
                .filter_map(|port| Some((port.name.as_str(), sent(port)?)))
                .filter(|(_, mtu)| *mtu > narrowest.fits)
                .collect();
            (!larger.is_empty()).then(|| sentence(&bridge.name, &larger, &narrowest))
        })
        .collect()
}

/// The size of the largest packets that come out of a veth, in bytes: each of its ends has an MTU, and
/// the kernel forwards nothing larger than the nearer one's (`__is_skb_forwardable`).
fn sent(port: &Port) -> Option<u32> {
    match port.device {
        Device::Veth(peer) => Some(peer.map_or(port.mtu, |peer| peer.mtu.min(port.mtu))),
        _ => None,
    }
}

fn narrowest<'a>(bridge: &'a Bridge, plan: &'a BridgePlan) -> Option<Narrowest<'a>> {
    let ways = plan.ports.iter().flat_map(|(ifindex, port)| {
        let name = bridge.ports.get(ifindex).map_or("", |port| &port.name);
        port.tunnels.iter().flatten().map(move |(to, way)| (name, to.remote, way))
    });
    let found = ways.filter_map(|(tunnel, remote, way)| {
        let path = way.path.as_ref()?;
        let sent = way.entry.as_ref()?.value.paths[0].kind;
        let kind = TunnelKind::ALL.into_iter().find(|kind| *kind as u8 == sent)?;
        // The outer headers and the inner Ethernet header, which is as long as the outer one.
        let overhead = kind.header_len() as u32;
        Some(Narrowest {
            tunnel,
            remote,
            uplink: &path.uplink_name,
            underlay: path.mtu,
            fits: path.mtu.saturating_sub(overhead),
        })
    });
    found.min_by_key(|way| way.fits)
}

fn sentence(bridge: &str, larger: &[(&str, u32)], way: &Narrowest<'_>) -> String {
    let named: Vec<_> =
        larger.iter().take(NAMED).map(|(name, mtu)| format!("{name} ({mtu})")).collect();
    let mut ports = named.join(", ");
    if larger.len() > NAMED {
        ports += &format!(" and {} more", larger.len() - NAMED);
    }
    let Narrowest { tunnel, remote, uplink, underlay, fits } = way;
    let overhead = underlay - fits;
    let largest = larger.iter().map(|(_, mtu)| *mtu).max().unwrap_or_default();
    format!(
        "{bridge}: the MTU behind {ports} is above the {fits} bytes that {tunnel} to {remote} takes \
         ({uplink} has {underlay}, the headers need {overhead}), and larger packets pass the bridge: \
         set the containers' MTU to {fits}, or the underlay's to {}",
        largest + overhead
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_names_some_ports_both_sizes_and_both_ways_out() {
        let way = Narrowest {
            tunnel: "vxlan0",
            remote: "2001:db8::2".parse().unwrap(),
            uplink: "eth0",
            underlay: 1500,
            fits: 1430,
        };
        let ports = [("a", 1500), ("b", 1450), ("c", 9000), ("d", 1500), ("e", 1431)];
        assert_eq!(
            sentence("br-ex", &ports, &way),
            "br-ex: the MTU behind a (1500), b (1450), c (9000) and 2 more is above the 1430 bytes that \
             vxlan0 to 2001:db8::2 takes (eth0 has 1500, the headers need 70), and larger packets pass \
             the bridge: set the containers' MTU to 1430, or the underlay's to 9070"
        );
        assert!(sentence("br-ex", &ports[..1], &way).contains("the MTU behind a (1500) is above"));
    }
}
