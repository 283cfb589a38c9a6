//! What is in the `fdb` map, and what found no room there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ovs_ebpf_common::abi::{FdbKey, FdbValue};

use super::maps::MapWriter;
use crate::bridge::model::{self, IfIndex, Mac};

/// The entries of the map, as far as this daemon or the one it adopted wrote them.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By bridge. Keys and values are those of the map without what is the same or zero for all:
    /// there may be a million.
    bridges: BTreeMap<IfIndex, HashMap<model::FdbKey, Value>>,
    refused: BTreeSet<FdbKey>,
}

/// [`FdbValue`] without what the programs write.
#[derive(Clone, Copy, Debug)]
struct Value {
    target: u32,
    mtu: u32,
    flags: u16,
    revalidate_seconds: u16,
}

impl From<FdbValue> for Value {
    fn from(value: FdbValue) -> Self {
        let FdbValue { target, flags, revalidate_seconds, mtu, reserved: _, next_revalidation: _ } =
            value;
        Self { target, mtu, flags, revalidate_seconds }
    }
}

impl From<Value> for FdbValue {
    fn from(value: Value) -> Self {
        let Value { target, mtu, flags, revalidate_seconds } = value;
        Self { target, mtu, flags, revalidate_seconds, ..Self::default() }
    }
}

impl Held {
    /// Notes that an entry is in the map.
    pub(super) fn note(&mut self, key: &FdbKey, value: FdbValue) {
        self.refused.remove(key);
        self.bridges.entry(key.bridge).or_default().insert(short(key), value.into());
    }

    /// The value of an entry in the map.
    pub(super) fn get(&self, key: &FdbKey) -> Option<FdbValue> {
        self.bridges.get(&key.bridge)?.get(&short(key)).map(|value| FdbValue::from(*value))
    }

    /// The bridges that have entries in the map.
    pub(super) fn bridges(&self) -> impl Iterator<Item = IfIndex> {
        self.bridges.keys().copied()
    }

    /// The entries of a bridge.
    pub(super) fn of(&self, bridge: IfIndex) -> impl Iterator<Item = (FdbKey, FdbValue)> {
        let entries = self.bridges.get(&bridge).into_iter().flatten();
        entries.map(move |(key, value)| (long(bridge, key), FdbValue::from(*value)))
    }

    /// Whether the map had no room for an entry.
    pub(super) fn is_refused(&self, key: &FdbKey) -> bool {
        self.refused.contains(key)
    }

    /// The entries that the map had no room for.
    pub(super) fn refused(&self) -> impl ExactSizeIterator<Item = &FdbKey> {
        self.refused.iter()
    }

    /// Notes that an entry is not to be added any more.
    pub(super) fn forget_refused(&mut self, key: &FdbKey) {
        self.refused.remove(key);
    }

    /// Forgets what else was to be added, but for these bridges.
    pub(super) fn retain_refused(&mut self, of: impl Fn(IfIndex) -> bool) {
        self.refused.retain(|key| of(key.bridge));
    }

    /// Adds or replaces entries. Those that find no room are refused, with `room` without asking.
    /// Gives whether there is room.
    pub(super) fn set<W: MapWriter>(
        &mut self,
        maps: &mut W,
        entries: &[(FdbKey, FdbValue)],
        room: bool,
    ) -> Result<bool, W::Error> {
        let done = if room { self.write(maps, entries)? } else { 0 };
        let rest = &entries[done..];
        if rest.is_empty() {
            return Ok(room);
        }
        let (replaced, new): (Vec<_>, Vec<_>) =
            rest.iter().copied().partition(|(key, _)| self.get(key).is_some());
        self.refused.extend(new.into_iter().map(|(key, _)| key));
        self.write(maps, &replaced)?;
        Ok(false)
    }

    /// Gives how many there was room for.
    fn write<W: MapWriter>(
        &mut self,
        maps: &mut W,
        entries: &[(FdbKey, FdbValue)],
    ) -> Result<usize, W::Error> {
        let written = maps.set_fdb(entries);
        for (key, value) in &entries[..written.done] {
            self.note(key, *value);
        }
        written.outcome.map(|()| written.done)
    }

    /// Removes entries that are in the map.
    pub(super) fn remove<W: MapWriter>(
        &mut self,
        maps: &mut W,
        keys: &[FdbKey],
    ) -> Result<(), W::Error> {
        let written = maps.remove_fdb(keys);
        for key in &keys[..written.done] {
            if let Some(entries) = self.bridges.get_mut(&key.bridge) {
                entries.remove(&short(key));
                if entries.is_empty() {
                    self.bridges.remove(&key.bridge);
                }
            }
        }
        written.outcome
    }
}

fn short(key: &FdbKey) -> model::FdbKey {
    model::FdbKey { vlan: key.vlan, mac: Mac(key.mac) }
}

/// The key in the map.
pub(super) fn long(bridge: IfIndex, key: &model::FdbKey) -> FdbKey {
    FdbKey { bridge, vlan: key.vlan, mac: key.mac.0 }
}
