//! The plan: every bridge, port and tunnel, accelerated or with its reasons, and what the maps should
//! say of them. FDB entries, of which there may be millions, are decided one by one in
//! [`super::entry`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::{
    FdbFlags, IndexKey, NO_VLAN, PORT_CAPACITY, PortFlags, PortValue, TunnelIndexValue,
    TunnelValue, VXLAN_PORTS,
};

use super::clash;
use super::gate::{self, Facts};
use super::ids::TunnelIds;
use super::tunnel;
use crate::bridge::model::{
    AllBridges, Bridge, BridgeKind, Device, FdbKey, IfIndex, Mac, Port, Remote, VethPeer, Why,
};
use crate::underlay::Path;

/// What becomes of the host's bridges.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every bridge by ifindex.
    pub bridges: BTreeMap<IfIndex, BridgePlan>,
    /// UDP destination ports of the accelerated VXLAN tunnels.
    pub vxlan_ports: [u16; VXLAN_PORTS],
}

/// What becomes of a bridge.
#[derive(Clone, Debug)]
pub struct BridgePlan {
    /// What stands against it; empty if it is accelerated.
    pub why: Vec<Why>,
    /// Nobody tells when it learns: the programs must.
    pub events: bool,
    /// Every port by ifindex, tunnel ports included.
    pub ports: BTreeMap<IfIndex, PortPlan>,
}

/// What becomes of a port.
#[derive(Clone, Debug)]
pub struct PortPlan {
    /// The device's name.
    pub name: String,
    /// What stands against it; empty if it is accelerated.
    pub why: Vec<Why>,
    /// Flags of its stations' FDB entries.
    pub flags: u16,
    /// The device's MTU in bytes.
    pub mtu: u32,
    /// How often a station's packet must pass the bridge, in seconds.
    pub revalidate_seconds: u16,
    /// The VLAN of frames without a tag, [`NO_VLAN`] where there is none.
    pub vlan: u16,
    /// Whether frames with a tag are accepted.
    pub takes_tags: bool,
    /// The veth's other end, which may be handed frames for its MAC.
    pub peer: Option<VethPeer>,
    /// For a tunnel port, the ways to its remotes.
    pub tunnels: Option<Ways>,
}

/// The ways of a tunnel.
pub type Ways = BTreeMap<Way, TunnelPlan>;

/// Which way a tunnel's frames take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The remote's outer address.
    pub remote: IpAddr,
    /// In metadata mode, the VNI.
    pub vni: Option<u32>,
}

impl From<&Remote> for Way {
    fn from(remote: &Remote) -> Self {
        Self { remote: remote.address, vni: remote.vni }
    }
}

/// What becomes of the way to one remote of a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelPlan {
    /// What stands against it; empty if it is accelerated.
    pub why: Vec<Why>,
    /// What the maps say of it. Present also while only the neighbour is missing: received packets
    /// are still known then.
    pub entry: Option<TunnelEntry>,
    /// The resolved way, where there is one.
    pub path: Option<Path>,
}

/// A tunnel's map entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelEntry {
    /// Its id.
    pub id: u32,
    /// Key of `tunnel_index`.
    pub key: IndexKey,
    /// Value of `tunnel_index`.
    pub index: TunnelIndexValue,
    /// Value of `tunnels`, with the wanted path as `paths[0]`.
    pub value: TunnelValue,
}

impl Plan {
    /// Decides on everything but FDB entries.
    #[must_use]
    pub fn make(facts: &Facts<'_>, ids: &mut TunnelIds) -> Self {
        let mut plan = Self {
            bridges: facts
                .bridges
                .iter()
                .map(|bridge| (bridge.ifindex, plan_bridge(facts, bridge, ids)))
                .collect(),
            vxlan_ports: Default::default(),
        };
        plan.refuse_ports_beyond_capacity();
        plan.refuse_clashes(facts);
        plan.assign_vxlan_ports();
        let wanted: BTreeSet<_> = plan.entries().map(|entry| entry.key).collect();
        ids.retain(|key| wanted.contains(key));
        plan
    }

    /// Whether this plan, made for the same topology, also serves these changes of the FDBs. It does
    /// not where one of them leads to a remote that no tunnel sent to so far.
    #[must_use]
    pub fn serves(&self, bridges: AllBridges<'_>, changes: &[(IfIndex, FdbKey)]) -> bool {
        changes.chunk_by(|one, next| one.0 == next.0).all(|changes| {
            let ifindex = changes[0].0;
            let Some(bridge) = bridges.get(ifindex) else { return true };
            let Some(planned) = self.bridges.get(&ifindex) else { return false };
            // Flood lists are as the plan has them: they are part of the topology.
            bridge.ports.values().all(|port| match &port.device {
                Device::Tunnel(tunnel) if !tunnel.fdb.is_empty() => {
                    let ways = planned.ports.get(&port.ifindex).and_then(|p| p.tunnels.as_ref());
                    let mut remotes =
                        changes.iter().filter_map(|(_, key)| tunnel.fdb.get(key.mac)).flatten();
                    ways.is_some_and(|ways| remotes.all(|remote| tunnel::has_way(ways, remote)))
                }
                _ => true,
            })
        })
    }

    /// The map entries of all tunnels.
    pub fn entries(&self) -> impl Iterator<Item = &TunnelEntry> {
        self.tunnels().filter_map(|tunnel| tunnel.entry.as_ref())
    }

    fn tunnels(&self) -> impl Iterator<Item = &TunnelPlan> {
        self.bridges
            .values()
            .flat_map(|bridge| bridge.ports.values())
            .filter_map(|port| port.tunnels.as_ref())
            .flat_map(BTreeMap::values)
    }

    fn tunnels_mut(&mut self) -> impl Iterator<Item = &mut TunnelPlan> {
        self.bridges
            .values_mut()
            .flat_map(|bridge| bridge.ports.values_mut())
            .filter_map(|port| port.tunnels.as_mut())
            .flat_map(BTreeMap::values_mut)
    }

    /// The values of `ports`: every accelerated port that is not a tunnel.
    pub fn ports(&self) -> impl Iterator<Item = (IfIndex, PortValue, &str)> {
        self.bridges.iter().flat_map(|(&bridge, plan)| {
            plan.ports.iter().filter(|(_, port)| port.why.is_empty() && port.tunnels.is_none()).map(
                move |(&ifindex, port)| {
                    let flag = |on, flag| if on { flag } else { 0 };
                    let flags = flag(plan.events, PortFlags::EVENTS)
                        | flag(port.takes_tags, PortFlags::TAGGED);
                    let vlan = port.vlan;
                    let value = PortValue { bridge, flags, vlan, ..PortValue::default() };
                    (ifindex, value, port.name.as_str())
                },
            )
        })
    }

    /// The devices that tunnel packets arrive on, with their names where they are known.
    #[must_use]
    pub fn uplinks(&self) -> BTreeMap<IfIndex, String> {
        let mut uplinks = BTreeMap::<IfIndex, String>::new();
        for tunnel in self.tunnels() {
            let Some(entry) = &tunnel.entry else { continue };
            let name = uplinks.entry(entry.index.uplink).or_default();
            if let Some(path) = &tunnel.path {
                name.clone_from(&path.uplink_name);
            }
        }
        uplinks
    }

    /// The MAC of an uplink, where one of its tunnels knows it.
    #[must_use]
    pub fn uplink_mac(&self, ifindex: IfIndex) -> Option<Mac> {
        let mut paths = self.tunnels().filter_map(|tunnel| tunnel.path.as_ref());
        paths.find(|path| path.uplink == ifindex).map(|path| path.source_mac)
    }

    /// The `ports` map has room for so many.
    fn refuse_ports_beyond_capacity(&mut self) {
        self.bridges
            .values_mut()
            .flat_map(|bridge| bridge.ports.values_mut())
            .filter(|port| port.why.is_empty() && port.tunnels.is_none())
            .skip(PORT_CAPACITY)
            .for_each(|port| {
                let limit = format!("more than {PORT_CAPACITY} ports");
                port.why.push(Why::new(Reason::Capacity, limit));
            });
    }

    /// Tunnels whose packets may be another one's.
    fn refuse_clashes(&mut self, facts: &Facts<'_>) {
        for (bridge, port, way) in clash::find(facts, self) {
            let port = self.bridges.get_mut(&bridge).and_then(|plan| plan.ports.get_mut(&port));
            let ways = port.and_then(|port| port.tunnels.as_mut());
            if let Some(way) = ways.and_then(|ways| ways.get_mut(&way)) {
                way.entry = None;
                way.why.push(Why::from(Reason::TunnelClash));
            }
        }
    }

    /// Gives the UDP ports in use their places; tunnels with more different ports than there are
    /// places are not accelerated.
    fn assign_vxlan_ports(&mut self) {
        let mut ports: Vec<[u8; 2]> = Vec::new();
        for tunnel in self.tunnels_mut() {
            let Some(entry) = &tunnel.entry else { continue };
            let port = entry.key.dst_port();
            // GRE has none.
            if port == [0; 2] || ports.contains(&port) {
                continue;
            }
            if ports.len() < VXLAN_PORTS {
                ports.push(port);
            } else {
                tunnel.entry = None;
                let limit = format!("more than {VXLAN_PORTS} different UDP ports");
                tunnel.why.push(Why::new(Reason::Capacity, limit));
            }
        }
        for (place, port) in self.vxlan_ports.iter_mut().zip(ports) {
            *place = u16::from_ne_bytes(port);
        }
    }
}

fn plan_bridge(facts: &Facts<'_>, bridge: &Bridge, ids: &mut TunnelIds) -> BridgePlan {
    let why = gate::bridge(facts, bridge);
    let ports = bridge
        .ports
        .iter()
        .map(|(&ifindex, port)| (ifindex, plan_port(facts, bridge, &why, port, ids)))
        .collect();
    BridgePlan { why, events: needs_events(bridge), ports }
}

/// Open vSwitch tells nobody when it has learned a station; the kernel's bridge does.
pub(super) fn needs_events(bridge: &Bridge) -> bool {
    bridge.kind == BridgeKind::Ovs
}

fn plan_port(
    facts: &Facts<'_>,
    bridge: &Bridge,
    bridge_why: &[Why],
    port: &Port,
    ids: &mut TunnelIds,
) -> PortPlan {
    let mut why = bridge_why.to_vec();
    why.extend(gate::port(facts, port));
    let mut ageing = vec![bridge.ageing];
    if let Device::Tunnel(tunnel) = &port.device {
        why.extend(tunnel.unsupported.iter().cloned());
        ageing.extend(tunnel.ageing);
        if let Some(short) = tunnel.ageing
            && gate::revalidate_seconds(facts.settings, [short]).is_none()
        {
            let seconds = short.as_secs_f32();
            why.push(Why::new(Reason::AgeingTooShort, format!("ageing {seconds} s")));
        }
    }
    let tunnels = match &port.device {
        Device::Tunnel(tunnel) => Some(tunnel::plan_ways(facts, bridge, &why, port, tunnel, ids)),
        _ => None,
    };
    // What the device's own egress would still see must not be gone around.
    let shaped = facts
        .rules
        .tc
        .get(&port.ifindex)
        .is_some_and(|tc| tc.qdisc.is_some() || tc.egress.is_some());
    let peer = match &port.device {
        Device::Veth(Some(peer)) if peer.other_namespace && !peer.xdp && !shaped => Some(*peer),
        _ => None,
    };
    PortPlan {
        name: port.name.clone(),
        why,
        flags: port_flags(port),
        mtu: port.mtu,
        revalidate_seconds: gate::revalidate_seconds(facts.settings, ageing).unwrap_or(1),
        vlan: untagged_vlan(port),
        takes_tags: takes_tags(port),
        peer,
        tunnels,
    }
}

/// What the maps have for the VLAN of a port's frames without a tag.
pub(super) fn untagged_vlan(port: &Port) -> u16 {
    port.vlans.untagged.unwrap_or(NO_VLAN)
}

/// Whether frames with a tag that arrive at the port are the bridge's to forward. VLAN devices on it
/// take theirs before (`vlan_do_receive` in `__netif_receive_skb_core`).
pub(super) fn takes_tags(port: &Port) -> bool {
    port.vlans.takes_tags && !port.under_vlan_devices
}

fn port_flags(port: &Port) -> u16 {
    let isolated = if port.isolated { FdbFlags::ISOLATED } else { 0 };
    let hardware = if port.device == Device::Ethernet { FdbFlags::HARDWARE } else { 0 };
    isolated | hardware
}
