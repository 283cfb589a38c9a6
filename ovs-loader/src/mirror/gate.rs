//! The gate: what the fast path can't reproduce exactly is not accelerated, and here is why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::Program;

use crate::bridge::model::{
    AllBridges, Bridge, BridgeKind, Device, IfIndex, Port, StpState, Tunnel, Why,
};
use crate::config::Accelerate;
use crate::datapath::Hook;
use crate::rules::{HostRules, OuterFlow, TcFilters};
use crate::underlay::{Resolution, Target};

/// Everything a plan is made from.
pub struct Facts<'a> {
    /// The bridges.
    pub bridges: AllBridges<'a>,
    /// The way to each remote.
    pub resolve: &'a dyn Fn(&Target) -> Option<&'a Resolution>,
    /// The host's rules.
    pub rules: &'a HostRules,
    /// The configuration.
    pub settings: &'a Accelerate,
    /// How the programs are attached.
    pub hook: Hook,
    /// Bridges switched off by the operator.
    pub switched_off: &'a BTreeSet<String>,
    /// The ids of the programs of this daemon.
    pub own_programs: &'a BTreeSet<u32>,
    /// Devices that refused a program, with the kernel's words.
    pub refused: &'a BTreeMap<(u32, IfIndex), String>,
}

/// How many packets may pass between two visits to the bridge before an entry ages: three, so that
/// one or two may be lost.
const VISITS_PER_AGEING: u64 = 3;

/// How often a station's packet must pass the bridge, in whole seconds, given what ages entries.
/// `None` where that is too often.
pub(super) fn revalidate_seconds(
    settings: &Accelerate,
    ageing: impl IntoIterator<Item = std::time::Duration>,
) -> Option<u16> {
    let shortest = ageing.into_iter().map(|ageing| ageing.as_secs() / VISITS_PER_AGEING).min();
    let seconds = shortest.map_or(u64::from(settings.revalidate_seconds), |shortest| {
        shortest.min(u64::from(settings.revalidate_seconds))
    });
    u16::try_from(seconds).ok().filter(|&seconds| seconds > 0)
}

/// What stands against accelerating the bridge as a whole.
pub(super) fn bridge(facts: &Facts<'_>, bridge: &Bridge) -> Vec<Why> {
    let settings = facts.settings;
    let mut why = Vec::new();
    if facts.switched_off.contains(&bridge.name) {
        why.push(Why::from(Reason::SwitchedOff));
    }
    if settings.bridges.as_ref().is_some_and(|names| !names.contains(&bridge.name)) {
        why.push(Why::from(Reason::NotSelected));
    }
    if !bridge.up {
        why.push(Why::new(Reason::BridgeDown, format!("{} is down", bridge.name)));
    }
    if revalidate_seconds(settings, [bridge.ageing]).is_none() {
        let seconds = bridge.ageing.as_secs_f32();
        why.push(Why::new(Reason::AgeingTooShort, format!("ageing time {seconds} s")));
    }
    why.extend(bridge.unsupported.iter().cloned());
    if bridge.kind == BridgeKind::Linux {
        why.extend(bridge_netfilter(facts, bridge));
    }
    why
}

/// Rules on the hooks that the kernel's own bridge has and Open vSwitch has not.
fn bridge_netfilter(facts: &Facts<'_>, bridge: &Bridge) -> Vec<Why> {
    let mut why = Vec::new();
    if !facts.settings.bypass_nft_bridge
        && let Some(rules) = &facts.rules.nft_bridge
    {
        why.push(Why::new(Reason::NftBridge, rules));
    }
    if !facts.settings.bypass_br_netfilter
        && let Some(rules) = facts.rules.br_netfilter_of(bridge.nf_call)
    {
        why.push(Why::new(Reason::BrNetfilter, rules));
    }
    why
}

/// What stands against accelerating a port, tunnel ports included.
pub(super) fn port(facts: &Facts<'_>, port: &Port) -> Vec<Why> {
    let mut why = Vec::new();
    if !port.up {
        why.push(Why::new(Reason::PortDown, format!("{} is down or has no carrier", port.name)));
    }
    if port.stp != StpState::Forwarding {
        let state = format!("{:?}", port.stp).to_lowercase();
        why.push(Why::new(Reason::StpNotForwarding, format!("state {state}")));
    }
    if port.locked {
        why.push(Why::new(Reason::PortLocked, "locked on"));
    }
    why.extend(port.unsupported.iter().cloned());
    if let Device::Other(kind) = &port.device {
        why.push(Why::new(Reason::PortKind, kind));
    }
    // The device whose hooks the port's packets pass.
    let (ifindex, name) = match &port.device {
        Device::Tunnel(tunnel) => match &tunnel.device {
            Some(device) => (device.ifindex, &device.name),
            None => (port.ifindex, &port.name),
        },
        _ => (port.ifindex, &port.name),
    };
    device(facts, ifindex, name, &mut why);
    if let Device::Tunnel(_) = &port.device
        && let Some(tc) = facts.rules.tc.get(&ifindex)
    {
        // What is decapsulated here never gets to this device.
        let tcx = tc.ingress_tcx.first().map(|id| format!("TCX program {id}"));
        let filters = tc.ingress_classic.clone().into_iter().chain(tcx);
        let known: Vec<_> = why.iter().map(|why| why.detail.clone()).collect();
        let filters = filters.filter(|filter| !known.contains(filter));
        why.extend(filters.map(|filter| Why::new(Reason::IngressFilter, filter)));
        // Nor does what is encapsulated here. Other ports' queueing disciplines are passed.
        if !facts.settings.bypass_egress_filters
            && let Some(qdisc) = &tc.qdisc
        {
            why.push(Why::new(Reason::EgressFilter, qdisc));
        }
    }
    if let Some(refused) = facts.refused.get(&(Program::PortIngress as u32, port.ifindex)) {
        why.push(Why::new(Reason::AttachFailed, refused));
    }
    why
}

/// What on a device's own hooks would be gone around.
fn device(facts: &Facts<'_>, ifindex: IfIndex, name: &str, why: &mut Vec<Why>) {
    let settings = facts.settings;
    if !settings.bypass_nft_netdev
        && let Some(rules) = facts.rules.nft_netdev_of(name)
    {
        why.push(Why::new(Reason::NftNetdev, rules));
    }
    if let Some(tc) = facts.rules.tc.get(&ifindex) {
        why.extend(ingress(facts, tc));
        if !settings.bypass_egress_filters
            && let Some(filter) = &tc.egress
        {
            why.push(Why::new(Reason::EgressFilter, filter));
        }
    }
}

/// What stands against accelerating the way to one remote of a tunnel, given where it leads.
pub(super) fn uplink(
    facts: &Facts<'_>,
    tunnel: &Tunnel,
    target: &Target,
    local: IpAddr,
    uplink: IfIndex,
    uplink_name: Option<&str>,
) -> Vec<Why> {
    let mut why = Vec::new();
    let flow = OuterFlow {
        local: Some(local),
        remote: target.remote,
        protocol: target.protocol,
        dst_port: tunnel.dst_port,
        uplink,
    };
    // Never settable: a packet that should be encrypted would leave in the clear.
    if let Some(policy) = facts.rules.xfrm_covers(&flow) {
        why.push(Why::new(Reason::XfrmPolicy, policy));
    }
    if let Some(tc) = facts.rules.tc.get(&uplink) {
        why.extend(ingress(facts, tc));
    }
    if !facts.settings.bypass_nft_netdev
        && let Some(rules) = match uplink_name {
            Some(name) => facts.rules.nft_netdev_of(name),
            // Not named while the neighbour is unknown: any device with hooks may be it.
            None => facts.rules.nft_netdev.values().next().map(String::as_str),
        }
    {
        why.push(Why::new(Reason::NftNetdev, rules));
    }
    if let Some(refused) = facts.refused.get(&(Program::UplinkIngress as u32, uplink)) {
        why.push(Why::new(Reason::AttachFailed, refused));
    }
    why
}

/// What runs on a device's ingress after our programs, and so misses what they forward. Behind TCX
/// programs all classic filters do; behind our own classic filters, which are the last, those that
/// share their priority may. TCX programs do where they were attached behind ours, which are attached
/// last.
fn ingress<'a>(facts: &'a Facts<'_>, tc: &'a TcFilters) -> impl Iterator<Item = Why> + 'a {
    let own = |id: &u32| facts.own_programs.contains(id);
    let behind = tc.ingress_tcx.iter().skip_while(move |id| !own(id)).find(move |id| !own(id));
    let tcx = behind.map(|id| format!("TCX program {id}"));
    let classic = match facts.hook {
        Hook::Tcx => &tc.ingress_classic,
        Hook::Clsact => &tc.ingress_classic_last,
    };
    classic.clone().into_iter().chain(tcx).map(|filter| Why::new(Reason::IngressFilter, filter))
}
