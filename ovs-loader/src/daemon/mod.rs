//! The daemon: one loop that follows the host, answers the control socket and renews the lease.

mod configured;
mod filter;
mod follower;
mod host;
mod report;
mod security;
mod sizes;

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::api::client::Client;
use crate::api::report::Status;
use crate::api::{self, Refusal, Request};
use crate::config::Config;
use crate::datapath::{self, Datapath, Hook, Lock};
use crate::docker::{self, keeper::Keeper};
use crate::mirror::TunnelIds;
use crate::plugin::{self, Plugin};
use crate::underlay::Underlay;
use filter::Filter;
use follower::Follower;
use host::Host;
use security::Security;

/// How often everything is read again, for what the kernel does not announce.
const RESYNC: Duration = Duration::from_secs(30);
/// How often is looked for interfaces that bridges of the configuration lack.
const COMPLETION: Duration = Duration::from_secs(3);
/// How long after a failure everything is read again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a predecessor may take to hand over.
const HANDOVER: Duration = Duration::from_secs(10);

/// How many times in a row the host may fail to be followed.
const LOSSES: u32 = 10;
/// How often a lock is tried while another daemon is about to give it up.
const POLL: Duration = Duration::from_millis(10);

/// How the daemon runs.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// What the configuration file says.
    pub config: Config,
    /// The control socket.
    pub socket: PathBuf,
    /// The directory for pins.
    pub bpffs: PathBuf,
    /// The directory for what is known of attached containers.
    pub state: PathBuf,
    /// Where each Open vSwitch has its sockets, once it runs.
    pub ovs_rundirs: Vec<PathBuf>,
    /// Take over from a daemon that runs.
    pub takeover: bool,
    /// How to attach the programs.
    pub hook: Hook,
}

/// Why the loop ends.
enum End {
    /// Detach and leave the traffic to the bridges, whose ports stay secured.
    Stop,
    /// Detach everything.
    Down,
    /// Leave everything attached for the next daemon.
    Handover,
}

/// Runs until SIGTERM, SIGINT or SIGHUP, or until the control socket is told.
///
/// # Errors
/// Where the host can't be followed, the programs can't be loaded, or the socket or the directory is
/// another daemon's.
pub async fn run(options: RunOptions) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    // Of a terminal that goes away.
    let mut hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    // The directory and the socket first: another daemon's must not be disturbed.
    let lock =
        if options.takeover { take_over(&options).await? } else { Lock::take(&options.bpffs)? };
    let (sender, mut requests) = mpsc::channel(16);
    let server = api::serve(&options.socket, sender)?;
    let mut incomplete = configured::ensure(options.config.bridges.clone(), true).await?;
    let settings = options.config.accelerate.clone();
    let host = Host::open(&options.ovs_rundirs, &settings).await?;
    let lease = Duration::from_secs(u64::from(settings.lease_seconds));
    let ports = options.config.ports.clone();
    let datapath = Datapath::open(lock, settings.fdb_capacity, options.hook, !ports.is_empty())?;
    let security = Security::new(ports, options.state.clone(), settings.fdb_capacity);
    let mut follower = Follower::start(host, datapath, settings, security).await?;
    // The datapath does without.
    let keeper = Keeper::start(&options.state)
        .inspect_err(|error| {
            let state = options.state.display();
            tracing::warn!("containers that restart are not attached again: {state}: {error}");
        })
        .ok();
    let plugin = match plugin(&options) {
        Ok(plugin) => plugin,
        Err(error) => {
            detach(follower, &End::Stop).await?;
            return Err(error);
        }
    };
    sd_notify::notify(&[sd_notify::NotifyState::Ready]).context("cannot notify systemd")?;
    tracing::info!("running, control socket {}", options.socket.display());

    let mut renewal = interval(lease / 3);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut resync = interval(RESYNC);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    resync.reset();
    let mut completion = interval(COMPLETION);
    completion.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut losses, mut was_in_line) = (0, true);
    let end = loop {
        let outcome = tokio::select! {
            // In this order: nothing below must keep the lease from being renewed, and a storm of
            // changes must not keep the rest waiting.
            biased;
            _ = renewal.tick() => follower.renew_lease(),
            _ = terminate.recv() => break End::Stop,
            _ = interrupt.recv() => break End::Stop,
            _ = hangup.recv() => break End::Stop,
            _ = resync.tick() => follower.resync().await,
            _ = completion.tick(), if !incomplete.is_empty() => {
                let tried = configured::ensure(incomplete.clone(), false).await;
                tried.map(|left| incomplete = left).context("cannot complete the bridges")
            }
            Some(request) = requests.recv() => {
                match answer(&mut follower, request, &options.state).await {
                    Some(end) => break end,
                    None => Ok(()),
                }
            }
            change = follower.changed() => match change {
                Ok(change) => {
                    losses = 0;
                    follower.follow(change).await
                }
                Err(error) if losses == LOSSES => return Err(error),
                Err(error) => {
                    losses += 1;
                    follower.lose_track();
                    sleep(POLL * losses).await;
                    Err(error)
                }
            },
            // Last: a port that waits is on the slow path, no more.
            () = ready(()), if follower.is_attaching() => follower.attach_more().await,
        };
        let failures = [outcome, follower.settle_lease()].map(Result::err);
        for error in failures.iter().flatten() {
            tracing::warn!("{error:#}: trying again");
            follower.trouble = Some(format!("{error:#}"));
        }
        // Once for each time that it gets behind or fails: whatever else happens must not put it off.
        let is_in_line = follower.is_in_line();
        if is_in_line {
            follower.trouble = None;
        }
        if !is_in_line && (was_in_line || failures.iter().any(Option::is_some)) {
            resync.reset_after(RETRY);
        }
        was_in_line = is_in_line;
    };
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).context("cannot notify systemd")?;
    drop(plugin);
    drop(keeper);
    server.shutdown().await;
    match end {
        End::Handover => Ok(()),
        end => detach(follower, &end).await,
    }
}

/// Leaves the traffic to the bridges.
async fn detach(follower: Follower, end: &End) -> Result<()> {
    let Follower { host, datapath, .. } = follower;
    let detached = match end {
        End::Stop => datapath.close_but_security().inspect(|secured| {
            if *secured > 0 {
                tracing::info!("{secured} ports stay secured: `ovs-loader down` ends that");
            }
        }),
        End::Down | End::Handover => datapath.close().map(|()| 0),
    };
    let released = host.underlay.release().await;
    detached?;
    released.context("cannot give the neighbours back")?;
    tracing::info!("detached: traffic goes through the bridges");
    Ok(())
}

/// Serves Docker's networks, if that is wanted.
fn plugin(options: &RunOptions) -> Result<Option<Plugin>> {
    let config = &options.config.docker;
    if !config.enabled {
        return Ok(None);
    }
    let places = plugin::Places {
        state: options.state.clone(),
        socket: config.plugin.clone().unwrap_or_else(|| plugin::DEFAULT_SOCKET.into()),
        control: options.socket.clone(),
        engine: config.socket.clone().unwrap_or_else(|| docker::DEFAULT_SOCKET.into()),
        rundirs: options.ovs_rundirs.clone(),
        answer: config
            .answer_ms
            .map_or(plugin::DEFAULT_ANSWER, |ms| Duration::from_millis(ms.into())),
    };
    tracing::info!("serving Docker's networks at {}", places.socket.display());
    Ok(Some(Plugin::start(places)?))
}

/// Asks the running daemon to leave everything to this one, once the kernel has taken this one's programs. Without
/// one there is nothing to take over but pins.
async fn take_over(options: &RunOptions) -> Result<Lock> {
    datapath::rehearse(options.config.accelerate.fdb_capacity).context("not taking over")?;
    match Client::new(&options.socket).handover().await {
        Ok(()) | Err(api::client::Error::NoDaemon(_)) => {}
        Err(error) => return Err(error).context("cannot take over"),
    }
    let deadline = Instant::now() + HANDOVER;
    loop {
        match Lock::take(&options.bpffs) {
            Err(datapath::PinError::Held { .. }) if Instant::now() < deadline => {
                sleep(POLL).await;
            }
            result => return result.context("cannot take over"),
        }
    }
}

/// Answers one request. A caller that has gone away is nobody's problem.
async fn answer(follower: &mut Follower, request: Request, state: &Path) -> Option<End> {
    match request {
        Request::Status(reply) => {
            let _ = reply.send(Ok(status(follower, state)));
        }
        Request::Stats(reply) => {
            let _ = reply.send(report::stats(follower.datapath.tables()).map_err(failed));
        }
        Request::Fdb { bridge, reply } => {
            let report = known(follower, bridge.as_deref())
                .map(|()| view(follower, state).fdb(bridge.as_deref()));
            let _ = reply.send(report);
        }
        Request::Tunnels { bridge, reply } => {
            let report = known(follower, bridge.as_deref()).and_then(|()| {
                let tables = Some(follower.datapath.tables());
                view(follower, state).tunnels(bridge.as_deref(), tables).map_err(failed)
            });
            let _ = reply.send(report);
        }
        Request::Accelerate { bridge, on, reply } => {
            let result = match known(follower, Some(&bridge)) {
                Ok(()) => follower.accelerate(bridge, on).await.map_err(failed),
                Err(refusal) => Err(refusal),
            };
            let _ = reply.send(result);
        }
        Request::Down(reply) => {
            let _ = reply.send(Ok(()));
            return Some(End::Down);
        }
        Request::Handover(reply) => {
            // The successor has the whole lease to start.
            let renewed = follower.renew_lease().map_err(failed);
            let ends = renewed.is_ok();
            let _ = reply.send(renewed);
            return ends.then_some(End::Handover);
        }
    }
    None
}

fn failed(error: anyhow::Error) -> Refusal {
    Refusal::Failed(format!("{error:#}"))
}

/// Refuses a name that no bridge has.
fn known(follower: &Follower, name: Option<&str>) -> Result<(), Refusal> {
    let known = report::names(follower.host.bridges.bridges());
    match name {
        Some(name) if !known.iter().any(|known| known == name) => {
            Err(Refusal::UnknownBridge { name: name.to_owned(), known })
        }
        _ => Ok(()),
    }
}

fn view<'a>(follower: &'a Follower, state: &Path) -> report::View<'a> {
    report::View {
        containers: containers(state),
        bridges: follower.host.bridges.bridges(),
        plan: &follower.plan,
        applied: Some(&follower.applied),
        secured: &follower.security.secured,
        tables: Some(follower.datapath.security()),
    }
}

/// The containers' names by their ports, as far as they are written down: both those that are
/// attached and those of Docker's networks. Without them a report lacks names and nothing else.
fn containers(state: &Path) -> BTreeMap<String, String> {
    let attached = docker::record::Store::new(state).load().unwrap_or_default();
    let mut all = plugin::Store::new(state).containers().unwrap_or_default();
    all.extend(attached.into_iter().map(|one| (one.port, one.container.name)));
    all
}

fn status(follower: &Follower, state: &Path) -> Status {
    let Host { bridges, underlay, rules, .. } = &follower.host;
    let mut warnings = report::warnings(
        bridges.bridges(),
        &follower.plan,
        rules.facts(),
        underlay.rules_by_mark(),
    );
    warnings.extend(report::missing_ports(&follower.security.secured));
    warnings.extend(follower.security.unread.iter().cloned());
    if follower.unattached > 0 {
        warnings.push(format!(
            "{} ports still wait for their program, and are on the slow path",
            follower.unattached
        ));
    }
    if !follower.is_in_line() {
        let trouble = follower.trouble.as_deref().unwrap_or("the host has changed");
        warnings.push(format!("nothing is forwarded until the maps are in line again: {trouble}"));
    }
    view(follower, state).status(follower.settings.lease_seconds, warnings, &follower.filter)
}

/// What a daemon with this configuration would accelerate and what not. Changes nothing.
///
/// # Errors
/// Where the host can't be read.
pub async fn check(
    config: &Config,
    ovs_rundirs: &[PathBuf],
    state: &Path,
    hook: Hook,
) -> Result<Status> {
    let settings = &config.accelerate;
    let mut host = Host::open_read_only(ovs_rundirs, settings).await?;
    host.focus().await?;
    let (off, own, refused) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    let plan = host.plan(settings, hook, &off, &own, &refused, &mut TunnelIds::default());
    let bridges = host.bridges.bridges();
    let mut warnings =
        report::warnings(bridges, &plan, host.rules.facts(), host.underlay.rules_by_mark());
    let mut security = Security::new(config.ports.clone(), state.to_owned(), settings.fdb_capacity);
    security.plan(bridges);
    warnings.extend(report::missing_ports(&security.secured));
    warnings.append(&mut security.unread);
    let mut filter = Filter::for_report(settings.xdp);
    filter.plan(bridges, &plan, host.guards(&plan));
    let view = report::View {
        bridges,
        plan: &plan,
        applied: None,
        secured: &security.secured,
        tables: None,
        containers: BTreeMap::new(),
    };
    Ok(view.status(settings.lease_seconds, warnings, &filter))
}

/// Detaches everything and removes the pins: by the daemon that runs, which exits, or without one.
/// Gives whether there was anything.
///
/// # Errors
/// Where a daemon holds the directory but does not answer, or a pin can't be removed.
pub async fn down(socket: &Path, bpffs: &Path) -> Result<bool> {
    match Client::new(socket).down().await {
        Ok(()) => {}
        Err(api::client::Error::NoDaemon(_)) => {
            let any = datapath::remove_all(bpffs)?;
            // Of one that was killed.
            let underlay = Underlay::open().await.context("cannot read the neighbours")?;
            underlay.release().await.context("cannot give the neighbours back")?;
            return Ok(any);
        }
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + HANDOVER;
    loop {
        match datapath::remove_all(bpffs) {
            Err(datapath::Error::Pins(datapath::PinError::Held { .. }))
                if Instant::now() < deadline =>
            {
                sleep(POLL).await;
            }
            result => return Ok(result.map(|_| true)?),
        }
    }
}
