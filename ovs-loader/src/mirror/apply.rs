//! From a plan to map updates: only what differs, in an order that leaves a packet either its old
//! way, its new way or the bridge.

use std::collections::{BTreeMap, BTreeSet};

use ovs_ebpf_common::abi::{
    FdbFlags, FdbKey, FdbValue, IndexKey, PortValue, TunnelFlags, TunnelIndexValue, TunnelPath,
    TunnelValue, VXLAN_PORTS,
};

use super::entry::{self, Basis};
use super::held::{self, Held};
use super::maps::{MapReader, MapWriter};
use super::plan::Plan;
use crate::bridge::model::{self, AllBridges, IfIndex};

/// How many FDB entries are gone through before the maps are written to.
const BATCH: usize = 4096;

/// What the maps say, as far as this daemon or the one it adopted wrote it.
#[derive(Debug, Default)]
pub struct Applied {
    ports: BTreeMap<IfIndex, PortValue>,
    tunnels: BTreeMap<u32, TunnelValue>,
    index: BTreeMap<IndexKey, TunnelIndexValue>,
    fdb: Held,
    vxlan_ports: [u16; VXLAN_PORTS],
    /// What the FDB entries were decided by, bridge by bridge; `None` where the last call did not do
    /// all it had to.
    bases: Option<BTreeMap<IfIndex, Basis>>,
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
        let mut fdb = Held::default();
        for (key, value) in maps.fdb()? {
            fdb.note(&key, value);
        }
        Ok(Self {
            ports: maps
                .ports()?
                .into_iter()
                .map(|(ifindex, value)| (ifindex, PortValue { next_event: 0, ..value }))
                .collect(),
            tunnels,
            index,
            fdb,
            vxlan_ports: maps.vxlan_ports()?,
            bases: None,
        })
    }

    /// The ids of the tunnels in the maps.
    pub fn tunnel_ids(&self) -> impl Iterator<Item = (IndexKey, u32)> {
        self.index.iter().map(|(key, value)| (*key, value.tunnel))
    }

    /// Whether the `fdb` map has an entry.
    #[must_use]
    pub fn contains(&self, key: &FdbKey) -> bool {
        self.fdb.get(key).is_some()
    }

    /// Whether the `fdb` map had no room for an entry.
    #[must_use]
    pub fn is_refused(&self, key: &FdbKey) -> bool {
        self.fdb.is_refused(key)
    }

    /// How many entries the `fdb` map had no room for.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.fdb.refused().len()
    }

    /// Forgets what the FDB entries were decided by: the next call of any kind looks at all of them.
    pub fn distrust(&mut self) {
        self.bases = None;
    }

    /// Brings the maps in line with the plan and the bridges' FDBs, where `changes` are the entries
    /// that may have changed since the last call. All entries of a bridge are looked at where the plan
    /// has changed for it; of other bridges only these.
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
        changes: &[(IfIndex, model::FdbKey)],
    ) -> Result<(), W::Error> {
        let bases: BTreeMap<_, _> =
            bridges.iter().map(|bridge| (bridge.ifindex, Basis::of(plan, bridge))).collect();
        let before = self.bases.take().unwrap_or_default();
        let stands = |bridge: IfIndex| {
            before.get(&bridge).is_some_and(|basis| bases.get(&bridge) == Some(basis))
        };
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
        let wanted = Wanted { plan, bridges };
        let stays = |key: &FdbKey, value: &FdbValue| {
            wanted.value(key).is_some_and(|wanted| way(&wanted) == way(value))
                && (!is_behind_tunnel(value) || kept.contains(&value.target))
        };
        let changes = || changes.iter().map(|(bridge, key)| held::long(*bridge, key));
        let mut stale: Vec<FdbKey> = Vec::new();
        for bridge in self.fdb.bridges().filter(|bridge| !stands(*bridge)) {
            let gone = self.fdb.of(bridge).filter(|(key, value)| !stays(key, value));
            stale.extend(gone.map(|(key, _)| key));
        }
        for key in changes().filter(|key| stands(key.bridge)) {
            stale.extend(self.fdb.get(&key).filter(|value| !stays(&key, value)).map(|_| key));
        }
        stale.sort_unstable();
        stale.dedup();
        self.fdb.remove(maps, &stale)?;
        let freed = stale.len();

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

        self.fdb.retain_refused(stands);
        let anew = bridges.iter().filter(|bridge| !stands(bridge.ifindex));
        let anew = anew.flat_map(|b| b.fdb.keys().map(|key| entry::map_key(b, key)));
        let keys = anew.chain(changes().filter(|key| stands(key.bridge)));
        self.bring_in_line(maps, wanted, keys, freed)?;
        self.bases = Some(bases);
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
        let Some(bases) = self.bases.take() else {
            return self.replan(maps, plan, bridges, changes);
        };
        let keys = changes.iter().map(|(bridge, key)| held::long(*bridge, key));
        self.bring_in_line(maps, Wanted { plan, bridges }, keys, 0)?;
        self.bases = Some(bases);
        Ok(())
    }

    /// Has the map say of these entries what is wanted. `freed` places have become free before.
    fn bring_in_line<W: MapWriter>(
        &mut self,
        maps: &mut W,
        wanted: Wanted<'_>,
        keys: impl Iterator<Item = FdbKey>,
        mut freed: usize,
    ) -> Result<(), W::Error> {
        let mut room = true;
        let mut keys = keys.peekable();
        let (mut set, mut gone) = (Vec::new(), Vec::new());
        while keys.peek().is_some() {
            for key in keys.by_ref().take(BATCH) {
                match (self.fdb.get(&key), wanted.value(&key)) {
                    (before, Some(value)) if before != Some(value) => set.push((key, value)),
                    (_, Some(_)) => {}
                    (Some(_), None) => gone.push(key),
                    (None, None) => self.fdb.forget_refused(&key),
                }
            }
            gone.sort_unstable();
            gone.dedup();
            self.fdb.remove(maps, &gone)?;
            freed += gone.len();
            room |= !gone.is_empty();
            room = self.fdb.set(maps, &set, room)?;
            set.clear();
            gone.clear();
        }
        if room && freed > 0 { self.retry_refused(maps, wanted, freed) } else { Ok(()) }
    }

    /// Tries entries again that found the map full: as many as there may be room for.
    fn retry_refused<W: MapWriter>(
        &mut self,
        maps: &mut W,
        wanted: Wanted<'_>,
        freed: usize,
    ) -> Result<(), W::Error> {
        let (mut set, mut unwanted) = (Vec::new(), Vec::new());
        for key in self.fdb.refused() {
            if set.len() == freed {
                break;
            }
            match wanted.value(key) {
                Some(value) => set.push((*key, value)),
                None => unwanted.push(*key),
            }
        }
        unwanted.iter().for_each(|key| self.fdb.forget_refused(key));
        self.fdb.set(maps, &set, true).map(drop)
    }
}

/// What FDB entries should be.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    plan: &'a Plan,
    bridges: AllBridges<'a>,
}

impl Wanted<'_> {
    fn value(&self, key: &FdbKey) -> Option<FdbValue> {
        let bridge = self.bridges.get(key.bridge)?;
        let key = model::FdbKey { vlan: key.vlan, mac: model::Mac(key.mac) };
        entry::decide(self.plan, bridge, &key, bridge.fdb.get(&key)?).value
    }
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
