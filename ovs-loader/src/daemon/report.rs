//! What the daemon reports, made from the model, the plan and the counters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use ovs_ebpf_common::abi::{self, Program};

use super::sizes;
use crate::api::report::{
    BridgeStatus, Fast, FdbCount, FdbEntry, FdbReport, FlowStatus, PortSecurity, PortStatus,
    Source, Stats, Status, Traffic, Tunnel, TunnelReport, TunnelStatus, UplinkStatus, Why,
    XdpStatus,
};
use crate::bridge::model::{self, AllBridges, Bridge, BridgeKind, Device, Encap, FdbKey, FdbKind};
use crate::datapath::{SecurityTables, Tables};
use crate::mirror::{Applied, BridgePlan, Plan, Secured, SecuredPort, TunnelPlan, Way, entry};
use crate::rules::HostRules;

use super::filter::Filter;

/// The model and what was decided on it.
pub(super) struct View<'a> {
    pub(super) bridges: AllBridges<'a>,
    pub(super) plan: &'a Plan,
    /// What is in the maps; `None` without a daemon.
    pub(super) applied: Option<&'a Applied>,
    /// The ports that are limited.
    pub(super) secured: &'a Secured,
    /// Where is counted what they are kept from; `None` without a daemon.
    pub(super) tables: Option<&'a SecurityTables>,
    /// The containers' names by their ports.
    pub(super) containers: BTreeMap<String, String>,
}

impl View<'_> {
    /// Everything, with its reasons.
    pub(super) fn status(
        &self,
        lease_seconds: u32,
        warnings: Vec<String>,
        filter: &Filter,
    ) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            abi: abi::VERSION,
            lease_seconds,
            warnings,
            xdp: xdp(filter),
            bridges: self.planned(None).map(|(bridge, plan)| self.bridge(bridge, plan)).collect(),
        }
    }

    /// The FDB of one bridge or all.
    pub(super) fn fdb(&self, name: Option<&str>) -> FdbReport {
        let mut entries = Vec::new();
        for (bridge, _) in self.planned(name) {
            let mut keys: Vec<_> = bridge.fdb.keys().collect();
            keys.sort_unstable();
            entries.extend(keys.into_iter().map(|key| self.entry(bridge, key)));
        }
        FdbReport { entries }
    }

    /// The tunnels of one bridge or all, with their traffic where there are maps.
    pub(super) fn tunnels(
        &self,
        name: Option<&str>,
        tables: Option<&Tables>,
    ) -> Result<TunnelReport> {
        let mut tunnels = Vec::new();
        for (bridge, plan) in self.planned(name) {
            for (status, tunnel) in tunnels_of(bridge, plan) {
                let id = tunnel.and_then(|tunnel| tunnel.entry.as_ref()).map(|entry| entry.id);
                let traffic = match (id, tables) {
                    (Some(id), Some(tables)) => {
                        tables.tunnel_counters(id).context("cannot read the tunnel's counters")?
                    }
                    _ => Default::default(),
                };
                tunnels.push(Tunnel {
                    bridge: bridge.name.clone(),
                    id,
                    status,
                    tx: Traffic { packets: traffic.tx_packets, bytes: traffic.tx_bytes },
                    rx: Traffic { packets: traffic.rx_packets, bytes: traffic.rx_bytes },
                });
            }
        }
        Ok(TunnelReport { tunnels })
    }

    fn planned(&self, name: Option<&str>) -> impl Iterator<Item = (&Bridge, &BridgePlan)> {
        self.bridges
            .iter()
            .filter(move |bridge| name.is_none_or(|name| bridge.name == name))
            .filter_map(|bridge| Some((bridge, self.plan.bridges.get(&bridge.ifindex)?)))
    }

    fn bridge(&self, bridge: &Bridge, plan: &BridgePlan) -> BridgeStatus {
        let ports = bridge
            .ports
            .values()
            .filter(|port| !matches!(port.device, Device::Tunnel(_)))
            .map(|port| {
                let why = plan.ports.get(&port.ifindex).map(|port| whys(&port.why));
                let why = why.unwrap_or_default();
                PortStatus {
                    name: port.name.clone(),
                    ifindex: port.ifindex,
                    container: self.containers.get(&port.name).cloned(),
                    device: match &port.device {
                        Device::Veth(_) => "veth".to_owned(),
                        Device::Other(kind) => kind.clone(),
                        Device::Ethernet | Device::Tunnel(_) => "ethernet".to_owned(),
                    },
                    accelerated: why.is_empty(),
                    why,
                    security: self.security(port.ifindex),
                }
            })
            .collect();
        let accelerated =
            bridge.fdb.keys().filter(|key| self.decide(bridge, key).is_empty()).count();
        BridgeStatus {
            name: bridge.name.clone(),
            ifindex: bridge.ifindex,
            kind: match bridge.kind {
                BridgeKind::Linux => "linux",
                BridgeKind::Ovs => "ovs",
            }
            .to_owned(),
            accelerated: plan.why.is_empty(),
            why: whys(&plan.why),
            ports,
            tunnels: tunnels_of(bridge, plan).map(|(status, _)| status).collect(),
            fdb: FdbCount { entries: bridge.fdb.len() as u64, accelerated: accelerated as u64 },
        }
    }

    fn security(&self, ifindex: model::IfIndex) -> Option<PortSecurity> {
        let port @ SecuredPort { macs, addresses, flood_limit, why, .. } =
            self.secured.ports.get(&ifindex)?;
        let refused = |why: &model::Why| why.reason == ovs_ebpf_common::Reason::AttachFailed;
        Some(PortSecurity {
            enforced: port.is_possible() && !why.iter().any(refused),
            macs: macs.iter().map(ToString::to_string).collect(),
            addresses: addresses.iter().copied().collect(),
            flood_limit: *flood_limit,
            discarded: self.tables.map_or(0, |tables| tables.discarded(ifindex)),
            why: whys(why),
        })
    }

    fn entry(&self, bridge: &Bridge, key: &FdbKey) -> FdbEntry {
        let entry = &bridge.fdb[key];
        let why = self.decide(bridge, key);
        let port = bridge.ports.get(&entry.port);
        let remote = port.and_then(|port| match &port.device {
            Device::Tunnel(tunnel) => {
                match tunnel.remotes_of(key.mac, port.vlans.vni(key.vlan).ok()?) {
                    [remote] => Some(remote.address),
                    _ => None,
                }
            }
            _ => None,
        });
        FdbEntry {
            bridge: bridge.name.clone(),
            mac: key.mac.to_string(),
            vlan: key.vlan,
            kind: match entry.kind {
                FdbKind::Local => "local",
                FdbKind::Static => "static",
                FdbKind::Dynamic => "dynamic",
                FdbKind::Locked => "locked",
            }
            .to_owned(),
            container: port.and_then(|port| self.containers.get(&port.name)).cloned(),
            port: port.map_or_else(|| bridge.name.clone(), |port| port.name.clone()),
            remote,
            accelerated: why.is_empty(),
            why: whys(&why),
        }
    }

    /// Why an entry is not accelerated, down to a full map.
    fn decide(&self, bridge: &Bridge, key: &FdbKey) -> Vec<model::Why> {
        let mut why = entry::decide(self.plan, bridge, key, &bridge.fdb[key]).why.into_owned();
        if let Some(applied) = self.applied
            && why.is_empty()
            && applied.is_refused(&entry::map_key(bridge, key))
        {
            why.push(model::Why::new(
                ovs_ebpf_common::Reason::Capacity,
                "raise accelerate.fdb_capacity",
            ));
        }
        why
    }
}

/// A bridge's tunnels, one for each remote; a tunnel without remotes once.
fn tunnels_of<'a>(
    bridge: &'a Bridge,
    plan: &'a BridgePlan,
) -> impl Iterator<Item = (TunnelStatus, Option<&'a TunnelPlan>)> {
    bridge.ports.values().flat_map(move |port| {
        let (Device::Tunnel(tunnel), Some(port_plan)) =
            (&port.device, plan.ports.get(&port.ifindex))
        else {
            return Vec::new();
        };
        let status = |to: Option<Way>, way: Option<&TunnelPlan>| {
            let path = way.and_then(|way| way.path.as_ref());
            let ready = way.and_then(|way| way.entry.as_ref()).filter(|_| path.is_some());
            let why = whys(way.map_or(&port_plan.why, |way| &way.why));
            TunnelStatus {
                name: port.name.clone(),
                encap: tunnel.encap.name().to_owned(),
                local: path.map(|path| path.local).or(tunnel.local),
                remote: to.map(|to| to.remote),
                key: to.and_then(|to| to.vni).or(tunnel.key_out),
                dst_port: (tunnel.encap == Encap::Vxlan).then_some(tunnel.dst_port),
                uplink: path.map(|path| path.uplink_name.clone()),
                next_hop: path.map(|path| path.next_hop),
                mtu: ready.map(|entry| entry.value.paths[0].mtu),
                accelerated: why.is_empty() && way.is_some(),
                why,
            }
        };
        let ways = port_plan.tunnels.iter().flatten();
        let mut tunnels: Vec<_> =
            ways.map(|(to, way)| (status(Some(*to), Some(way)), Some(way))).collect();
        if tunnels.is_empty() {
            let mut status = status(None, None);
            status.why.push(Why::from(&model::Why::from(ovs_ebpf_common::Reason::NoRemote)));
            tunnels.push((status, None));
        }
        tunnels
    })
}

fn whys(why: &[model::Why]) -> Vec<Why> {
    why.iter().map(Why::from).collect()
}

fn xdp(filter: &Filter) -> XdpStatus {
    let uplinks = filter.uplinks.iter().map(|(&ifindex, uplink)| UplinkStatus {
        name: uplink.name.clone(),
        ifindex,
        filtered: uplink.why.is_empty(),
        why: whys(&uplink.why),
    });
    let flows = filter.guards.flows.iter().map(|(&(encap, dst_port), why)| FlowStatus {
        encap: encap.name().to_owned(),
        dst_port: (encap == Encap::Vxlan).then_some(dst_port),
        filtered: why.is_empty(),
        why: whys(why),
    });
    XdpStatus {
        mode: filter.mode.name().to_owned(),
        uplinks: uplinks.collect(),
        flows: flows.collect(),
    }
}

/// The counters.
pub(super) fn stats(tables: &Tables) -> Result<Stats> {
    let mut reasons = BTreeMap::new();
    let mut discarded = BTreeMap::new();
    let mut traffic = |program| -> Result<Traffic> {
        let counters = tables.counters(program).context("cannot read the counters")?;
        for (reason, count) in counters.reasons {
            let counts = if reason.discards() { &mut discarded } else { &mut reasons };
            *counts.entry(reason.name().to_owned()).or_insert(0) += count;
        }
        Ok(Traffic { packets: counters.packets, bytes: counters.bytes })
    };
    let fast = Fast {
        port_ingress: traffic(Program::PortIngress)?,
        uplink_ingress: traffic(Program::UplinkIngress)?,
    };
    traffic(Program::UplinkXdp)?;
    traffic(Program::PortSecurity)?;
    let sources = tables.sources().context("cannot read the filter's sources")?;
    let mut sources: Vec<_> = sources
        .into_iter()
        .map(|(address, counters)| Source {
            address: IpAddr::from(address).to_canonical(),
            unknown_remote: counters.unknown_remote,
            wrong_key: counters.wrong_key,
            malformed: counters.malformed,
        })
        .collect();
    sources.sort_by_key(|source| (std::cmp::Reverse(source.packets()), source.address));
    Ok(Stats { discarded, sources, ..Stats::new(fast, reasons) })
}

/// What does not stop the fast path and should be known.
pub(super) fn warnings<'a>(
    bridges: AllBridges<'_>,
    plan: &Plan,
    rules: &HostRules,
    routing: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let mut warnings: Vec<String> = routing
        .map(|rule| {
            format!(
                "the routing rule \"{rule}\" may send tunnel packets that carry such a mark elsewhere \
                 on the slow path"
            )
        })
        .collect();
    if let Some(ruleset) = &rules.ip_ruleset {
        warnings.push(format!(
            "the host has firewall rules ({ruleset}): tunnel packets on the fast path pass none of them"
        ));
    }
    let tunnels = bridges
        .iter()
        .filter(|bridge| plan.bridges.get(&bridge.ifindex).is_some_and(|plan| plan.why.is_empty()))
        .flat_map(|bridge| bridge.ports.values())
        .filter_map(|port| match &port.device {
            Device::Tunnel(tunnel) => Some((tunnel.encap, tunnel.dst_port)),
            _ => None,
        });
    for (encap, port) in tunnels.collect::<std::collections::BTreeSet<_>>() {
        warnings.extend(rules.firewall_rules_naming(encap, port));
    }
    warnings.extend(sizes::warnings(bridges, plan));
    warnings
}

/// Ports that are to be secured, and are not there.
pub(super) fn missing_ports(secured: &Secured) -> impl Iterator<Item = String> + '_ {
    let missing = secured.missing.iter();
    missing.map(|name| format!("no bridge has the port {name}, which is to be secured"))
}

/// The names of all bridges, for an error message.
pub(super) fn names(bridges: AllBridges<'_>) -> Vec<String> {
    bridges.iter().map(|bridge| bridge.name.clone()).collect()
}
