//! The underlay: from a tunnel's outer addresses to the Ethernet header and the device the kernel
//! would send by, live.
//!
//! The kernel answers every question itself, policy routing and multipath included: nothing of its
//! tables is copied. What it announces on its routing groups only says which answers to ask for
//! again. Learned path MTUs and ICMP redirects are not announced: for them some targets are asked again every
//! second, in turn, and all by [`Underlay::resync`].
//!
//! Next hops are made *managed* neighbours (`NTF_EXT_MANAGED`, kernel ≥ 5.16), which the kernel
//! keeps resolved without traffic. Each carries [`NEIGHBOUR_PROTOCOL`], so that what a killed daemon
//! left is found and undone by the next one. Neighbours that are permanent, `extern_learn`, or
//! managed by somebody else are used as they are and never changed.

mod kernel;
mod model;
mod monitor;
mod neighbour;
mod receivers;
mod route;
mod rules;
mod uplink;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use ovs_ebpf_common::Reason;
use tokio::time::{Interval, MissedTickBehavior, interval};

use self::kernel::{Kernel, Link};
pub use self::model::{KnownRoute, Path, Resolution, Target, Unresolved};
use self::monitor::{Event, Monitor, covers};
pub use self::neighbour::NEIGHBOUR_PROTOCOL;
use self::neighbour::Neighbour;
pub use self::receivers::{Receiver, Receivers};
use self::rules::UnprovableRule;
pub use self::uplink::{Uplink, uplink};
use crate::bridge::model::{IfIndex, Why};

/// How often the next targets are asked again, and how many: a path MTU is learned of within a second by hosts
/// with no more remotes than that, and a thousand cost no more.
const TURN: Duration = Duration::from_secs(1);
const IN_TURN: usize = 32;

/// Why the underlay can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("cannot open a routing netlink socket")]
    Open(#[source] io::Error),
    /// Announcements can't be read.
    #[error("cannot read the kernel's routing announcements")]
    Monitor(#[source] io::Error),
    /// A request failed for another reason than the state asked for.
    #[error("the kernel does not answer for the {request}")]
    Request {
        /// What was asked for.
        request: String,
        /// The kernel's refusal.
        source: io::Error,
    },
    /// An answer that was not understood, or none.
    #[error("the kernel's answer for a {0} was empty or could not be decoded")]
    NoAnswer(&'static str),
    /// The connection is gone.
    #[error("the routing netlink connection broke; restart ovs-loader")]
    Closed,
}

/// A neighbour by its place in the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct NextHop {
    uplink: IfIndex,
    address: IpAddr,
}

/// The paths of a set of targets.
///
/// Follows the network namespace it was opened in.
pub struct Underlay {
    kernel: Kernel,
    monitor: Monitor,
    targets: BTreeMap<Target, State>,
    /// What has to be asked again, kept here so that a cancelled call loses nothing.
    stale: Stale,
    /// A resolution differs from what the last [`Self::changed`] or [`Self::set_targets`] left.
    changed: bool,
    /// When the next targets have their turn to be asked again, and behind which one they are.
    clock: Interval,
    turn: Option<Target>,
    managed: BTreeSet<NextHop>,
    /// The kernel took the managed flag when it was last given, or was never given it.
    manages: bool,
    read_only: bool,
    rules: Vec<UnprovableRule>,
}

#[derive(Default)]
struct State {
    /// `None` until first asked.
    resolution: Option<Resolution>,
    next_hop: Option<NextHop>,
}

#[derive(Default)]
struct Stale {
    targets: BTreeSet<Target>,
    rules: bool,
    /// Targets went, and their neighbours with them.
    neighbours: bool,
}

/// Answers that several targets share, for as long as one round of questions.
#[derive(Default)]
struct Round {
    links: HashMap<IfIndex, Option<Link>>,
    neighbours: HashMap<NextHop, Result<Option<Neighbour>, String>>,
}

/// Ticks when it is the next targets' turn.
fn clock() -> Interval {
    let mut clock = interval(TURN);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock
}

impl Underlay {
    /// Subscribes to the calling thread's network namespace and adopts the managed neighbours that a
    /// killed predecessor left; the first [`Self::set_targets`] gives back those without a target.
    ///
    /// # Errors
    /// No netlink socket, or a kernel that does not answer.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open() -> Result<Self, Error> {
        // Subscribed before anything is asked, so that no change falls between.
        let monitor = Monitor::open().map_err(Error::Open)?;
        let kernel = Kernel::open().map_err(Error::Open)?;
        let managed = kernel.own_neighbours().await?.into_iter().collect();
        let rules = kernel.unprovable_rules().await?;
        Ok(Self {
            kernel,
            monitor,
            targets: BTreeMap::new(),
            stale: Stale::default(),
            changed: false,
            clock: clock(),
            turn: None,
            managed,
            manages: true,
            read_only: false,
            rules,
        })
    }

    /// As [`Self::open`], but leaves all neighbours as they are: what the kernel has not resolved by
    /// itself stays `NoNeighbour`.
    ///
    /// # Errors
    /// As [`Self::open`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open_read_only() -> Result<Self, Error> {
        Ok(Self { read_only: true, managed: BTreeSet::new(), ..Self::open().await? })
    }

    /// Replaces the targets and resolves the new ones. A neighbour the kernel does not know yet is
    /// `NoNeighbour` at first; [`Self::changed`] reports its answer.
    ///
    /// # Errors
    /// A broken netlink connection. What is left undone, also by cancelling, is done by the next
    /// call of any method.
    pub async fn set_targets(&mut self, targets: BTreeSet<Target>) -> Result<(), Error> {
        self.targets.retain(|target, _| targets.contains(target));
        self.stale.targets.retain(|target| targets.contains(target));
        self.stale.neighbours = true;
        self.settle(false).await?;
        // The caller sees the new targets' paths when this returns: they are no change to report.
        let changed = self.changed;
        for target in targets {
            self.targets.entry(target).or_insert_with(|| {
                self.stale.targets.insert(target);
                State::default()
            });
        }
        self.settle(false).await?;
        self.changed = changed;
        Ok(())
    }

    /// The path of one of the targets; `None` for any other.
    #[must_use]
    pub fn resolve(&self, target: &Target) -> Option<&Resolution> {
        self.targets.get(target)?.resolution.as_ref()
    }

    /// Returns when a resolution has changed. Everything announced so far is taken into one round of
    /// questions, and nothing is waited for after the first announcement.
    ///
    /// Cancelling it loses nothing: it may stand in a `select!`.
    ///
    /// # Errors
    /// A broken netlink connection.
    pub async fn changed(&mut self) -> Result<(), Error> {
        loop {
            while let Some(events) = self.monitor.queued() {
                self.note(events.map_err(Error::Monitor)?);
            }
            self.settle(false).await?;
            if std::mem::take(&mut self.changed) {
                return Ok(());
            }
            tokio::select! {
                events = self.monitor.next() => self.note(events.map_err(Error::Monitor)?),
                _ = self.clock.tick() => self.note_next_in_turn(),
            }
        }
    }

    /// Marks the next targets to be asked again, for what the kernel does not announce.
    fn note_next_in_turn(&mut self) {
        let behind = self.turn.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.targets.range((behind, Bound::Unbounded)).map(|(target, _)| *target);
        let next: Vec<Target> = next.take(IN_TURN).collect();
        // After the last one it is the first one's turn.
        self.turn = next.get(IN_TURN - 1).copied();
        self.stale.targets.extend(next);
    }

    /// Asks for everything again, for what the kernel does not announce. A difference is reported by
    /// the next [`Self::changed`].
    ///
    /// # Errors
    /// A broken netlink connection.
    pub async fn resync(&mut self) -> Result<(), Error> {
        self.note(vec![Event::Rule, Event::Any]);
        self.settle(true).await
    }

    /// The routing rules that choose by a packet's mark, in the words of `ip rule`, as far as they concern
    /// a target: what carries that mark may take another path on the slow path than [`Self::resolve`]
    /// says.
    pub fn rules_by_mark(&self) -> impl Iterator<Item = &str> {
        let concerns = |rule: &&UnprovableRule| self.targets.keys().any(|t| rule.hides_marked(t));
        self.rules.iter().filter(concerns).map(|rule| rule.text.as_str())
    }

    /// Gives every neighbour back to the kernel's ordinary ageing. Tries all, even after an error.
    ///
    /// # Errors
    /// The first neighbour that could not be given back, or a broken netlink connection.
    pub async fn release(mut self) -> Result<(), Error> {
        self.targets.clear();
        self.unmanage_unused().await
    }

    /// Marks what an announcement makes doubtful.
    fn note(&mut self, events: Vec<Event>) {
        for event in events {
            let affected = |target: &Target, state: &State| match event {
                Event::Neighbour(next_hop) => state.next_hop == Some(next_hop),
                Event::Route(prefix, length) => covers(prefix, length, target.remote),
                Event::Rule | Event::Any => true,
            };
            let targets = self.targets.iter().filter(|(target, state)| affected(target, state));
            self.stale.targets.extend(targets.map(|(target, _)| *target));
            self.stale.rules |= event == Event::Rule;
        }
    }

    /// Asks for all that is stale. `probe` also confirms neighbours that the kernel can't manage.
    async fn settle(&mut self, probe: bool) -> Result<(), Error> {
        if self.stale.rules {
            self.rules = self.kernel.unprovable_rules().await?;
            self.stale.rules = false;
        }
        let mut round = Round::default();
        while let Some(&target) = self.stale.targets.first() {
            let (resolution, next_hop) = self.ask(&target, &mut round, probe).await?;
            if let Some(state) = self.targets.get_mut(&target) {
                self.stale.neighbours |= state.next_hop != next_hop;
                self.changed |= state.resolution.as_ref() != Some(&resolution);
                *state = State { resolution: Some(resolution), next_hop };
            }
            self.stale.targets.remove(&target);
        }
        if self.stale.neighbours {
            self.unmanage_unused().await?;
            self.stale.neighbours = false;
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        target: &Target,
        round: &mut Round,
        probe: bool,
    ) -> Result<(Resolution, Option<NextHop>), Error> {
        let unresolved = |why, route| (Err(Unresolved { why, route }), None);
        if target.fixed_local().is_some_and(|local| local.is_ipv6() != target.remote.is_ipv6()) {
            let detail = format!("{} is of another family than the local address", target.remote);
            return Ok(unresolved(Why::new(Reason::NoRoute, detail), None));
        }
        if let Some(rule) = self.rules.iter().find(|rule| rule.hides(target)) {
            return Ok(unresolved(Why::new(Reason::RoutingRule, rule.text.clone()), None));
        }
        let route = match self.kernel.route(target).await? {
            Ok(route) => route,
            Err(why) => return Ok(unresolved(why, None)),
        };
        let known = KnownRoute { uplink: route.uplink, local: route.local };
        let link = match self.link(route.uplink, round).await? {
            Ok(link) => link,
            Err(why) => return Ok(unresolved(why, Some(known))),
        };
        if route.encap {
            let detail = format!("the route to {} encapsulates", target.remote);
            return Ok(unresolved(Why::new(Reason::UplinkUnsupported, detail), Some(known)));
        }
        let ipv6 = link.ipv6.filter(|_| target.remote.is_ipv6());
        let mtu = [route.mtu, ipv6.and_then(|ipv6| ipv6.mtu)].into_iter().flatten().min();
        let hop_limit = route.hop_limit.or_else(|| ipv6?.hop_limit);
        let next_hop = NextHop { uplink: route.uplink, address: route.next_hop };
        let neighbour = self.keep(next_hop, round, probe).await?;
        let mac = match &neighbour {
            Ok(Some(entry)) => entry.usable_mac(),
            _ => None,
        };
        let resolution = match (mac, link.mac) {
            (Some(next_hop_mac), Some(source_mac)) => Ok(Path {
                local: route.local,
                uplink: route.uplink,
                uplink_name: link.name,
                source_mac,
                next_hop: route.next_hop,
                next_hop_mac,
                mtu: mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
                hop_limit,
            }),
            _ => {
                let state = match neighbour {
                    Ok(Some(entry)) => entry.state.to_string().to_uppercase(),
                    Ok(None) => "NONE".to_owned(),
                    Err(refusal) => refusal,
                };
                let detail = format!("{} dev {} {state}", route.next_hop, link.name);
                Err(Unresolved { why: Why::new(Reason::NoNeighbour, detail), route: Some(known) })
            }
        };
        Ok((resolution, Some(next_hop)))
    }

    /// The device, if an Ethernet header made here can leave by it.
    async fn link(&self, index: IfIndex, round: &mut Round) -> Result<Result<Link, Why>, Error> {
        let link = match round.links.get(&index) {
            Some(link) => link.clone(),
            None => {
                round.links.entry(index).insert_entry(self.kernel.link(index).await?).get().clone()
            }
        };
        let unsupported = |detail| Err(Why::new(Reason::UplinkUnsupported, detail));
        Ok(match link {
            None => unsupported(format!("device {index} is gone")),
            Some(link) if !link.ethernet || link.mac.is_none() => {
                unsupported(format!("{} is not an Ethernet device", link.name))
            }
            Some(link) if !link.up => unsupported(format!("{} is down", link.name)),
            Some(link) if link.noarp => unsupported(format!("{} is NOARP", link.name)),
            Some(link) => Ok(link),
        })
    }

    /// The next hop's neighbour entry, managed where that is ours to do. The inner error is the
    /// kernel's refusal to resolve it, for people.
    async fn keep(
        &mut self,
        next_hop: NextHop,
        round: &mut Round,
        probe: bool,
    ) -> Result<Result<Option<Neighbour>, String>, Error> {
        if let Some(known) = round.neighbours.get(&next_hop) {
            return Ok(known.clone());
        }
        let answer = self.keep_now(next_hop, probe).await?;
        round.neighbours.insert(next_hop, answer.clone());
        Ok(answer)
    }

    async fn keep_now(
        &mut self,
        next_hop: NextHop,
        probe: bool,
    ) -> Result<Result<Option<Neighbour>, String>, Error> {
        let found = self.kernel.neighbour(next_hop).await?;
        let left_alone = match &found {
            Some(entry) if entry.foreign => {
                self.managed.remove(&next_hop);
                true
            }
            Some(entry) if entry.managed => true,
            Some(_) => !self.manages && !probe,
            None => false,
        };
        if left_alone || self.read_only {
            return Ok(Ok(found));
        }
        // Somebody else's mark stays; the entry is then remembered here alone.
        let mark = found.is_none_or(|entry| entry.protocol == neighbour::UNMARKED);
        self.managed.insert(next_hop);
        if let Err(refusal) = self.kernel.manage(next_hop, mark).await? {
            self.managed.remove(&next_hop);
            return Ok(Err(refusal.to_string()));
        }
        let kept = self.kernel.neighbour(next_hop).await?;
        self.manages = kept.as_ref().is_none_or(|entry| entry.managed || entry.foreign);
        Ok(Ok(kept))
    }

    /// Gives back the managed neighbours that are no target's next hop.
    async fn unmanage_unused(&mut self) -> Result<(), Error> {
        let used: BTreeSet<NextHop> =
            self.targets.values().filter_map(|state| state.next_hop).collect();
        let mut outcome = Ok(());
        for next_hop in self.managed.difference(&used).copied().collect::<Vec<_>>() {
            outcome = outcome.and(self.unmanage(next_hop).await);
            self.managed.remove(&next_hop);
        }
        outcome
    }

    async fn unmanage(&self, next_hop: NextHop) -> Result<(), Error> {
        // Whoever made it permanent or took the flag meanwhile keeps it so.
        match self.kernel.neighbour(next_hop).await? {
            Some(entry) if entry.managed && !entry.foreign => {
                self.kernel.unmanage(next_hop).await?.map_err(|source| Error::Request {
                    request: format!("end of managing neighbour {}", next_hop.address),
                    source,
                })
            }
            _ => Ok(()),
        }
    }
}
