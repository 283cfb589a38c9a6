//! Docker's calls. Each is the same again when it comes again: Docker repeats a call whose answer
//! was lost with the daemon that it went to.

use std::time::Duration;

use tokio::sync::{Notify, RwLock, Semaphore};
use tokio::time::{sleep, timeout};

use super::protocol::{
    Completed, CreateEndpoint, CreateNetwork, Done, EndpointCreated, InterfaceName, Joined, Names,
};
use super::record::{Endpoint, Network, Store};
use super::{Error, Places, probe};
use crate::api::client::Client;
use crate::api::report::FdbEntry;
use crate::bridge::model::Mac;

/// Calls at a time: when many containers start at once, some are done early instead of all late.
const TURNS: usize = 2;

/// How long the daemon may take to hear where a station is, and how often it is asked.
const PATIENCE: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(20);

/// The driver `ovs-ebpf`.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) places: Places,
    pub(super) store: Store,
    /// Networks come and go with it held alone; endpoints side by side.
    pub(super) gate: RwLock<()>,
    /// There is something for the keeper to see to.
    pub(super) changed: Notify,
    turns: Semaphore,
}

impl Driver {
    pub(super) fn new(places: Places) -> Self {
        let store = Store::new(&places.state);
        let (gate, turns) = (RwLock::new(()), Semaphore::new(TURNS));
        Self { places, store, gate, changed: Notify::new(), turns }
    }

    /// Makes a network.
    ///
    /// # Errors
    /// What is wrong with its options or the host; nothing of it is left then.
    pub(super) async fn create_network(&self, call: &CreateNetwork) -> Result<Done, Error> {
        self.within(self.gate.write(), async {
            let id = call.network.as_str();
            let network = match self.store.networks.get(id)? {
                Some(known) => known,
                None => self.plan(call).await?,
            };
            self.store.save_network(&network).await?;
            if let Err(error) = network.ensure().await {
                self.remove_network(network).await.unwrap_or_else(|error| complain(&error));
                return Err(error);
            }
            // Its name is still to be asked for.
            self.changed.notify_one();
            Ok(Done {})
        })
        .await
    }

    /// Takes a network away.
    ///
    /// # Errors
    /// What could not be taken away. Docker forgets the network all the same: it is tried again.
    pub(super) async fn delete_network(&self, call: &Names) -> Result<Done, Error> {
        self.within(self.gate.write(), async {
            if let Some(network) = self.store.networks.get(call.network.as_str())? {
                self.remove_network(network).await?;
            }
            Ok(Done {})
        })
        .await
    }

    /// Makes a container's interface and its port.
    ///
    /// # Errors
    /// What is wrong with the network or the host; nothing of the endpoint is left then.
    pub(super) async fn create_endpoint(
        &self,
        call: &CreateEndpoint,
    ) -> Result<EndpointCreated, Error> {
        self.within(self.gate.read(), async {
            let network = self.network(call.network.as_str())?;
            let endpoint = Endpoint::new(call);
            self.store.save_endpoint(&endpoint).await?;
            let made = match endpoint.make(&network).await {
                Ok(()) => self.claim(&endpoint, &network).await,
                Err(error) => Err(error),
            };
            if let Err(error) = made {
                let removed = self.remove_endpoint(endpoint, Some(&network)).await;
                removed.unwrap_or_else(|error| complain(&error));
                return Err(error);
            }
            let mac_address = match call.interface.mac_address {
                Some(_) => None,
                None => Some(endpoint.mac.to_string()),
            };
            Ok(EndpointCreated { interface: Completed { mac_address } })
        })
        .await
    }

    /// Makes sure that nobody else has an endpoint's addresses.
    async fn claim(&self, endpoint: &Endpoint, network: &Network) -> Result<(), Error> {
        match endpoint.claim().await {
            Err(Error::Address(probe::Error::Clash(clash))) => {
                let place = self.whereabouts(&network.bridge, clash.station).await;
                Err(Error::Clash { clash, place })
            }
            result => result,
        }
    }

    /// Where a station is that has just been heard of, in words.
    async fn whereabouts(&self, bridge: &str, station: Mac) -> Option<String> {
        let client = Client::new(&self.places.control);
        let look = async {
            loop {
                let report = client.fdb(Some(bridge)).await;
                let entries = report.iter().flat_map(|report| &report.entries);
                let mut at = entries.filter(|entry| entry.mac == station.to_string());
                if let Some(FdbEntry { port, remote, .. }) = at.next() {
                    return match remote {
                        Some(remote) => format!("on host {remote}"),
                        None => format!("at port {port} of this host"),
                    };
                }
                sleep(POLL).await;
            }
        };
        timeout(PATIENCE, look).await.ok()
    }

    /// Takes a container's interface away.
    ///
    /// # Errors
    /// What could not be taken away. Docker forgets the endpoint all the same: it is tried again.
    pub(super) async fn delete_endpoint(&self, call: &Names) -> Result<Done, Error> {
        self.within(self.gate.read(), async {
            if let Some(endpoint) = self.store.endpoints.get(call.endpoint.as_str())? {
                let network = self.store.networks.get(endpoint.network.as_str())?;
                self.remove_endpoint(endpoint, network.as_ref()).await?;
            }
            Ok(Done {})
        })
        .await
    }

    /// Says which interface is the container's, and its way out.
    ///
    /// # Errors
    /// The endpoint is not known, or its interface is gone and can't be made again.
    pub(super) async fn join(&self, call: &Names) -> Result<Joined, Error> {
        self.within(self.gate.read(), async {
            let network = self.network(call.network.as_str())?;
            let endpoint = self
                .store
                .endpoints
                .get(call.endpoint.as_str())?
                .ok_or_else(|| Error::NoEndpoint(call.endpoint.short().to_owned()))?;
            if !endpoint.is_ready().await? {
                endpoint.make(&network).await?;
            }
            let (gateway, gateway_ipv6) = network.gateways();
            let text = |address: Option<std::net::IpAddr>| {
                address.map(|address| address.to_string()).unwrap_or_default()
            };
            Ok(Joined {
                interface_name: InterfaceName { src_name: endpoint.peer(), dst_prefix: "eth" },
                gateway: text(gateway),
                gateway_ipv6: text(gateway_ipv6),
                disable_gateway_service: network.internal,
            })
        })
        .await
    }

    /// Ends a call that takes too long: what it had begun the keeper takes back, since Docker does
    /// not know of it.
    async fn within<T, G>(
        &self,
        gate: impl Future<Output = G>,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        let _gate = gate.await;
        let limit = self.places.answer;
        let result = timeout(limit, call).await.unwrap_or(Err(Error::Late(limit)));
        if result.is_err() {
            self.changed.notify_one();
        }
        result
    }

    fn network(&self, id: &str) -> Result<Network, Error> {
        let short = || id.get(..12).unwrap_or(id).to_owned();
        self.store.networks.get(id)?.ok_or_else(|| Error::NoNetwork(short()))
    }

    /// Takes a network away and forgets it, if nothing of it is left. What others of Docker's
    /// networks use goes over to one of them.
    pub(super) async fn remove_network(&self, mut network: Network) -> Result<(), Error> {
        for endpoint in self.store.endpoints_of(&network.id)? {
            self.remove_endpoint(endpoint, Some(&network)).await?;
        }
        let mut others = self.store.networks.load()?;
        others.retain(|other| {
            !other.leaving && other.id != network.id && other.bridge == network.bridge
        });
        if let Some(heir) = others.first_mut() {
            heir.owns_bridge |= network.owns_bridge;
            heir.nic = heir.nic.take().or(network.nic.take());
            self.store.save_network(heir).await?;
            network.owns_bridge = false;
        }
        network.leaving = true;
        self.store.save_network(&network).await?;
        let left = network.take_down().await;
        // A tunnel that was used by both went with this one.
        if let Some(heir) = others.first() {
            heir.ensure().await?;
        }
        if left.is_empty() {
            return Ok(self.store.forget_network(&network.id).await?);
        }
        Err(Error::Left { what: format!("network {}", network.id.short()), left })
    }

    /// Takes an endpoint away and forgets it, if nothing of it is left.
    pub(super) async fn remove_endpoint(
        &self,
        mut endpoint: Endpoint,
        network: Option<&Network>,
    ) -> Result<(), Error> {
        let left = endpoint.take_down(network).await;
        if left.is_empty() {
            return Ok(self.store.forget_endpoint(&endpoint.id).await?);
        }
        endpoint.leaving = true;
        self.store.save_endpoint(&endpoint).await?;
        Err(Error::Left { what: format!("endpoint {}", endpoint.id.short()), left })
    }
}

fn complain(error: &Error) {
    tracing::warn!("{}", error.chain());
}
