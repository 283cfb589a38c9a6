//! The configuration file: TOML, everything in it optional.
//!
//! Reading it changes nothing on the host. A mistake is reported with file, line, the text that is
//! wrong and what to write instead.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use error::Error;

use crate::bridge::model::Mac;
use crate::bridge::provision::BridgeSpec;

mod error;
mod parse;
pub(crate) mod suggest;

/// What the configuration file says; the default is that of a file with nothing in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Section `[accelerate]`.
    pub accelerate: Accelerate,
    /// `rundirs` of section `[ovs]`: where each Open vSwitch has its sockets.
    pub ovs_rundirs: Option<Vec<PathBuf>>,
    /// Section `[docker]`.
    pub docker: Docker,
    /// Sections `[[bridge]]`: bridges to create or complete at start.
    pub bridges: Vec<BridgeSpec>,
    /// Sections `[[port]]`: what ports are limited to.
    pub ports: Vec<PortRule>,
}

/// Section `[[port]]`: what a port may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// Which ports.
    pub of: PortSelector,
    /// From what `ovs-loader` gave the container.
    pub own: bool,
    /// From these MACs.
    pub macs: BTreeSet<Mac>,
    /// From these addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// So many packets per second to groups and unknown stations.
    pub flood_limit: Option<u32>,
}

/// The ports of a section `[[port]]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortSelector {
    /// The one of this name. Goes before the others.
    Name(String),
    /// Those of this bridge that lead to containers attached by `ovs-loader`.
    ContainersOf(String),
}

/// Section `[docker]`: networks of Docker's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Docker {
    /// Serve them.
    pub enabled: bool,
    /// The socket on which Docker calls.
    pub plugin: Option<PathBuf>,
    /// Milliseconds that a call may take once its turn has come.
    pub answer_ms: Option<u16>,
    /// Docker's own socket.
    pub socket: Option<PathBuf>,
}

/// Section `[accelerate]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerate {
    /// Which bridges to accelerate; `None` is every one that passes the gate.
    pub bridges: Option<Vec<String>>,
    /// How long the programs go on without the daemon, in seconds.
    pub lease_seconds: u32,
    /// How often one packet per source MAC passes the bridge, in seconds.
    pub revalidate_seconds: u16,
    /// Capacity of the FDB map.
    pub fdb_capacity: u32,
    /// What is done on the uplinks before a packet is an skb.
    pub xdp: Xdp,
    /// Accelerate although nftables has rules in the bridge family.
    pub bypass_nft_bridge: bool,
    /// Accelerate although nftables has netdev hooks on the devices.
    pub bypass_nft_netdev: bool,
    /// Accelerate although bridge netfilter hands frames to rules.
    pub bypass_br_netfilter: bool,
    /// Accelerate although ports have egress filters.
    pub bypass_egress_filters: bool,
}

/// `accelerate.xdp`: what is done on the uplinks before a packet is an skb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xdp {
    /// Nothing.
    #[default]
    Off,
    /// Tunnel packets that nobody on this host wants are discarded.
    Filter,
}

impl Xdp {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Filter => "filter",
        }
    }
}

impl Default for Accelerate {
    fn default() -> Self {
        Self {
            bridges: None,
            lease_seconds: 30,
            revalidate_seconds: 60,
            fdb_capacity: 65_536,
            xdp: Xdp::Off,
            bypass_nft_bridge: false,
            bypass_nft_netdev: false,
            bypass_br_netfilter: false,
            bypass_egress_filters: false,
        }
    }
}

impl Config {
    /// Reads a configuration file; without a path, the default.
    ///
    /// # Errors
    /// The file can't be read, or says something that is wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::default()) };
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Unreadable { file: file.clone(), source })?;
        Self::parse(&file, &text)
    }

    /// Parses the text of a configuration file, whose name is for messages only.
    ///
    /// # Errors
    /// The first thing in it that is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        parse::parse(text).map_err(|mistake| Error::mistake(file, text, mistake))
    }
}
