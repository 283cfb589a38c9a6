//! Docker's networks: libnetwork's remote driver `ovs-ebpf`, and its addresses ([`ipam`]).
//!
//! A network is a bridge of this host, made for it or there already, with tunnels to the other hosts
//! or a NIC. An endpoint is a veth pair: one end is a port of the bridge, the other one Docker moves
//! into the container. Docker's calls (`routes.rs`) go to the driver, which writes each network
//! and endpoint down ([`record`]) before it makes anything and forgets it when all of it is gone.
//! Nothing that a call does asks Docker anything: it would wait for itself. What only Docker knows
//! (names, and what it has forgotten) the keeper finds out afterwards.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::oneshot;

use driver::Driver;
use error::Error;
pub use options::{Tunnel, WayOut};
pub use protocol::{Id, Subnet};
pub use record::{Endpoint, Network, Store};

use crate::api::{BindError, Listener};
use ipam::Ipam;

mod driver;
mod endpoint;
mod error;
pub mod ipam;
mod keeper;
mod key;
pub mod list;
mod network;
mod options;
pub mod probe;
mod protocol;
pub mod record;
mod routes;

/// Where Docker looks for the driver `ovs-ebpf`.
pub const DEFAULT_SOCKET: &str = "/run/docker/plugins/ovs-ebpf.sock";
/// How long a call may take once its turn has come. Docker itself waits much longer, and a `docker run`
/// with it.
pub const DEFAULT_ANSWER: Duration = Duration::from_millis(900);

/// Where things are on this host.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory for what is known of networks and endpoints.
    pub state: PathBuf,
    /// The socket on which Docker calls.
    pub socket: PathBuf,
    /// Docker's own socket.
    pub engine: PathBuf,
    /// The daemon's control socket.
    pub control: PathBuf,
    /// Where each Open vSwitch has its sockets, once it runs.
    pub rundirs: Vec<PathBuf>,
    /// How long a call may take once its turn has come.
    pub answer: Duration,
}

/// Why Docker can't be served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Another daemon has the same state directory.
    #[error(
        "another ovs-loader serves Docker's networks of {}: stop it, or give this one another \
         --state-dir", .0.display()
    )]
    InUse(PathBuf),
    /// What is known of addresses.
    #[error(transparent)]
    Addresses(#[from] ipam::Error),
    /// The system refuses.
    #[error("cannot serve Docker's networks: {}", .path.display())]
    Io {
        /// The directory of the state.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A thread that serves Docker. Dropping it ends it and removes the socket; networks stay as they
/// are.
#[derive(Debug)]
pub struct Plugin {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Plugin {
    /// Starts it, in the calling thread's network namespace. It has a runtime of its own: neither
    /// Docker nor a disk or an Open vSwitch that hangs can hold up the datapath.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(places: Places) -> Result<Self, StartError> {
        let failed = |source| StartError::Io { path: places.state.clone(), source };
        let lock = record::lock(&places.state)?;
        let listener = Listener::bind(&places.socket, "Docker's plugin socket", "--docker-plugin")?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let failed = |source| StartError::Io { path: places.state.clone(), source };
        let driver = Arc::new(Driver::new(places.clone()));
        let ipam = Arc::new(Ipam::open(&places.state)?);
        let thread = thread::Builder::new().name("plugin".to_owned()).spawn(move || {
            let _lock = lock;
            runtime.block_on(async move {
                let server = match listener.serve(routes::router(driver.clone(), ipam)) {
                    Ok(server) => server,
                    Err(error) => return tracing::error!("{error}"),
                };
                tokio::select! {
                    _ = stopped => {}
                    () = keeper::keep(&driver) => {}
                }
                server.shutdown().await;
            });
            // A disk that hangs must not keep the daemon from ending.
            runtime.shutdown_background();
        });
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(failed)?) })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}
