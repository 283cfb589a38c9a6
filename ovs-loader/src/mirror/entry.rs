//! One FDB entry: where the fast path sends its station's frames, or why it does not.

use std::borrow::Cow;

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::{self, FdbFlags, FdbValue};

use super::plan::{Plan, PortPlan, TunnelPlan};
use crate::bridge::model::{Bridge, Device, FdbEntry, FdbKey, FdbKind, Port, Remote, Tunnel, Why};

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
            remote(key, tunnel).map_or_else(Decision::refused, |remote| {
                ways.get(&remote.address).map_or_else(
                    || Decision::refused(Reason::NoRemote),
                    |way| behind_tunnel(port_plan, way, tagged),
                )
            })
        }
        _ => local(key, port, port_plan, tagged),
    }
}

/// The one remote that the tunnel sends the station's frames to.
fn remote<'a>(key: &FdbKey, tunnel: &'a Tunnel) -> Result<&'a Remote, Why> {
    match tunnel.remotes_of(key.mac) {
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
    let peer = if plan.peer == Some(key.mac) { FdbFlags::PEER } else { 0 };
    let value = FdbValue {
        target: port.ifindex,
        flags: plan.flags | peer | tagged,
        revalidate_seconds: plan.revalidate_seconds,
        mtu: plan.mtu,
        ..FdbValue::default()
    };
    Decision { value: Some(value), why: Cow::Borrowed(&[]) }
}

/// The key in the `fdb` map.
#[must_use]
pub fn map_key(bridge: &Bridge, key: &FdbKey) -> abi::FdbKey {
    abi::FdbKey { bridge: bridge.ifindex, vlan: key.vlan, mac: key.mac.0 }
}
