//! From a plan to map updates: only what differs, in an order that leaves a packet either its old
//! way, its new way or the bridge.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ovs_ebpf_common::abi::{
    FdbKey, FdbValue, PortValue, TunnelIndexKey, TunnelIndexValue, TunnelValue, VXLAN_PORTS,
};

use super::entry;
use super::plan::Plan;
use crate::bridge::model::{self, Bridges, IfIndex};
use crate::datapath::{TableError, Tables};

/// What a plan is written to.
pub trait MapWriter {
    /// What a write fails with.
    type Error;
    /// Sets the UDP ports of the VXLAN tunnels.
    fn set_vxlan_ports(&mut self, ports: [[u8; 2]; VXLAN_PORTS]) -> Result<(), Self::Error>;
    /// Adds or replaces a port.
    fn set_port(&mut self, ifindex: IfIndex, value: PortValue) -> Result<(), Self::Error>;
    /// Removes a port.
    fn remove_port(&mut self, ifindex: IfIndex) -> Result<(), Self::Error>;
    /// Adds or replaces an FDB entry; `false` where the map is full.
    fn set_fdb(&mut self, key: &FdbKey, value: &FdbValue) -> Result<bool, Self::Error>;
    /// Removes an FDB entry.
    fn remove_fdb(&mut self, key: &FdbKey) -> Result<(), Self::Error>;
    /// Sets a tunnel, whose wanted path is `value.paths[0]`.
    fn set_tunnel(&mut self, id: u32, value: &TunnelValue) -> Result<(), Self::Error>;
    /// Frees a tunnel's id.
    fn clear_tunnel(&mut self, id: u32) -> Result<(), Self::Error>;
    /// Adds or replaces what received packets of a tunnel belong to.
    fn set_tunnel_index(
        &mut self,
        key: &TunnelIndexKey,
        value: &TunnelIndexValue,
    ) -> Result<(), Self::Error>;
    /// Removes a tunnel from the index.
    fn remove_tunnel_index(&mut self, key: &TunnelIndexKey) -> Result<(), Self::Error>;
}

/// What the maps say, as far as this daemon or the one it adopted wrote it.
#[derive(Debug, Default)]
pub struct Applied {
    ports: BTreeMap<IfIndex, PortValue>,
    tunnels: BTreeMap<u32, TunnelValue>,
    index: BTreeMap<TunnelIndexKey, TunnelIndexValue>,
    fdb: HashMap<FdbKey, FdbValue>,
    vxlan_ports: [[u8; 2]; VXLAN_PORTS],
    refused: BTreeSet<FdbKey>,
}

impl Applied {
    /// Reads what an earlier daemon left.
    ///
    /// # Errors
    /// Where a map can't be read.
    pub fn adopt(tables: &Tables) -> Result<Self, TableError> {
        let index: BTreeMap<_, _> = tables.tunnel_index()?.into_iter().collect();
        let tunnels = index
            .values()
            .map(|value| {
                let mut tunnel = tables.tunnel(value.tunnel)?;
                tunnel.paths = [tunnel.paths[usize::from(tunnel.active & 1)], Default::default()];
                tunnel.active = 0;
                Ok((value.tunnel, tunnel))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            ports: tables.ports()?.into_iter().collect(),
            tunnels,
            index,
            fdb: tables.fdb()?.into_iter().map(|(key, value)| (key, comparable(value))).collect(),
            // Unknown: written in any case.
            vxlan_ports: [[0xff; 2]; VXLAN_PORTS],
            refused: BTreeSet::new(),
        })
    }

    /// The ids of the tunnels in the maps.
    pub fn tunnel_ids(&self) -> impl Iterator<Item = (TunnelIndexKey, u32)> {
        self.index.iter().map(|(key, value)| (*key, value.tunnel))
    }

    /// Whether the `fdb` map has an entry.
    #[must_use]
    pub fn contains(&self, key: &FdbKey) -> bool {
        self.fdb.contains_key(key)
    }

    /// Whether the `fdb` map had no room for an entry.
    #[must_use]
    pub fn is_refused(&self, key: &FdbKey) -> bool {
        self.refused.contains(key)
    }

    /// Brings the maps in line with the plan and the bridges' FDBs.
    ///
    /// First goes what must not be used any more, from the FDB down, so that nothing points at what
    /// is being changed; then comes what is new, from the tunnels up.
    ///
    /// # Errors
    /// The first write that fails: what is done is noted, and the next call goes on from there.
    pub fn replan<W: MapWriter>(
        &mut self,
        maps: &mut W,
        plan: &Plan,
        bridges: &Bridges,
    ) -> Result<(), W::Error> {
        let mut fdb: HashMap<FdbKey, FdbValue> = HashMap::new();
        for bridge in bridges.values() {
            for (key, entry) in &bridge.fdb {
                if let Some(value) = entry::decide(plan, bridge, key, entry).value {
                    fdb.insert(entry::map_key(bridge, key), value);
                }
            }
        }
        let ports: BTreeMap<_, _> =
            plan.ports().map(|(ifindex, value, _)| (ifindex, value)).collect();
        let index: BTreeMap<_, _> = plan.entries().map(|entry| (entry.key, entry.index)).collect();
        let tunnels: BTreeMap<_, _> = plan.entries().map(|entry| (entry.id, entry.value)).collect();

        // An entry that goes elsewhere is removed before it is added again: its tunnel may be new.
        let stale: Vec<_> = self
            .fdb
            .iter()
            .filter(|(key, value)| fdb.get(*key).is_none_or(|wanted| wanted.target != value.target))
            .map(|(key, _)| *key)
            .collect();
        for key in stale {
            self.remove_fdb(maps, &key)?;
        }
        for ifindex in gone(&self.ports, &ports) {
            maps.remove_port(ifindex)?;
            self.ports.remove(&ifindex);
        }
        for key in gone(&self.index, &index) {
            maps.remove_tunnel_index(&key)?;
            self.index.remove(&key);
        }
        for id in gone(&self.tunnels, &tunnels) {
            maps.clear_tunnel(id)?;
            self.tunnels.remove(&id);
        }

        for (id, value) in changed(&self.tunnels, &tunnels) {
            maps.set_tunnel(id, &value)?;
            self.tunnels.insert(id, value);
        }
        for (key, value) in changed(&self.index, &index) {
            maps.set_tunnel_index(&key, &value)?;
            self.index.insert(key, value);
        }
        for (ifindex, value) in changed(&self.ports, &ports) {
            maps.set_port(ifindex, value)?;
            self.ports.insert(ifindex, value);
        }
        if self.vxlan_ports != plan.vxlan_ports {
            maps.set_vxlan_ports(plan.vxlan_ports)?;
            self.vxlan_ports = plan.vxlan_ports;
        }
        self.refused.clear();
        for (key, value) in fdb {
            self.set_fdb(maps, key, value)?;
        }
        Ok(())
    }

    /// Brings single FDB entries in line, under an unchanged plan.
    ///
    /// # Errors
    /// The first write that fails.
    pub fn fdb_changed<W: MapWriter>(
        &mut self,
        maps: &mut W,
        plan: &Plan,
        bridges: &Bridges,
        changes: &[(IfIndex, model::FdbKey)],
    ) -> Result<(), W::Error> {
        let mut room = false;
        for (ifindex, key) in changes {
            let map_key = FdbKey { bridge: *ifindex, vlan: key.vlan, mac: key.mac.0 };
            let wanted = bridges
                .get(ifindex)
                .and_then(|bridge| entry::decide(plan, bridge, key, bridge.fdb.get(key)?).value);
            self.refused.remove(&map_key);
            match wanted {
                Some(value) => self.set_fdb(maps, map_key, value)?,
                None => room |= self.remove_fdb(maps, &map_key)?,
            }
        }
        if room {
            self.retry_refused(maps, plan, bridges)?;
        }
        Ok(())
    }

    /// Tries the entries again that found the map full.
    fn retry_refused<W: MapWriter>(
        &mut self,
        maps: &mut W,
        plan: &Plan,
        bridges: &Bridges,
    ) -> Result<(), W::Error> {
        for key in std::mem::take(&mut self.refused) {
            let model_key = model::FdbKey { vlan: key.vlan, mac: model::Mac(key.mac) };
            let wanted = bridges.get(&key.bridge).and_then(|bridge| {
                entry::decide(plan, bridge, &model_key, bridge.fdb.get(&model_key)?).value
            });
            if let Some(value) = wanted {
                self.set_fdb(maps, key, value)?;
            }
        }
        Ok(())
    }

    fn set_fdb<W: MapWriter>(
        &mut self,
        maps: &mut W,
        key: FdbKey,
        value: FdbValue,
    ) -> Result<(), W::Error> {
        if self.fdb.get(&key) == Some(&value) {
            return Ok(());
        }
        if maps.set_fdb(&key, &value)? {
            self.fdb.insert(key, value);
        } else {
            self.refused.insert(key);
        }
        Ok(())
    }

    /// Gives whether the entry was there.
    fn remove_fdb<W: MapWriter>(&mut self, maps: &mut W, key: &FdbKey) -> Result<bool, W::Error> {
        if !self.fdb.contains_key(key) {
            return Ok(false);
        }
        maps.remove_fdb(key)?;
        self.fdb.remove(key);
        Ok(true)
    }
}

/// An adopted value without what the programs write.
fn comparable(value: FdbValue) -> FdbValue {
    FdbValue { next_revalidation: 0, ..value }
}

fn gone<K: Copy + Ord, V>(applied: &BTreeMap<K, V>, wanted: &BTreeMap<K, V>) -> Vec<K> {
    applied.keys().filter(|key| !wanted.contains_key(key)).copied().collect()
}

fn changed<K: Copy + Ord, V: Copy + PartialEq>(
    applied: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Vec<(K, V)> {
    wanted
        .iter()
        .filter(|(key, value)| applied.get(key) != Some(value))
        .map(|(key, value)| (*key, *value))
        .collect()
}

impl MapWriter for Tables {
    type Error = TableError;

    fn set_vxlan_ports(&mut self, ports: [[u8; 2]; VXLAN_PORTS]) -> Result<(), TableError> {
        self.set_vxlan_ports(ports)
    }

    fn set_port(&mut self, ifindex: IfIndex, value: PortValue) -> Result<(), TableError> {
        self.set_port(ifindex, value)
    }

    fn remove_port(&mut self, ifindex: IfIndex) -> Result<(), TableError> {
        self.remove_port(ifindex)
    }

    fn set_fdb(&mut self, key: &FdbKey, value: &FdbValue) -> Result<bool, TableError> {
        match self.set_fdb(key, value) {
            Ok(()) => Ok(true),
            Err(TableError::Full(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_fdb(&mut self, key: &FdbKey) -> Result<(), TableError> {
        self.remove_fdb(key)
    }

    fn set_tunnel(&mut self, id: u32, value: &TunnelValue) -> Result<(), TableError> {
        self.set_tunnel(id, value)
    }

    fn clear_tunnel(&mut self, id: u32) -> Result<(), TableError> {
        self.clear_tunnel(id)
    }

    fn set_tunnel_index(
        &mut self,
        key: &TunnelIndexKey,
        value: &TunnelIndexValue,
    ) -> Result<(), TableError> {
        self.set_tunnel_index(key, value)
    }

    fn remove_tunnel_index(&mut self, key: &TunnelIndexKey) -> Result<(), TableError> {
        self.remove_tunnel_index(key)
    }
}
