//! Docker's networks on this host, to be looked at.

use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;

use super::options::{Tunnel, WayOut};
use super::protocol::Id;
use super::record::{Endpoint, Network, Store};
use crate::docker::record::Backend;
use crate::state::Error;

/// The networks, as `--json` prints them: fields are added, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// By name.
    pub networks: Vec<ListedNetwork>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedNetwork {
    /// Docker's id.
    pub id: Id,
    /// Docker's name; `null` until Docker was asked.
    pub name: Option<String>,
    /// The bridge.
    pub bridge: String,
    /// Who forwards: `linux` or `ovs`.
    pub kind: &'static str,
    /// The bridge goes with the network.
    pub owns_bridge: bool,
    /// The tunnels; `key` is `null` until Docker was asked for the name.
    pub tunnel: Option<Tunnel>,
    /// The NIC that is a port for the network.
    pub nic: Option<String>,
    /// The VLAN of the containers' ports.
    pub vlan: Option<u16>,
    /// The containers' MTU in bytes.
    pub mtu: u32,
    /// How containers reach what is outside; `null` if they don't (`--internal`).
    pub gateway: Option<WayOut>,
    /// The subnets.
    pub subnets: Vec<String>,
    /// The containers' interfaces.
    pub endpoints: Vec<Listed>,
}

/// A container's interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Docker's id.
    pub id: Id,
    /// The container's name; `null` until Docker was asked.
    pub container: Option<String>,
    /// The port of the bridge.
    pub port: String,
    /// The container's MAC.
    pub mac: String,
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
}

impl Listed {
    /// In a word.
    #[must_use]
    pub fn shown(&self) -> String {
        self.container.clone().unwrap_or_else(|| self.id.short().to_owned())
    }
}

/// What is written down under a state directory.
///
/// # Errors
/// A file can't be read.
pub fn list(state: &Path) -> Result<Listing, Error> {
    let store = Store::new(state);
    let endpoints = store.endpoints.load()?;
    let mut networks: Vec<_> = store.networks.load()?.into_iter().map(listed).collect();
    networks.sort_by_key(|one| (one.name.clone(), one.id.clone()));
    for network in &mut networks {
        let own = endpoints.iter().filter(|one| one.network == network.id);
        network.endpoints = own.map(listed_endpoint).collect();
        network.endpoints.sort_by_key(|one| (one.container.clone(), one.id.clone()));
    }
    Ok(Listing { networks })
}

fn listed(network: Network) -> ListedNetwork {
    ListedNetwork {
        id: network.id,
        name: network.name,
        bridge: network.bridge,
        kind: match network.backend {
            Backend::Linux => "linux",
            Backend::Ovs { .. } => "ovs",
        },
        owns_bridge: network.owns_bridge,
        tunnel: network.tunnel,
        nic: network.nic,
        vlan: network.vlan,
        mtu: network.mtu,
        gateway: (!network.internal).then_some(network.way_out),
        subnets: network.subnets.into_iter().map(|subnet| subnet.pool).collect(),
        endpoints: Vec::new(),
    }
}

fn listed_endpoint(endpoint: &Endpoint) -> Listed {
    Listed {
        id: endpoint.id.clone(),
        container: endpoint.container.clone(),
        port: endpoint.port(),
        mac: endpoint.mac.to_string(),
        addresses: endpoint.addresses.iter().map(|prefix| prefix.address).collect(),
    }
}
