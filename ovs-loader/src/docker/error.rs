//! What can go wrong when containers are attached, and what to do then.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::bridge::netlink::Refused;
use crate::bridge::ovs::db;
use crate::bridge::provision;
use crate::state;

/// A container could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Settings(String),
    /// The bridge or this host's end.
    #[error(transparent)]
    Bridge(#[from] provision::Error),
    /// Open vSwitch's database.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// ovs-vswitchd does not take the interface.
    #[error("Open vSwitch cannot use {interface}: {problem}")]
    Switch {
        /// The interface.
        interface: String,
        /// In ovs-vswitchd's words.
        problem: String,
    },
    /// Docker does not answer.
    #[error(
        "cannot ask Docker at {socket}: {problem}; start Docker, name its socket with \
         --docker-socket, or the container's process with --pid"
    )]
    Engine {
        /// Its socket.
        socket: PathBuf,
        /// What happened.
        problem: String,
    },
    /// There is no such container.
    #[error("Docker has no container {0}: `docker ps --all` lists them")]
    NoContainer(String),
    /// The container has no network namespace.
    #[error("container {name} is not running (it is {state}): start it with `docker start {name}`")]
    NotRunning {
        /// As it was called.
        name: String,
        /// What Docker says it is.
        state: String,
    },
    /// There is no such process.
    #[error("there is no process {0}: give the process id of a running container")]
    NoProcess(i32),
    /// A namespace can't be entered.
    #[error("cannot enter the network namespace {path}: {reason}")]
    Namespace {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// The container is on the host's network.
    #[error(
        "{0} is this host's own network namespace: give a container that has one of its own \
         (not `--network host`)"
    )]
    OwnNamespace(PathBuf),
    /// The name is taken in the container.
    #[error("the container has an interface {0} already: choose another name")]
    InterfaceExists(String),
    /// The interface vanished while it was set up.
    #[error("{0} vanished from the container while it was set up: did the container stop?")]
    InterfaceGone(String),
    /// The default route would not take effect.
    #[error(
        "the container has a default route already ({existing}), so that one via {gateway} would \
         not be used: delete it in the container, start the container with `--network none`, or \
         leave out --gateway"
    )]
    DefaultRoute {
        /// The next hop asked for.
        gateway: IpAddr,
        /// The route that is there.
        existing: String,
    },
    /// The kernel refused something in the container.
    #[error("cannot {doing} in the container: {reason}")]
    Inside {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        reason: String,
    },
    /// It is attached, but not like this.
    #[error(
        "{interface} of {container} is attached already, and not like this: {}; detach it first \
         with `ovs-loader docker del-port {bridge} {interface} {container}`", differences.join("; ")
    )]
    Differs {
        /// The interface.
        interface: String,
        /// The container as it was called.
        container: String,
        /// The bridge that it is attached to.
        bridge: String,
        /// What differs.
        differences: Vec<String>,
    },
    /// `ovs-docker` attached it.
    #[error(
        "{interface} of {container} is attached already: `ovs-docker` made port {port} of {bridge}, \
         and its settings are not known; detach it first with `ovs-loader docker del-port {bridge} \
         {interface} {container}`"
    )]
    AttachedByScript {
        /// The interface.
        interface: String,
        /// The container as it was called.
        container: String,
        /// The bridge.
        bridge: String,
        /// The port.
        port: String,
    },
    /// Nothing of that kind is attached.
    #[error(
        "no port is attached for {interface} of {container}: `ovs-loader docker list` lists them"
    )]
    NotAttached {
        /// The interface.
        interface: String,
        /// The container as it was called.
        container: String,
    },
    /// It is another bridge's.
    #[error(
        "{interface} of {container} is attached to {bridge}, not to {asked}: say `ovs-loader docker \
         {command} {bridge} …`"
    )]
    OtherBridge {
        /// What was to be done.
        command: &'static str,
        /// The interface, or several.
        interface: String,
        /// The container as it was called.
        container: String,
        /// Whose port it is.
        bridge: String,
        /// The bridge that was named.
        asked: String,
    },
    /// A short id or name of several.
    #[error(
        "{0} may be several containers: give more of the id; `ovs-loader docker list` shows it"
    )]
    Ambiguous(String),
    /// The state directory is root's.
    #[error("no permission to write {0}: run as root, for example with sudo")]
    Permission(PathBuf),
    /// A file of the state directory.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Another process changes attachments.
    #[error("{0} is held by another ovs-loader for too long: see what it waits for")]
    Locked(PathBuf),
    /// Something failed, and then taking things back did too.
    #[error("{}; and what was made could not all be taken back: {}", error.chain(), left.join("; "))]
    Left {
        /// What failed first.
        error: Box<Error>,
        /// What failed then.
        left: Vec<String>,
    },
    /// A port could not be taken away in full.
    #[error("{port} is not gone altogether: {}; try again when that is mended", left.join("; "))]
    NotDetached {
        /// The port.
        port: String,
        /// What failed.
        left: Vec<String>,
    },
}

impl Error {
    /// The kernel's refusal to do something in a container.
    pub(super) fn inside(doing: impl Into<String>, refused: &Refused) -> Self {
        Self::Inside { doing: doing.into(), reason: refused.to_string() }
    }

    /// All that it says, with what the lower layers add.
    pub(super) fn chain(&self) -> String {
        chain(self)
    }

    /// With what could not be taken back.
    pub(super) fn and_left(self, left: Vec<String>) -> Self {
        if left.is_empty() { self } else { Self::Left { error: Box::new(self), left } }
    }
}

/// All that an error says, with what the lower layers add.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
