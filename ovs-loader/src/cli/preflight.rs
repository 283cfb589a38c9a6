//! What `run` needs of the host, looked at before anything is changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Where the kernel's BPF file system belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// The kernel's own type information.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the programs are tested on.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// The capabilities that programs, maps and netlink need, by their bit (`linux/capability.h`).
const CAPABILITIES: [(&str, u32); 4] =
    [("CAP_NET_BROADCAST", 11), ("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// What keeps the daemon from running here. The message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Not root.
    #[error("ovs-loader must run as root (it lacks {}): try sudo", .0.join(" and "))]
    NotRoot(Vec<&'static str>),
    /// The kernel has no type information.
    #[error("the kernel has no {BTF}: use a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf,
    /// The kernel is too old.
    #[error("kernel {0} is too old: use 6.1 or newer")]
    OldKernel(String),
    /// No BPF file system.
    #[error(
        "{0} is not in a BPF file system: mount one with `mount -t bpf bpf {BPFFS}`, or name a \
         directory in one with --bpffs"
    )]
    NoBpffs(String),
    /// A name that the BPF file system refuses (`bpf_lookup`).
    #[error("{0} has a dot in it, which names in a BPF file system must not have: choose another")]
    Dot(String),
    /// A BPF file system can't be mounted.
    #[error("cannot mount a BPF file system at {BPFFS}: {0}: is CONFIG_BPF_SYSCALL on?")]
    Mount(String),
}

/// What is missing on this host. `run` mounts the BPF file system itself: see [`mount_bpffs`].
#[must_use]
pub fn failures(bpffs: &Path) -> Vec<Failure> {
    let mut failures = Vec::new();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    if !missing.is_empty() {
        failures.push(Failure::NotRoot(missing));
    }
    if !Path::new(BTF).exists() {
        failures.push(Failure::NoBtf);
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if kernel_version(&release).is_some_and(|version| version < OLDEST_KERNEL) {
        failures.push(Failure::OldKernel(release.trim().to_owned()));
    }
    failures.extend(misplaced(bpffs));
    failures
}

/// Makes the host ready for the daemon, as far as that is its to do, or says what is missing.
///
/// # Errors
/// The first [`Failure`].
pub fn pass(bpffs: &Path) -> Result<(), Failure> {
    match failures(bpffs).into_iter().next() {
        Some(failure) => Err(failure),
        None => mount_bpffs(bpffs),
    }
}

/// What does not keep the daemon from running, but makes it slow.
#[must_use]
pub fn warnings() -> Vec<String> {
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    match jit {
        Ok(enabled) if enabled.trim() == "0" => vec![
            "the BPF JIT is off, so the fast path is slow: sysctl net.core.bpf_jit_enable=1"
                .to_owned(),
        ],
        _ => Vec::new(),
    }
}

/// Mounts a BPF file system in its usual place if `bpffs` lies there and none is mounted.
///
/// # Errors
/// `bpffs` has a dot in it, lies elsewhere and in no BPF file system, or the kernel refuses the mount.
pub fn mount_bpffs(bpffs: &Path) -> Result<(), Failure> {
    if let Some(failure) = misplaced(bpffs) {
        return Err(failure);
    }
    if in_bpffs(bpffs) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|error| Failure::Mount(io::Error::from(error).to_string()))
}

/// Why no pins can be in this directory, wherever the kernel's BPF file system is mounted by then.
fn misplaced(bpffs: &Path) -> Option<Failure> {
    let shown = || bpffs.display().to_string();
    if bpffs.iter().any(|name| name.as_encoded_bytes().contains(&b'.')) {
        return Some(Failure::Dot(shown()));
    }
    (!in_bpffs(bpffs) && !bpffs.starts_with(BPFFS)).then(|| Failure::NoBpffs(shown()))
}

/// That what is removed from this directory can only be pins.
///
/// # Errors
/// [`Failure::NoBpffs`] where it is there and in no BPF file system.
pub fn only_pins(bpffs: &Path) -> Result<(), Failure> {
    match bpffs.exists() && !in_bpffs(bpffs) {
        true => Err(Failure::NoBpffs(bpffs.display().to_string())),
        false => Ok(()),
    }
}

/// Whether the directory, or what exists of the way to it, is in a BPF file system.
fn in_bpffs(directory: &Path) -> bool {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| PathBuf::from(directory));
    let existing = absolute.ancestors().find(|path| path.exists());
    existing
        .and_then(|path| statfs(path).ok())
        .is_some_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// The capabilities missing from `CapEff` of `/proc/self/status`.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES
        .into_iter()
        .filter(|(_, bit)| effective & (1 << bit) == 0)
        .map(|(name, _)| name)
        .collect()
}

/// Major and minor of a kernel release such as `6.1.0-18-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(kernel_version("6.1.0-18-amd64\n"), Some((6, 1)));
        assert!(kernel_version("5.15.0-1").unwrap() < OLDEST_KERNEL);
        assert!(kernel_version("6.1.0-1").unwrap() >= OLDEST_KERNEL);
        assert!(kernel_version("6.12.0").unwrap() >= OLDEST_KERNEL);
        assert_eq!(kernel_version("unknown"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(missing_capabilities("CapEff:\t0000004000001800\n"), ["CAP_BPF"]);
        assert_eq!(missing_capabilities("").len(), 4);
    }

    #[test]
    fn a_directory_with_a_dot_is_refused() {
        let dotted = "/sys/fs/bpf/ovs.ebpf";
        assert_eq!(mount_bpffs(Path::new(dotted)), Err(Failure::Dot(dotted.to_owned())));
    }

    #[test]
    fn nothing_is_removed_but_pins() {
        let directory = tempfile::tempdir().unwrap();
        let refused = only_pins(directory.path());
        assert!(matches!(refused, Err(Failure::NoBpffs(_))), "{refused:?}");
        assert_eq!(only_pins(&directory.path().join("nowhere")), Ok(()));
    }

    #[test]
    fn what_run_would_mount_is_no_failure() {
        assert_eq!(misplaced(Path::new("/sys/fs/bpf/ovs-ebpf")), None);
    }

    #[test]
    fn an_ordinary_directory_is_in_no_bpf_file_system() {
        assert!(!in_bpffs(Path::new("/proc/nowhere")));
        let elsewhere = mount_bpffs(Path::new("/proc/nowhere"));
        assert_eq!(elsewhere, Err(Failure::NoBpffs("/proc/nowhere".to_owned())));
    }
}
