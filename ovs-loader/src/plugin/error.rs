//! What can go wrong with Docker's networks, in words that `docker` prints.

use std::path::PathBuf;
use std::time::Duration;

use super::probe;
use crate::bridge::provision;
use crate::{docker, state, underlay};

/// A call of Docker's that is not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The call is not understood.
    #[error("this is no call of libnetwork's: {0}")]
    Request(#[from] serde_json::Error),
    /// An option makes no sense; the text says what to write instead.
    #[error("{0}")]
    Options(String),
    /// The bridge or a device.
    #[error(transparent)]
    Bridge(#[from] provision::Error),
    /// A port, or Open vSwitch.
    #[error(transparent)]
    Port(#[from] docker::Error),
    /// What is written down.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The kernel's routes.
    #[error(transparent)]
    Underlay(#[from] underlay::Error),
    /// Docker has a network of which nothing is known here.
    #[error(
        "network {0} is not known here: its state was lost; remove it with `docker network rm` and \
         create it again"
    )]
    NoNetwork(String),
    /// Docker has an endpoint of which nothing is known here.
    #[error(
        "endpoint {0} is not known here: disconnect the container from the network and connect it \
         again"
    )]
    NoEndpoint(String),
    /// The tunnel's key can't be found out.
    #[error(
        "the tunnels' key follows from the network's name, for which Docker can't be asked at \
         {}: give -o key=N, or name Docker's socket with --docker-socket", .0.display()
    )]
    NoEngine(PathBuf),
    /// The network can't be asked whether an address is free.
    #[error(transparent)]
    Address(#[from] probe::Error),
    /// Somebody else has an address.
    #[error(
        "{clash}{}: remove that, or give this container another address; hosts that share a subnet \
         give out different ones with --ipam-driver ovs-ebpf --ipam-opt share=K/N (docs/docker.md)",
        place.as_ref().map(|place| format!(", {place}")).unwrap_or_default()
    )]
    Clash {
        /// Which address, and whose it is.
        clash: probe::Clash,
        /// Where that is, if it is known.
        place: Option<String>,
    },
    /// Docker's socket is not that of the engine that calls.
    #[error(
        "network {network} is not known to Docker at {}, though containers are in it: name the \
         socket of the engine that made it with --docker-socket", socket.display()
    )]
    OtherEngine {
        /// The network.
        network: String,
        /// The socket.
        socket: PathBuf,
    },
    /// It takes too long.
    #[error("not done within {} ms: this host is too busy, or its disk or Open vSwitch hangs; what \
        was begun is taken back; a slow host may have more time: [docker] answer_ms", .0.as_millis())]
    Late(Duration),
    /// Not all of it could be taken away.
    #[error("{what} is not gone altogether: {}; it is tried again", left.join("; "))]
    Left {
        /// What.
        what: String,
        /// What failed.
        left: Vec<String>,
    },
}

impl Error {
    /// All that it says, with what the lower layers add.
    pub(super) fn chain(&self) -> String {
        docker::chain(self)
    }
}
