//! Hosts with the daemon on some of them, what it counts, and when it is ready.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};

use crate::lab::{Container, FastPackets, Lab, Loader, traffic, wait_until};

/// How long the daemon may take to follow a change that nothing else depends on.
pub const LIMIT: Duration = Duration::from_secs(10);
/// How often echoes are sent.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// Which of two hosts run the daemon. The other is a plain kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Both.
    Both,
    /// The first alone.
    First,
    /// The second alone.
    Second,
}

impl Ends {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Both, Self::First, Self::Second];

    fn hosts(self) -> &'static [usize] {
        match self {
            Self::Both => &[0, 1],
            Self::First => &[0],
            Self::Second => &[1],
        }
    }
}

/// A lab with daemons; they end before it does.
#[derive(Debug)]
pub struct Accelerated {
    /// The daemons in the order of their hosts.
    pub loaders: Vec<Loader>,
    /// The hosts.
    pub lab: Lab,
}

impl Accelerated {
    /// Two hosts with a container each that have heard of one another, and whose traffic is fast.
    ///
    /// # Errors
    /// When the lab can't be made, or a daemon does not start.
    ///
    /// # Panics
    /// When the traffic is not fast within 10 s.
    pub fn pair(ends: Ends) -> Result<Self> {
        Self::start(Lab::pair()?, ends)
    }

    /// Starts the daemons on the first two hosts of a lab and lets their first containers meet.
    ///
    /// # Errors
    /// When a daemon does not start.
    ///
    /// # Panics
    /// When the traffic is not fast within 10 s.
    pub fn start(lab: Lab, ends: Ends) -> Result<Self> {
        let started = Self::start_on(lab, ends.hosts())?;
        started.meet(started.lab.container(0), started.lab.container(1))?;
        Ok(started)
    }

    /// Starts the daemons on these hosts.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start_on(lab: Lab, hosts: &[usize]) -> Result<Self> {
        let loaders =
            hosts.iter().map(|host| Loader::start(lab.host(*host))).collect::<Result<_>>()?;
        Ok(Self { loaders, lab })
    }

    /// The two ends' containers, as sender and receiver each way.
    pub fn ways(&self) -> [(&Container, &Container); 2] {
        let (one, other) = (self.lab.container(0), self.lab.container(1));
        [(one, other), (other, one)]
    }

    /// Has two containers exchange echoes and waits until every daemon has both in its maps.
    ///
    /// # Errors
    /// See [`until_fast`](Self::until_fast).
    pub fn meet(&self, one: &Container, other: &Container) -> Result<()> {
        self.meet_all(&[one, other])
    }

    /// Has each container send echoes to the next and waits until every daemon has all in its maps.
    ///
    /// # Errors
    /// See [`until_fast`](Self::until_fast).
    pub fn meet_all(&self, containers: &[&Container]) -> Result<()> {
        let next = containers.iter().cycle().skip(1);
        for (one, other) in containers.iter().zip(next) {
            wait_until(LIMIT, "the first echo", || {
                let ping = traffic::ping(one, other.ipv4(), 56, 1, INTERVAL);
                ping.is_ok_and(|ping| ping.received == 1).then_some(())
            });
        }
        let macs: Vec<&str> = containers.iter().map(|container| container.mac()).collect();
        self.until_fast(&macs)
    }

    /// Waits until every daemon accelerates these stations.
    ///
    /// # Errors
    /// When a daemon does not answer.
    ///
    /// # Panics
    /// When one does not within 10 s.
    pub fn until_fast(&self, macs: &[&str]) -> Result<()> {
        for loader in &self.loaders {
            wait_until(LIMIT, &format!("{macs:?} fast, but {:?}", loader.fdb()), || {
                macs.iter().all(|mac| is_fast(loader, mac)).then_some(())
            });
        }
        Ok(())
    }

    /// What the daemons count while something happens, added up: without packets that are no tunnel
    /// traffic, and without what counted nothing.
    ///
    /// # Errors
    /// Those of what happens, and when a daemon does not answer.
    pub fn counted(&self, act: impl FnOnce() -> Result<()>) -> Result<Counts> {
        let before = counts(&self.loaders)?;
        act()?;
        let mut counted = counts(&self.loaders)?;
        for (name, count) in &before {
            *counted.entry(name.clone()).or_default() -= count;
        }
        counted.retain(|name, count| *count > 0 && name != "not_tunnel");
        Ok(counted)
    }
}

/// Packets by what became of them: `sent` and `received` by the fast path, or the reason's name.
pub type Counts = BTreeMap<String, u64>;

fn counts(loaders: &[Loader]) -> Result<Counts> {
    let mut counts = Counts::new();
    for loader in loaders {
        let stats = loader.stats()?;
        let fast = FastPackets::read(&stats)?;
        let reasons = stats["reasons"].as_object().context("no reasons")?;
        let reasons = reasons.iter().map(|(name, count)| (name.as_str(), count.as_u64()));
        let fast = [("sent", Some(fast.sent)), ("received", Some(fast.received))];
        for (name, count) in reasons.chain(fast) {
            *counts.entry(name.to_owned()).or_default() += count.context("not a count")?;
        }
    }
    Ok(counts)
}

/// Packets of this name.
pub fn count(counts: &Counts, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}

/// The fast path's share of all packets but groups, 0 to 1: IPv6 says enough by itself while a device is
/// new.
#[allow(clippy::cast_precision_loss)]
pub fn share(counts: &Counts) -> f64 {
    let fast = count(counts, "sent") + count(counts, "received");
    let all = counts.values().sum::<u64>() - count(counts, "multicast");
    fast as f64 / all.max(1) as f64
}

/// Asserts how many packets the fast path took. One per station may have passed the bridge instead
/// to prove the station again; ARP and IPv6's multicasts come by themselves. Nothing else may.
#[track_caller]
pub fn assert_fast(counts: &Counts, packets: u64) {
    let fast = count(counts, "sent") + count(counts, "received");
    let proofs = count(counts, "revalidation");
    assert!(fast + proofs == packets && proofs <= 4, "{packets} wanted, counted {counts:?}");
    assert_all_fast(counts);
}

/// Asserts that the fast path took all packets but those that are the bridge's by nature: proofs of
/// stations, ARP and groups.
#[track_caller]
pub fn assert_all_fast(counts: &Counts) {
    let known = ["sent", "received", "revalidation", "not_ip", "multicast"];
    assert!(counts.keys().all(|name| known.contains(&name.as_str())), "{counts:?}");
}

/// Whether a daemon has a station in its maps.
pub fn is_fast(loader: &Loader, mac: &str) -> bool {
    let Ok(fdb) = loader.fdb() else { return false };
    let entries = fdb["entries"].as_array();
    entries.into_iter().flatten().any(|entry| entry["mac"] == mac && entry["accelerated"] == true)
}
