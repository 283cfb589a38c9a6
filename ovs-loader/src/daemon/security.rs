//! Keeps port security in line with the bridges (`[[port]]`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::{AllowedKey, FdbKey, Program, SecurityValue};

use crate::bridge::model::{self, AllBridges, IfIndex, Why};
use crate::config::PortRule;
use crate::datapath::Datapath;
use crate::docker::{self, spec::Given};
use crate::mirror::Secured;
use crate::plugin;

/// What ports are limited to, and what the maps say of it.
#[derive(Default)]
pub(super) struct Security {
    rules: Vec<PortRule>,
    /// Where what containers were given is written down.
    state: PathBuf,
    fdb_capacity: u32,
    /// What should be, and what stands against it.
    pub(super) secured: Secured,
    ports: BTreeMap<IfIndex, SecurityValue>,
    allowed: BTreeSet<AllowedKey>,
    stations: BTreeSet<FdbKey>,
    refused: BTreeMap<IfIndex, String>,
}

impl Security {
    /// One that has said nothing yet; `state` is where what containers were given is written down.
    pub(super) fn new(rules: Vec<PortRule>, state: PathBuf, fdb_capacity: u32) -> Self {
        Self { rules, state, fdb_capacity, ..Self::default() }
    }

    /// Takes over what an earlier daemon left.
    pub(super) fn adopt(self, datapath: &Datapath) -> Result<Self> {
        let tables = datapath.security();
        let (ports, allowed) = (tables.ports()?, tables.allowed()?);
        Ok(Self { ports, allowed, stations: tables.stations()?, ..self })
    }

    /// Decides which ports are to be secured. Changes nothing on the host.
    pub(super) fn plan(&mut self, bridges: AllBridges<'_>) {
        self.secured = Secured::make(bridges, &self.rules, &self.given(), self.fdb_capacity);
    }

    /// What containers were given, where a rule asks for it.
    fn given(&self) -> BTreeMap<String, Given> {
        if self.rules.is_empty() {
            return BTreeMap::new();
        }
        let networks = plugin::Store::new(&self.state).given();
        let attached = docker::record::Store::new(&self.state).given();
        let mut all = networks.unwrap_or_else(|error| {
            tracing::warn!("what Docker's networks have given is not known: {error}");
            BTreeMap::new()
        });
        match attached {
            Ok(attached) => all.extend(attached),
            Err(error) => tracing::warn!("what containers were given is not known: {error}"),
        }
        all
    }

    /// Brings the devices and the maps in line with what was decided. At no time is less forbidden than
    /// both before and afterwards, and nothing that is allowed before and afterwards is discarded.
    pub(super) fn apply(&mut self, bridges: AllBridges<'_>, datapath: &mut Datapath) -> Result<()> {
        let wanted: BTreeSet<_> = self.secured.allowed().collect();
        for key in wanted.difference(&self.allowed.clone()) {
            datapath.security_mut().allow(key)?;
            self.allowed.insert(*key);
        }
        let stations = self.secured.stations(bridges);
        for key in stations.difference(&self.stations.clone()) {
            if !datapath.security_mut().add_station(key)? {
                // Stale ones may be in the way; what is in line with them is not.
                self.secured.forget_stations();
                break;
            }
            self.stations.insert(*key);
        }
        let ports: BTreeMap<_, _> = (self.secured.ports.iter())
            .filter(|(_, port)| port.is_possible())
            .map(|(&ifindex, port)| (ifindex, (port.value, port.name.clone())))
            .collect();
        for (&ifindex, (value, _)) in &ports {
            if self.ports.get(&ifindex) != Some(value) {
                datapath.security_mut().set_port(ifindex, value)?;
                self.ports.insert(ifindex, *value);
            }
        }
        self.attach(&ports, datapath);

        let tables = datapath.security_mut();
        let gone = |ifindex: &&IfIndex| !ports.contains_key(ifindex);
        for ifindex in self.ports.keys().filter(gone).copied().collect::<Vec<_>>() {
            tables.remove_port(ifindex)?;
            self.ports.remove(&ifindex);
        }
        for key in self.allowed.difference(&wanted).copied().collect::<Vec<_>>() {
            tables.disallow(&key)?;
            self.allowed.remove(&key);
        }
        for key in self.stations.difference(&stations).copied().collect::<Vec<_>>() {
            tables.remove_station(&key)?;
            self.stations.remove(&key);
        }
        Ok(())
    }

    fn attach(
        &mut self,
        ports: &BTreeMap<IfIndex, (SecurityValue, String)>,
        datapath: &mut Datapath,
    ) {
        let devices = ports.iter().map(|(&ifindex, (_, name))| (ifindex, name.clone())).collect();
        let refused = datapath.attach(Program::PortSecurity, &devices);
        for (ifindex, error) in &refused {
            let port = self.secured.ports.get_mut(ifindex).expect("one of them");
            if self.refused.get(ifindex) != Some(error) {
                tracing::warn!("{} is not secured: {error}", port.name);
            }
            port.why.push(Why::new(Reason::AttachFailed, error));
        }
        self.refused = refused;
    }

    /// Takes up changes of the bridges' FDBs.
    pub(super) fn fdb_changed(
        &mut self,
        bridges: AllBridges<'_>,
        changes: &[(IfIndex, model::FdbKey)],
        datapath: &mut Datapath,
    ) -> Result<()> {
        let watched = self.secured.watched_bridges();
        for (ifindex, key) in changes.iter().filter(|(ifindex, _)| watched.contains(ifindex)) {
            let Some(bridge) = bridges.get(*ifindex) else { continue };
            let station = crate::mirror::entry::map_key(bridge, key);
            let tables = datapath.security_mut();
            if !bridge.fdb.contains_key(key) {
                tables.remove_station(&station).context("cannot forget a station")?;
                self.stations.remove(&station);
            } else if !self.stations.contains(&station) && !key.mac.is_group() {
                if !tables.add_station(&station).context("cannot enter a station")? {
                    self.secured.forget_stations();
                    return self.apply(bridges, datapath);
                }
                self.stations.insert(station);
            }
        }
        Ok(())
    }
}
