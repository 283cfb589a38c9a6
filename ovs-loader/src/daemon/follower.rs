//! Keeps the maps in line with the host: takes up every change of the bridges, the underlay and the
//! host's rules, plans, and applies the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ovs_ebpf_common::abi::Program;

use crate::bridge::model::{Changes, FdbKey, IfIndex};
use crate::config::Accelerate;
use crate::datapath::{Attached, Datapath};
use crate::mirror::{Applied, Plan, TunnelIds};

use super::filter::Filter;
use super::host::{Event, Host, patience};
use super::security::Security;

/// For so long programs are attached before everything else has its turn.
const SLICE: Duration = Duration::from_millis(200);

/// So many changes wait at most to be brought in line, while that fails: after more everything is compared.
const MOST_CHANGED: usize = 1 << 20;

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
    /// Ports that wait for their program.
    pub(super) unattached: usize,
    /// Why the maps are behind, as far as it is known.
    pub(super) trouble: Option<String>,
    /// What an earlier daemon of another kind has attached may still be there.
    predecessors: bool,
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
        let security = security
            .adopt(&datapath, patience(&settings))
            .context("cannot read the maps of port security")?;
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
            unattached: 0,
            trouble: None,
            predecessors: true,
            ids,
            changed: Vec::new(),
            full: false,
            in_line: false,
            lost: false,
            leased: false,
        };
        follower.replan().await?;
        follower.renew_lease()?;
        Ok(follower)
    }

    /// Whether ports wait for their program.
    pub(super) fn is_attaching(&self) -> bool {
        self.in_line && self.unattached > 0
    }

    /// Attaches to some more of them.
    pub(super) async fn attach_more(&mut self) -> Result<()> {
        if self.attach() { self.replan().await } else { Ok(()) }
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
                if self.changed.len() > MOST_CHANGED {
                    self.changed.clear();
                    self.applied.distrust();
                    plan_stands = false;
                }
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
        let heard = self.host.bridges.are_heard();
        self.security.fdb_changed(bridges, heard, &changed, &mut self.datapath)?;
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

    /// Lets the programs forward for another lease, unless the maps are behind. Once all are attached and may,
    /// removes what an earlier daemon of another kind left.
    pub(super) fn renew_lease(&mut self) -> Result<()> {
        if !self.in_line {
            return Ok(());
        }
        self.leased = true;
        let lease = Duration::from_secs(u64::from(self.settings.lease_seconds));
        self.datapath.tables_mut().renew_lease(lease).context("cannot renew the lease")?;
        if self.unattached == 0 && std::mem::take(&mut self.predecessors) {
            self.datapath.remove_predecessors();
        }
        Ok(())
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
        let heard = self.host.bridges.are_heard();
        self.security
            .apply(bridges, heard, &mut self.datapath)
            .context("cannot secure the ports")?;
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

    /// Attaches the programs where the plan has them, as far as a [`SLICE`] goes. Gives whether a device newly
    /// refused.
    fn attach(&mut self) -> bool {
        let ports = self.plan.ports().map(|(ifindex, _, name)| (ifindex, name.to_owned()));
        let uplinks = self.plan.uplinks();
        // A few uplinks, without which nothing comes in.
        let wanted = [
            (Program::UplinkIngress, uplinks),
            (Program::PortIngress, ports.collect::<BTreeMap<_, _>>()),
        ];
        let mut newly = false;
        self.unattached = 0;
        for (program, devices) in wanted {
            let Attached { refused, left } = self.datapath.attach(program, &devices, SLICE);
            self.unattached += left;
            for (ifindex, error) in refused {
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
