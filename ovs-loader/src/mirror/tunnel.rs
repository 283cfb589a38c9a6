//! The ways of a tunnel to its remotes: what each one's map entries say, or why it has none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::{
    IndexKey, TUNNEL_CAPACITY, TunnelFlags, TunnelIndexFlags, TunnelIndexValue, TunnelKind,
    TunnelPath, TunnelValue,
};
use ovs_ebpf_common::wire::{ecn, outer};

use super::gate::{self, Facts};
use super::ids::TunnelIds;
use super::plan::{self, TunnelEntry, TunnelPlan, Way, Ways};
use crate::bridge::model::{
    AllBridges, Bridge, Device, Encap, FlowLabel, IfIndex, Mac, Port, Remote, Ttl, Tunnel, Why,
};
use crate::underlay::{Path, Target};

/// The underlay targets of all tunnels, accelerated or not, so that `status` can show their way.
#[must_use]
pub fn targets(bridges: AllBridges<'_>) -> BTreeSet<Target> {
    bridges
        .iter()
        .flat_map(|bridge| bridge.ports.values())
        .filter_map(|port| match &port.device {
            Device::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        })
        .flat_map(|tunnel| {
            remotes(tunnel)
                .into_iter()
                .filter(|(way, options)| options.is_empty() && !is_group(way.remote))
                .map(|(way, _)| target(tunnel, way))
        })
        .collect()
}

/// Where a tunnel sends to, each with the remote's options where it is never sent to without.
fn remotes(tunnel: &Tunnel) -> BTreeMap<Way, &str> {
    let mut remotes = BTreeMap::new();
    for remote in tunnel.remotes.iter().chain(tunnel.fdb.lists().flatten()) {
        let options = remotes.entry(remote.into()).or_insert(remote.options.as_str());
        // None sorts before any.
        *options = remote.options.as_str().min(options);
    }
    remotes
}

/// Whether a tunnel's ways were planned with this remote in mind.
pub(super) fn has_way(ways: &Ways, remote: &Remote) -> bool {
    let planned_without =
        |way: &TunnelPlan| way.why.iter().all(|why| why.reason != Reason::RemoteOptions);
    ways.get(&remote.into()).is_some_and(|way| !remote.options.is_empty() || planned_without(way))
}

fn target(tunnel: &Tunnel, way: Way) -> Target {
    // In metadata mode a VNI's own; no station has the zero address.
    let own = || tunnel.remotes_of(Mac::ZERO, way.vni).iter();
    Target {
        remote: way.remote,
        local: tunnel.local,
        tos: tunnel.tos.unwrap_or(0),
        inherits_tos: tunnel.tos.is_none() || tunnel.ect_1_inherits,
        protocol: tunnel.encap.ip_protocol(),
        dst_port: tunnel.dst_port,
        // The kernel binds the remote that the device was made with to the device's own, not those that were
        // appended to it without (`bridge fdb append`) or that it learns (`vxlan_snoop`).
        link: tunnel.link.filter(|_| own().any(|own| own.bound && own.address == way.remote)),
    }
}

fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// Decides on every way of a tunnel port, given what stands against the port.
pub(super) fn plan_ways(
    facts: &Facts<'_>,
    bridge: &Bridge,
    port_why: &[Why],
    port: &Port,
    tunnel: &Tunnel,
    ids: &mut TunnelIds,
) -> Ways {
    let mut plan = |to: Way, options: &str| {
        let mut way = TunnelPlan { why: port_why.to_vec(), entry: None, path: None };
        let vlan = match refusal(tunnel, to.remote, options).map_or_else(|| vlan(port, to), Err) {
            Ok(vlan) => vlan,
            Err(why) => {
                // The port says so too where it is the tunnel's own remote.
                if !way.why.iter().any(|known| known.reason == why.reason) {
                    way.why.push(why);
                }
                return way;
            }
        };
        let Some((uplink, local)) = find(facts, tunnel, to, &mut way) else { return way };
        // While only the neighbour is missing, what the remote sends can still be taken.
        if way.why.iter().any(|why| why.reason != Reason::NoNeighbour) {
            return way;
        }
        let key_in = to.vni.or(tunnel.key_in);
        let kind = kind(tunnel, key_in, to.remote);
        let key = IndexKey::new(kind, to.remote, local, key_in.unwrap_or(0), tunnel.dst_port);
        let Some(id) = ids.id(&key) else {
            way.why.push(Why::new(
                Reason::Capacity,
                format!("more than {} tunnels", TUNNEL_CAPACITY - 1),
            ));
            return way;
        };
        way.entry = Some(TunnelEntry {
            id,
            key,
            index: TunnelIndexValue {
                tunnel: id,
                bridge: bridge.ifindex,
                uplink,
                vlan,
                flags: index_flags(bridge, port),
                ..TunnelIndexValue::default()
            },
            value: tunnel_value(tunnel, way.path.as_ref(), local, to, port.mtu),
        });
        way
    };
    remotes(tunnel).into_iter().map(|(to, options)| (to, plan(to, options))).collect()
}

/// The VLAN of frames that come this way without a tag, as the maps have it.
fn vlan(port: &Port, way: Way) -> Result<u16, Why> {
    match &port.vlans.vnis {
        // Without a source VNI an entry is for VNI 0.
        Some(vnis) => vnis.vlan(way.vni.unwrap_or(0)),
        None => Ok(plan::untagged_vlan(port)),
    }
}

fn index_flags(bridge: &Bridge, port: &Port) -> u16 {
    let flag = |on, flag| if on { flag } else { 0 };
    flag(plan::needs_events(bridge), TunnelIndexFlags::EVENTS)
        | flag(plan::takes_tags(port), TunnelIndexFlags::TAGGED)
}

/// What stands against a remote whatever the underlay says.
fn refusal(tunnel: &Tunnel, remote: IpAddr, options: &str) -> Option<Why> {
    if !options.is_empty() {
        Some(Why::new(Reason::RemoteOptions, options))
    } else if is_group(remote) {
        Some(Why::new(Reason::TunnelGroup, remote.to_string()))
    } else if let Some(why) = tunnel.over_ipv6.as_ref().filter(|_| remote.is_ipv6()) {
        Some(why.clone())
    } else {
        let other = tunnel.local.filter(|local| local.is_ipv6() != remote.is_ipv6())?;
        let words = format!("from {other} to {remote}: addresses of two families");
        Some(Why::new(Reason::TunnelOption, words))
    }
}

/// Notes a way's path and what stands against it. Gives the device and the local address, where the
/// route says them.
fn find(
    facts: &Facts<'_>,
    tunnel: &Tunnel,
    to: Way,
    way: &mut TunnelPlan,
) -> Option<(IfIndex, IpAddr)> {
    let target = target(tunnel, to);
    let (uplink, local) = match (facts.resolve)(&target) {
        Some(Ok(path)) => {
            way.path = Some(path.clone());
            (path.uplink, path.local)
        }
        Some(Err(unresolved)) => {
            way.why.push(unresolved.why.clone());
            let route = unresolved.route?;
            (route.uplink, route.local)
        }
        // Its first look-up is under way.
        None => {
            way.why.push(Why::from(Reason::NoRoute));
            return None;
        }
    };
    let name = way.path.as_ref().map(|path| path.uplink_name.as_str());
    way.why.extend(gate::uplink(facts, tunnel, &target, local, uplink, name));
    Some((uplink, local))
}

fn kind(tunnel: &Tunnel, key: Option<u32>, remote: IpAddr) -> TunnelKind {
    match (tunnel.encap, key, remote) {
        (Encap::Vxlan, _, IpAddr::V4(_)) => TunnelKind::VxlanIpv4,
        (Encap::Gre, Some(_), IpAddr::V4(_)) => TunnelKind::GreKeyIpv4,
        (Encap::Gre, None, IpAddr::V4(_)) => TunnelKind::GreIpv4,
        (Encap::Vxlan, _, IpAddr::V6(_)) => TunnelKind::VxlanIpv6,
        (Encap::Gre, Some(_), IpAddr::V6(_)) => TunnelKind::GreKeyIpv6,
        (Encap::Gre, None, IpAddr::V6(_)) => TunnelKind::GreIpv6,
    }
}

/// `device_mtu` is the tunnel device's own: the bridge drops what is larger before it gets there.
fn tunnel_value(
    tunnel: &Tunnel,
    path: Option<&Path>,
    local: IpAddr,
    to: Way,
    device_mtu: u32,
) -> TunnelValue {
    let key_out = to.vni.or(tunnel.key_out);
    let kind = kind(tunnel, key_out, to.remote);
    let of_route = path.and_then(|path| path.hop_limit);
    let mut value = TunnelValue {
        tos: tunnel.tos.unwrap_or(0) & !ecn::MASK,
        ttl: match tunnel.ttl {
            Ttl::Fixed(ttl) => ttl,
            Ttl::Route(ttl) => of_route.unwrap_or(ttl),
            Ttl::Inherit => tunnel.ttl_behind_tag.map_or(0, |ttl| of_route.unwrap_or(ttl)),
        },
        source_port_min: tunnel.source_ports.0,
        source_port_span: tunnel.source_ports.1.saturating_sub(tunnel.source_ports.0),
        ..TunnelValue::default()
    };
    let flag = |flags: &mut u8, on, flag| *flags |= if on { flag } else { 0 };
    flag(&mut value.flags, tunnel.tos.is_none(), TunnelFlags::TOS_INHERIT);
    flag(&mut value.flags, tunnel.ect_1_inherits, TunnelFlags::ECT_1_INHERIT);
    flag(&mut value.flags, tunnel.ttl == Ttl::Inherit, TunnelFlags::TTL_INHERIT);
    flag(&mut value.flags, tunnel.ttl_behind_tag.is_some(), TunnelFlags::TAG_HIDES);
    flag(&mut value.flags, !kind.is_ipv6() && !tunnel.df, TunnelFlags::NEEDS_ID);
    let (flow_label, per_flow) = match tunnel.flow_label {
        FlowLabel::Fixed(label) => (label, false),
        FlowLabel::Flow => (0, kind.is_ipv6()),
    };
    flag(&mut value.flags, per_flow, TunnelFlags::FLOW_LABEL);
    let Some(path) = path else { return value };
    let (header, checksum_seed) = outer::template(
        kind,
        &outer::Outer {
            destination_mac: path.next_hop_mac.0,
            source_mac: path.source_mac.0,
            local,
            remote: to.remote,
            key: key_out.unwrap_or(0),
            dst_port: tunnel.dst_port,
            df: tunnel.df,
            flow_label,
        },
    );
    // What the outer headers and the inner Ethernet header leave of the underlay's MTU.
    let overhead = kind.header_len() as u32;
    let (next_hop_family, next_hop) = family_and_bytes(path.next_hop);
    value.flags |= TunnelFlags::READY;
    value.paths[0] = TunnelPath {
        header,
        checksum_seed,
        uplink: path.uplink,
        mtu: path.mtu.saturating_sub(overhead).min(device_mtu),
        kind: kind as u8,
        next_hop,
        next_hop_family,
        ..TunnelPath::default()
    };
    value
}

/// An address as `bpf_redirect_neigh` takes it.
fn family_and_bytes(address: IpAddr) -> (u32, [u8; 16]) {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            (libc::AF_INET as u32, bytes)
        }
        IpAddr::V6(address) => (libc::AF_INET6 as u32, address.octets()),
    }
}
