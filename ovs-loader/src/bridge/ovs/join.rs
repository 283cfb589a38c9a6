//! From the database's rows, ovs-vswitchd's answers and the kernel's devices to the model.
//!
//! Mirrors `bridge_reconfigure` (vswitchd/bridge.c) for what a row means and `xlate_normal`
//! (ofproto/ofproto-dpif-xlate.c) for what decides over a frame beside the FDB.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ovs_ebpf_common::Reason;

use super::openflow::Configs;
use super::tables::Tables;
use super::text::Station;
use super::tunnel;
use super::value::{Row, Uuid};
use crate::bridge::linux::links::Member;
use crate::bridge::linux::tunnel::Defaults;
use crate::bridge::model::{
    Bridge, BridgeKind, Device, FdbEntry, FdbKey, FdbKind, IfIndex, Mac, NO_INTERFACE, Port,
    StpState, TunnelDevice, Why,
};
use crate::bridge::vlans::{PortVlans, VlanSet};

/// `MAC_ENTRY_DEFAULT_IDLE_TIME`, and what `mac_learning_set_idle_time` allows, in seconds.
const AGEING: u64 = 300;
const AGEING_RANGE: (u64, u64) = (15, 3600);

/// What ovs-vswitchd has said of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// What keeps the bridge from being NORMAL alone.
    pub(super) against: Vec<Why>,
    /// What OpenFlow has set on it and its ports.
    pub(super) configs: Configs,
    /// Its FDB.
    pub(super) stations: Arc<Vec<Station>>,
}

/// Numbers for ports, and bridges, that have no interface: the same for the same row as long as the
/// daemon runs, and from [`NO_INTERFACE`] on.
#[derive(Debug)]
pub(super) struct Numbers {
    next: IfIndex,
    by_row: HashMap<Uuid, IfIndex>,
}

impl Numbers {
    /// For one Open vSwitch among several: each has 16 million numbers of its own.
    pub(super) fn new(instance: u8) -> Self {
        let first = NO_INTERFACE | (u32::from(instance & 0x7f) << 24);
        Self { next: first, by_row: HashMap::new() }
    }

    fn of(&mut self, row: &Uuid) -> IfIndex {
        *self.by_row.entry(row.clone()).or_insert_with(|| {
            self.next += 1;
            self.next
        })
    }
}

/// What the bridges are made from.
pub(super) struct Known<'a> {
    pub(super) tables: &'a Tables,
    /// By the name of the device.
    pub(super) members: &'a BTreeMap<String, Member>,
    /// By the bridge's row.
    pub(super) answers: &'a BTreeMap<Uuid, Answers>,
    /// The network namespace's own for tunnels.
    pub(super) defaults: Defaults,
}

/// The devices that the rows name, and those that tunnels share.
pub(super) fn is_device_wanted(tables: &Tables, name: &str) -> bool {
    tunnel::is_shared_device(name)
        || tables.bridges().any(|(_, bridge)| {
            bridge.text("name") == name
                || interfaces(tables, bridge).any(|(_, _, row)| row.text("name") == name)
        })
}

/// Each interface of a bridge with its port's row and how many interfaces that has.
fn interfaces<'a>(
    tables: &'a Tables,
    bridge: &'a Row,
) -> impl Iterator<Item = (&'a Row, &'a Uuid, &'a Row)> {
    tables.named("Port", bridge, "ports").flat_map(|(_, port)| {
        tables.named("Interface", port, "interfaces").map(move |(uuid, row)| (port, uuid, row))
    })
}

/// Which interface has each OpenFlow port number of a bridge.
pub(super) fn numbers<'a>(tables: &'a Tables, bridge: &Uuid) -> BTreeMap<u16, &'a Uuid> {
    let row = tables.row("Bridge", bridge).into_iter();
    row.flat_map(|row| interfaces(tables, row))
        .filter_map(|(_, uuid, row)| Some((u16::try_from(row.integer("ofport")?).ok()?, uuid)))
        .collect()
}

/// All bridges by their rows, with their FDBs.
pub(super) fn bridges(known: &Known<'_>, numbers: &mut Numbers) -> BTreeMap<Uuid, Bridge> {
    let rows = known.tables.bridges();
    rows.map(|(uuid, row)| (uuid.clone(), bridge(known, numbers, uuid, row))).collect()
}

/// The bridge device, under whose number the bridge goes, is the local port's: an internal port of the
/// bridge's own name.
fn bridge(known: &Known<'_>, numbers: &mut Numbers, uuid: &Uuid, row: &Row) -> Bridge {
    let name = row.text("name");
    let device = known.members.get(name).map(|member| &member.port);
    let answers = known.answers.get(uuid);
    let mut unsupported = bridge_unsupported(known.tables, row);
    if device.is_none() {
        unsupported.push(Why::new(Reason::OvsBridgeFailed, format!("no device {name}")));
    }
    match answers {
        Some(answers) => {
            unsupported.extend(answers.against.iter().cloned());
            let drops = answers.configs.drops_fragments();
            unsupported.extend(drops.then(|| Why::new(Reason::OvsFlows, "set-frags drop")));
        }
        None => unsupported.push(Why::new(Reason::OvsUnreachable, "its flows are not known yet")),
    }
    let ifindex = device.map_or_else(|| numbers.of(uuid), |device| device.ifindex);
    let spanning_tree = row.is_true("stp_enable") || row.is_true("rstp_enable");
    let mut ports = BTreeMap::new();
    let mut by_number = HashMap::new();
    for (port_row, uuid, interface) in interfaces(known.tables, row) {
        if interface.text("name") == name {
            continue;
        }
        let mut port = port(known, numbers, port_row, uuid, interface);
        if spanning_tree {
            port.stp = spanning_tree_state(port_row);
        }
        if let Some(number) = interface.integer("ofport").and_then(|n| u16::try_from(n).ok()) {
            let words = answers.map(|answers| answers.configs.restrictions(number.into()));
            let words = words.into_iter().flatten();
            port.unsupported.extend(words.map(|word| Why::new(Reason::OvsPortConfig, word)));
            by_number.insert(number, port.ifindex);
        }
        ports.insert(port.ifindex, port);
    }
    let stations = answers.map(|answers| answers.stations.as_slice()).unwrap_or_default();
    Bridge {
        ifindex,
        name: name.to_owned(),
        kind: BridgeKind::Ovs,
        mac: device.map_or(Mac::ZERO, |device| device.mac),
        // Open vSwitch forwards whatever the state of the local port's device is.
        up: true,
        ageing: ageing(row),
        vlan_aware: true,
        nf_call: false,
        unsupported,
        ports,
        fdb: fdb(stations, ifindex, &by_number),
    }
}

/// The FDB, without what is behind ports that the database does not know (any more).
fn fdb(
    stations: &[Station],
    bridge: IfIndex,
    by_number: &HashMap<u16, IfIndex>,
) -> HashMap<FdbKey, FdbEntry> {
    let entry = |station: &Station| {
        let (port, kind) = match station.port {
            None => (bridge, FdbKind::Local),
            Some(number) => (
                *by_number.get(&number)?,
                if station.fixed { FdbKind::Static } else { FdbKind::Dynamic },
            ),
        };
        Some((station.key, FdbEntry { port, kind }))
    };
    stations.iter().filter_map(entry).collect()
}

fn ageing(row: &Row) -> Duration {
    let seconds = row.value("other_config", "mac-aging-time").and_then(|text| text.parse().ok());
    let seconds = seconds.filter(|seconds| *seconds != 0).unwrap_or(AGEING);
    Duration::from_secs(seconds.clamp(AGEING_RANGE.0, AGEING_RANGE.1))
}

/// What forwards, copies or counts beside the FDB and the flows.
fn bridge_unsupported(tables: &Tables, row: &Row) -> Vec<Why> {
    let mut why = Vec::new();
    match row.text("datapath_type") {
        "" | "system" => {}
        other => why.push(Why::new(Reason::OvsDatapath, format!("datapath_type={other}"))),
    }
    for (_, mirror) in tables.named("Mirror", row, "mirrors") {
        why.push(Why::new(Reason::OvsMirror, format!("mirror {}", mirror.text("name"))));
    }
    for (column, words) in [("netflow", "NetFlow"), ("sflow", "sFlow"), ("ipfix", "IPFIX")] {
        if row.uuids(column).next().is_some() {
            why.push(Why::new(Reason::OvsSampling, words));
        }
    }
    // Frames of such a VLAN are flooded, fixed entries or not.
    let flooded: VlanSet = vlan_ids(row, "flood_vlans").collect();
    if !flooded.is_empty() {
        why.push(Why::new(Reason::OvsFlows, format!("flood_vlans={flooded}")));
    }
    why
}

fn port(
    known: &Known<'_>,
    numbers: &mut Numbers,
    port: &Row,
    uuid: &Uuid,
    interface: &Row,
) -> Port {
    let name = interface.text("name");
    let kind = interface.text("type");
    let mut unsupported = port_unsupported(known.tables, port);
    unsupported.extend(interface_unsupported(interface));
    let bare = |ifindex, up, device| Port {
        ifindex,
        name: name.to_owned(),
        mac: Mac::ZERO,
        up,
        mtu: u32::MAX,
        stp: StpState::Forwarding,
        isolated: port.is_true("protected"),
        locked: false,
        vlans: PortVlans::default(),
        under_vlan_devices: false,
        unsupported: Vec::new(),
        device,
    };
    let mut found = match (tunnel::Kind::named(kind), kind, known.members.get(name)) {
        (Some(kind), ..) => {
            let mut tunnel = tunnel::read(kind, interface.pairs("options"), known.defaults);
            let device = kind.device(tunnel.dst_port);
            if let Some(member) = known.members.get(&device) {
                tunnel.unsupported.extend(member.around.iter().cloned());
                tunnel.device = Some(TunnelDevice { ifindex: member.port.ifindex, name: device });
            }
            bare(numbers.of(uuid), true, Device::Tunnel(Box::new(tunnel)))
        }
        (None, "" | "system", Some(member)) => {
            unsupported.extend(not_of_the_datapath(interface, member));
            let device = match &member.port.device {
                // Where its frames go then is for its own FDB to say.
                Device::Tunnel(tunnel) => Device::Other(tunnel.encap.name().to_owned()),
                other => other.clone(),
            };
            let isolated = port.is_true("protected");
            Port { stp: StpState::Forwarding, isolated, device, ..member.port.clone() }
        }
        (None, "" | "system", None) => bare(numbers.of(uuid), false, Device::Ethernet),
        (None, kind, member) => {
            let ifindex = member.map_or_else(|| numbers.of(uuid), |member| member.port.ifindex);
            bare(ifindex, true, Device::Other(kind.to_owned()))
        }
    };
    found.unsupported = unsupported;
    found.vlans = vlans(port);
    found
}

/// The kernel's device of this name is another one than ovs-vswitchd means, or left the datapath.
fn not_of_the_datapath(interface: &Row, member: &Member) -> Option<Why> {
    let (own, theirs) = (member.port.ifindex, interface.integer("ifindex").unwrap_or(0));
    if theirs != 0 && theirs != i64::from(own) {
        let words = format!("ifindex={theirs}, but here the device has {own}");
        return Some(Why::new(Reason::OvsPortFailed, words));
    }
    (member.in_datapath == Some(false))
        .then(|| Why::new(Reason::OvsPortFailed, "not in the kernel datapath"))
}

/// What a Port row asks for beside forwarding.
fn port_unsupported(tables: &Tables, row: &Row) -> Vec<Why> {
    let mut why = Vec::new();
    if row.uuids("interfaces").count() > 1 {
        why.push(Why::new(Reason::Bond, format!("bond {}", row.text("name"))));
    }
    let lacp = row.text("lacp");
    if !matches!(lacp, "" | "off") {
        why.push(Why::new(Reason::Bond, format!("lacp={lacp}")));
    }
    if row.text("vlan_mode") == "dot1q-tunnel" {
        why.push(Why::new(Reason::PortVlan, "vlan_mode=dot1q-tunnel"));
    }
    if let Some(tags) = row.value("other_config", "priority-tags")
        && !matches!(tags, "no" | "never" | "false")
    {
        why.push(Why::new(Reason::PortVlan, format!("other_config:priority-tags={tags}")));
    }
    for (_, qos) in tables.named("QoS", row, "qos") {
        why.push(Why::new(Reason::Qos, format!("qos {}", qos.text("type"))));
    }
    why
}

fn vlan_ids<'a>(row: &'a Row, column: &'a str) -> impl Iterator<Item = u16> + 'a {
    row.integers(column).filter_map(|vlan| u16::try_from(vlan).ok())
}

/// As `port_configure` (vswitchd/bridge.c) and `bundle_set` (ofproto/ofproto-dpif.c) read a Port row.
fn vlans(port: &Row) -> PortVlans {
    const ALL: RangeInclusive<u16> = 0..=4095;
    let tag = port.integer("tag").and_then(|tag| u16::try_from(tag).ok());
    let trunks: VlanSet = vlan_ids(port, "trunks").collect();
    let trunks = if trunks.is_empty() { ALL.into() } else { trunks };
    match (port.text("vlan_mode"), tag) {
        ("access", _) | ("", Some(_)) => PortVlans::access(tag.unwrap_or(0)),
        (mode @ ("native-tagged" | "native-untagged"), _) => {
            let native = tag.unwrap_or(0);
            // The native VLAN is carried whatever `trunks` says, and VLAN 0 then is not.
            let carries = match native {
                0 => trunks,
                native => trunks.iter().filter(|vlan| *vlan != 0).chain([native]).collect(),
            };
            let strips = if mode == "native-untagged" { native } else { 0 };
            PortVlans {
                untagged: Some(native),
                takes_tags: true,
                carries,
                strips: (strips..=strips).into(),
                vnis: None,
            }
        }
        // A tag of VLAN 0 is none.
        _ => PortVlans {
            untagged: trunks.contains(0).then_some(0),
            takes_tags: true,
            carries: trunks,
            strips: (0..=0).into(),
            vnis: None,
        },
    }
}

/// What an Interface row asks for beside forwarding, or that it failed.
fn interface_unsupported(row: &Row) -> Vec<Why> {
    let mut why = Vec::new();
    let error = row.text("error");
    if !error.is_empty() {
        why.push(Why::new(Reason::OvsPortFailed, error));
    } else if row.integer("ofport").is_none_or(|number| number < 0) {
        let number = row.integer("ofport").map_or("[]".to_owned(), |number| number.to_string());
        why.push(Why::new(Reason::OvsPortFailed, format!("ofport={number}")));
    }
    for column in ["ingress_policing_rate", "ingress_policing_kpkts_rate"] {
        if let Some(rate) = row.integer(column).filter(|rate| *rate != 0) {
            why.push(Why::new(Reason::Policing, format!("{column}={rate}")));
        }
    }
    if row.value("bfd", "enable") == Some("true") {
        why.push(Why::new(Reason::OvsPortConfig, "bfd:enable=true"));
    }
    if let Some(id) = row.integer("cfm_mpid") {
        why.push(Why::new(Reason::OvsPortConfig, format!("cfm_mpid={id}")));
    }
    why
}

/// As ovs-vswitchd reports it; a port that takes no part in the protocol is not reported, and is taken
/// for one whose state is not known.
fn spanning_tree_state(port: &Row) -> StpState {
    let rapid = port.value("rstp_status", "rstp_port_state");
    match rapid.or(port.value("status", "stp_state")).map(str::to_lowercase).as_deref() {
        Some("forwarding") => StpState::Forwarding,
        Some("learning") => StpState::Learning,
        Some("listening") => StpState::Listening,
        Some("blocking" | "discarding") => StpState::Blocking,
        _ => StpState::Disabled,
    }
}

#[cfg(test)]
mod tests;
