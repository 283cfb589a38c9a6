//! One FDB entry: where the fast path sends its station's frames, or why it does not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::{self, FdbFlags, FdbValue};

use super::plan::{Plan, PortPlan, TunnelPlan, Way};
use crate::bridge::model::{
    Bridge, Device, FdbEntry, FdbKey, FdbKind, IfIndex, Port, Remote, Tunnel, VethPeer, Why,
};
use crate::bridge::vlans::PortVlans;

/// What becomes of an FDB entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What the `fdb` map should say, if anything.
    pub value: Option<FdbValue>,
    /// Why frames to the station do not take the fast path; empty if they do.
    pub why: Cow<'a, [Why]>,
}

impl<'a> Decision<'a> {
    fn refused(why: impl Into<Why>) -> Self {
        Self { value: None, why: Cow::Owned(vec![why.into()]) }
    }

    fn refused_like(why: &'a [Why]) -> Self {
        Self { value: None, why: Cow::Borrowed(why) }
    }
}

/// Decides on an entry of a bridge that the plan was made for.
#[must_use]
pub fn decide<'a>(plan: &'a Plan, bridge: &Bridge, key: &FdbKey, entry: &FdbEntry) -> Decision<'a> {
    let Some(bridge_plan) = plan.bridges.get(&bridge.ifindex) else {
        return Decision::refused(Reason::PortNotAccelerated);
    };
    if !bridge_plan.why.is_empty() {
        return Decision::refused_like(&bridge_plan.why);
    }
    if key.mac.is_group() {
        return Decision::refused(Reason::FdbGroup);
    }
    match entry.kind {
        FdbKind::Local => return Decision::refused(Reason::FdbLocal),
        FdbKind::Locked => return Decision::refused(Reason::FdbLocked),
        FdbKind::Static | FdbKind::Dynamic => {}
    }
    let (Some(port), Some(port_plan)) =
        (bridge.ports.get(&entry.port), bridge_plan.ports.get(&entry.port))
    else {
        return Decision::refused(Reason::PortNotAccelerated);
    };
    if !port.vlans.carries.contains(key.vlan) {
        let words = format!("{} is not in VLAN {}", port.name, key.vlan);
        return Decision::refused(Why::new(Reason::FdbVlan, words));
    }
    // What the programs know as VLAN 0 has no tag.
    let strips = key.vlan == 0 || port.vlans.strips.contains(key.vlan);
    let tagged = if strips { 0 } else { FdbFlags::TAGGED };
    match (&port.device, &port_plan.tunnels) {
        (Device::Tunnel(tunnel), Some(ways)) => {
            remote(key, port, tunnel).map_or_else(Decision::refused, |remote| {
                ways.get(&remote.into()).map_or_else(
                    || Decision::refused(Reason::NoRemote),
                    |way| behind_tunnel(port_plan, way, tagged),
                )
            })
        }
        _ => local(key, port, port_plan, tagged),
    }
}

/// What the values of a bridge's entries depend on, besides the entries and their stations' own
/// remotes: while it stays, nothing but a change of these changes a value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Basis {
    /// By ifindex; none where the bridge is not accelerated.
    ports: BTreeMap<IfIndex, PortBasis>,
}

#[derive(Debug, PartialEq, Eq)]
struct PortBasis {
    accelerated: bool,
    flags: u16,
    mtu: u32,
    revalidate_seconds: u16,
    peer: Option<VethPeer>,
    vlans: PortVlans,
    tunnel: Option<TunnelBasis>,
}

#[derive(Debug, PartialEq, Eq)]
struct TunnelBasis {
    /// Its remotes for stations without their own.
    flood: Vec<Remote>,
    /// Every way it has: the tunnel's id, and what that means.
    ways: BTreeMap<Way, Option<(u32, abi::IndexKey)>>,
}

impl Basis {
    /// Of a bridge that the plan was made for.
    pub(super) fn of(plan: &Plan, bridge: &Bridge) -> Self {
        let planned = plan.bridges.get(&bridge.ifindex).filter(|plan| plan.why.is_empty());
        let Some(planned) = planned else { return Self::default() };
        let basis = |port: &Port| Some(PortBasis::of(port, planned.ports.get(&port.ifindex)?));
        let ports = bridge.ports.values();
        Self { ports: ports.filter_map(|port| Some((port.ifindex, basis(port)?))).collect() }
    }
}

impl PortBasis {
    fn of(port: &Port, plan: &PortPlan) -> Self {
        let way = |way: &TunnelPlan| way.entry.as_ref().map(|entry| (entry.id, entry.key));
        let tunnel = match (&port.device, &plan.tunnels) {
            (Device::Tunnel(tunnel), Some(ways)) => {
                let ways = ways.iter().map(|(key, plan)| (*key, way(plan))).collect();
                Some(TunnelBasis { flood: tunnel.remotes.clone(), ways })
            }
            _ => None,
        };
        Self {
            accelerated: plan.why.is_empty(),
            flags: plan.flags,
            mtu: plan.mtu,
            revalidate_seconds: plan.revalidate_seconds,
            peer: plan.peer,
            vlans: port.vlans.clone(),
            tunnel,
        }
    }
}

/// The one remote that the tunnel sends the station's frames to.
fn remote<'a>(key: &FdbKey, port: &Port, tunnel: &'a Tunnel) -> Result<&'a Remote, Why> {
    match tunnel.remotes_of(key.mac, port.vlans.vni(key.vlan)?) {
        [] => Err(Why::from(Reason::NoRemote)),
        [remote] if remote.options.is_empty() => Ok(remote),
        [remote] => Err(Why::new(Reason::RemoteOptions, &remote.options)),
        several => Err(Why::new(Reason::SeveralRemotes, format!("{} remotes", several.len()))),
    }
}

fn behind_tunnel<'a>(port: &PortPlan, way: &'a TunnelPlan, tagged: u16) -> Decision<'a> {
    let value = way.entry.as_ref().map(|entry| FdbValue {
        target: entry.id,
        flags: FdbFlags::TUNNEL | port.flags | tagged,
        revalidate_seconds: port.revalidate_seconds,
        ..FdbValue::default()
    });
    Decision { value, why: Cow::Borrowed(&way.why) }
}

fn local<'a>(key: &FdbKey, port: &Port, plan: &'a PortPlan, tagged: u16) -> Decision<'a> {
    if !plan.why.is_empty() {
        return Decision::refused_like(&plan.why);
    }
    // `bpf_redirect_peer` goes around `veth_xmit`, which drops what is larger than the peer's MTU.
    let (peer, mtu) = match plan.peer.filter(|peer| peer.mac == key.mac) {
        Some(peer) => (FdbFlags::PEER, plan.mtu.min(peer.mtu)),
        None => (0, plan.mtu),
    };
    let value = FdbValue {
        target: port.ifindex,
        flags: plan.flags | peer | tagged,
        revalidate_seconds: plan.revalidate_seconds,
        mtu,
        ..FdbValue::default()
    };
    Decision { value: Some(value), why: Cow::Borrowed(&[]) }
}

/// The key in the `fdb` map.
#[must_use]
pub fn map_key(bridge: &Bridge, key: &FdbKey) -> abi::FdbKey {
    abi::FdbKey { bridge: bridge.ifindex, vlan: key.vlan, mac: key.mac.0 }
}
