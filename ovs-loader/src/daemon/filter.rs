//! Keeps the filter on the uplinks in line with the plan (`accelerate.xdp`).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use nix::net::if_::if_indextoname;
use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::{GuardKey, GuardKind, UPLINK_CAPACITY, UplinkValue};

use crate::bridge::model::{AllBridges, IfIndex, Why};
use crate::config::Xdp;
use crate::datapath::Datapath;
use crate::mirror::{Guards, Plan};

/// An uplink, and what stands against filtering there.
#[derive(Clone, Debug, Default)]
pub(super) struct Uplink {
    pub(super) name: String,
    pub(super) why: Vec<Why>,
}

/// What is filtered, and what the maps say of it.
#[derive(Default)]
pub(super) struct Filter {
    pub(super) mode: Xdp,
    /// What should be filtered.
    pub(super) guards: Guards,
    /// Every uplink that a tunnel leads through, by ifindex.
    pub(super) uplinks: BTreeMap<IfIndex, Uplink>,
    applied: BTreeSet<GuardKey>,
    values: BTreeMap<IfIndex, UplinkValue>,
    refused: BTreeMap<IfIndex, Why>,
    /// Why the kernel does not take the program at all.
    unloadable: Option<Why>,
}

impl Filter {
    /// Takes over what an earlier daemon left, or takes it away.
    pub(super) fn start(mode: Xdp, datapath: &mut Datapath) -> Result<Self> {
        let unloadable = match mode {
            Xdp::Off => {
                datapath.remove_filter()?;
                None
            }
            Xdp::Filter => datapath.load_filter().err(),
        };
        let unloadable = unloadable.map(|error| {
            let error = anyhow::Error::from(error);
            tracing::warn!("nothing is filtered on the uplinks: {error:#}");
            Why::new(Reason::XdpUnsupported, format!("{error:#}"))
        });
        Ok(Self {
            mode,
            unloadable,
            applied: datapath.tables().guards()?,
            values: datapath.tables().uplinks()?,
            ..Self::default()
        })
    }

    /// One that only says what it would do.
    pub(super) fn for_report(mode: Xdp) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Tries again what was refused, at the next [`Self::apply`].
    pub(super) fn forget_refusals(&mut self) {
        self.refused.clear();
    }

    /// Decides what should be filtered. Changes nothing on the host.
    pub(super) fn plan(&mut self, bridges: AllBridges<'_>, plan: &Plan, guards: Guards) {
        self.guards = guards;
        self.uplinks.clear();
        if self.mode == Xdp::Off {
            self.guards.keys.clear();
            return;
        }
        for (ifindex, mut name) in plan.uplinks() {
            // Without a resolved way none of its tunnels knows.
            if let (true, Ok(current)) = (name.is_empty(), if_indextoname(ifindex)) {
                name = current.to_string_lossy().into_owned();
            }
            let port = bridges.iter().find(|bridge| bridge.ports.contains_key(&ifindex));
            let mut why = Vec::from_iter(self.unloadable.clone());
            if let Some(bridge) = port {
                why.push(Why::new(Reason::XdpPort, &bridge.name));
            }
            self.uplinks.insert(ifindex, Uplink { name, why });
        }
    }

    /// Brings the devices and the maps in line with what was decided.
    pub(super) fn apply(&mut self, plan: &Plan, datapath: &mut Datapath) -> Result<()> {
        self.attach(plan, datapath)?;
        let tables = datapath.tables_mut();
        let is_endpoint = |key: &GuardKey| key.kind == GuardKind::Endpoint as u8;
        // What is discarded for want of a remote goes before the remotes do, and comes after them.
        let mut gone: Vec<_> = self.applied.difference(&self.guards.keys).copied().collect();
        gone.sort_by_key(|key| !is_endpoint(key));
        for key in gone {
            tables.remove_guard(&key)?;
            self.applied.remove(&key);
        }
        let mut new: Vec<_> = self.guards.keys.difference(&self.applied).copied().collect();
        new.sort_by_key(is_endpoint);
        for key in new {
            tables.add_guard(&key)?;
            self.applied.insert(key);
        }
        Ok(())
    }

    fn attach(&mut self, plan: &Plan, datapath: &mut Datapath) -> Result<()> {
        let mut values = BTreeMap::new();
        for ifindex in datapath.filtered() {
            // With the device its link has gone.
            if if_indextoname(ifindex).is_err() {
                datapath.detach_filter(ifindex);
            }
        }
        for (&ifindex, uplink) in &mut self.uplinks {
            if !uplink.why.is_empty() {
                datapath.detach_filter(ifindex);
                continue;
            }
            // Its MAC, without which no packet is judged, comes with a resolved way.
            let mac = plan.uplink_mac(ifindex).map(|mac| mac.0);
            let known = mac.map(|mac| UplinkValue { mac, ..UplinkValue::default() });
            let Some(value) = known.or_else(|| self.values.get(&ifindex).copied()) else {
                continue;
            };
            if values.len() == UPLINK_CAPACITY {
                uplink.why.push(Why::new(Reason::Capacity, format!("{UPLINK_CAPACITY} uplinks")));
                continue;
            }
            if !datapath.filtered().contains(&ifindex)
                && !self.refused.contains_key(&ifindex)
                && let Err(why) = datapath.attach_filter(ifindex)
            {
                let (help, detail) = (why.reason.help(), &why.detail);
                tracing::warn!("no filter on {}: {help} {detail}", uplink.name);
                self.refused.insert(ifindex, why);
            }
            match self.refused.get(&ifindex) {
                Some(why) => uplink.why.push(why.clone()),
                None => drop(values.insert(ifindex, value)),
            }
        }
        let tables = datapath.tables_mut();
        for ifindex in self.values.keys().filter(|ifindex| !values.contains_key(ifindex)) {
            tables.remove_uplink(*ifindex).context("cannot update the filter")?;
        }
        for (ifindex, value) in &values {
            if self.values.get(ifindex) != Some(value) {
                tables.set_uplink(*ifindex, *value).context("cannot update the filter")?;
            }
        }
        self.values = values;
        Ok(())
    }
}
