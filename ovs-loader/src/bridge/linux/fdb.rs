//! Forwarding tables: the bridges' own, and those of their vxlan devices.
//!
//! Both come as `AF_BRIDGE` neighbour messages: a bridge's entry names the bridge
//! (`NDA_MASTER`), a vxlan device's entry the remote (`NDA_DST`).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::record::{self, Destination, Record};
use crate::bridge::by_station::ByStation;
use crate::bridge::model::{
    Bridges, Changes, Device, Encap, FdbEntry, FdbKey, IfIndex, Mac, Remote, Tunnel,
};
use crate::bridge::netlink::{Dump, Frame, Refused, Requests};

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
            let vni = remote.vni;
            if apply_remote(tunnel, mac, remote, present) {
                note_remote(bridges, (*bridge, device), (mac, vni), changes);
            }
        }
    }
}

/// Whether the tunnel's table changed.
fn apply_remote(tunnel: &mut Tunnel, mac: Mac, remote: Remote, present: bool) -> bool {
    if mac == Mac::ZERO {
        return put(&mut tunnel.remotes, remote, present);
    }
    let mut remotes = tunnel.fdb.get(mac).unwrap_or_default().to_vec();
    // Only group addresses and the zero address take several remotes (vxlan_fdb_update_existing).
    // A unicast station's remote is changed in place, and the notification tells the new one alone.
    if !mac.is_group() {
        remotes.retain(|other| other.vni != remote.vni);
    }
    put(&mut remotes, remote, present);
    match remotes.is_empty() {
        true => tunnel.fdb.remove(mac),
        false => tunnel.fdb.insert(mac, &remotes),
    }
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

/// Notes that a vxlan device's remote for a station changed, in metadata mode for frames of that VNI.
fn note_remote(
    bridges: &Bridges,
    (bridge, device): (IfIndex, IfIndex),
    (mac, vni): (Mac, Option<u32>),
    changes: &mut Changes,
) {
    if mac == Mac::ZERO {
        changes.topology = true;
        return;
    }
    let Some(bridge) = bridges.get(&bridge) else { return };
    let Some(port) = bridge.ports.get(&device) else { return };
    if let Some(vnis) = &port.vlans.vnis {
        let vlan = vni.and_then(|vni| vnis.vlan(vni).ok());
        changes.fdb.extend(vlan.map(|vlan| (bridge.ifindex, FdbKey { vlan, mac })));
        return;
    }
    // A vxlan device does not look at tags: it may be any of the station's entries, or one that comes.
    let keys = port.vlans.carries.iter().map(|vlan| FdbKey { vlan, mac });
    let keys = keys.filter(|key| key.vlan == 0 || bridge.fdb.contains_key(key));
    changes.fdb.extend(keys.map(|key| (bridge.ifindex, key)));
}

/// A vxlan device's table; in metadata mode one of as many as there are source VNIs, since a MAC may be in
/// all of them.
type Table = (IfIndex, Option<u32>);

/// Forwarding tables by bridge or vxlan device.
#[derive(Default)]
pub(in crate::bridge) struct Tables {
    bridges: HashMap<IfIndex, HashMap<FdbKey, FdbEntry>>,
    tunnels: HashMap<Table, ByStation<Destination>>,
    /// The vxlan entry being read: each destination comes with a message of its own.
    current: Option<(Table, Mac, Vec<Destination>)>,
}

/// What every forwarding table of the calling thread's network namespace is asked for with.
fn request() -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Dumps every forwarding table of the calling thread's network namespace.
pub(in crate::bridge) async fn dump() -> Result<Tables, Refused> {
    let mut tables = Tables::default();
    Requests::open()?.dump(request(), |frame| tables.take_up(&frame)).await?;
    tables.finish();
    Ok(tables)
}

/// A dump of every forwarding table that takes its time: the kernel goes through a bridge's table
/// from its start for every 32 KiB of it.
pub(super) struct Reading {
    dump: Dump,
    tables: Tables,
    begun: Instant,
    /// What was announced before may not all have been heard.
    missed: bool,
    /// What was announced meanwhile. The dump may have it or not.
    announced: Vec<(Record, bool)>,
}

impl Reading {
    /// Begins in the calling thread's network namespace.
    pub(super) fn begin(missed: bool) -> Result<Self, Refused> {
        Ok(Self {
            dump: Requests::open()?.begin_dump(request())?,
            tables: Tables::default(),
            begun: Instant::now(),
            missed,
            announced: Vec::new(),
        })
    }

    /// Waits until there is more to read.
    pub(super) async fn wait(&self) -> io::Result<()> {
        self.dump.wait().await
    }

    /// Notes what was announced, to be applied again to what was read.
    pub(super) fn note(&mut self, record: Record, present: bool) {
        self.announced.push((record, present));
    }

    /// Reads on, without waiting. Gives whether that was all.
    pub(super) fn read(&mut self) -> Result<bool, Refused> {
        self.dump.read(|frame| self.tables.take_up(&frame))
    }

    /// Makes the bridges' tables what was read, with what was announced since, and notes every
    /// difference; but for those `unread`, of which it may not have all. Gives how long it took to read.
    ///
    /// The kernel finds its place in a table by counting, and skips an entry for each one before it
    /// that goes away. Where all was heard, what was heard is better than such a dump.
    pub(super) fn install(
        mut self,
        bridges: &mut Bridges,
        vxlan_ports: &VxlanPorts,
        unread: &BTreeSet<IfIndex>,
        changes: &mut Changes,
    ) -> Duration {
        let took = self.begun.elapsed();
        if !self.missed && self.announced.iter().any(|(_, present)| !present) {
            return took;
        }
        self.tables.finish();
        self.tables.install(bridges, vxlan_ports, unread, changes);
        for (record, present) in self.announced {
            if !unread.contains(&record.table()) {
                apply(bridges, vxlan_ports, record, present, changes);
            }
        }
        took
    }
}

impl Tables {
    fn take_up(&mut self, frame: &Frame<'_>) {
        match record::parse(frame.payload) {
            Some(Record::Bridge { bridge, key, entry }) => {
                self.bridges.entry(bridge).or_default().insert(key, entry);
            }
            Some(Record::Tunnel { device, mac, destination }) => {
                self.add(device, mac, destination);
            }
            None => {}
        }
    }

    fn add(&mut self, device: IfIndex, mac: Mac, destination: Destination) {
        let table = (device, destination.source_vni());
        match &mut self.current {
            Some((last, station, list)) if (*last, *station) == (table, mac) => {
                list.push(destination);
            }
            _ => {
                self.finish();
                self.current = Some((table, mac, vec![destination]));
            }
        }
    }

    /// Takes up the entry being read.
    fn finish(&mut self) {
        let Some((table, mac, mut list)) = self.current.take() else { return };
        let table = self.tunnels.entry(table).or_default();
        // An entry may change its place in the table while that is dumped.
        list.extend_from_slice(table.get(mac).unwrap_or_default());
        table.insert(mac, &list);
    }

    /// The addresses on a vxlan device's flood list.
    pub(in crate::bridge) fn flood(&self, device: IfIndex) -> Vec<IpAddr> {
        let tables = self.tunnels.iter().filter(|((of, _), _)| *of == device);
        let remotes = tables.filter_map(|(_, table)| table.get(Mac::ZERO)).flatten();
        remotes.map(|to| to.address).collect()
    }

    /// Makes the bridges' tables equal to the dumped ones and notes every difference.
    fn install(
        mut self,
        bridges: &mut Bridges,
        vxlan_ports: &VxlanPorts,
        unread: &BTreeSet<IfIndex>,
        changes: &mut Changes,
    ) {
        for bridge in bridges.values_mut().filter(|bridge| !unread.contains(&bridge.ifindex)) {
            let now = self.bridges.remove(&bridge.ifindex).unwrap_or_default();
            let before = std::mem::replace(&mut bridge.fdb, now);
            let ifindex = bridge.ifindex;
            changes.fdb.extend(difference(&before, &bridge.fdb).map(|key| (ifindex, key)));
        }
        let mut tables = HashMap::<IfIndex, Vec<_>>::new();
        for ((device, _), table) in self.tunnels {
            tables.entry(device).or_default().push(table);
        }
        for (&device, &bridge) in vxlan_ports.iter().filter(|(device, _)| !unread.contains(device))
        {
            let Some(tunnel) = tunnel_mut(bridges, bridge, device) else { continue };
            let tables = tables.remove(&device).unwrap_or_default();
            let mut now = ByStation::merged(tables).map(|destinations| {
                let mut remotes: Vec<_> =
                    destinations.iter().map(|to| to.remote(tunnel.link)).collect();
                remotes.sort_unstable();
                remotes.dedup();
                remotes
            });
            let flood = now.get(Mac::ZERO).unwrap_or_default().to_vec();
            now.remove(Mac::ZERO);
            let mut changed: Vec<(Mac, Option<u32>)> = Vec::new();
            if tunnel.remotes != flood {
                tunnel.remotes = flood;
                changed.push((Mac::ZERO, None));
            }
            let before = std::mem::replace(&mut tunnel.fdb, now);
            for mac in before.differences(&tunnel.fdb) {
                let both = [&before, &tunnel.fdb].into_iter().filter_map(|table| table.get(mac));
                changed.extend(both.flatten().map(|remote| (mac, remote.vni)));
            }
            changed.dedup();
            for entry in changed {
                note_remote(bridges, (bridge, device), entry, changes);
            }
        }
    }
}

/// The keys whose values differ.
pub(in crate::bridge) fn difference<'a, K: Copy + Eq + std::hash::Hash, V: PartialEq>(
    before: &'a HashMap<K, V>,
    now: &'a HashMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    let gone = before.keys().filter(|key| !now.contains_key(key));
    let new = now.iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, _)| key);
    gone.chain(new).copied()
}
