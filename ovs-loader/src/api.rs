//! The control socket: JSON over HTTP/1 on a Unix socket that only root can open.
//!
//! A connection holds no state of the daemon. Each request goes to the daemon's main loop as a
//! [`Request`], which answers through the sender in it.

pub mod client;
pub mod report;
mod routes;
mod server;

pub use server::{BindError, Listener, ServerGuard, serve};

use std::path::Path;

use tokio::sync::oneshot;

use report::{FdbReport, Stats, Status, TunnelReport};

/// Where the daemon listens if nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/ovs-ebpf/control.sock";

/// Where an answer goes. A caller that has gone away has dropped the other end: ignore it.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What a client asks of the daemon.
#[derive(Debug)]
pub enum Request {
    /// Everything that is accelerated, or why not.
    Status(Reply<Status>),
    /// The counters.
    Stats(Reply<Stats>),
    /// The FDB of one bridge or all.
    Fdb {
        /// The bridge's name.
        bridge: Option<String>,
        /// The answer.
        reply: Reply<FdbReport>,
    },
    /// The tunnels of one bridge or all.
    Tunnels {
        /// The bridge's name.
        bridge: Option<String>,
        /// The answer.
        reply: Reply<TunnelReport>,
    },
    /// Switch the fast path of one bridge.
    Accelerate {
        /// The bridge's name.
        bridge: String,
        /// On or off.
        on: bool,
        /// The answer.
        reply: Reply<()>,
    },
    /// Detach everything, remove the pins and exit.
    Down(Reply<()>),
    /// Exit and leave programs and maps attached for the daemon that asks.
    Handover(Reply<()>),
}

/// Why the daemon does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such bridge.
    #[error("no bridge named {name}: {}", known_bridges(known))]
    UnknownBridge {
        /// The name asked for.
        name: String,
        /// The bridges there are.
        known: Vec<String>,
    },
    /// It was tried and failed; the text says how.
    #[error("{0}")]
    Failed(String),
}

fn known_bridges(known: &[String]) -> String {
    if known.is_empty() {
        "this host has no bridge".to_owned()
    } else {
        format!("this host has {}", known.join(", "))
    }
}

/// The socket's path for messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
