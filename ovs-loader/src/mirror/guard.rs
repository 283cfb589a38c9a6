//! What the filter on the uplinks knows: which addresses and ports accelerated tunnels have for
//! themselves, and who may send there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::{GUARD_CAPACITY, GuardKey, GuardKind};

use super::plan::Plan;
use crate::bridge::model::{AllBridges, Device, Encap, IfIndex, Tunnel, Why};
use crate::underlay::Receiver;

/// Tunnels that receive by the same protocol and port: by encapsulation and UDP port, which is 0 for
/// GRE.
pub type Flow = (Encap, u16);

/// What the filter lets pass and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// The elements of `guards`.
    pub keys: BTreeSet<GuardKey>,
    /// The flows of accelerated tunnels, with what stands against filtering them.
    pub flows: BTreeMap<Flow, Vec<Why>>,
}

impl Guards {
    /// Decides on every flow.
    ///
    /// A packet is discarded for want of a tunnel only where every tunnel that may receive it is
    /// known to its last remote: all that receive by the flow must be an accelerated bridge's.
    #[must_use]
    pub fn make(bridges: AllBridges<'_>, plan: &Plan, receivers: &BTreeSet<Receiver>) -> Self {
        let mut guards = Self::default();
        let mut known = BTreeSet::<IfIndex>::new();
        for bridge in bridges.iter() {
            let Some(bridge_plan) = plan.bridges.get(&bridge.ifindex) else { continue };
            for port in bridge.ports.values() {
                let Device::Tunnel(tunnel) = &port.device else { continue };
                known.insert(tunnel.device.as_ref().map_or(port.ifindex, |device| device.ifindex));
                let why = guards.flows.entry(flow(tunnel)).or_default();
                let port_plan = bridge_plan.ports.get(&port.ifindex);
                let accelerated = port_plan.is_some_and(|plan| plan.why.is_empty());
                let shared = |what: &str| {
                    Why::new(Reason::XdpShared, format!("{} of {} {what}", port.name, bridge.name))
                };
                let remotes = known_remotes(tunnel);
                match (&remotes, accelerated) {
                    (_, false) => why.push(shared("is not accelerated")),
                    // The bridge may have use for those that no VLAN has, and for tags behind any.
                    _ if port.vlans.vnis.is_some() => why.push(shared("takes other VNIs too")),
                    (None, true) => why.push(shared("takes packets of any remote")),
                    (Some(remotes), true) => guards.keys.extend(allowed(tunnel, remotes)),
                }
                let ways = port_plan.and_then(|plan| plan.tunnels.as_ref()).into_iter().flatten();
                let locals = ways.filter_map(|(_, way)| Some(way.entry.as_ref()?.key.local()));
                guards.keys.extend(locals.map(|local| key(tunnel, local, GuardKind::Endpoint, 0)));
            }
        }
        for receiver in receivers {
            let is_known = receiver.ifindex.is_some_and(|ifindex| known.contains(&ifindex));
            if let Some(why) = guards.flows.get_mut(&(receiver.encap, receiver.dst_port))
                && !is_known
            {
                why.push(Why::new(Reason::XdpShared, &receiver.name));
            }
        }
        guards.keep_what_is_sure();
        guards
    }

    /// Leaves out the flows that are not filtered, and all if the map has no room.
    fn keep_what_is_sure(&mut self) {
        let Self { keys, flows } = self;
        // Nothing of it leads through an uplink: nothing to say either.
        flows.retain(|&flow, _| {
            keys.iter().any(|key| key.kind == GuardKind::Endpoint as u8 && of(key) == flow)
        });
        keys.retain(|key| flows.get(&of(key)).is_some_and(Vec::is_empty));
        if keys.len() > GUARD_CAPACITY {
            keys.clear();
            let limit = format!("more than {GUARD_CAPACITY} remotes and keys");
            flows.values_mut().for_each(|why| why.push(Why::new(Reason::Capacity, &limit)));
        }
    }
}

fn flow(tunnel: &Tunnel) -> Flow {
    (tunnel.encap, tunnel.dst_port)
}

/// The flow of an element of `guards`.
fn of(key: &GuardKey) -> Flow {
    let encap = if key.protocol == Encap::Gre.ip_protocol() { Encap::Gre } else { Encap::Vxlan };
    (encap, u16::from_be_bytes(key.dst_port))
}

/// All remotes of a tunnel; `None` where it has others than can be said.
fn known_remotes(tunnel: &Tunnel) -> Option<BTreeSet<IpAddr>> {
    let all: BTreeSet<_> = tunnel.remotes.iter().chain(tunnel.fdb.lists().flatten()).collect();
    let plain = |remote: IpAddr| match remote {
        IpAddr::V4(remote) => !remote.is_multicast() && !remote.is_broadcast(),
        IpAddr::V6(remote) => !remote.is_multicast(),
    };
    let definite = all.iter().all(|remote| remote.options.is_empty() && plain(remote.address));
    (definite && !all.is_empty()).then(|| all.iter().map(|remote| remote.address).collect())
}

/// What lets the packets of a tunnel pass.
fn allowed(tunnel: &Tunnel, remotes: &BTreeSet<IpAddr>) -> impl Iterator<Item = GuardKey> {
    let id = tunnel.key_in.unwrap_or(0);
    remotes.iter().flat_map(move |&remote| {
        [key(tunnel, remote, GuardKind::Remote, 0), key(tunnel, remote, GuardKind::Way, id)]
    })
}

fn key(tunnel: &Tunnel, address: IpAddr, kind: GuardKind, id: u32) -> GuardKey {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    GuardKey {
        address: address.octets(),
        key: id.to_be_bytes(),
        dst_port: tunnel.dst_port.to_be_bytes(),
        protocol: tunnel.encap.ip_protocol(),
        kind: kind as u8,
    }
}
