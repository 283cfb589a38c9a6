//! A container's network namespace, and ways to act in it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use tokio::runtime::Handle;

use super::Error;
use crate::bridge::netlink::Requests;

/// A network namespace that stays as long as this does.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
    path: PathBuf,
}

impl Namespace {
    /// That of a process.
    pub(super) fn of_process(pid: i32) -> Result<Self, Error> {
        match Self::open(PathBuf::from(format!("/proc/{pid}/ns/net"))) {
            Err(Error::Namespace { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoProcess(pid))
            }
            result => result,
        }
    }

    /// That of a path, such as `/run/netns/NAME`.
    pub(super) fn at(path: &Path) -> Result<Self, Error> {
        Self::open(path.to_owned())
    }

    fn open(path: PathBuf) -> Result<Self, Error> {
        let opened = File::open(&path).and_then(|file| {
            let own = fs::metadata("/proc/thread-self/ns/net")?;
            let found = file.metadata()?;
            Ok((file, (own.dev(), own.ino()) == (found.dev(), found.ino())))
        });
        match opened {
            Ok((_, true)) => Err(Error::OwnNamespace(path)),
            Ok((file, false)) => Ok(Self { file, path }),
            Err(reason) => Err(Error::Namespace { path, reason }),
        }
    }

    /// Runs something in the namespace, on a thread of its own that ends with it.
    pub(super) fn run<T: Send>(
        &self,
        body: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, Error> {
        let entered = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        entered.map_err(|reason| Error::Namespace { path: self.path.clone(), reason })
    }

    /// A netlink socket of the namespace.
    pub(super) fn requests(&self) -> Result<Requests, Error> {
        let runtime = Handle::current();
        self.run(|| {
            // The socket belongs to the reactor of whoever asks, not to the thread's.
            let _entered = runtime.enter();
            Requests::open()
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_namespace_is_refused() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        assert!(matches!(Namespace::of_process(own), Err(Error::OwnNamespace(_))));
    }

    #[test]
    fn what_is_no_namespace_is_named() {
        let said = |error: Error| format!("{error}");
        assert!(said(Namespace::of_process(i32::MAX).expect_err("none")).contains("process"));
        let missing = Namespace::at(Path::new("/run/netns/no-such")).expect_err("none");
        assert!(said(missing).contains("/run/netns/no-such"));
        let file = Namespace::at(Path::new("/proc/self/comm")).expect("any file opens");
        assert!(said(file.run(|| Ok(())).expect_err("a file")).contains("/proc/self/comm"));
    }
}
