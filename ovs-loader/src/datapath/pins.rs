//! The directory on the BPF file system: who holds it, and what may be adopted from it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use aya::pin::PinError;
use nix::fcntl::{Flock, FlockArg};
use ovs_ebpf_common::abi::{
    ALLOWED_CAPACITY, AllowedKey, AllowedValue, Control, DOUBT_CAPACITY, DoubtValue, EVENTS_SIZE,
    FdbKey, FdbValue, GUARD_CAPACITY, GuardKey, GuardValue, PORT_CAPACITY, PortValue, Program,
    ProgramCounters, SOURCE_CAPACITY, SecurityValue, SourceCounters, SourceKey, TUNNEL_CAPACITY,
    TunnelCounters, TunnelIndexKey, TunnelIndexKey6, TunnelIndexValue, TunnelValue,
    UPLINK_CAPACITY, UplinkValue,
};

use super::version_directory;

/// What went wrong with a pin or the directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon works with the directory.
    #[error("{} is held by another ovs-loader ({holder}): stop it, take over from it with \
             `ovs-loader run --takeover`, or name another directory with --bpffs", directory.display())]
    Held {
        /// The directory.
        directory: PathBuf,
        /// The process, as far as it is known.
        holder: String,
    },
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program could not be pinned.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        source: PinError,
    },
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io { what, path: path.to_owned(), source }
}

/// The right to work with a directory, which is removed with it if empty; given up on drop, and by the kernel when the process ends.
pub struct Lock {
    directory: PathBuf,
    _lock: Flock<File>,
}

impl Lock {
    /// Takes the directory, which is created where it is missing.
    ///
    /// # Errors
    /// [`Error::Held`] while another process has it.
    pub fn take(directory: &Path) -> Result<Self, Error> {
        loop {
            create(directory)?;
            let file = File::open(directory).map_err(io_error("open", directory))?;
            let inode = file.metadata().map_err(io_error("read", directory))?.ino();
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, nix::Error::EAGAIN)) => {
                    return Err(Error::Held {
                        directory: directory.to_owned(),
                        holder: holder(inode),
                    });
                }
                Err((_, error)) => return Err(io_error("lock", directory)(error.into())),
            };
            // The last holder may have removed the directory between: then this lock is on nothing.
            if fs::metadata(directory).is_ok_and(|now| now.ino() == inode) {
                return Ok(Self { directory: directory.to_owned(), _lock: lock });
            }
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Lock {
    /// Leaves no empty directory behind.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.directory)
            && error.kind() != io::ErrorKind::DirectoryNotEmpty
        {
            tracing::debug!("cannot remove {}: {error}", self.directory.display());
        }
    }
}

/// The process that has a lock on a file, from `/proc/locks`: `1: FLOCK ADVISORY WRITE 42 00:1f:7 …`.
fn holder(inode: u64) -> String {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(4);
            let (pid, file) = (fields.next()?, fields.next()?);
            (file.rsplit(':').next()? == inode.to_string()).then(|| format!("process {pid}"))
        })
        .next()
        .unwrap_or_else(|| "in another container".to_owned())
}

fn create(directory: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io_error("create", directory))
}

/// The version's directory, ready to be loaded into: with what may be adopted and nothing else.
pub(super) fn prepare(bpffs: &Path, fdb_capacity: u32) -> Result<PathBuf, Error> {
    let directory = bpffs.join(version_directory());
    if let Some(map) = incompatible(&directory, fdb_capacity) {
        tracing::info!("replacing the maps in {}: {map} differs", directory.display());
        remove_version(&directory)?;
    }
    create(&directory.join("links"))?;
    Ok(directory)
}

/// A pinned map that is not what this build would create, if there is one. aya would use it as it is.
fn incompatible(directory: &Path, fdb_capacity: u32) -> Option<&'static str> {
    const INDEX: usize = size_of::<u32>();
    let expected = [
        ("control", MapType::Array, INDEX, size_of::<Control>(), 1),
        ("ports", MapType::Hash, INDEX, size_of::<PortValue>(), PORT_CAPACITY),
        ("fdb", MapType::Hash, size_of::<FdbKey>(), size_of::<FdbValue>(), fdb_capacity as usize),
        ("doubts", MapType::LruHash, size_of::<FdbKey>(), size_of::<DoubtValue>(), DOUBT_CAPACITY),
        ("tunnels", MapType::Array, INDEX, size_of::<TunnelValue>(), TUNNEL_CAPACITY),
        (
            "tunnel_index",
            MapType::Hash,
            size_of::<TunnelIndexKey>(),
            size_of::<TunnelIndexValue>(),
            TUNNEL_CAPACITY,
        ),
        (
            "tunnel_index6",
            MapType::Hash,
            size_of::<TunnelIndexKey6>(),
            size_of::<TunnelIndexValue>(),
            TUNNEL_CAPACITY,
        ),
        ("counters", MapType::PerCpuArray, INDEX, size_of::<ProgramCounters>(), Program::ALL.len()),
        (
            "tunnel_counters",
            MapType::PerCpuArray,
            INDEX,
            size_of::<TunnelCounters>(),
            TUNNEL_CAPACITY,
        ),
        ("events", MapType::RingBuf, 0, 0, EVENTS_SIZE),
        ("guards", MapType::Hash, size_of::<GuardKey>(), size_of::<GuardValue>(), GUARD_CAPACITY),
        ("xdp_uplinks", MapType::Hash, INDEX, size_of::<UplinkValue>(), UPLINK_CAPACITY),
        (
            "xdp_sources",
            MapType::LruHash,
            size_of::<SourceKey>(),
            size_of::<SourceCounters>(),
            SOURCE_CAPACITY,
        ),
        ("security", MapType::Hash, INDEX, size_of::<SecurityValue>(), PORT_CAPACITY),
        (
            "allowed",
            MapType::Hash,
            size_of::<AllowedKey>(),
            size_of::<AllowedValue>(),
            ALLOWED_CAPACITY,
        ),
        (
            "stations",
            MapType::Hash,
            size_of::<FdbKey>(),
            size_of::<AllowedValue>(),
            fdb_capacity as usize,
        ),
    ];
    expected.into_iter().find_map(|(name, kind, key, value, entries)| {
        let pin = directory.join(name);
        if !pin.exists() {
            return None;
        }
        let fits = MapInfo::from_pin(&pin).is_ok_and(|info| {
            info.map_type().is_ok_and(|is| is == kind)
                && info.key_size() as usize == key
                && info.value_size() as usize == value
                && info.max_entries() as usize == entries
        });
        (!fits).then_some(name)
    })
}

pub(super) fn replace_program(
    directory: &Path,
    program: Program,
    pin: impl FnOnce(&Path) -> Result<(), PinError>,
) -> Result<(), Error> {
    remove_program(directory, program)?;
    let path = directory.join(program.name());
    pin(&path).map_err(|source| Error::Pin { path, source })
}

/// Whether an earlier daemon has pinned this program.
pub(super) fn has_program(directory: &Path, program: Program) -> bool {
    directory.join(program.name()).exists()
}

pub(super) fn remove_program(directory: &Path, program: Program) -> Result<(), Error> {
    remove_file(&directory.join(program.name()))
}

/// Removes one version's pins; with the links' pins their programs are detached.
pub(super) fn remove_version(directory: &Path) -> Result<(), Error> {
    let mut result = Ok(());
    for folder in [&directory.join("links"), directory] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten().filter(|entry| !entry.path().is_dir()) {
            result = result.and(remove_file(&entry.path()));
        }
        result = result.and(fs::remove_dir(folder).map_err(io_error("remove", folder)));
    }
    result
}

/// Removes what daemons with another ABI left. Called when this one is attached: until then theirs
/// forward.
pub(super) fn remove_other_versions(bpffs: &Path) {
    for version in versions(bpffs) {
        if version.file_name().is_none_or(|name| *name != *version_directory())
            && let Err(error) = remove_version(&version)
        {
            tracing::warn!("an older version's pins remain: {:#}", anyhow::Error::from(error));
        }
    }
}

/// Removes every version's pins from the locked directory. Gives whether there were any.
pub(super) fn remove_all(lock: &Lock) -> Result<bool, Error> {
    let versions = versions(lock.directory());
    for version in &versions {
        remove_version(version)?;
    }
    Ok(!versions.is_empty())
}

fn versions(bpffs: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(bpffs) else { return Vec::new() };
    let is_version =
        |name: &str| name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_version))
        .map(|entry| entry.path())
        .collect()
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}
