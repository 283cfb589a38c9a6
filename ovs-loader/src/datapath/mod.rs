//! The kernel side as the loader sees it: programs, maps, where they are attached and pinned. The
//! only place that knows aya.
//!
//! Pins under `<bpffs>/v<ABI>/`: the maps and programs by name, TCX links as
//! `links/<program>-<ifindex>`. They outlive the daemon, as classic filters do, so that traffic stays
//! fast while it restarts; the next one adopts them in place.

mod attach;
mod batch;
pub(crate) mod clsact;
mod events;
#[cfg(feature = "log")]
mod log;
mod pins;
mod probe;
mod security;
mod tables;
mod tcx;
mod verify;
mod xdp;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use aya::maps::MapError;
use aya::programs::{SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use ovs_ebpf_common::abi::{self, Program};

use crate::bridge::model::{IfIndex, Why};
use attach::Attachments;
pub use attach::{Attached, Hook};
pub use batch::Written;
use clsact::Filters;
pub use events::Events;
pub use pins::{Error as PinError, Lock};
pub use probe::decap_l3;
pub use security::SecurityTables;
pub use tables::{Counters, Error as TableError, Tables};
use tcx::Links;
pub use verify::verified;

/// The programs and maps as a BPF object file, built for the host's byte order and aligned for its
/// headers; empty where there was no BPF toolchain to build it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ovs-ebpf.o"));

/// The maps that are pinned, each under its name; `flows` is not: a new program begins with none.
const MAPS: [&str; 16] = [
    "control",
    "ports",
    "fdb",
    "doubts",
    "tunnels",
    "tunnel_index",
    "tunnel_index6",
    "counters",
    "tunnel_counters",
    "events",
    "guards",
    "xdp_uplinks",
    "xdp_sources",
    "security",
    "allowed",
    "stations",
];

/// Why the kernel side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build had no BPF toolchain.
    #[error(
        "this ovs-loader was built without the BPF programs: run `cargo xtask setup`, then build again"
    )]
    NoObject,
    /// A pin could not be made, read or removed, or another daemon holds the directory.
    #[error(transparent)]
    Pins(#[from] pins::Error),
    /// The kernel refused a map or a program.
    #[error(
        "the kernel refused the BPF programs: is it 6.1 or newer, with BTF? `ovs-loader check` says what it lacks"
    )]
    Load(#[from] aya::EbpfError),
    /// The kernel refused a program.
    #[error("the kernel refused the BPF program {program}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// What the kernel or its verifier said.
        source: aya::programs::ProgramError,
    },
    /// The devices' filters can't be read or changed.
    #[error("cannot work with the devices' tc filters")]
    Filters(#[source] std::io::Error),
    /// A map lacks or has the wrong type: a broken build.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The loaded programs and their maps.
pub struct Datapath {
    ebpf: Ebpf,
    tables: Tables,
    security: SecurityTables,
    events: Events,
    hook: Hook,
    attachments: Attachments,
    filters: xdp::Links,
    program_ids: BTreeSet<u32>,
    directory: std::path::PathBuf,
    // Last: released when everything else is gone.
    _lock: Lock,
}

impl Datapath {
    /// Loads the programs, pins them in the locked directory, and takes over in place what an earlier
    /// daemon left there: maps with their contents, and attachments, whose programs are replaced. To
    /// be called within a tokio runtime.
    ///
    /// Port security is loaded where ports are to be `secured`, or an earlier daemon secured some: the
    /// verifier has a third of its work with it.
    ///
    /// # Errors
    /// See [`Error`]. Nothing that was attached before is detached then.
    pub fn open(lock: Lock, fdb_capacity: u32, hook: Hook, secured: bool) -> Result<Self, Error> {
        if OBJECT.is_empty() {
            return Err(Error::NoObject);
        }
        let directory = pins::prepare(lock.directory(), fdb_capacity)?;
        let mut ebpf = load(Some(&directory), fdb_capacity)?;
        #[cfg(feature = "log")]
        if let Err(error) = log::follow(&mut ebpf) {
            tracing::warn!("the programs' log can't be read: {error:#}");
        }
        let mut attachments =
            Attachments::new(hook, lock.directory(), &directory).map_err(Error::Filters)?;
        let mut program_ids = BTreeSet::new();
        let secured = secured || pins::has_program(&directory, Program::PortSecurity);
        let idle = |program: &Program| *program == Program::PortSecurity && !secured;
        for program in Program::TC.into_iter().filter(|program| !idle(program)) {
            let classifier = classifier(&mut ebpf, program.name());
            let fail = |source| Error::Program { program: program.name(), source };
            verified(|| classifier.load()).map_err(fail)?;
            // What runs between port security and the fast path does not miss what that forwards.
            if Program::FORWARDING.contains(&program) {
                program_ids.insert(classifier.info().map_err(fail)?.id());
            }
            pins::replace_program(&directory, program, |path| classifier.pin(path))?;
            attachments.adopt(program, classifier);
        }
        let filters = xdp::Links::new(&directory);
        let tables = Tables::take(&mut ebpf)?;
        let security = SecurityTables::take(&mut ebpf)?;
        let events = Events::new(tables::take(&mut ebpf, "events")?)
            .map_err(|error| tables::error("watch", "events")(MapError::IoError(error)))?;
        Ok(Self {
            ebpf,
            tables,
            security,
            events,
            hook,
            attachments,
            filters,
            program_ids,
            directory,
            _lock: lock,
        })
    }

    /// The maps.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The maps, to be written.
    pub fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// The maps of port security.
    #[must_use]
    pub fn security(&self) -> &SecurityTables {
        &self.security
    }

    /// The maps of port security, to be written.
    pub fn security_mut(&mut self) -> &mut SecurityTables {
        &mut self.security
    }

    /// What the programs tell of.
    pub fn events(&mut self) -> &mut Events {
        &mut self.events
    }

    /// Attaches the program to exactly these devices, by ifindex with their names, and detaches it from
    /// all others: for as long as `limit`, but to one device at least. The kernel takes some 20 ms for
    /// each (`tcx_link_attach` waits for the readers of RCU). Where one refuses, the rest is done all the
    /// same.
    pub fn attach(
        &mut self,
        program: Program,
        devices: &BTreeMap<IfIndex, String>,
        limit: Duration,
    ) -> Attached {
        let classifier = classifier(&mut self.ebpf, program.name());
        self.attachments.set(program, classifier, devices, limit)
    }

    /// Loads the filter for the uplinks and puts it in the place of an earlier daemon's.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load_filter(&mut self) -> Result<(), Error> {
        let program = filter(&mut self.ebpf);
        verified(|| program.load())
            .map_err(|source| Error::Program { program: Program::UplinkXdp.name(), source })?;
        pins::replace_program(&self.directory, Program::UplinkXdp, |path| program.pin(path))?;
        self.filters.adopt(program);
        Ok(())
    }

    /// Detaches the filter that an earlier daemon attached.
    ///
    /// # Errors
    /// Where its pin can't be removed.
    pub fn remove_filter(&mut self) -> Result<(), Error> {
        self.filters.remove_all();
        Ok(pins::remove_program(&self.directory, Program::UplinkXdp)?)
    }

    /// The devices with the filter.
    #[must_use]
    pub fn filtered(&self) -> BTreeSet<IfIndex> {
        self.filters.devices()
    }

    /// Attaches the loaded filter to a device that has it not.
    ///
    /// # Errors
    /// What stands against it, in the kernel's words.
    pub fn attach_filter(&mut self, ifindex: IfIndex) -> Result<(), Why> {
        self.filters.attach(filter(&mut self.ebpf), ifindex)
    }

    /// Detaches the filter from a device, which may be gone.
    pub fn detach_filter(&mut self, ifindex: IfIndex) {
        self.filters.detach(ifindex);
    }

    /// Notes what others have detached: the next [`Self::attach`] attaches it again.
    ///
    /// # Errors
    /// [`Error::Filters`].
    pub fn check_attachments(&mut self) -> Result<(), Error> {
        self.attachments.check().map_err(Error::Filters)
    }

    /// By which way the programs are attached.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// The kernel's ids of the loaded programs that forward.
    #[must_use]
    pub fn program_ids(&self) -> &BTreeSet<u32> {
        &self.program_ids
    }

    /// Detaches and removes what a daemon with another ABI or hook left. To be called when this one
    /// is attached: until then the other's programs forward.
    pub fn remove_predecessors(&self) {
        let Some(bpffs) = self.directory.parent() else { return };
        match self.hook {
            Hook::Tcx => {
                if let Err(error) = remove_filters(bpffs) {
                    tracing::warn!("tc filters of an earlier daemon may remain: {error}");
                }
            }
            Hook::Clsact => Links::new(&self.directory).remove_all(),
        }
        pins::remove_other_versions(bpffs);
    }

    /// Detaches everything and removes all pins.
    ///
    /// # Errors
    /// Where a pin could not be removed: all others are.
    pub fn close(mut self) -> Result<(), Error> {
        self.attachments.clear(&Program::TC);
        self.attachments.release();
        Ok(pins::remove_version(&self.directory)?)
    }

    /// Detaches everything but port security from the secured ports, and leaves its maps for the next
    /// daemon; where no port is secured, as [`Self::close`]. Gives how many are.
    ///
    /// # Errors
    /// As [`Self::close`], or where the lease can't be ended.
    pub fn close_but_security(mut self) -> Result<usize, Error> {
        let secured = self.attachments.devices(Program::PortSecurity).len();
        if secured == 0 {
            self.close()?;
            return Ok(0);
        }
        self.attachments.clear(&Program::FORWARDING);
        self.filters.remove_all();
        self.tables.renew_lease(Duration::ZERO)?;
        Ok(secured)
    }
}

/// Detaches everything and removes every version's pins and the directory, without a daemon: for
/// `ovs-loader down`. Gives whether there was anything.
///
/// # Errors
/// [`PinError::Held`] while a daemon runs, or where something could not be removed.
pub fn remove_all(bpffs: &Path) -> Result<bool, Error> {
    if !bpffs.exists() {
        return Ok(false);
    }
    let lock = Lock::take(bpffs)?;
    let filters = remove_filters(bpffs).map_err(Error::Filters)?;
    Ok(pins::remove_all(&lock)? || filters)
}

fn remove_filters(bpffs: &Path) -> std::io::Result<bool> {
    Filters::open(bpffs)?.remove_all()
}

/// Has the kernel load what a daemon would attach, with maps of its own, and lets go of it again: for who is about
/// to give up what works.
///
/// # Errors
/// See [`Error`].
pub fn rehearse(fdb_capacity: u32) -> Result<(), Error> {
    if OBJECT.is_empty() {
        return Err(Error::NoObject);
    }
    let mut ebpf = load(None, fdb_capacity)?;
    for program in Program::FORWARDING {
        verified(|| classifier(&mut ebpf, program.name()).load())
            .map_err(|source| Error::Program { program: program.name(), source })?;
    }
    Ok(())
}

/// Makes the maps, or takes those that are pinned in the directory.
fn load(directory: Option<&Path>, fdb_capacity: u32) -> Result<Ebpf, Error> {
    let decap_l3 = u8::from(probe::decap_l3()?);
    let mut loader = EbpfLoader::new();
    let flow_cache = u8::from(!probe::is_preempt_rt());
    loader.override_global("DECAP_L3", &decap_l3, true);
    loader.override_global("FLOW_CACHE", &flow_cache, true);
    loader.verifier_log_level(VerifierLogLevel::DISABLE);
    loader.map_max_entries("fdb", fdb_capacity).map_max_entries("stations", fdb_capacity);
    if let Some(directory) = directory {
        for map in MAPS {
            loader.map_pin_path(map, directory.join(map));
        }
    }
    Ok(loader.load(OBJECT)?)
}

fn classifier<'a>(ebpf: &'a mut Ebpf, program: &str) -> &'a mut SchedClassifier {
    ebpf.program_mut(program)
        .and_then(|program| program.try_into().ok())
        .expect("the object has the program, as a classifier")
}

fn filter(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut(Program::UplinkXdp.name())
        .and_then(|program| program.try_into().ok())
        .expect("the object has the program, for XDP")
}

/// The version directory's name.
fn version_directory() -> String {
    format!("v{}", abi::VERSION)
}
