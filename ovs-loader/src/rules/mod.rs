//! Nobody's rules are walked around in silence: live detection of everything on this host that a
//! packet on the fast path would skip.
//!
//! [`Rules`] keeps [`HostRules`] equal to the host's state: netlink notifications bring changes of
//! nftables, IPsec policies and tc; what announces nothing (sysctls, TCX programs, legacy iptables and ebtables)
//! is polled. Facts only: the mirror's gate decides what follows from them.

mod br_netfilter;
mod ebtables;
mod firewall;
pub(crate) mod netlink;
mod nft_rule;
mod nftables;
pub(crate) mod tc;
mod tcx;
mod xfrm;
mod xtables;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

pub use br_netfilter::BrNetfilter;
pub use firewall::{FirewallRule, Ports, Traffic};
use netlink::{Dumper, Watcher};
use nftables::Nft;
pub use tc::TcFilters;
pub(crate) use tcx::is_supported as tcx_is_supported;
pub use xfrm::{Direction, OuterFlow, Xfrm, XfrmPolicy};
use xtables::{Legacy, Xtables};

use crate::bridge::model::{Encap, IfIndex};

/// How often is read what announces no changes.
const POLL: Duration = Duration::from_millis(500);
/// How long after a first notification is read, so that a burst costs one read.
const SETTLE: Duration = Duration::from_millis(20);
/// A host whose rules change all the time is read anew after this many times as long as the last
/// read took, at most [`MAX_REST`] later.
const REST: u32 = 20;
/// See [`REST`].
const MAX_REST: Duration = Duration::from_millis(200);
/// How many reads in a row are discarded because the rules changed meanwhile. What is then taken
/// may be parts of several states; a notification that brings another read is pending.
const INCONSISTENT_READS: u32 = 5;

/// Why the host's rules cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not privileged.
    #[error("reading {what} needs CAP_NET_ADMIN in this network namespace: run as root")]
    NotPermitted {
        /// What was read.
        what: &'static str,
    },
    /// Anything else.
    #[error("reading {what} failed")]
    Read {
        /// What was read.
        what: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// What of this host's rules a packet on the fast path would skip. Strings say what was found, in
/// the words of the tool that shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    /// nftables base chains of the bridge family that have rules or the policy drop, or tables of legacy
    /// ebtables.
    pub nft_bridge: Option<String>,
    /// Such base chains on the hooks of single devices (family netdev, and inet's ingress), by the
    /// device's name, or by a name's beginning and `*`. See [`Self::nft_netdev_of`].
    pub nft_netdev: BTreeMap<String, String>,
    /// Whether bridged frames are handed to `ip_ruleset`. See [`Self::br_netfilter_of`].
    pub br_netfilter: BrNetfilter,
    /// Rulesets of the IP families that are not empty: nftables (ip, ip6, inet) or legacy iptables.
    pub ip_ruleset: Option<String>,
    /// IPsec policies.
    pub xfrm: Xfrm,
    /// Filters and queueing disciplines of the watched devices; without devices that have none.
    pub tc: BTreeMap<IfIndex, TcFilters>,
    /// Rules of the host firewall that name UDP destination ports or GRE.
    pub firewall: Vec<FirewallRule>,
}

impl HostRules {
    /// The nftables hooks on a device.
    #[must_use]
    pub fn nft_netdev_of(&self, device: &str) -> Option<&str> {
        let matches = |name: &str| match name.strip_suffix('*') {
            Some(prefix) => device.starts_with(prefix),
            None => device == name,
        };
        self.nft_netdev.iter().find(|(name, _)| matches(name)).map(|(_, what)| what.as_str())
    }

    /// The ruleset that bridge netfilter hands the frames of a bridge to; `nf_call` is the
    /// bridge's own switch, which counts beside the sysctls (`br_nf_pre_routing`).
    #[must_use]
    pub fn br_netfilter_of(&self, nf_call: bool) -> Option<&str> {
        let handed = nf_call || self.br_netfilter.iptables || self.br_netfilter.ip6tables;
        self.ip_ruleset.as_deref().filter(|_| handed)
    }

    /// What transforms or blocks a tunnel's outer flow. See [`Xfrm::covers`].
    #[must_use]
    pub fn xfrm_covers(&self, flow: &OuterFlow) -> Option<String> {
        self.xfrm.covers(flow)
    }

    /// The rules of the host firewall that name a tunnel's UDP destination port (host byte order)
    /// or GRE, as sentences for people. Packets on the fast path do not pass them.
    ///
    /// None is claimed that does not name it; negated and computed matches are not found.
    #[must_use]
    pub fn firewall_rules_naming(&self, encap: Encap, dst_port: u16) -> Vec<String> {
        self.firewall.iter().filter_map(|rule| rule.naming(encap, dst_port)).collect()
    }
}

/// The host's rules, live.
///
/// Belongs to the network namespace of the thread that opened it, which must also be the thread
/// that uses it: sysctls, TCX and legacy iptables are read from the calling thread's namespace.
pub struct Rules {
    facts: HostRules,
    nft: Source<Nft>,
    xfrm: Source<Xfrm>,
    tc: Source<BTreeMap<IfIndex, TcFilters>>,
    xtables: Xtables,
    polled: Polled,
    devices: BTreeSet<IfIndex>,
    poll: Interval,
    /// No read before this: the last one's cost is to stay a small part.
    rested: Instant,
}

/// What is read on notification.
struct Source<T> {
    what: &'static str,
    /// `None` where the kernel lacks it.
    netlink: Option<(Dumper, Watcher)>,
    read: T,
    /// When to read again.
    due: Option<Instant>,
    /// How many reads in a row were discarded.
    discarded: u32,
}

/// What is polled.
#[derive(Default)]
struct Polled {
    br_netfilter: BrNetfilter,
    legacy: Legacy,
    ebtables: Option<String>,
    /// TCX programs on ingress and egress, by device.
    tcx: BTreeMap<IfIndex, (Vec<u32>, usize)>,
}

impl Rules {
    /// Starts watching and reads everything once.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN, or where the kernel's answer is unreadable. A kernel that lacks
    /// a subsystem has no rules of that kind.
    pub async fn open() -> Result<Self, Error> {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rules = Self {
            facts: HostRules::default(),
            nft: Source::open("nftables", libc::NETLINK_NETFILTER, nftables::GROUP)?,
            xfrm: Source::open("IPsec policies", libc::NETLINK_XFRM, xfrm::GROUP)?,
            tc: Source::open("tc filters", libc::NETLINK_ROUTE, tc::GROUP)?,
            xtables: Xtables::open().map_err(explain("legacy iptables"))?,
            polled: Polled::default(),
            devices: BTreeSet::new(),
            poll,
            rested: Instant::now(),
        };
        rules.nft.refresh(Nft::read)?;
        rules.xfrm.refresh(Xfrm::read)?;
        while let Some(due) = rules.due() {
            sleep_until(due).await;
            rules.read_due()?;
        }
        rules.read_polled()?;
        rules.assemble();
        Ok(rules)
    }

    /// The facts as last read.
    #[must_use]
    pub fn facts(&self) -> &HostRules {
        &self.facts
    }

    /// Sets the devices whose tc filters and queueing disciplines matter. [`Self::facts`] is up to
    /// date on return; [`Self::changed`] does not report what changed here.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn watch_devices(&mut self, devices: BTreeSet<IfIndex>) -> Result<(), Error> {
        if devices != self.devices {
            self.devices = devices;
            self.tc.refresh(|dumper| tc::read(dumper, &self.devices))?;
            self.read_polled()?;
            self.assemble();
        }
        Ok(())
    }

    /// Resolves when the facts have changed. Cancel-safe: a change that is not reported because the
    /// future was dropped is reported by the next one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn changed(&mut self) -> Result<(), Error> {
        loop {
            let due = self.due();
            tokio::select! {
                result = self.nft.notified(), if self.nft.due.is_none() => result?,
                result = self.xfrm.notified(), if self.xfrm.due.is_none() => result?,
                result = self.tc.notified(), if self.tc.due.is_none() => result?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.read_due()?;
                }
                _ = self.poll.tick() => self.read_polled()?,
            }
            if self.assemble() {
                return Ok(());
            }
        }
    }

    /// When the next read is due.
    fn due(&self) -> Option<Instant> {
        let due = [self.nft.due, self.xfrm.due, self.tc.due].into_iter().flatten().min()?;
        Some(due.max(self.rested))
    }

    fn read_due(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        if self.nft.due.is_some() {
            self.nft.refresh(Nft::read)?;
        }
        if self.xfrm.due.is_some() {
            self.xfrm.refresh(Xfrm::read)?;
        }
        if self.tc.due.is_some() {
            self.tc.refresh(|dumper| tc::read(dumper, &self.devices))?;
        }
        self.rested = Instant::now() + (start.elapsed() * REST).min(MAX_REST);
        Ok(())
    }

    fn read_polled(&mut self) -> Result<(), Error> {
        let mut tcx = BTreeMap::new();
        for device in &self.devices {
            let ids = |hook| tcx::programs(*device, hook).map_err(explain("TCX programs"));
            let (ingress, egress) = (ids(tcx::Hook::Ingress)?, ids(tcx::Hook::Egress)?);
            if !(ingress.is_empty() && egress.is_empty()) {
                tcx.insert(*device, (ingress, egress.len()));
            }
        }
        self.polled = Polled {
            br_netfilter: BrNetfilter::read().map_err(explain("bridge netfilter's sysctls"))?,
            legacy: self.xtables.read().map_err(explain("legacy iptables"))?,
            ebtables: ebtables::loaded(Path::new(ebtables::MODULES)),
            tcx,
        };
        Ok(())
    }

    /// Makes the facts of what was read; whether they changed.
    fn assemble(&mut self) -> bool {
        let nft = &self.nft.read;
        let mut tc = self.tc.read.clone();
        for (device, (ingress, egress)) in &self.polled.tcx {
            let filters = tc.entry(*device).or_default();
            filters.ingress_tcx.clone_from(ingress);
            let what = (*egress > 0).then(|| format!("{egress} TCX program(s)"));
            tc::add(&mut filters.egress, what);
        }
        let legacy = &self.polled.legacy;
        let facts = HostRules {
            nft_bridge: nft.bridge.clone().or_else(|| self.polled.ebtables.clone()),
            nft_netdev: nft.netdev.clone(),
            br_netfilter: self.polled.br_netfilter,
            ip_ruleset: nft.ip_ruleset.clone().or_else(|| legacy.ruleset.clone()),
            xfrm: self.xfrm.read.clone(),
            tc,
            firewall: nft.firewall.iter().chain(&legacy.firewall).cloned().collect(),
        };
        let changed = facts != self.facts;
        self.facts = facts;
        changed
    }
}

impl<T: Default> Source<T> {
    fn open(what: &'static str, protocol: libc::c_int, group: u32) -> Result<Self, Error> {
        let protocol = protocol as isize;
        // The watcher first: what changes after the first read is then always notified.
        let watcher = Watcher::join(protocol, group).map_err(explain(what))?;
        let dumper = Dumper::open(protocol).map_err(explain(what))?;
        Ok(Self { what, netlink: dumper.zip(watcher), read: T::default(), due: None, discarded: 0 })
    }

    fn refresh(&mut self, read: impl FnOnce(&mut Dumper) -> io::Result<T>) -> Result<(), Error> {
        self.due = None;
        if let Some((dumper, _)) = &mut self.netlink {
            dumper.consistent = true;
            let read = read(dumper).map_err(explain(self.what))?;
            if dumper.consistent || self.discarded == INCONSISTENT_READS {
                self.discarded = 0;
                self.read = read;
            } else {
                self.discarded += 1;
                self.due = Some(Instant::now() + SETTLE);
            }
        }
        Ok(())
    }

    /// Waits for a notification and notes when to read. Never resolves where the kernel lacks it.
    async fn notified(&mut self) -> Result<(), Error> {
        let Some((_, watcher)) = &self.netlink else { return std::future::pending().await };
        watcher.notified().await.map_err(explain(self.what))?;
        self.due = Some(Instant::now() + SETTLE);
        Ok(())
    }
}

fn explain(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::NotPermitted { what },
        _ => Error::Read { what, source },
    }
}
