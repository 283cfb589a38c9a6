//! Forwarding tables: the bridges' own, and those of their vxlan devices.
//!
//! Both come as `AF_BRIDGE` neighbour messages: a bridge's entry names the bridge
//! (`NDA_MASTER`), a vxlan device's entry the remote (`NDA_DST`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use netlink_packet_core::{Nla, Parseable};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::bridge::model::{
    Bridges, Changes, Device, Encap, FdbEntry, FdbKey, FdbKind, IfIndex, Mac, Remote, Tunnel,
};
use crate::bridge::netlink::{Refused, Requests};

/// `NDA_NH_ID`, which the netlink library does not name.
const NDA_NH_ID: u16 = 13;

/// One entry as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A bridge has a station behind a port.
    Bridge { bridge: IfIndex, key: FdbKey, entry: FdbEntry },
    /// A vxlan device has a station behind a remote.
    Tunnel { device: IfIndex, mac: Mac, destination: Destination },
}

/// Where a vxlan device sends (`struct vxlan_rdst`). What is `None` is the device's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// `0.0.0.0` where a nexthop group decides.
    address: IpAddr,
    port: Option<u16>,
    vni: Option<u32>,
    source_vni: Option<u32>,
    link: Option<IfIndex>,
    nexthop: Option<u32>,
}

impl Destination {
    /// As the model has it, in the words of `bridge fdb show`.
    fn remote(self, tunnel_link: Option<IfIndex>) -> Remote {
        let via = self.link.filter(|link| Some(*link) != tunnel_link);
        let words = [
            self.port.map(|port| format!("port {port}")),
            self.vni.map(|vni| format!("vni {vni}")),
            self.source_vni.map(|vni| format!("src_vni {vni}")),
            self.nexthop.map(|id| format!("nhid {id}")),
            via.map(|link| format!("via {}", device_name(link))),
        ];
        let options: Vec<_> = words.into_iter().flatten().collect();
        Remote { address: self.address, options: options.join(" ") }
    }
}

/// A device's name, `if` and the index where it has gone.
fn device_name(index: IfIndex) -> String {
    nix::net::if_::if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| format!("if{index}"))
}

/// Whether a neighbour message is one of a forwarding table, from its `ndm_family`.
pub(super) fn is_fdb(payload: &[u8]) -> bool {
    payload.first() == Some(&u8::from(AddressFamily::Bridge))
}

/// An entry; none where the message is of another device's address list, or not decodable.
pub(super) fn parse(payload: &[u8]) -> Option<Record> {
    let message = NeighbourMessage::parse(payload)
        .inspect_err(|error| tracing::warn!(%error, "left out an FDB entry that cannot be decoded"))
        .ok()?;
    record(&message)
}

fn record(message: &NeighbourMessage) -> Option<Record> {
    let device = message.header.ifindex;
    let mut mac = None;
    let mut vlan = 0;
    let mut bridge = None;
    let mut locked = false;
    let mut address = None;
    let (mut port, mut vni, mut source_vni, mut link, mut nexthop) = (None, None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(Mac);
            }
            NeighbourAttribute::Vlan(id) => vlan = *id,
            NeighbourAttribute::Controller(index) => bridge = Some(*index),
            NeighbourAttribute::ExtFlags(flags) => {
                // Any flag beside these says that the entry is not an ordinary one.
                locked = !(*flags - NeighbourExtFlags::Managed).is_empty();
            }
            NeighbourAttribute::Destination(destination) => address = ip(destination),
            NeighbourAttribute::Port(number) => port = Some(*number),
            NeighbourAttribute::Vni(id) => vni = Some(*id),
            NeighbourAttribute::SourceVni(id) => source_vni = Some(*id),
            NeighbourAttribute::IfIndex(index) => link = Some(*index).filter(|index| *index != 0),
            NeighbourAttribute::Other(other) if other.kind() == NDA_NH_ID => {
                let mut value = [0; 4];
                if other.value_len() == value.len() {
                    other.emit_value(&mut value);
                    nexthop = Some(u32::from_ne_bytes(value));
                }
            }
            _ => {}
        }
    }
    let mac = mac?;
    if let Some(bridge) = bridge {
        let kind = match message.header.state {
            _ if locked => FdbKind::Locked,
            NeighbourState::Permanent => FdbKind::Local,
            NeighbourState::Noarp => FdbKind::Static,
            _ => FdbKind::Dynamic,
        };
        let entry = FdbEntry { port: device, kind };
        return Some(Record::Bridge { bridge, key: FdbKey { vlan, mac }, entry });
    }
    if !message.header.flags.contains(NeighbourFlags::Own)
        || (address.is_none() && nexthop.is_none())
    {
        return None;
    }
    let address = address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    let destination = Destination { address, port, vni, source_vni, link, nexthop };
    Some(Record::Tunnel { device, mac, destination })
}

fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some(IpAddr::V4(*address)),
        NeighbourAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        // The library decodes by the message's family, which is AF_BRIDGE here.
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            _ => None,
        },
        _ => None,
    }
}

/// Which bridge each vxlan device is a port of.
pub(super) type VxlanPorts = HashMap<IfIndex, IfIndex>;

/// Finds the vxlan devices among the bridges' ports.
pub(super) fn vxlan_ports(bridges: &Bridges) -> VxlanPorts {
    bridges
        .values()
        .flat_map(|bridge| bridge.ports.values().map(move |port| (bridge, port)))
        .filter(|(_, port)| {
            matches!(&port.device, Device::Tunnel(tunnel) if tunnel.encap == Encap::Vxlan)
        })
        .map(|(bridge, port)| (port.ifindex, bridge.ifindex))
        .collect()
}

/// The tunnel of a port, if it is one.
pub(super) fn tunnel_mut(
    bridges: &mut Bridges,
    bridge: IfIndex,
    port: IfIndex,
) -> Option<&mut Tunnel> {
    match &mut bridges.get_mut(&bridge)?.ports.get_mut(&port)?.device {
        Device::Tunnel(tunnel) => Some(tunnel),
        _ => None,
    }
}

/// Applies one notification: an entry that is there now, or was removed. Entries of bridges and
/// devices that are not known (yet) do not matter: to learn of one is to dump its table.
pub(super) fn apply(
    bridges: &mut Bridges,
    vxlan_ports: &VxlanPorts,
    record: Record,
    present: bool,
    changes: &mut Changes,
) {
    match record {
        Record::Bridge { bridge, key, entry } => {
            let Some(bridge) = bridges.get_mut(&bridge) else { return };
            let before =
                if present { bridge.fdb.insert(key, entry) } else { bridge.fdb.remove(&key) };
            if before != present.then_some(entry) {
                changes.fdb.push((bridge.ifindex, key));
            }
        }
        Record::Tunnel { device, mac, destination } => {
            let Some(bridge) = vxlan_ports.get(&device) else { return };
            let Some(tunnel) = tunnel_mut(bridges, *bridge, device) else { return };
            let remote = destination.remote(tunnel.link);
            if apply_remote(tunnel, mac, remote, present) {
                note_remote(bridges, (*bridge, device), mac, changes);
            }
        }
    }
}

/// Whether the tunnel's table changed.
fn apply_remote(tunnel: &mut Tunnel, mac: Mac, remote: Remote, present: bool) -> bool {
    if mac == Mac::ZERO {
        return put(&mut tunnel.remotes, remote, present);
    }
    if mac.is_group() {
        let remotes = tunnel.fdb.entry(mac).or_default();
        let changed = put(remotes, remote, present);
        if remotes.is_empty() {
            tunnel.fdb.remove(&mac);
        }
        return changed;
    }
    // Only group addresses and the zero address take several remotes (vxlan_fdb_update_existing).
    // A unicast station's remote is changed in place, and the notification tells the new one alone.
    let remotes = vec![remote];
    let before =
        if present { tunnel.fdb.insert(mac, remotes.clone()) } else { tunnel.fdb.remove(&mac) };
    before != present.then_some(remotes)
}

/// Adds to or removes from a sorted list; true if that changed it.
fn put(remotes: &mut Vec<Remote>, remote: Remote, present: bool) -> bool {
    match (remotes.binary_search(&remote), present) {
        (Err(at), true) => remotes.insert(at, remote),
        (Ok(at), false) => drop(remotes.remove(at)),
        _ => return false,
    }
    true
}

/// Notes that a vxlan device's remote for a station changed.
fn note_remote(
    bridges: &Bridges,
    (bridge, device): (IfIndex, IfIndex),
    mac: Mac,
    changes: &mut Changes,
) {
    if mac == Mac::ZERO {
        changes.topology = true;
        return;
    }
    let Some(bridge) = bridges.get(&bridge) else { return };
    let Some(port) = bridge.ports.get(&device) else { return };
    // A vxlan device does not look at tags: it may be any of the station's entries, or one that comes.
    let keys = port.vlans.carries.iter().map(|vlan| FdbKey { vlan, mac });
    let keys = keys.filter(|key| key.vlan == 0 || bridge.fdb.contains_key(key));
    changes.fdb.extend(keys.map(|key| (bridge.ifindex, key)));
}

/// Forwarding tables by bridge or vxlan device.
#[derive(Default)]
pub(in crate::bridge) struct Tables {
    bridges: HashMap<IfIndex, HashMap<FdbKey, FdbEntry>>,
    tunnels: HashMap<IfIndex, HashMap<Mac, Vec<Destination>>>,
}

/// Dumps every forwarding table of the calling thread's network namespace.
pub(in crate::bridge) async fn dump() -> Result<Tables, Refused> {
    let mut tables = Tables::default();
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    Requests::open()?
        .dump(RouteNetlinkMessage::GetNeighbour(message), |frame| match parse(frame.payload) {
            Some(Record::Bridge { bridge, key, entry }) => {
                tables.bridges.entry(bridge).or_default().insert(key, entry);
            }
            Some(Record::Tunnel { device, mac, destination }) => {
                tables.tunnels.entry(device).or_default().entry(mac).or_default().push(destination);
            }
            None => {}
        })
        .await?;
    Ok(tables)
}

impl Tables {
    /// The addresses on a vxlan device's flood list.
    pub(in crate::bridge) fn flood(&self, device: IfIndex) -> Vec<IpAddr> {
        self.tunnels
            .get(&device)
            .and_then(|table| table.get(&Mac::ZERO))
            .map(|remotes| remotes.iter().map(|to| to.address).collect())
            .unwrap_or_default()
    }

    /// Makes the bridges' tables equal to the dumped ones and notes every difference.
    pub(super) fn install(
        mut self,
        bridges: &mut Bridges,
        vxlan_ports: &VxlanPorts,
        changes: &mut Changes,
    ) {
        for bridge in bridges.values_mut() {
            let now = self.bridges.remove(&bridge.ifindex).unwrap_or_default();
            let before = std::mem::replace(&mut bridge.fdb, now);
            let ifindex = bridge.ifindex;
            changes.fdb.extend(difference(&before, &bridge.fdb).map(|key| (ifindex, key)));
        }
        for (&device, &bridge) in vxlan_ports {
            let Some(tunnel) = tunnel_mut(bridges, bridge, device) else { continue };
            let mut now: HashMap<Mac, Vec<Remote>> = HashMap::new();
            for (mac, destinations) in self.tunnels.remove(&device).unwrap_or_default() {
                let mut remotes: Vec<_> =
                    destinations.into_iter().map(|to| to.remote(tunnel.link)).collect();
                remotes.sort_unstable();
                remotes.dedup();
                now.insert(mac, remotes);
            }
            let flood = now.remove(&Mac::ZERO).unwrap_or_default();
            let mut changed: HashSet<Mac> = HashSet::new();
            if tunnel.remotes != flood {
                tunnel.remotes = flood;
                changed.insert(Mac::ZERO);
            }
            let before = std::mem::replace(&mut tunnel.fdb, now);
            changed.extend(difference(&before, &tunnel.fdb));
            for mac in changed {
                note_remote(bridges, (bridge, device), mac, changes);
            }
        }
    }
}

/// The keys whose values differ.
fn difference<'a, K: Copy + Eq + std::hash::Hash, V: PartialEq>(
    before: &'a HashMap<K, V>,
    now: &'a HashMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    let gone = before.keys().filter(|key| !now.contains_key(key));
    let new = now.iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, _)| key);
    gone.chain(new).copied()
}
