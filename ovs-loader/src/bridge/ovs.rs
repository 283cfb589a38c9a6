//! Open vSwitch's bridges, live: the database says what there is, ovs-vswitchd where it has learned
//! the stations and what else it does with packets, and the kernel what the ports' devices are.
//!
//! Tasks follow the database and ask ovs-vswitchd, so that neither waits for the other or for the
//! daemon; what they tell is joined here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use super::linux::Error;
use super::linux::fdb;
use super::linux::tunnel::Defaults;
use super::linux::{dump_error, same_topology};
use super::model::{Bridges, Changes, FdbKey, IfIndex};
use devices::Devices;
use join::{Answers, Known, Numbers};
use poll::Subject;
use tables::Tables;
use text::Station;
use value::{Row, Uuid};

pub mod control;
mod database;
pub mod db;
mod devices;
mod join;
pub mod jsonrpc;
pub mod monitor;
pub mod openflow;
mod poll;
pub mod tables;
pub mod text;
mod tunnel;
pub mod value;

/// Where Open vSwitch keeps its sockets unless it is told otherwise.
pub const DEFAULT_RUNDIR: &str = "/var/run/openvswitch";

/// How long an Open vSwitch that runs has for its first answers.
const FIRST: Duration = Duration::from_secs(2);

/// How much may have been told and not yet be heard.
const BACKLOG: usize = 64;

/// What one of the tasks tells.
struct Told {
    /// Which Open vSwitch.
    instance: usize,
    heard: Heard,
}

enum Heard {
    /// Nobody listens at the database's socket.
    NoDatabase,
    /// The database's rows.
    Tables(Box<Tables>),
    /// What ovs-vswitchd has said of a bridge, asked with [`Subject::voided`].
    Bridge { bridge: Uuid, voided: u64, answers: Answers },
}

/// One Open vSwitch.
struct Instance {
    /// Whether the database, or that there is none, has been heard of.
    is_known: bool,
    /// Whether the database has been read.
    is_heard: bool,
    tables: Tables,
    answers: BTreeMap<Uuid, Answers>,
    numbers: Numbers,
    subjects: watch::Sender<BTreeMap<Uuid, Subject>>,
    hints: Sender<Uuid>,
    by_ifindex: BTreeMap<IfIndex, Uuid>,
}

impl Instance {
    /// Takes up the database's rows.
    fn take_up(&mut self, tables: Tables) {
        let voided = self.forget_stations_of_changed_ports(&tables);
        self.is_known = true;
        self.tables = tables;
        let tables = &self.tables;
        self.answers.retain(|bridge, _| tables.row("Bridge", bridge).is_some());
        self.subjects.send_if_modified(|known| {
            let subject = |(bridge, row): (&Uuid, &Row)| {
                let before = known.get(bridge).map_or(0, |subject| subject.voided);
                let voided = before + u64::from(voided.contains(bridge));
                (bridge.clone(), Subject { name: row.text("name").to_owned(), voided })
            };
            let subjects = tables.bridges().map(subject).collect();
            let modified = *known != subjects;
            *known = subjects;
            modified
        });
    }

    /// Stations are told by their ports' numbers, and a number that a port has left may soon be
    /// another's: also before ovs-vswitchd has said so, or after it has. Gives the bridges that this
    /// is about.
    fn forget_stations_of_changed_ports(&mut self, tables: &Tables) -> BTreeSet<Uuid> {
        let mut voided = BTreeSet::new();
        for (uuid, answers) in &mut self.answers {
            let [before, now] = [&self.tables, tables].map(|tables| join::numbers(tables, uuid));
            let stays = |station: &Station| {
                station.port.is_none_or(|port| before.get(&port) == now.get(&port))
            };
            let is_gone = |(port, row): (&u16, &&Uuid)| now.get(port) != Some(row);
            if before.iter().any(is_gone) || !answers.stations.iter().all(stays) {
                let stations = answers.stations.iter().copied().filter(stays);
                answers.stations = Arc::new(stations.collect());
                voided.insert(uuid.clone());
            }
        }
        voided
    }

    /// Whether everything was told at least once.
    fn is_complete(&self) -> bool {
        self.is_known && self.tables.bridges().all(|(uuid, _)| self.answers.contains_key(uuid))
    }
}

/// The bridges of every Open vSwitch that keeps its sockets in one of some directories, and whose
/// devices are in the network namespace in which this was opened.
///
/// Every method must be called on a thread of that namespace, within a tokio runtime.
pub struct OvsBridges {
    instances: Vec<Instance>,
    told: Receiver<Told>,
    devices: Devices,
    bridges: Bridges,
    stale: Stale,
    /// What changed and was not returned yet: a caller may drop [`Self::changed`] at any time.
    changes: Changes,
    _tasks: JoinSet<()>,
}

/// What has to be done again.
#[derive(Default)]
struct Stale {
    /// The devices have to be read.
    devices: bool,
    /// The bridges have to be joined.
    bridges: bool,
}

impl OvsBridges {
    /// Begins to follow the Open vSwitch of each directory, started or not, and waits until those that
    /// run have told what they know. When ovs-vswitchd goes away, what it has said last holds for
    /// `patience`.
    ///
    /// # Errors
    /// Where the kernel's links can't be followed. That an Open vSwitch can't be reached is no error.
    pub async fn open(rundirs: &[PathBuf], patience: Duration) -> Result<Self, Error> {
        let devices = Devices::open().map_err(Error::Subscribe)?;
        let (teller, told) = mpsc::channel(BACKLOG);
        let mut tasks = JoinSet::new();
        let mut instances = Vec::new();
        for (number, rundir) in rundirs.iter().enumerate() {
            let (subjects, known_subjects) = watch::channel(BTreeMap::new());
            let (hints, heard_hints) = mpsc::channel(BACKLOG);
            let poll = poll::Poll::new(rundir.clone(), number, patience, teller.clone());
            tasks.spawn(database::follow(rundir.clone(), number, teller.clone()));
            tasks.spawn(poll.run(known_subjects, heard_hints));
            instances.push(Instance {
                is_known: false,
                is_heard: false,
                tables: Tables::default(),
                answers: BTreeMap::new(),
                numbers: Numbers::new(u8::try_from(number).unwrap_or(u8::MAX)),
                subjects,
                hints,
                by_ifindex: BTreeMap::new(),
            });
        }
        let mut this = Self {
            instances,
            told,
            devices,
            bridges: Bridges::new(),
            stale: Stale::default(),
            changes: Changes::default(),
            _tasks: tasks,
        };
        let complete = async {
            while !this.instances.iter().all(Instance::is_complete) {
                match this.told.recv().await {
                    Some(told) => this.hear(told),
                    None => return,
                }
            }
        };
        // One that hangs is heard of later.
        let _ = timeout(FIRST, complete).await;
        this.catch_up().await?;
        this.changes = Changes::default();
        Ok(this)
    }

    /// Whether every database has been read.
    #[must_use]
    pub fn are_heard(&self) -> bool {
        self.instances.iter().all(|instance| instance.is_heard)
    }

    /// The bridges as of the last call of [`Self::open`], [`Self::changed`] or [`Self::resync`].
    #[must_use]
    pub fn bridges(&self) -> &Bridges {
        &self.bridges
    }

    /// Waits for the next changes and says what changed. Never returns empty changes.
    ///
    /// # Errors
    /// Where the kernel's links can't be read.
    ///
    /// May be dropped at any time (`tokio::select!`): nothing is lost. [`Self::bridges`] may then
    /// already have changes that the next call returns.
    pub async fn changed(&mut self) -> Result<Changes, Error> {
        loop {
            while let Ok(told) = self.told.try_recv() {
                self.hear(told);
            }
            self.catch_up().await?;
            if self.changes != Changes::default() {
                return Ok(std::mem::take(&mut self.changes));
            }
            let any = !self.bridges.is_empty();
            tokio::select! {
                // Never none but without directories: the tasks tell as long as this listens.
                Some(told) = self.told.recv() => self.hear(told),
                changed = self.devices.changed(), if any => {
                    changed.map_err(Error::Receive)?;
                    self.stale.devices = true;
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Reads the kernel's devices again. The database and ovs-vswitchd are heard all the time.
    ///
    /// # Errors
    /// As [`Self::changed`], and may be dropped like it.
    pub async fn resync(&mut self) -> Result<Changes, Error> {
        self.stale = Stale { devices: true, bridges: true };
        self.catch_up().await?;
        Ok(std::mem::take(&mut self.changes))
    }

    /// A station has been seen that the bridge's FDB has not, or elsewhere: asks ovs-vswitchd soon.
    pub fn hint(&self, bridge: IfIndex) {
        for instance in &self.instances {
            if let Some(uuid) = instance.by_ifindex.get(&bridge) {
                // A full queue has the same hint, or others that are as good.
                let _ = instance.hints.try_send(uuid.clone());
            }
        }
    }

    fn hear(&mut self, told: Told) {
        let instance = &mut self.instances[told.instance];
        match told.heard {
            Heard::NoDatabase => instance.is_known = true,
            Heard::Tables(tables) => {
                instance.is_heard = true;
                instance.take_up(*tables);
                self.stale = Stale { devices: true, bridges: true };
            }
            Heard::Bridge { bridge, voided, answers } => {
                let subjects = instance.subjects.borrow();
                if subjects.get(&bridge).is_some_and(|subject| subject.voided == voided) {
                    instance.answers.insert(bridge, answers);
                    self.stale.bridges = true;
                }
            }
        }
    }

    /// Does again what is stale.
    async fn catch_up(&mut self) -> Result<(), Error> {
        let Self { instances, devices, stale, .. } = self;
        if stale.devices {
            let wanted = |name: &str| {
                instances.iter().any(|instance| join::is_device_wanted(&instance.tables, name))
            };
            stale.bridges |= devices.read(wanted).await.map_err(dump_error("links"))?;
            stale.devices = false;
        }
        if std::mem::take(&mut stale.bridges) {
            self.join();
        }
        Ok(())
    }

    fn join(&mut self) {
        let defaults = Defaults::read();
        let mut bridges = Bridges::new();
        for instance in &mut self.instances {
            let known = Known {
                tables: &instance.tables,
                members: self.devices.members(),
                answers: &instance.answers,
                defaults,
            };
            let joined = join::bridges(&known, &mut instance.numbers);
            instance.by_ifindex =
                joined.iter().map(|(uuid, bridge)| (bridge.ifindex, uuid.clone())).collect();
            bridges.extend(joined.into_values().map(|bridge| (bridge.ifindex, bridge)));
        }
        self.changes.topology |= !same_topology(&self.bridges, &bridges);
        self.changes.fdb.extend(differences(&self.bridges, &bridges));
        self.bridges = bridges;
    }
}

/// The FDB entries that differ between two states, of the bridges that there are in the second.
fn differences(before: &Bridges, after: &Bridges) -> Vec<(IfIndex, FdbKey)> {
    let none = HashMap::new();
    let mut differences = Vec::new();
    for after in after.values() {
        let before = before.get(&after.ifindex).map_or(&none, |before| &before.fdb);
        let keys = fdb::difference(before, &after.fdb);
        differences.extend(keys.map(|key| (after.ifindex, key)));
    }
    differences
}
