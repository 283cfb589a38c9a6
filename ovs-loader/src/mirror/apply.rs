//! From a plan to map updates: only what differs, in an order that leaves a packet either its old
//! way, its new way or the bridge.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ovs_ebpf_common::abi::{
    FdbFlags, FdbKey, FdbValue, IndexKey, PortValue, TunnelFlags, TunnelIndexValue, TunnelPath,
    TunnelValue, VXLAN_PORTS,
};

use super::entry;
use super::maps::{MapReader, MapWriter};
use super::plan::Plan;
use crate::bridge::model::{self, AllBridges, IfIndex};

/// What the maps say, as far as this daemon or the one it adopted wrote it.
#[derive(Debug, Default)]
pub struct Applied {
    ports: BTreeMap<IfIndex, PortValue>,
    tunnels: BTreeMap<u32, TunnelValue>,
    index: BTreeMap<IndexKey, TunnelIndexValue>,
    fdb: HashMap<FdbKey, FdbValue>,
    vxlan_ports: [[u8; 2]; VXLAN_PORTS],
    refused: BTreeSet<FdbKey>,
    /// The last call did all it had to.
    settled: bool,
}

impl Applied {
    /// Reads what an earlier daemon left.
    ///
    /// # Errors
    /// Where a map can't be read.
    pub fn adopt<R: MapReader>(maps: &R) -> Result<Self, R::Error> {
        let index: BTreeMap<_, _> = maps
            .tunnel_index()?
            .into_iter()
            .map(|(key, value)| (key, TunnelIndexValue { next_event: 0, ..value }))
            .collect();
        let tunnels = index
            .values()
            .map(|value| Ok((value.tunnel, comparable_tunnel(maps.tunnel(value.tunnel)?))))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            ports: maps
                .ports()?
                .into_iter()
                .map(|(ifindex, value)| (ifindex, PortValue { next_event: 0, ..value }))
                .collect(),
            tunnels,
            index,
            fdb: maps.fdb()?.into_iter().map(|(key, value)| (key, comparable(value))).collect(),
            vxlan_ports: maps.vxlan_ports()?,
            refused: BTreeSet::new(),
            settled: false,
        })
    }

    /// The ids of the tunnels in the maps.
    pub fn tunnel_ids(&self) -> impl Iterator<Item = (IndexKey, u32)> {
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
    /// First tunnels stop that must not be used any more; then what is gone is removed, from the FDB
    /// down, so that nothing points at what is being changed; then comes what is new, from the tunnels
    /// up.
    ///
    /// # Errors
    /// The first write that fails: what is done is noted, and the next call of any kind does the rest.
    pub fn replan<W: MapWriter>(
        &mut self,
        maps: &mut W,
        plan: &Plan,
        bridges: AllBridges<'_>,
    ) -> Result<(), W::Error> {
        self.settled = false;
        let mut fdb: HashMap<FdbKey, FdbValue> = HashMap::new();
        for bridge in bridges.iter() {
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

        // Ids that still mean the same tunnel.
        let kept: BTreeSet<u32> = self
            .index
            .iter()
            .filter(|(key, value)| index.get(key).is_some_and(|now| now.tunnel == value.tunnel))
            .map(|(_, value)| value.tunnel)
            .collect();

        // Encapsulation stops at once, not when the last of a long FDB's entries is gone: what stands
        // against the tunnel may be that its packets must not leave in the clear.
        let is_ready = |value: &TunnelValue| value.flags & TunnelFlags::READY != 0;
        let stays_ready = |id: &u32| kept.contains(id) && tunnels.get(id).is_some_and(is_ready);
        for id in rejects(&self.tunnels, |id, value| !is_ready(value) || stays_ready(id)) {
            let stopped = self.tunnels[&id];
            let stopped = TunnelValue { flags: stopped.flags & !TunnelFlags::READY, ..stopped };
            maps.set_tunnel(id, &stopped)?;
            self.tunnels.insert(id, stopped);
        }

        // An entry that goes elsewhere is removed before it is added again: its tunnel may be new.
        let stays = |key: &FdbKey, value: &FdbValue| {
            fdb.get(key).is_some_and(|wanted| way(wanted) == way(value))
                && (!is_behind_tunnel(value) || kept.contains(&value.target))
        };
        let stale: Vec<_> = self
            .fdb
            .iter()
            .filter(|(key, value)| !stays(key, value))
            .map(|(key, _)| *key)
            .collect();
        for key in stale {
            self.remove_fdb(maps, &key)?;
        }
        for ifindex in rejects(&self.ports, |ifindex, _| ports.contains_key(ifindex)) {
            maps.remove_port(ifindex)?;
            self.ports.remove(&ifindex);
        }
        let stays = |key: &IndexKey, value: &TunnelIndexValue| {
            index.get(key).is_some_and(|wanted| wanted.tunnel == value.tunnel)
        };
        for key in rejects(&self.index, stays) {
            maps.remove_tunnel_index(&key)?;
            self.index.remove(&key);
        }
        for id in rejects(&self.tunnels, |id, _| kept.contains(id)) {
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
        let mut room = true;
        for (key, value) in fdb {
            // A full map is not asked again for every entry that is left.
            if room || self.fdb.contains_key(&key) {
                room &= self.set_fdb(maps, key, value)?;
            } else {
                self.refused.insert(key);
            }
        }
        self.settled = true;
        Ok(())
    }

    /// Brings single FDB entries in line, under an unchanged plan that [serves](Plan::serves) them.
    ///
    /// # Errors
    /// As [`Self::replan`].
    pub fn fdb_changed<W: MapWriter>(
        &mut self,
        maps: &mut W,
        plan: &Plan,
        bridges: AllBridges<'_>,
        changes: &[(IfIndex, model::FdbKey)],
    ) -> Result<(), W::Error> {
        if !std::mem::take(&mut self.settled) {
            return self.replan(maps, plan, bridges);
        }
        let mut room = false;
        for (ifindex, key) in changes {
            let map_key = FdbKey { bridge: *ifindex, vlan: key.vlan, mac: key.mac.0 };
            let wanted = bridges
                .get(*ifindex)
                .and_then(|bridge| entry::decide(plan, bridge, key, bridge.fdb.get(key)?).value);
            self.refused.remove(&map_key);
            match wanted {
                Some(value) => drop(self.set_fdb(maps, map_key, value)?),
                None => room |= self.remove_fdb(maps, &map_key)?,
            }
        }
        if room {
            self.retry_refused(maps, plan, bridges)?;
        }
        self.settled = true;
        Ok(())
    }

    /// Tries the entries again that found the map full, until it is full again.
    fn retry_refused<W: MapWriter>(
        &mut self,
        maps: &mut W,
        plan: &Plan,
        bridges: AllBridges<'_>,
    ) -> Result<(), W::Error> {
        while let Some(&key) = self.refused.first() {
            let model_key = model::FdbKey { vlan: key.vlan, mac: model::Mac(key.mac) };
            let wanted = bridges.get(key.bridge).and_then(|bridge| {
                entry::decide(plan, bridge, &model_key, bridge.fdb.get(&model_key)?).value
            });
            if let Some(value) = wanted
                && !self.set_fdb(maps, key, value)?
            {
                break;
            }
            self.refused.remove(&key);
        }
        Ok(())
    }

    /// Gives whether there was room.
    fn set_fdb<W: MapWriter>(
        &mut self,
        maps: &mut W,
        key: FdbKey,
        value: FdbValue,
    ) -> Result<bool, W::Error> {
        if self.fdb.get(&key) == Some(&value) {
            return Ok(true);
        }
        let room = maps.set_fdb(&key, &value)?;
        if room {
            self.fdb.insert(key, value);
        } else {
            self.refused.insert(key);
        }
        Ok(room)
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

/// An adopted value with the path in use, if any, where a plan has the path wanted.
fn comparable_tunnel(value: TunnelValue) -> TunnelValue {
    let path = match value.flags & TunnelFlags::READY {
        0 => TunnelPath::default(),
        _ => value.paths[usize::from(value.active & 1)],
    };
    TunnelValue { active: 0, paths: [path, TunnelPath::default()], ..value }
}

fn is_behind_tunnel(value: &FdbValue) -> bool {
    value.flags & FdbFlags::TUNNEL != 0
}

/// Where an entry leads. Ifindices and tunnel ids are numbers of their own.
fn way(value: &FdbValue) -> (u32, bool) {
    (value.target, is_behind_tunnel(value))
}

/// The keys of what does not stay.
fn rejects<K: Copy, V>(applied: &BTreeMap<K, V>, stays: impl Fn(&K, &V) -> bool) -> Vec<K> {
    applied.iter().filter(|(key, value)| !stays(key, value)).map(|(key, _)| *key).collect()
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
