//! The plan: every bridge, port and tunnel, accelerated or with its reasons, and what the maps should
//! say of them. FDB entries, of which there may be millions, are decided one by one in
//! [`super::entry`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::{
    FdbFlags, PortValue, TunnelFlags, TunnelIndexKey, TunnelIndexValue, TunnelKind, TunnelPath,
    TunnelValue, VXLAN_PORTS,
};
use ovs_ebpf_common::wire::{ecn, outer};

use super::gate::{self, Facts};
use super::ids::TunnelIds;
use crate::bridge::model::{Bridge, Device, Encap, IfIndex, Port, Tunnel, Why};
use crate::underlay::{Path, Target};

/// What becomes of the host's bridges.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every bridge by ifindex.
    pub bridges: BTreeMap<IfIndex, BridgePlan>,
    /// UDP destination ports of the accelerated VXLAN tunnels.
    pub vxlan_ports: [[u8; 2]; VXLAN_PORTS],
}

/// What becomes of a bridge.
#[derive(Clone, Debug)]
pub struct BridgePlan {
    /// What stands against it; empty if it is accelerated.
    pub why: Vec<Why>,
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
    /// The MAC for which the frame may be handed to the veth's other end.
    pub peer: Option<crate::bridge::model::Mac>,
    /// For a tunnel port, the ways to its remotes.
    pub tunnels: Option<BTreeMap<IpAddr, TunnelPlan>>,
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
    pub key: TunnelIndexKey,
    /// Value of `tunnel_index`.
    pub index: TunnelIndexValue,
    /// Value of `tunnels`, with the wanted path as `paths[0]`.
    pub value: TunnelValue,
}

/// The underlay targets of all tunnels, accelerated or not, so that `status` can show their way.
#[must_use]
pub fn targets(facts: &crate::bridge::model::Bridges) -> BTreeSet<Target> {
    facts
        .values()
        .flat_map(|bridge| bridge.ports.values())
        .filter_map(|port| match &port.device {
            Device::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        })
        .flat_map(|tunnel| remotes(tunnel).into_iter().map(|remote| target(tunnel, remote)))
        .filter(|target| !is_group(target.remote))
        .collect()
}

/// The addresses a tunnel sends to. A remote with options of its own is not among them: it is
/// another tunnel.
fn remotes(tunnel: &Tunnel) -> BTreeSet<IpAddr> {
    let remotes = tunnel.remotes.iter().chain(tunnel.fdb.values().flatten());
    remotes.filter(|remote| remote.options.is_empty()).map(|remote| remote.address).collect()
}

fn target(tunnel: &Tunnel, remote: IpAddr) -> Target {
    Target {
        remote,
        local: tunnel.local,
        tos: tunnel.tos.unwrap_or(0),
        protocol: tunnel.encap.ip_protocol(),
        dst_port: tunnel.dst_port,
        link: tunnel.link,
    }
}

fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

impl Plan {
    /// Decides on everything but FDB entries.
    #[must_use]
    pub fn make(facts: &Facts<'_>, ids: &mut TunnelIds) -> Self {
        let mut plan = Self {
            bridges: facts
                .bridges
                .iter()
                .map(|(&ifindex, bridge)| (ifindex, plan_bridge(facts, bridge, ids)))
                .collect(),
            vxlan_ports: Default::default(),
        };
        plan.refuse_clashes();
        plan.assign_vxlan_ports();
        let wanted: BTreeSet<_> = plan.entries().map(|entry| entry.key).collect();
        ids.retain(|key| wanted.contains(key));
        plan
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
                    (ifindex, PortValue { bridge, flags: 0, vlan: 0 }, port.name.as_str())
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

    /// Two tunnels that no received packet can tell apart: the kernel may, by what the fast path
    /// does not look at.
    fn refuse_clashes(&mut self) {
        let mut seen = BTreeMap::new();
        for entry in self.entries() {
            *seen.entry(entry.key).or_insert(0) += 1;
        }
        for tunnel in self.tunnels_mut() {
            if tunnel.entry.as_ref().is_some_and(|entry| seen[&entry.key] > 1) {
                tunnel.entry = None;
                tunnel.why.push(Why::from(Reason::TunnelClash));
            }
        }
    }

    /// Gives the UDP ports in use their places; tunnels with more different ports than there are
    /// places are not accelerated.
    fn assign_vxlan_ports(&mut self) {
        let mut ports: Vec<[u8; 2]> = Vec::new();
        for tunnel in self.tunnels_mut() {
            let Some(entry) = &tunnel.entry else { continue };
            let port = entry.key.dst_port;
            if entry.key.kind != TunnelKind::VxlanIpv4 as u8 || ports.contains(&port) {
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
            *place = port;
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
    BridgePlan { why, ports }
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
        Device::Tunnel(tunnel) => Some(
            remotes(tunnel)
                .into_iter()
                .map(|remote| (remote, plan_tunnel(facts, bridge, &why, port, tunnel, remote, ids)))
                .collect(),
        ),
        _ => None,
    };
    let shaped = facts.rules.tc.get(&port.ifindex).is_some_and(|tc| {
        // What the device's own egress would still see must not be gone around.
        tc.qdisc.is_some() || tc.egress.is_some()
    });
    let peer = match &port.device {
        Device::Veth(Some(peer)) if peer.other_namespace && !peer.xdp && !shaped => Some(peer.mac),
        _ => None,
    };
    PortPlan {
        name: port.name.clone(),
        why,
        flags: if port.isolated { FdbFlags::ISOLATED } else { 0 },
        mtu: port.mtu,
        revalidate_seconds: gate::revalidate_seconds(facts.settings, ageing).unwrap_or(1),
        peer,
        tunnels,
    }
}

fn plan_tunnel(
    facts: &Facts<'_>,
    bridge: &Bridge,
    port_why: &[Why],
    port: &Port,
    tunnel: &Tunnel,
    remote: IpAddr,
    ids: &mut TunnelIds,
) -> TunnelPlan {
    let mut why = port_why.to_vec();
    let refused = |why| TunnelPlan { why, entry: None, path: None };
    if is_group(remote) {
        // The port says so too where the group is the tunnel's own.
        if !why.iter().any(|why| why.reason == Reason::TunnelGroup) {
            why.push(Why::new(Reason::TunnelGroup, remote.to_string()));
        }
        return refused(why);
    }
    let target = target(tunnel, remote);
    let (path, route) = match (facts.resolve)(&target) {
        Some(Ok(path)) => (Some(path), Some((path.uplink, path.local))),
        Some(Err(unresolved)) => {
            why.push(unresolved.why.clone());
            (None, unresolved.route.map(|route| (route.uplink, route.local)))
        }
        // Its first look-up is under way.
        None => {
            why.push(Why::from(Reason::NoRoute));
            (None, None)
        }
    };
    let Some((uplink, local)) = route else { return refused(why) };
    let name = path.map(|path| path.uplink_name.as_str());
    why.extend(gate::uplink(facts, tunnel, &target, local, uplink, name));
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (local, remote) else { return refused(why) };
    // While only the neighbour is missing, what the remote sends can still be taken.
    let receives = why.iter().all(|why| why.reason == Reason::NoNeighbour);
    let entry = if receives {
        let key = index_key(tunnel, local, remote);
        match ids.id(&key) {
            Some(id) => Some(TunnelEntry {
                id,
                key,
                index: TunnelIndexValue {
                    tunnel: id,
                    bridge: bridge.ifindex,
                    uplink,
                    vlan: 0,
                    reserved: 0,
                },
                value: tunnel_value(tunnel, path, local, remote, port.mtu),
            }),
            None => {
                why.push(Why::new(Reason::Capacity, "the tunnels map is full"));
                None
            }
        }
    } else {
        None
    };
    TunnelPlan { why, entry, path: path.cloned() }
}

fn kind(tunnel: &Tunnel, key: Option<u32>) -> TunnelKind {
    match (tunnel.encap, key) {
        (Encap::Vxlan, _) => TunnelKind::VxlanIpv4,
        (Encap::Gre, Some(_)) => TunnelKind::GreKeyIpv4,
        (Encap::Gre, None) => TunnelKind::GreIpv4,
    }
}

fn index_key(tunnel: &Tunnel, local: Ipv4Addr, remote: Ipv4Addr) -> TunnelIndexKey {
    TunnelIndexKey {
        remote: remote.octets(),
        local: local.octets(),
        key: tunnel.key_in.unwrap_or(0).to_be_bytes(),
        dst_port: tunnel.dst_port.to_be_bytes(),
        kind: kind(tunnel, tunnel.key_in) as u8,
        reserved: 0,
    }
}

/// `device_mtu` is the tunnel device's own: the bridge drops what is larger before it gets there.
fn tunnel_value(
    tunnel: &Tunnel,
    path: Option<&Path>,
    local: Ipv4Addr,
    remote: Ipv4Addr,
    device_mtu: u32,
) -> TunnelValue {
    let kind = kind(tunnel, tunnel.key_out);
    let mut value = TunnelValue {
        kind: kind as u8,
        tos: tunnel.tos.unwrap_or(0) & !ecn::MASK,
        ttl: tunnel.ttl.unwrap_or(0),
        source_port_min: tunnel.source_ports.0,
        source_port_span: tunnel.source_ports.1.saturating_sub(tunnel.source_ports.0),
        ..TunnelValue::default()
    };
    let flag = |flags: &mut u8, on, flag| *flags |= if on { flag } else { 0 };
    flag(&mut value.flags, tunnel.tos.is_none(), TunnelFlags::TOS_INHERIT);
    flag(&mut value.flags, tunnel.ttl.is_none(), TunnelFlags::TTL_INHERIT);
    flag(&mut value.flags, !tunnel.df, TunnelFlags::NEEDS_ID);
    let Some(path) = path else { return value };
    let (header, checksum_seed) = outer::template(
        kind,
        &outer::Outer {
            destination_mac: path.next_hop_mac.0,
            source_mac: path.source_mac.0,
            local: local.octets(),
            remote: remote.octets(),
            key: tunnel.key_out.unwrap_or(0),
            dst_port: tunnel.dst_port,
            df: tunnel.df,
        },
    );
    // What the outer headers and the inner Ethernet header leave of the underlay's MTU.
    let overhead = kind.header_len() as u32;
    value.flags |= TunnelFlags::READY;
    value.paths[0] = TunnelPath {
        header,
        checksum_seed,
        uplink: path.uplink,
        mtu: path.mtu.saturating_sub(overhead).min(device_mtu),
        reserved: 0,
    };
    value
}
