//! The socket itself: who may open it, what happens to one that was left behind, and its end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use nix::sys::stat::{Mode, umask};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Request, routes, shown};

/// How long answers under way may take once the server is to end.
const GRACE: Duration = Duration::from_secs(1);

/// Why a socket can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error(
        "another ovs-loader answers at {path}: stop it, take over with --takeover, or name another \
         {option}"
    )]
    InUse {
        /// Its path.
        path: String,
        /// What moves it.
        option: &'static str,
    },
    /// Something else is there.
    #[error("{path} exists and is not a socket: name another {option}")]
    NotSocket {
        /// Its path.
        path: String,
        /// What moves it.
        option: &'static str,
    },
    /// The system refuses.
    #[error("cannot open {what} {path}")]
    Io {
        /// What it is.
        what: &'static str,
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A server that runs. Dropping it stops it and removes its socket.
#[derive(Debug)]
pub struct ServerGuard {
    socket: SocketFile,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl ServerGuard {
    /// Stops listening, lets answers under way reach their clients, and removes the socket.
    pub async fn shutdown(mut self) {
        self.socket.remove();
        drop(self.stop.take());
        // A client that does not read its answer must not hold up the daemon.
        let _ = tokio::time::timeout(GRACE, &mut self.task).await;
    }
}

impl Drop for ServerGuard {
    fn drop(&mut self) {
        self.task.abort();
        self.socket.remove();
    }
}

/// Opens the control socket at `path` and answers there until the guard is dropped. Each request
/// goes to `sender`. Call within a tokio runtime.
///
/// # Errors
/// Another daemon answers there, something else is there, or the system refuses.
pub fn serve(path: &Path, sender: mpsc::Sender<Request>) -> Result<ServerGuard, BindError> {
    Listener::bind(path, "the control socket", "--socket")?.serve(routes::router(sender))
}

/// A socket that is open, and where nobody answers yet.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    socket: SocketFile,
    what: &'static str,
}

impl Listener {
    /// Opens a socket; for messages, what it is and which option moves it.
    ///
    /// It can be opened by root only, from its first moment on. A missing parent directory is made.
    /// A socket where nobody answers is replaced.
    ///
    /// # Errors
    /// Another daemon answers there, something else is there, or the system refuses.
    pub fn bind(path: &Path, what: &'static str, option: &'static str) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { what, path: shown(path), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
        }
        clear(path, option, &failed)?;
        let listener = bind_private(path).map_err(failed)?;
        let socket = SocketFile::of(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, socket, what })
    }

    /// Answers until the guard is dropped. Call within a tokio runtime.
    ///
    /// # Errors
    /// The system refuses.
    pub fn serve(self, router: Router) -> Result<ServerGuard, BindError> {
        let Self { listener, socket, what } = self;
        let listener = tokio::net::UnixListener::from_std(listener)
            .map_err(|source| BindError::Io { what, path: shown(&socket.path), source })?;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let server = axum::serve(listener, router)
                // The sender is never used: dropping it is the signal.
                .with_graceful_shutdown(async { drop(stopped.await) });
            if let Err(error) = server.await {
                tracing::error!("{what} failed: {error}");
            }
        });
        Ok(ServerGuard { socket, stop: Some(stop), task })
    }
}

/// Removes a socket that a dead daemon left behind.
fn clear(
    path: &Path,
    option: &'static str,
    failed: &impl Fn(io::Error) -> BindError,
) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotSocket { path: shown(path), option });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse { path: shown(path), option }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Binds with mode 0600: through the umask, since a `chmod` afterwards would come too late.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// The file of a socket of our own. A successor may have put its own in the same place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device_and_inode: (found.dev(), found.ino()) })
    }

    fn remove(&self) {
        let ours =
            Self::of(&self.path).is_ok_and(|found| found.device_and_inode == self.device_and_inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", shown(&self.path));
        }
    }
}

#[cfg(test)]
mod tests;
