//! The address driver `ovs-ebpf`: hosts that share a subnet and never give out the same address,
//! without a server between them.
//!
//! Each host gives out its own share of the subnet (`--ip-range`, or `--ipam-opt share=K/N`); who asks
//! for a certain address gets it wherever it is. What is given out is written down before it is
//! answered. Nothing here knows of networks: Docker asks for addresses before there is one, and names
//! none.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use error::Error;
pub use pool::Pool;
pub use routes::router;
pub use subnet::{Range, Share, Subnet};

use crate::state::{self, Files};

mod defaults;
mod error;
mod pool;
mod routes;
mod subnet;

/// The pools of a host.
#[derive(Debug)]
pub struct Ipam {
    files: Files<Pool>,
    pools: Mutex<BTreeMap<String, Pool>>,
}

/// What `docker network create` says of a network's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolRequest {
    /// `--subnet`; without one, a default is chosen.
    pub subnet: Option<Subnet>,
    /// `--ip-range`: this host's own part of the subnet.
    pub range: Option<Subnet>,
    /// `--ipam-opt share=K/N`: this host's part of that.
    pub share: Option<Share>,
    /// Of IPv6, where no subnet says so.
    pub v6: bool,
}

/// Which address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    This(IpAddr),
    /// Any for a container.
    Any,
    /// Any for a gateway.
    Gateway,
}

impl Ipam {
    /// The pools under a state directory.
    ///
    /// # Errors
    /// They can't be read.
    pub fn open(state: &Path) -> Result<Self, Error> {
        let files: Files<Pool> = Files::at(&state.join("pools"));
        let pools = files.load()?.into_iter().map(|pool| (pool.id.clone(), pool)).collect();
        Ok(Self { files, pools: Mutex::new(pools) })
    }

    /// Every pool, by its id.
    #[must_use]
    pub fn pools(&self) -> Vec<Pool> {
        self.lock().values().cloned().collect()
    }

    /// Makes a pool. Two networks may have the same subnet: each has a pool of its own.
    ///
    /// # Errors
    /// What is asked for makes no sense, or the disk refuses.
    pub async fn request_pool(&self, request: &PoolRequest) -> Result<Pool, Error> {
        let routes = match request.subnet {
            Some(_) => Vec::new(),
            None => defaults::routes(request.v6).await?,
        };
        let mut pools = self.lock();
        let subnet = match request.subnet {
            Some(subnet) => subnet,
            None => {
                let own = pools.values().map(|pool| pool.subnet);
                let in_use: Vec<Subnet> = routes.into_iter().chain(own).collect();
                defaults::choose(request.v6, &in_use).ok_or(Error::NoDefault)?
            }
        };
        let pool =
            Pool { id: id()?, subnet, range: range(subnet, request)?, last: None, used: [].into() };
        self.files.save(&pool.id, &pool)?;
        pools.insert(pool.id.clone(), pool.clone());
        Ok(pool)
    }

    /// Removes a pool, and with it all that is given out of it. One that is not known is gone already.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn release_pool(&self, id: &str) -> Result<(), Error> {
        let mut pools = self.lock();
        if pools.contains_key(id) {
            self.files.remove(id)?;
            pools.remove(id);
        }
        Ok(())
    }

    /// Gives out an address, with the subnet that it is in.
    ///
    /// # Errors
    /// It is taken, or none is left; or the disk refuses.
    pub fn request_address(&self, id: &str, wanted: Wanted) -> Result<(IpAddr, Subnet), Error> {
        self.change(id, |pool| {
            let address = match wanted {
                Wanted::This(address) => pool.take(address).map(|()| address),
                Wanted::Any => pool.take_next(),
                Wanted::Gateway => pool.take_first(),
            }?;
            Ok((address, pool.subnet))
        })
    }

    /// Takes an address back. One that is not given out is back already.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn release_address(&self, id: &str, address: IpAddr) -> Result<(), Error> {
        let released = self.change(id, |pool| {
            pool.release(address);
            Ok(())
        });
        match released {
            Err(Error::NoPool(_)) => Ok(()),
            result => result,
        }
    }

    /// Changes a pool, on disk first.
    fn change<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Pool) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut pools = self.lock();
        let pool = pools.get_mut(id).ok_or_else(|| Error::NoPool(id.to_owned()))?;
        let mut changed = pool.clone();
        let result = change(&mut changed)?;
        if changed != *pool {
            self.files.save(id, &changed)?;
            *pool = changed;
        }
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Pool>> {
        // A change is made as a whole or not at all.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This host's range of a subnet.
fn range(subnet: Subnet, request: &PoolRequest) -> Result<Range, Error> {
    let stations = subnet.stations();
    let range = match request.range {
        None => stations,
        Some(range) => {
            let inside = range.length() >= subnet.length() && range.overlaps(subnet);
            let all = range.addresses().within(stations).filter(|_| inside);
            all.ok_or(Error::Range { range, subnet })?
        }
    };
    match request.share {
        None => Ok(range),
        Some(share) => range.share(share).ok_or(Error::NoShare { share, range }),
    }
}

/// A name that no pool has had before: Docker may still ask to release one that is long gone.
fn id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let uuid = fs::read_to_string(path);
    let uuid =
        uuid.map_err(|reason| state::Error::Io { doing: "read", path: path.to_owned(), reason })?;
    Ok(uuid.chars().filter(char::is_ascii_hexdigit).take(12).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnet: &str) -> PoolRequest {
        PoolRequest { subnet: Some(subnet.parse().unwrap()), ..PoolRequest::default() }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn what_was_given_out_is_known_to_the_next_daemon() {
        let state = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(state.path()).unwrap();
        let pool = ipam.request_pool(&request("10.5.0.0/24")).await.unwrap();
        let gone = ipam.request_pool(&request("10.6.0.0/24")).await.unwrap();
        ipam.request_address(&pool.id, Wanted::Gateway).unwrap();
        let (first, subnet) = ipam.request_address(&pool.id, Wanted::Any).unwrap();
        assert_eq!((first, subnet), (address("10.5.0.2"), pool.subnet));
        ipam.release_address(&pool.id, first).unwrap();
        ipam.release_pool(&gone.id).unwrap();

        let ipam = Ipam::open(state.path()).unwrap();
        let known = ipam.pools();
        assert_eq!(known.len(), 1, "{known:?}");
        assert_eq!(known[0].used, [address("10.5.0.1")].into());
        let (next, _) = ipam.request_address(&pool.id, Wanted::Any).unwrap();
        assert_eq!(next, address("10.5.0.3"), "the one given back comes last");
        let taken = ipam.request_address(&pool.id, Wanted::This(next));
        assert!(matches!(taken, Err(Error::Taken { .. })), "{taken:?}");
    }

    #[tokio::test]
    async fn an_answer_is_on_disk_before_it_is_given() {
        let state = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(state.path()).unwrap();
        let pool = ipam.request_pool(&request("10.5.0.0/24")).await.unwrap();
        fs::remove_dir_all(state.path().join("pools")).unwrap();
        fs::write(state.path().join("pools"), "in the way").unwrap();
        let refused = ipam.request_address(&pool.id, Wanted::Any);
        assert!(matches!(refused, Err(Error::State(_))), "{refused:?}");
        assert_eq!(ipam.pools(), [pool], "nothing was given out");
    }

    #[tokio::test]
    async fn hosts_with_their_own_shares_give_out_different_addresses() {
        let mut given = Vec::new();
        for host in ["1/2", "2/2"] {
            let state = tempfile::tempdir().unwrap();
            let ipam = Ipam::open(state.path()).unwrap();
            let share = Some(host.parse().unwrap());
            let pool = ipam.request_pool(&PoolRequest { share, ..request("10.5.0.0/28") }).await;
            let id = pool.unwrap().id;
            while let Ok((address, _)) = ipam.request_address(&id, Wanted::Any) {
                given.push(address);
            }
        }
        let all: Vec<IpAddr> = (1..=14).map(|host| [10, 5, 0, host].into()).collect();
        assert_eq!(given, all);
    }

    #[tokio::test]
    async fn a_range_has_to_be_part_of_the_subnet() {
        let state = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(state.path()).unwrap();
        let range = |text: &str| Some(text.parse().unwrap());
        let inside = PoolRequest { range: range("10.5.1.0/24"), ..request("10.5.0.0/16") };
        let pool = ipam.request_pool(&inside).await.unwrap();
        assert_eq!(pool.range.to_string(), "10.5.1.0 to 10.5.1.255");
        for text in ["10.6.1.0/24", "10.0.0.0/8", "fd05::/64"] {
            let outside = PoolRequest { range: range(text), ..request("10.5.0.0/16") };
            let refused = ipam.request_pool(&outside).await;
            assert!(matches!(refused, Err(Error::Range { .. })), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_default_is_no_other_pools_and_two_networks_may_have_one_subnet() {
        let state = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(state.path()).unwrap();
        let default = PoolRequest::default();
        let one = ipam.request_pool(&default).await.unwrap();
        let other = ipam.request_pool(&default).await.unwrap();
        assert!(!one.subnet.overlaps(other.subnet), "{one:?} {other:?}");
        let same = PoolRequest { subnet: Some(one.subnet), ..default };
        let same = ipam.request_pool(&same).await.unwrap();
        assert_ne!(one.id, same.id);
        let wanted = address("10.224.0.9");
        for pool in [one, same] {
            let wanted =
                if pool.subnet.contains(wanted) { Wanted::This(wanted) } else { Wanted::Any };
            ipam.request_address(&pool.id, wanted).expect("each pool has its own");
        }
    }

    #[tokio::test]
    async fn what_is_not_known_is_back_already_but_nothing_is_given_out_of_it() {
        let state = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(state.path()).unwrap();
        ipam.release_pool("gone").unwrap();
        ipam.release_address("gone", address("10.5.0.1")).unwrap();
        let said = ipam.request_address("gone", Wanted::Any).expect_err("no pool").to_string();
        assert!(said.contains("docker network rm"), "{said}");
    }
}
