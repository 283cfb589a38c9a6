//! Keeps networks and endpoints in line with Docker: what the host has lost is made again, what
//! Docker has forgotten goes, and what only Docker knows is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::protocol::Id;
use super::record::Network;
use super::{Driver, Error, key};
use crate::bridge::provision::{self, Owner};
use crate::docker::engine::{Engine, KnownNetwork};
use crate::docker::record::Backend;

/// How often everything is looked at, for what nobody tells of.
const PERIOD: Duration = Duration::from_secs(30);
/// How long after a failure everything is tried again, the first and the last time.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), PERIOD);
/// How long what happens at once is waited for.
const BURST: Duration = Duration::from_millis(100);
/// How long something that Docker does not know may be what it is about to make: it repeats a call
/// for 30 s.
const GRACE: Duration = Duration::from_secs(40);

/// Never returns.
pub(super) async fn keep(driver: &Driver) {
    let mut keeper = Keeper { driver, unknown: BTreeMap::new(), reported: BTreeSet::new() };
    let engine = Engine::new(&driver.places.engine);
    let mut events = None;
    let mut wait = RETRY.0;
    let mut restored = None;
    loop {
        if events.is_none() {
            events = engine.network_events().await.ok();
        }
        let mut failures = BTreeSet::new();
        if restored.is_none_or(|at: Instant| at.elapsed() >= PERIOD) {
            failures.extend(keeper.restore().await);
            restored = failures.is_empty().then(Instant::now);
        }
        let complete = keeper.ask(&engine, &mut failures).await;
        let settled = failures.is_empty() && complete;
        keeper.report(failures);
        let pause = if settled { PERIOD } else { wait };
        wait = if settled { RETRY.0 } else { (wait * 2).min(RETRY.1) };
        let told = async {
            match &mut events {
                Some(stream) => stream.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            alive = told => match alive {
                // More of the same is on its way: containers come and go in numbers.
                true => sleep(BURST).await,
                false => events = None,
            },
            () = driver.changed.notified() => wait = RETRY.0,
            () = sleep(pause) => {}
        }
    }
}

struct Keeper<'a> {
    driver: &'a Driver,
    /// What Docker did not know, since when.
    unknown: BTreeMap<String, Instant>,
    reported: BTreeSet<String>,
}

impl Keeper<'_> {
    /// What goes on failing is said once.
    fn report(&mut self, failures: BTreeSet<String>) {
        for failure in failures.difference(&self.reported) {
            tracing::warn!("{failure}: trying again");
        }
        self.reported = failures;
    }

    /// Makes what should be there and takes away what is to go, as far as this host knows; gives what
    /// failed.
    async fn restore(&self) -> BTreeSet<String> {
        let store = &self.driver.store;
        let (networks, endpoints) = match (store.networks.load(), store.endpoints.load()) {
            (Ok(networks), Ok(endpoints)) => (networks, endpoints),
            (Err(error), _) | (_, Err(error)) => return [error.to_string()].into(),
        };
        let mut failures = BTreeSet::new();
        let mut note = |what: String, result: Result<(), Error>| {
            failures.extend(result.err().map(|error| format!("{what}: {}", error.chain())));
        };
        for network in networks {
            note(words(&network), self.restore_network(&network.id).await);
        }
        let owners = match provision::owners().await {
            Ok(owners) => owners,
            Err(error) => return [error.to_string()].into(),
        };
        for endpoint in endpoints {
            let port = endpoint.port();
            let restored = self.restore_endpoint(&endpoint.id, owners.get(&port)).await;
            note(format!("port {port}"), restored);
        }
        failures
    }

    async fn restore_network(&self, id: &Id) -> Result<(), Error> {
        let _alone = self.driver.gate.write().await;
        match self.driver.store.networks.get(id.as_str())? {
            Some(network) if network.leaving => self.driver.remove_network(network).await,
            Some(network) => network.ensure().await,
            None => Ok(()),
        }
    }

    /// Makes an endpoint's port one of its bridge again, if the bridge was made anew. A pair that
    /// went with its container's namespace stays away: Docker makes another for the next run.
    async fn restore_endpoint(&self, id: &Id, owner: Option<&Owner>) -> Result<(), Error> {
        let _beside = self.driver.gate.read().await;
        let store = &self.driver.store;
        let Some(endpoint) = store.endpoints.get(id.as_str())? else { return Ok(()) };
        let network = store.networks.get(endpoint.network.as_str())?;
        match network.filter(|network| !network.leaving && !endpoint.leaving) {
            None => {
                let network = store.networks.get(endpoint.network.as_str())?;
                self.driver.remove_endpoint(endpoint, network.as_ref()).await
            }
            Some(network) => {
                let missing = match (&network.backend, owner) {
                    (_, None) => false,
                    (Backend::Linux, Some(owner)) => *owner == Owner::Free,
                    (ovs, Some(_)) => !ovs.has(&network.bridge, &endpoint.port()).await?,
                };
                if missing { endpoint.attach(&network).await } else { Ok(()) }
            }
        }
    }

    /// Learns from Docker; whether all that it knows is known here now and the other way round.
    async fn ask(&mut self, engine: &Engine, failures: &mut BTreeSet<String>) -> bool {
        let networks = match self.driver.store.networks.load() {
            Ok(networks) => networks,
            Err(error) => {
                failures.insert(error.to_string());
                return false;
            }
        };
        let mut complete = true;
        let mut unknown = BTreeSet::new();
        for network in networks.into_iter().filter(|network| !network.leaving) {
            let id = network.id.as_str().to_owned();
            // Without an answer nothing is concluded: containers live on without Docker.
            let Ok(known) = engine.network(&id).await else {
                complete &= network.name.is_some();
                continue;
            };
            let result = match known {
                Some(known) => self.learn(&network, &known, &mut unknown).await,
                // It was made by another engine: this one can't say that it is gone.
                None if network.name.is_none() && self.has_endpoints(&network) => {
                    complete = false;
                    Err(Error::OtherEngine {
                        network: network.id.short().to_owned(),
                        socket: self.driver.places.engine.clone(),
                    })
                }
                None if self.is_overdue(&id) => {
                    tracing::info!("{}: Docker does not know it any more", words(&network));
                    let _alone = self.driver.gate.write().await;
                    self.driver.remove_network(network.clone()).await
                }
                None => {
                    unknown.insert(id);
                    Ok(())
                }
            };
            failures.extend(result.err().map(|error| error.chain()));
        }
        complete &= unknown.is_empty();
        self.unknown.retain(|id, _| unknown.contains(id));
        let now = Instant::now();
        for id in unknown {
            self.unknown.entry(id).or_insert(now);
        }
        complete
    }

    fn has_endpoints(&self, network: &Network) -> bool {
        self.driver.store.endpoints_of(&network.id).is_ok_and(|all| !all.is_empty())
    }

    /// Whether Docker has not known something for so long that it will not.
    fn is_overdue(&self, id: &str) -> bool {
        self.unknown.get(id).is_some_and(|since| since.elapsed() >= GRACE)
    }

    /// Takes down what Docker says of a network, and makes the tunnels that waited for its name.
    async fn learn(
        &self,
        network: &Network,
        known: &KnownNetwork,
        unknown: &mut BTreeSet<String>,
    ) -> Result<(), Error> {
        let store = &self.driver.store;
        if network.name.as_ref() != Some(&known.name) {
            let _alone = self.driver.gate.write().await;
            // It may have gone meanwhile.
            if let Some(mut network) = store.networks.get(network.id.as_str())? {
                network.name = Some(known.name.clone());
                if let Some(tunnel) = &mut network.tunnel {
                    tunnel.key.get_or_insert(key::derived(&known.name));
                }
                store.save_network(&network).await?;
                network.ensure().await?;
            }
        }
        for endpoint in store.endpoints_of(&network.id)?.into_iter().filter(|one| !one.leaving) {
            let id = endpoint.id.as_str();
            let container = known.containers.get(id);
            match container {
                Some(name) if endpoint.container.as_ref() == Some(name) => {}
                Some(name) => {
                    // Nothing comes between: nothing is waited for.
                    if let Some(mut endpoint) = store.endpoints.get(id)? {
                        endpoint.container = Some(name.clone());
                        store.endpoints.save(id, &endpoint)?;
                    }
                }
                None if self.is_overdue(id) => {
                    let port = endpoint.port();
                    tracing::info!("port {port}: Docker does not know its endpoint any more");
                    let _alone = self.driver.gate.write().await;
                    self.driver.remove_endpoint(endpoint, Some(network)).await?;
                }
                None => {
                    unknown.insert(id.to_owned());
                }
            }
        }
        Ok(())
    }
}

fn words(network: &Network) -> String {
    format!("network {}", network.shown())
}
