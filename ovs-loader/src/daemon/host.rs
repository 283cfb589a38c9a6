//! The host as the daemon follows it: its bridges, the underlay, its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bridge::host::HostBridges;
use crate::bridge::model::{Changes, Device, IfIndex, NO_INTERFACE, Port};
use crate::config::{Accelerate, Xdp};
use crate::datapath::Hook;
use crate::mirror::{Facts, Guards, Plan, TunnelIds, targets};
use crate::rules::Rules;
use crate::underlay::{Receivers, Underlay};

/// For how long what ovs-vswitchd has said last holds without it: as long as the programs go on
/// without a daemon.
pub(super) fn patience(settings: &Accelerate) -> Duration {
    Duration::from_secs(u64::from(settings.lease_seconds))
}

/// What of the host has changed.
pub(super) enum Event {
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
    pub(super) receivers: Option<Receivers>,
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

    pub(super) async fn changed(&mut self) -> Result<Event> {
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
