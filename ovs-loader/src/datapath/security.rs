//! The maps of port security, with their types.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use ovs_ebpf_common::abi::{AllowedKey, AllowedValue, FdbKey, SecurityValue};

use super::tables::{Error, absent_is_fine, error, take};
use crate::bridge::model::IfIndex;

/// The maps of port security.
pub struct SecurityTables {
    security: HashMap<MapData, u32, SecurityValue>,
    allowed: HashMap<MapData, AllowedKey, AllowedValue>,
    stations: HashMap<MapData, FdbKey, AllowedValue>,
}

impl SecurityTables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            security: take(ebpf, "security")?,
            allowed: take(ebpf, "allowed")?,
            stations: take(ebpf, "stations")?,
        })
    }

    /// The secured ports, without what the programs write.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn ports(&self) -> Result<BTreeMap<IfIndex, SecurityValue>, Error> {
        let values = self.security.iter().map(|entry| {
            entry.map(|(port, value)| (port, SecurityValue { full_at: 0, discarded: 0, ..value }))
        });
        values.collect::<Result<_, _>>().map_err(error("read", "security"))
    }

    /// Adds or replaces a secured port; what the programs have written stays.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_port(&mut self, ifindex: IfIndex, value: &SecurityValue) -> Result<(), Error> {
        let SecurityValue { full_at, discarded, .. } =
            self.security.get(&ifindex, 0).unwrap_or_default();
        let value = SecurityValue { full_at, discarded, ..*value };
        self.security.insert(ifindex, value, 0).map_err(error("write", "security"))
    }

    /// Removes a secured port, if it is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove_port(&mut self, ifindex: IfIndex) -> Result<(), Error> {
        absent_is_fine(self.security.remove(&ifindex)).map_err(error("write", "security"))
    }

    /// How many of a port's packets were discarded.
    #[must_use]
    pub fn discarded(&self, ifindex: IfIndex) -> u64 {
        self.security.get(&ifindex, 0).map_or(0, |value| value.discarded)
    }

    /// What is the secured ports' own.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn allowed(&self) -> Result<BTreeSet<AllowedKey>, Error> {
        self.allowed.keys().collect::<Result<_, _>>().map_err(error("read", "allowed"))
    }

    /// Adds to what is the ports' own.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn allow(&mut self, key: &AllowedKey) -> Result<(), Error> {
        self.allowed.insert(key, 1, 0).map_err(error("write", "allowed"))
    }

    /// Takes from what is the ports' own.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn disallow(&mut self, key: &AllowedKey) -> Result<(), Error> {
        absent_is_fine(self.allowed.remove(key)).map_err(error("write", "allowed"))
    }

    /// The stations that are known.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn stations(&self) -> Result<BTreeSet<FdbKey>, Error> {
        self.stations.keys().collect::<Result<_, _>>().map_err(error("read", "stations"))
    }

    /// Adds a station. Gives whether there was room.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn add_station(&mut self, key: &FdbKey) -> Result<bool, Error> {
        match self.stations.insert(key, 1, 0).map_err(error("write", "stations")) {
            Ok(()) => Ok(true),
            Err(Error::Full(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a station, if it is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove_station(&mut self, key: &FdbKey) -> Result<(), Error> {
        absent_is_fine(self.stations.remove(key)).map_err(error("write", "stations"))
    }
}
