//! Keeps the maps in line with the host: takes up every change of the bridges, the underlay and the
//! host's rules, plans, and applies the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ovs_ebpf_common::abi::Program;

use crate::bridge::host::HostBridges;
use crate::bridge::model::{Changes, Device, FdbKey, IfIndex, NO_INTERFACE, Port};
use crate::config::{Accelerate, Xdp};
use crate::datapath::{Datapath, Hook};
use crate::mirror::{Applied, Facts, Guards, Plan, TunnelIds, targets};
use crate::rules::Rules;
use crate::underlay::{Receivers, Underlay};

use super::filter::Filter;
use super::security::Security;

/// For how long what ovs-vswitchd has said last holds without it: as long as the programs go on
/// without a daemon.
fn patience(settings: &Accelerate) -> Duration {
    Duration::from_secs(u64::from(settings.lease_seconds))
}

/// What of the host has changed.
enum Event {
    Bridges(Changes),
    Underlay,
    Rules,
    Receivers,
}

/// The host's state, live.
pub(super) struct Host {
    pub(super) bridges: HostBridges,
    pub(super) underlay: Underlay,
    pub(super) rules: Rules,
    /// Who receives tunnel packets; `None` where nothing is filtered.
    receivers: Option<Receivers>,
}

impl Host {
    /// Subscribes to everything in the calling thread's network namespace, and to the Open vSwitch of
    /// each of these directories.
    pub(super) async fn open(rundirs: &[PathBuf], settings: &Accelerate) -> Result<Self> {
        let bridges = HostBridges::open(rundirs, patience(settings)).await;
        Ok(Self {
            bridges: bridges.context("cannot follow the bridges")?,
            underlay: Underlay::open().await.context("cannot follow the underlay")?,
            rules: Rules::open().await.context("cannot follow the host's rules")?,
            receivers: receivers(settings).await?,
        })
    }

    /// As [`Self::open`], but changes nothing, not even the neighbours' upkeep.
    pub(super) async fn open_read_only(rundirs: &[PathBuf], settings: &Accelerate) -> Result<Self> {
        let bridges = HostBridges::open(rundirs, patience(settings)).await;
        Ok(Self {
            bridges: bridges.context("cannot read the bridges")?,
            underlay: Underlay::open_read_only().await.context("cannot read the underlay")?,
            rules: Rules::open().await.context("cannot read the host's rules")?,
            receivers: receivers(settings).await?,
        })
    }

    /// Tells the underlay and the rules which tunnels and devices matter.
    pub(super) async fn focus(&mut self) -> Result<()> {
        let targets = targets(self.bridges.bridges());
        self.underlay.set_targets(targets.clone()).await.context("cannot resolve the underlay")?;
        let ports = self.bridges.bridges().iter().flat_map(|bridge| bridge.ports.values());
        let ports = ports.filter_map(device_of);
        let uplinks = targets.iter().filter_map(|target| match self.underlay.resolve(target)? {
            Ok(path) => Some(path.uplink),
            Err(unresolved) => unresolved.route.map(|route| route.uplink),
        });
        let devices: BTreeSet<IfIndex> = ports.chain(uplinks).collect();
        self.rules.watch_devices(devices).context("cannot read the devices' filters")
    }

    /// Makes a plan of what is known.
    pub(super) fn plan(
        &self,
        settings: &Accelerate,
        hook: Hook,
        switched_off: &BTreeSet<String>,
        own_programs: &BTreeSet<u32>,
        refused: &BTreeMap<(u32, IfIndex), String>,
        ids: &mut TunnelIds,
    ) -> Plan {
        let facts = Facts {
            bridges: self.bridges.bridges(),
            resolve: &|target| self.underlay.resolve(target),
            rules: self.rules.facts(),
            settings,
            hook,
            switched_off,
            own_programs,
            refused,
        };
        Plan::make(&facts, ids)
    }

    /// What the filter on the uplinks should know, given a plan.
    pub(super) fn guards(&self, plan: &Plan) -> Guards {
        self.receivers.as_ref().map_or_else(Guards::default, |receivers| {
            Guards::make(self.bridges.bridges(), plan, receivers.current())
        })
    }

    async fn changed(&mut self) -> Result<Event> {
        Ok(tokio::select! {
            changes = self.bridges.changed() => {
                Event::Bridges(changes.context("cannot follow the bridges")?)
            }
            changed = self.underlay.changed() => {
                changed.context("cannot follow the underlay")?;
                Event::Underlay
            }
            changed = self.rules.changed() => {
                changed.context("cannot follow the host's rules")?;
                Event::Rules
            }
            changed = others(&mut self.receivers) => {
                changed.context("cannot follow the host's tunnel devices")?;
                Event::Receivers
            }
        })
    }
}

async fn receivers(settings: &Accelerate) -> Result<Option<Receivers>> {
    match settings.xdp {
        Xdp::Off => Ok(None),
        Xdp::Filter => {
            Receivers::open().await.map(Some).context("cannot read the host's tunnel devices")
        }
    }
}

/// Waits until others receive tunnel packets.
async fn others(receivers: &mut Option<Receivers>) -> std::io::Result<()> {
    match receivers {
        Some(receivers) => receivers.changed().await,
        None => std::future::pending().await,
    }
}

/// The device whose hooks a port's packets pass, if it has one.
fn device_of(port: &Port) -> Option<IfIndex> {
    match &port.device {
        Device::Tunnel(tunnel) if tunnel.device.is_some() => {
            tunnel.device.as_ref().map(|device| device.ifindex)
        }
        _ => Some(port.ifindex).filter(|ifindex| *ifindex < NO_INTERFACE),
    }
}

/// The mirror at work.
pub(super) struct Follower {
    pub(super) host: Host,
    pub(super) datapath: Datapath,
    pub(super) settings: Accelerate,
    pub(super) plan: Plan,
    pub(super) applied: Applied,
    pub(super) filter: Filter,
    pub(super) security: Security,
    switched_off: BTreeSet<String>,
    refused: BTreeMap<(u32, IfIndex), String>,
    ids: TunnelIds,
    /// FDB entries that changed and were not brought in line yet.
    changed: Vec<(IfIndex, FdbKey)>,
    /// Entries found the `fdb` map full.
    full: bool,
    /// The maps say what the host says, as far as is known.
    in_line: bool,
    /// Changes may have been missed.
    lost: bool,
    /// The programs may forward.
    leased: bool,
}

impl Follower {
    /// Takes over what is in the maps, and plans and applies for the first time.
    pub(super) async fn start(
        host: Host,
        mut datapath: Datapath,
        settings: Accelerate,
        security: Security,
    ) -> Result<Self> {
        let security =
            security.adopt(&datapath).context("cannot read the maps of port security")?;
        let filter = Filter::start(settings.xdp, &mut datapath)
            .context("cannot set up the filter on the uplinks")?;
        let applied = Applied::adopt(datapath.tables()).context("cannot read the pinned maps")?;
        let ids = TunnelIds::adopt(applied.tunnel_ids());
        let mut follower = Self {
            host,
            datapath,
            settings,
            plan: Plan::default(),
            applied,
            filter,
            security,
            switched_off: BTreeSet::new(),
            refused: BTreeMap::new(),
            ids,
            changed: Vec::new(),
            full: false,
            in_line: false,
            lost: false,
            leased: false,
        };
        follower.replan().await?;
        follower.renew_lease()?;
        follower.datapath.remove_predecessors();
        Ok(follower)
    }

    /// Waits for the next change of the host. Cancelling it loses nothing: it may stand in a
    /// `select!`, with [`Self::follow`] to take up what it gives.
    pub(super) async fn changed(&mut self) -> Result<Change> {
        loop {
            tokio::select! {
                event = self.host.changed() => return Ok(Change(event?)),
                station = self.datapath.events().next() => {
                    let station = station.context("cannot hear the programs")?;
                    self.host.bridges.hint(station.bridge);
                }
            }
        }
    }

    /// Brings the maps in line with a change.
    pub(super) async fn follow(&mut self, change: Change) -> Result<()> {
        // What could not be brought in line before needs more than this change.
        let mut plan_stands = self.in_line;
        match change.0 {
            Event::Bridges(Changes { topology, fdb }) => {
                self.changed.extend(fdb);
                plan_stands &= !topology;
            }
            Event::Underlay | Event::Rules | Event::Receivers => plan_stands = false,
        }
        if self.lost {
            return self.resync().await;
        }
        self.in_line = false;
        let bridges = self.host.bridges.bridges();
        if !plan_stands || !self.plan.serves(bridges, &self.changed) {
            return self.replan().await;
        }
        // What fails is no longer a matter of single entries: then all are looked at.
        let changed = std::mem::take(&mut self.changed);
        self.applied
            .fdb_changed(self.datapath.tables_mut(), &self.plan, bridges, &changed)
            .context("cannot update the FDB map")?;
        self.security.fdb_changed(bridges, &changed, &mut self.datapath)?;
        self.warn_of_full_map();
        self.in_line = true;
        Ok(())
    }

    /// Says once that entries found the map full. `status` says which.
    fn warn_of_full_map(&mut self) {
        let full = self.applied.refused() > 0;
        if full && !self.full {
            tracing::warn!(
                "the fdb map is full: {} stations stay on the slow path; raise accelerate.fdb_capacity",
                self.applied.refused()
            );
        }
        self.full = full;
    }

    /// Reads everything again, for what was not announced, and tries again what was refused.
    pub(super) async fn resync(&mut self) -> Result<()> {
        // Long forwarding tables are read beside everything else, unless nothing is known for sure.
        let changes = match self.lost {
            true => self.host.bridges.resync().await,
            false => self.host.bridges.refresh().await,
        };
        let changes = changes.context("cannot read the bridges")?;
        self.changed.extend(changes.fdb);
        self.host.underlay.resync().await.context("cannot read the underlay")?;
        if let Some(receivers) = &mut self.host.receivers {
            receivers.read().await.context("cannot read the host's tunnel devices")?;
        }
        self.lost = false;
        self.refused.clear();
        self.filter.forget_refusals();
        self.replan().await
    }

    /// Notes that changes may have been missed: nothing is forwarded until all is read again.
    pub(super) fn lose_track(&mut self) {
        self.in_line = false;
        self.lost = true;
        self.applied.distrust();
    }

    /// Whether the maps say what the host says.
    pub(super) fn is_in_line(&self) -> bool {
        self.in_line
    }

    /// Ends the lease where the maps are behind, and begins it again where they are in line again.
    pub(super) fn settle_lease(&mut self) -> Result<()> {
        if self.in_line == self.leased {
            return Ok(());
        }
        if self.in_line {
            return self.renew_lease();
        }
        self.leased = false;
        self.datapath.tables_mut().renew_lease(Duration::ZERO).context("cannot end the lease")
    }

    /// Lets the programs forward for another lease, unless the maps are behind.
    pub(super) fn renew_lease(&mut self) -> Result<()> {
        if !self.in_line {
            return Ok(());
        }
        self.leased = true;
        let lease = Duration::from_secs(u64::from(self.settings.lease_seconds));
        self.datapath.tables_mut().renew_lease(lease).context("cannot renew the lease")
    }

    /// Switches a bridge on or off.
    pub(super) async fn accelerate(&mut self, bridge: String, on: bool) -> Result<()> {
        if on {
            self.switched_off.remove(&bridge);
        } else {
            self.switched_off.insert(bridge);
        }
        self.replan().await
    }

    async fn replan(&mut self) -> Result<()> {
        self.in_line = false;
        self.host.focus().await?;
        // Others may have taken our filters from a device with theirs.
        self.datapath.check_attachments().context("cannot look after the programs")?;
        // Whatever becomes of the fast path.
        let bridges = self.host.bridges.bridges();
        self.security.plan(bridges);
        self.security.apply(bridges, &mut self.datapath).context("cannot secure the ports")?;
        self.make_plan();
        if self.attach() {
            // What refused a program stands in the way of its bridge's traffic.
            self.make_plan();
        }
        let changed = std::mem::take(&mut self.changed);
        let bridges = self.host.bridges.bridges();
        let begun = Instant::now();
        self.applied
            .replan(self.datapath.tables_mut(), &self.plan, bridges, &changed)
            .context("cannot update the maps")?;
        let seconds = begun.elapsed().as_secs_f32();
        tracing::debug!(
            changed = changed.len(),
            seconds,
            "brought the maps in line with a new plan"
        );
        self.warn_of_full_map();
        let guards = self.host.guards(&self.plan);
        self.filter.plan(self.host.bridges.bridges(), &self.plan, guards);
        self.filter.apply(&self.plan, &mut self.datapath).context("cannot update the filter")?;
        self.in_line = true;
        Ok(())
    }

    fn make_plan(&mut self) {
        let Self { host, datapath, settings, switched_off, refused, ids, .. } = self;
        let own = datapath.program_ids();
        self.plan = host.plan(settings, datapath.hook(), switched_off, own, refused, ids);
    }

    /// Attaches the programs where the plan has them. Gives whether a device newly refused.
    fn attach(&mut self) -> bool {
        let ports = self.plan.ports().map(|(ifindex, _, name)| (ifindex, name.to_owned()));
        let uplinks = self.plan.uplinks();
        let wanted = [
            (Program::PortIngress, ports.collect::<BTreeMap<_, _>>()),
            (Program::UplinkIngress, uplinks),
        ];
        let mut newly = false;
        for (program, devices) in wanted {
            for (ifindex, error) in self.datapath.attach(program, &devices) {
                tracing::warn!("{} cannot be attached: {error}", devices[&ifindex]);
                self.refused.insert((program as u32, ifindex), error);
                newly = true;
            }
        }
        newly
    }
}

/// A change to follow.
pub(super) struct Change(Event);
