//! What is known of Docker's networks and endpoints, on disk ([`crate::state`]).
//!
//! Each is written down before the first of its devices is made and forgotten after the last is
//! gone: whoever comes next knows what a killed daemon was about.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::options::Tunnel;
use super::protocol::{Id, Subnet};
use super::{StartError, WayOut};
use crate::bridge::model::Mac;
use crate::docker::record::{Backend, mac};
use crate::docker::spec::{Given, Prefix};
use crate::state::{Error, Files};

/// A network of Docker's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Docker's id.
    pub id: Id,
    /// Docker's name, once it was asked.
    pub name: Option<String>,
    /// The bridge.
    pub bridge: String,
    /// Who forwards for the bridge.
    pub backend: Backend,
    /// The bridge was made for the network, and goes with it.
    pub owns_bridge: bool,
    /// The tunnels to the other hosts.
    pub tunnel: Option<Tunnel>,
    /// The NIC that was made a port of the bridge for the network.
    pub nic: Option<String>,
    /// The VLAN of which containers' ports are access ports.
    pub vlan: Option<u16>,
    /// The containers' MTU in bytes.
    pub mtu: u32,
    /// How containers reach what is outside.
    pub way_out: WayOut,
    /// Without a way out (`--internal`).
    pub internal: bool,
    /// Its subnets of IPv4 and IPv6.
    pub subnets: Vec<Subnet>,
    /// Docker has forgotten it; what is left of it is being taken away.
    pub leaving: bool,
}

/// An endpoint of Docker's: a container's interface in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Docker's id.
    pub id: Id,
    /// The network's id.
    pub network: Id,
    /// The container's MAC.
    #[serde(with = "mac")]
    pub mac: Mac,
    /// The container's addresses.
    pub addresses: Vec<Prefix>,
    /// The container's name, once Docker was asked.
    pub container: Option<String>,
    /// Docker has forgotten it; what is left of it is being taken away.
    pub leaving: bool,
}

impl Endpoint {
    /// The port of the bridge: this host's end of the veth pair.
    #[must_use]
    pub fn port(&self) -> String {
        format!("{}_p", self.id.first(13))
    }

    /// The other end, until Docker moves it into the container.
    #[must_use]
    pub fn peer(&self) -> String {
        format!("{}_c", self.id.first(13))
    }
}

/// All that is known.
#[derive(Clone, Debug)]
pub struct Store {
    /// The networks, by id.
    pub networks: Files<Network>,
    /// The endpoints, by id.
    pub endpoints: Files<Endpoint>,
}

impl Store {
    /// What is known under a state directory, which need not exist yet.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self {
            networks: Files::at(&state.join("networks")),
            endpoints: Files::at(&state.join("endpoints")),
        }
    }

    /// Writes a network down. A disk that hangs holds up nobody else.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) async fn save_network(&self, network: &Network) -> Result<(), Error> {
        let (files, network) = (self.networks.clone(), network.clone());
        on_disk(move || files.save(network.id.as_str(), &network)).await
    }

    /// As [`Self::save_network`].
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) async fn save_endpoint(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let (files, endpoint) = (self.endpoints.clone(), endpoint.clone());
        on_disk(move || files.save(endpoint.id.as_str(), &endpoint)).await
    }

    /// Forgets a network.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) async fn forget_network(&self, id: &Id) -> Result<(), Error> {
        let (files, id) = (self.networks.clone(), id.clone());
        on_disk(move || files.remove(id.as_str())).await
    }

    /// Forgets an endpoint.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) async fn forget_endpoint(&self, id: &Id) -> Result<(), Error> {
        let (files, id) = (self.endpoints.clone(), id.clone());
        on_disk(move || files.remove(id.as_str())).await
    }

    /// The endpoints of a network.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn endpoints_of(&self, network: &Id) -> Result<Vec<Endpoint>, Error> {
        let mut all = self.endpoints.load()?;
        all.retain(|endpoint| endpoint.network == *network);
        Ok(all)
    }

    /// What containers were given, by their ports.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn given(&self) -> Result<BTreeMap<String, Given>, Error> {
        let given = |one: Endpoint| {
            let addresses = one.addresses.iter().map(|prefix| prefix.address).collect();
            (one.port(), Given { mac: one.mac, addresses })
        };
        Ok(self.endpoints.load()?.into_iter().map(given).collect())
    }

    /// The containers' names by their ports, as far as they are known.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn containers(&self) -> Result<BTreeMap<String, String>, Error> {
        let all = self.endpoints.load()?.into_iter();
        Ok(all.filter_map(|one| Some((one.port(), one.container?))).collect())
    }
}

/// Waits for the disk on another thread, so that many can wait at once.
async fn on_disk(work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
}

/// The right to serve Docker from a state directory, for as long as the file is open.
pub(super) fn lock(state: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::Io { path: state.to_owned(), source };
    fs::create_dir_all(state).map_err(failed)?;
    let file = File::create(state.join("networks.lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(state.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
