//! Keeps port security in line with the bridges (`[[port]]`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::net::if_::if_indextoname;
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
    /// What containers were given by Docker's networks and by `docker add-port`, as it was read last; `None`
    /// until it could be read.
    given: [Option<BTreeMap<String, Given>>; 2],
    /// Why it can't be read.
    pub(super) unread: Vec<String>,
    /// Until then what an earlier daemon has secured stays so where no bridge has it: one of Open vSwitch
    /// may not have been heard yet.
    patience: Option<Instant>,
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

    /// Takes over what an earlier daemon left, for so long also what no bridge is known to have.
    pub(super) fn adopt(self, datapath: &Datapath, patience: Duration) -> Result<Self> {
        let tables = datapath.security();
        let (ports, allowed) = (tables.ports()?, tables.allowed()?);
        let patience = Some(Instant::now() + patience);
        Ok(Self { ports, allowed, stations: tables.stations()?, patience, ..self })
    }

    /// Decides which ports are to be secured. Changes nothing on the host.
    pub(super) fn plan(&mut self, bridges: AllBridges<'_>) {
        self.read_given();
        let given = self.given.iter().flatten().flatten();
        let given = given.map(|(port, given)| (port.clone(), given.clone())).collect();
        self.secured = Secured::make(bridges, &self.rules, &given, self.fdb_capacity);
    }

    /// Reads what containers were given, where a rule may ask for it. What can't be read is as it was.
    fn read_given(&mut self) {
        let before = std::mem::take(&mut self.unread);
        if self.rules.is_empty() {
            return;
        }
        let networks = plugin::Store::new(&self.state).given().map_err(|error| error.to_string());
        let attached = docker::record::Store::new(&self.state).given();
        let attached = attached.map_err(|error| error.to_string());
        for (given, read) in self.given.iter_mut().zip([networks, attached]) {
            match read {
                Ok(read) => *given = Some(read),
                Err(error) => self.unread.push(format!(
                    "what containers were given can't be read, so that ports stay secured as they are: {error}"
                )),
            }
        }
        for error in self.unread.iter().filter(|error| !before.contains(error)) {
            tracing::warn!("{error}");
        }
    }

    /// The secured ports that stay as they are: what is theirs can't be told yet. `heard` is whether every
    /// Open vSwitch has told of its bridges.
    fn held(&self, bridges: AllBridges<'_>, heard: bool) -> BTreeSet<IfIndex> {
        if self.rules.is_empty() {
            return BTreeSet::new();
        }
        let exists = |ifindex: &IfIndex| if_indextoname(*ifindex).is_ok();
        let secured = self.ports.keys().copied().filter(exists);
        if self.given.iter().any(Option::is_none) {
            return secured.collect();
        }
        if heard || self.patience.is_none_or(|end| Instant::now() >= end) {
            return BTreeSet::new();
        }
        let known =
            |ifindex: &IfIndex| bridges.iter().any(|bridge| bridge.ports.contains_key(ifindex));
        secured.filter(|ifindex| !known(ifindex)).collect()
    }

    /// Brings the devices and the maps in line with what was decided. At no time is less forbidden than
    /// both before and afterwards, and nothing that is allowed before and afterwards is discarded.
    pub(super) fn apply(
        &mut self,
        bridges: AllBridges<'_>,
        heard: bool,
        datapath: &mut Datapath,
    ) -> Result<()> {
        let held = self.held(bridges, heard);
        let mut wanted: BTreeSet<_> = self.secured.allowed().collect();
        wanted.extend(self.allowed.iter().filter(|key| held.contains(&key.ifindex)));
        for key in wanted.difference(&self.allowed.clone()) {
            datapath.security_mut().allow(key)?;
            self.allowed.insert(*key);
        }
        let mut stations = self.secured.stations(bridges);
        if !held.is_empty() {
            stations.extend(&self.stations);
        }
        for key in stations.difference(&self.stations.clone()) {
            if !datapath.security_mut().add_station(key)? {
                // Stale ones may be in the way; what is in line with them is not.
                self.secured.forget_stations();
                break;
            }
            self.stations.insert(*key);
        }
        let ports: BTreeMap<_, _> = (self.secured.ports.iter())
            .filter(|(ifindex, port)| port.is_possible() && !held.contains(ifindex))
            .map(|(&ifindex, port)| (ifindex, (port.value, port.name.clone())))
            .chain(held.iter().map(|ifindex| (*ifindex, (self.ports[ifindex], String::new()))))
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
        // All at once: none is to wait unsecured for its turn.
        let refused = datapath.attach(Program::PortSecurity, &devices, Duration::MAX).refused;
        for (ifindex, error) in &refused {
            // One that stays as it is may not be known.
            let Some(port) = self.secured.ports.get_mut(ifindex) else { continue };
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
        heard: bool,
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
                    return self.apply(bridges, heard, datapath);
                }
                self.stations.insert(station);
            }
        }
        Ok(())
    }
}
