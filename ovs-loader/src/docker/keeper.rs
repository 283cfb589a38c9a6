//! Keeps attachments in line with their containers while the daemon runs.
//!
//! It has a thread and a runtime of its own: neither Docker nor a disk or an Open vSwitch that hangs
//! can hold up the datapath. As long as nothing is attached it sleeps on an inotify descriptor, and
//! Docker is not even connected to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netlink_packet_core::Parseable as _;
use netlink_packet_route::link::LinkMessage;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::runtime;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::engine::Engine;
use super::{Attacher, PORT_SUFFIX, Places};
use crate::bridge::linux::links::Link;
use crate::bridge::netlink::{Frame, Heard, Notifications};

/// How long after a failure everything is tried again, the first and the last time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long an engine that does not answer is left alone, the first and the last time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Room for some hundred notifications of links: that there was one is all that matters.
const RECEIVE_BUFFER: usize = 256 << 10;
/// Much more than a burst of notifications.
const BATCH: usize = 1 << 16;

/// A thread that keeps attachments in line. Dropping it ends it.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The state directory can't be made or watched, or the system has no thread left.
    pub fn start(state: &Path) -> io::Result<Self> {
        let attacher = Attacher::new(&Places::with(state));
        let records = Records::watch(attacher.store.directory())?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("containers".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    error = keep(&attacher, records) => {
                        tracing::error!("containers are no longer followed: {error}");
                    }
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}

/// Never returns but with an error of the system's.
async fn keep(attacher: &Attacher, records: Records) -> io::Error {
    // SAFETY: an OwnedFd keeps its descriptor until it is dropped and always gives the same one.
    let records = match unsafe { AsyncFd::register(records.0) } {
        Ok(records) => records,
        Err(error) => return error.into_parts().1,
    };
    let happened = Arc::new(Notify::new());
    let mut listeners = Listeners::default();
    let mut reported = BTreeSet::new();
    let mut wait = RETRY.0;
    loop {
        let failures: BTreeSet<String> = match attacher.sockets() {
            Ok(sockets) => {
                listeners.follow(sockets.as_ref(), &happened);
                let result = match sockets {
                    Some(_) => attacher.reconcile().await,
                    None => Ok(BTreeSet::new()),
                };
                result.unwrap_or_else(|error| [error.chain()].into())
            }
            Err(error) => [error.chain()].into(),
        };
        // What goes on failing is said once.
        for failure in failures.difference(&reported) {
            tracing::warn!("{failure}: trying again");
        }
        let retry = sleep(wait);
        wait = if failures.is_empty() { RETRY.0 } else { (wait * 2).min(RETRY.1) };
        reported = failures;
        tokio::select! {
            changed = Records::changed(&records) => if let Err(error) = changed {
                return error;
            },
            () = happened.notified() => {}
            () = listeners.link_deleted() => {}
            () = retry, if !reported.is_empty() => {}
        }
    }
}

/// Whatever may say that a container's state has changed.
#[derive(Default)]
struct Listeners {
    engines: BTreeMap<PathBuf, AbortHandle>,
    links: Option<Notifications>,
}

impl Listeners {
    /// Listens to these engines, and to deleted links as long as anything is attached.
    fn follow(&mut self, sockets: Option<&BTreeSet<PathBuf>>, happened: &Arc<Notify>) {
        let none = BTreeSet::new();
        let wanted = sockets.unwrap_or(&none);
        self.engines.retain(|socket, listener| {
            let keep = wanted.contains(socket);
            if !keep {
                listener.abort();
            }
            keep
        });
        for socket in wanted {
            self.engines.entry(socket.clone()).or_insert_with(|| {
                tokio::spawn(listen(Engine::new(socket), happened.clone())).abort_handle()
            });
        }
        if sockets.is_none() {
            self.links = None;
        } else if self.links.is_none() {
            match Notifications::open(&[libc::RTNLGRP_LINK], RECEIVE_BUFFER) {
                Ok(links) => self.links = Some(links),
                Err(error) => tracing::warn!("cannot hear of deleted interfaces: {error}"),
            }
        }
    }

    /// Waits until an interface is deleted: those of a namespace that ends are.
    async fn link_deleted(&mut self) {
        let Some(links) = &mut self.links else { return std::future::pending().await };
        loop {
            let mut deleted = false;
            let heard = match links.wait().await {
                Ok(()) => links.hear(BATCH, |frame| deleted |= is_deleted_port(&frame)),
                Err(error) => Err(error),
            };
            match heard {
                Ok(Heard::All) if !deleted => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!("cannot hear of deleted interfaces: {error}");
                    self.links = None;
                    return;
                }
            }
        }
    }
}

/// Whether a notification tells of the end of a port by a name that attachments have.
fn is_deleted_port(frame: &Frame<'_>) -> bool {
    frame.kind == libc::RTM_DELLINK
        && LinkMessage::parse(frame.payload)
            .is_ok_and(|message| Link::new(&message).name.ends_with(PORT_SUFFIX))
}

/// Tells of all that happens to an engine's containers, and of each time that it may have been
/// missed.
async fn listen(engine: Engine, happened: Arc<Notify>) {
    let mut wait = BACKOFF.0;
    loop {
        match engine.events().await {
            Ok(mut events) => {
                wait = BACKOFF.0;
                happened.notify_one();
                while events.next().await {
                    happened.notify_one();
                }
                tracing::info!("Docker at {} has gone", engine.socket().display());
            }
            Err(error) => tracing::debug!("{error}"),
        }
        sleep(wait).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

/// Notices files of attachments that come and go.
struct Records(OwnedFd);

impl Records {
    fn watch(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let files = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE;
        inotify.add_watch(directory, files)?;
        Ok(Self(inotify.into()))
    }

    async fn changed(records: &AsyncFd<OwnedFd>) -> io::Result<()> {
        loop {
            let mut ready = records.readable().await?;
            let mut buffer = [0; 4096];
            match ready.try_io(|fd| nix::unistd::read(fd, &mut buffer).map_err(io::Error::from)) {
                Ok(read) => return read.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}
