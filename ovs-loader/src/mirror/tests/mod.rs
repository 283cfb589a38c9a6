//! Facts to plan from, and a host that they describe: a bridge `br-ex` with a veth port, an
//! Ethernet port and a vxlan port with two remotes, and one station behind each.

mod adopt;
mod apply;
mod guard;
mod maps;
mod metadata;
mod ovs;
mod property;
mod reasons;
mod security;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ovs_ebpf_common::Reason;

use super::{Facts, Plan, TunnelIds, Way, entry, targets};
use crate::bridge::by_station::ByStation;
use crate::bridge::model::{
    AllBridges, Bridge, BridgeKind, Bridges, Device, Encap, FdbEntry, FdbKey, FdbKind, FlowLabel,
    IfIndex, Mac, Port, Remote, StpState, Ttl, Tunnel, VethPeer, Why,
};
use crate::bridge::vlans::PortVlans;
use crate::config::Accelerate;
use crate::datapath::Hook;
use crate::rules::HostRules;
use crate::underlay::{KnownRoute, Path, Resolution, Target, Unresolved};

const BRIDGE: IfIndex = 10;
const VETH: IfIndex = 11;
const NIC: IfIndex = 12;
const VXLAN: IfIndex = 13;
const UPLINK: IfIndex = 2;
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The remote of [`FAR`], and the one that is on the flood list.
const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const OTHER_REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
/// Behind the veth, the NIC and either remote.
const NEAR: Mac = mac(1);
const WIRED: Mac = mac(2);
const FAR: Mac = mac(3);
const OTHER_FAR: Mac = mac(4);

const fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

const fn key(mac: Mac) -> FdbKey {
    FdbKey { vlan: 0, mac }
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn plain(address: IpAddr) -> Remote {
    Remote::plain(address)
}

fn way(remote: IpAddr) -> Way {
    Way { remote, vni: None }
}

fn port(ifindex: IfIndex, name: &str, device: Device) -> Port {
    Port {
        ifindex,
        name: name.to_owned(),
        mac: Mac([2, 1, 0, 0, 0, ifindex as u8]),
        up: true,
        mtu: 1500,
        stp: StpState::Forwarding,
        isolated: false,
        locked: false,
        vlans: PortVlans::default(),
        under_vlan_devices: false,
        unsupported: Vec::new(),
        device,
    }
}

fn vxlan(vni: u32, remotes: &[IpAddr]) -> Tunnel {
    Tunnel {
        encap: Encap::Vxlan,
        local: Some(LOCAL),
        remotes: remotes.iter().copied().map(plain).collect(),
        key_in: Some(vni),
        key_out: Some(vni),
        dst_port: 4789,
        source_ports: (32768, 60999),
        tos: Some(0),
        ect_1_inherits: false,
        ttl_behind_tag: None,
        ttl: Ttl::Fixed(64),
        df: false,
        flow_label: FlowLabel::Fixed(0),
        link: None,
        device: None,
        ageing: Some(Duration::from_secs(300)),
        unsupported: Vec::new(),
        over_ipv6: None,
        fdb: ByStation::default(),
    }
}

fn tunnel_port(ifindex: IfIndex, name: &str, tunnel: Tunnel) -> Port {
    port(ifindex, name, Device::Tunnel(Box::new(tunnel)))
}

fn empty_bridge(ifindex: IfIndex, name: &str) -> Bridge {
    Bridge {
        ifindex,
        name: name.to_owned(),
        kind: BridgeKind::Linux,
        mac: Mac([2, 2, 0, 0, 0, ifindex as u8]),
        up: true,
        ageing: Duration::from_secs(300),
        vlan_aware: false,
        nf_call: false,
        unsupported: Vec::new(),
        ports: BTreeMap::new(),
        fdb: HashMap::new(),
    }
}

/// The ids of the daemon's programs.
const OWN_PROGRAMS: [u32; 2] = [100, 101];

/// A change of the host.
type Fact = fn(&mut Host);

/// Everything a plan is made from, to be changed at will.
#[derive(Clone)]
struct Host {
    bridges: Bridges,
    resolutions: BTreeMap<Target, Resolution>,
    rules: HostRules,
    settings: Accelerate,
    hook: Hook,
    switched_off: BTreeSet<String>,
    refused: BTreeMap<(u32, IfIndex), String>,
}

impl Host {
    /// The host described above, with nothing against it.
    fn new() -> Self {
        let peer = VethPeer { mac: NEAR, mtu: 1500, other_namespace: true, xdp: false };
        let mut tunnel = vxlan(42, &[REMOTE]);
        tunnel.fdb.insert(OTHER_FAR, &[plain(OTHER_REMOTE)]);
        let mut bridge = empty_bridge(BRIDGE, "br-ex");
        for port in [
            port(VETH, "veth-a", Device::Veth(Some(peer))),
            port(NIC, "eth1", Device::Ethernet),
            tunnel_port(VXLAN, "vxlan42", tunnel),
        ] {
            bridge.ports.insert(port.ifindex, port);
        }
        for (mac, port) in [(NEAR, VETH), (WIRED, NIC), (FAR, VXLAN), (OTHER_FAR, VXLAN)] {
            bridge.fdb.insert(key(mac), FdbEntry { port, kind: FdbKind::Dynamic });
        }
        let mut host = Self {
            bridges: Bridges::from([(BRIDGE, bridge)]),
            resolutions: BTreeMap::new(),
            rules: HostRules::default(),
            settings: Accelerate::default(),
            hook: Hook::Tcx,
            switched_off: BTreeSet::new(),
            refused: BTreeMap::new(),
        };
        host.resolve_all();
        host
    }

    /// Finds a path to every target that has none.
    fn resolve_all(&mut self) {
        for target in targets(self.all()) {
            self.resolutions.entry(target).or_insert_with(|| Ok(path(&target)));
        }
    }

    fn all(&self) -> AllBridges<'_> {
        AllBridges::from(&self.bridges)
    }

    fn bridge(&mut self) -> &mut Bridge {
        self.bridges.get_mut(&BRIDGE).unwrap()
    }

    fn port(&mut self, ifindex: IfIndex) -> &mut Port {
        self.bridge().ports.get_mut(&ifindex).unwrap()
    }

    fn tunnel(&mut self) -> &mut Tunnel {
        match &mut self.port(VXLAN).device {
            Device::Tunnel(tunnel) => tunnel,
            other => panic!("{other:?} is no tunnel"),
        }
    }

    /// The answer for [`REMOTE`].
    fn resolution(&mut self) -> &mut Resolution {
        let mut found = self.resolutions.iter_mut().filter(|(target, _)| target.remote == REMOTE);
        found.next().unwrap().1
    }

    fn plan(&self) -> Plan {
        self.plan_with(&mut TunnelIds::default())
    }

    fn plan_with(&self, ids: &mut TunnelIds) -> Plan {
        let facts = Facts {
            bridges: self.all(),
            resolve: &|target| self.resolutions.get(target),
            rules: &self.rules,
            settings: &self.settings,
            hook: self.hook,
            switched_off: &self.switched_off,
            own_programs: &BTreeSet::from(OWN_PROGRAMS),
            refused: &self.refused,
        };
        Plan::make(&facts, ids)
    }

    /// Why a station's entry is not accelerated.
    fn why(&self, plan: &Plan, key: &FdbKey) -> Vec<Why> {
        let bridge = &self.bridges[&BRIDGE];
        entry::decide(plan, bridge, key, &bridge.fdb[key]).why.into_owned()
    }
}

fn path(target: &Target) -> Path {
    let last = match target.remote {
        IpAddr::V4(remote) => remote.octets()[3],
        IpAddr::V6(remote) => remote.octets()[15],
    };
    Path {
        local: target.local.unwrap_or(LOCAL),
        uplink: UPLINK,
        uplink_name: "eth0".to_owned(),
        source_mac: Mac([2, 3, 0, 0, 0, 1]),
        next_hop: target.remote,
        next_hop_mac: Mac([2, 3, 0, 0, 0, last]),
        mtu: 1500,
        hop_limit: target.remote.is_ipv6().then_some(61),
    }
}

fn no_neighbour() -> Resolution {
    let route = Some(KnownRoute { uplink: UPLINK, local: LOCAL });
    Err(Unresolved { why: Why::from(Reason::NoNeighbour), route })
}

fn reasons(why: &[Why]) -> Vec<Reason> {
    why.iter().map(|why| why.reason).collect()
}
