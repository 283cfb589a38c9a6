//! Every lab of this process, so that a signal removes them all, and the removal itself.

use std::{
    fs, io,
    io::Read as _,
    os::fd::IntoRawFd as _,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI32, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
    unistd::Pid,
};

/// Begins the names of all that belongs to labs: `lab-PID-N`, then `-HOST` for a namespace.
const PREFIX: &str = "lab-";
/// Where labs keep sockets, logs and configurations: one directory each, for root alone.
const FILES: &str = "/run/ovs-ebpf-test";
/// Where the daemons of labs pin programs and maps.
const PINS: &str = "/sys/fs/bpf/ovs-ebpf-test";
/// In a lab's directory: it outlives its process.
const KEPT: &str = "kept";
/// How long processes in a lab that is removed may take to end by themselves.
const GRACE: Duration = Duration::from_secs(3);

/// The labs that are up. Whoever removes one holds the lock.
static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// The writing end of the pipe through which the signal handler wakes the thread that cleans up.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// The signal that asks this process to end, once it came.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Gives a new lab its name and its directory, and takes note to remove it on SIGINT and SIGTERM.
pub(super) fn register() -> Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static ONCE: OnceLock<Result<(), String>> = OnceLock::new();
    ONCE.get_or_init(|| {
        remove_leftovers();
        watch_signals().map_err(|error| format!("{error:#}"))
    })
    .as_ref()
    .map_err(|error| anyhow::anyhow!("{error}"))?;

    let name = format!("{PREFIX}{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = files(&name);
    make(&directory)
        .with_context(|| format!("cannot make {}: labs need root", directory.display()))?;
    // Where the BPF file system is not mounted yet, the daemon mounts it.
    let _ = make(&pins(&name));
    live().push(name.clone());
    Ok(name)
}

/// Makes a directory. Another process may at any time remove the one that it belongs in, while that
/// is empty.
fn make(directory: &Path) -> io::Result<()> {
    let mut result = fs::create_dir_all(directory);
    for _ in 0..10 {
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
        result = fs::create_dir_all(directory);
    }
    result
}

/// Where a lab keeps its files.
pub(super) fn files(lab: &str) -> PathBuf {
    Path::new(FILES).join(lab)
}

/// Where a lab's daemons pin their programs and maps.
pub(super) fn pins(lab: &str) -> PathBuf {
    Path::new(PINS).join(lab)
}

/// Removes a lab. Never returns in a process that a signal has ended.
pub(super) fn unregister(lab: &str) {
    let mut live = live();
    if SIGNAL.load(Ordering::SeqCst) != 0 {
        // The lock lets the other thread remove every lab, and end the process.
        drop(live);
        loop {
            thread::park();
        }
    }
    live.retain(|name| name != lab);
    remove(lab);
}

/// Lets a lab outlive this process.
pub(super) fn keep(lab: &str) -> Result<()> {
    fs::write(files(lab).join(KEPT), "").context("cannot mark the lab as kept")?;
    live().retain(|name| name != lab);
    Ok(())
}

/// Removes every lab that was kept, and gives their names.
///
/// # Errors
/// When the list of labs can't be read.
pub fn remove_kept() -> Result<Vec<String>> {
    let kept: Vec<String> =
        names(Path::new(FILES))?.into_iter().filter(|lab| files(lab).join(KEPT).exists()).collect();
    for lab in &kept {
        remove(lab);
    }
    Ok(kept)
}

fn live() -> MutexGuard<'static, Vec<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what processes left behind that could not clean up: those killed by SIGKILL. Only what
/// has a directory among the labs is one: others may call their namespaces `lab-1-2` too.
fn remove_leftovers() {
    for lab in names(Path::new(FILES)).unwrap_or_default() {
        let pid = lab.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let gone = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if gone && !files(&lab).join(KEPT).exists() {
            remove(&lab);
        }
    }
}

/// Removes all that a lab has on the machine; goes on after an error, and reports each on stderr.
fn remove(lab: &str) {
    let prefix = format!("{lab}-");
    let mut namespaces = names(Path::new("/run/netns")).unwrap_or_default();
    namespaces.retain(|name| name.starts_with(&prefix));
    end_processes(&namespaces);
    for namespace in namespaces {
        let deleted = Command::new("ip").args(["netns", "del", &namespace]).status();
        report(&namespace, deleted.map(|_| ()));
    }
    report(lab, fs::remove_dir_all(pins(lab)));
    // Last: without it nothing shows that the rest belongs to a lab.
    report(lab, fs::remove_dir_all(files(lab)));
    // Both stay while another lab is in them.
    let _ = fs::remove_dir(PINS);
    let _ = fs::remove_dir(FILES);
}

fn report(what: &str, result: io::Result<()>) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("cannot remove {what}: {error}");
        }
        _ => {}
    }
}

/// Ends the processes in a lab's namespaces, which the lab has started, and waits for their end.
fn end_processes(namespaces: &[String]) {
    let deadline = Instant::now() + GRACE;
    let mut signal = Signal::SIGTERM;
    let mut told = Vec::new();
    loop {
        let running: Vec<i32> = namespaces.iter().flat_map(|name| processes_in(name)).collect();
        if running.is_empty() || Instant::now() > deadline + GRACE {
            return;
        }
        if signal == Signal::SIGTERM && Instant::now() > deadline {
            signal = Signal::SIGKILL;
            told.clear();
        }
        for pid in running {
            if !told.contains(&pid) {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid), signal);
                told.push(pid);
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The processes in a namespace, but for those that have ended and wait for their parent.
fn processes_in(namespace: &str) -> Vec<i32> {
    let output = Command::new("ip").args(["netns", "pids", namespace]).output();
    let pids = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    (pids.unwrap_or_default().lines())
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| *pid != process::id().cast_signed())
        .collect()
}

/// The names in a directory; none if it does not exist.
fn names(directory: &Path) -> Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

/// Has SIGINT and SIGTERM remove every lab and end the process with status 130 or 143, as a shell
/// would report it.
fn watch_signals() -> Result<()> {
    let (mut reader, writer) = io::pipe().context("cannot make a pipe")?;
    WAKE.store(writer.into_raw_fd(), Ordering::SeqCst);
    thread::Builder::new().name("lab signals".into()).spawn(move || {
        let mut byte = [0];
        if reader.read_exact(&mut byte).is_ok() {
            let live = live();
            for lab in live.iter() {
                remove(lab);
            }
            process::exit(128 + SIGNAL.load(Ordering::SeqCst));
        }
    })?;
    let action =
        SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler does nothing that is unsafe in a signal handler: see there.
        unsafe { sigaction(signal, &action) }.context("cannot handle signals")?;
    }
    Ok(())
}

extern "C" fn on_signal(signal: i32) {
    if SIGNAL.swap(signal, Ordering::SeqCst) == 0 {
        let errno = Errno::last();
        // SAFETY: write(2) is async-signal-safe; the byte lives through the call, and the pipe's
        // writing end is never closed.
        unsafe { libc::write(WAKE.load(Ordering::SeqCst), [0_u8].as_ptr().cast(), 1) };
        errno.set();
    }
}
