//! The kernel's own bridges, live through route netlink.
//!
//! The kernel's notifications are subscribed to before its tables are dumped, so nothing falls
//! between the two. FDB notifications are applied one by one; a link notification only says
//! *that* something changed, and the links are dumped anew (their notifications do not carry
//! everything, and a dump takes milliseconds).

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::model::{Bridge, Bridges, Changes, IfIndex};
use super::netlink::{Frame, Heard, Notifications, Refused};
use fdb::VxlanPorts;

pub(super) mod fdb;
pub(crate) mod links;
#[cfg(test)]
mod tests;
pub(super) mod tunnel;
mod vlan;

/// Room for a burst of some 20,000 notifications while the daemon is busy.
const RECEIVE_BUFFER: usize = 16 << 20;

/// How many notifications are applied before what changed is returned.
const BATCH: usize = 16 << 10;

/// Links of other namespaces are asked for again this long after one of them changed: setting up
/// a container changes a dozen at once.
const PEERS_SETTLE: Duration = Duration::from_millis(50);

/// The kernel's bridges could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The notifications could not be subscribed to.
    #[error(
        "cannot subscribe to the kernel's bridge notifications: run as root (CAP_NET_ADMIN and \
         CAP_NET_BROADCAST)"
    )]
    Subscribe(#[source] io::Error),
    /// A subscribed socket failed.
    #[error("cannot receive the kernel's bridge notifications: restart the daemon")]
    Receive(#[source] io::Error),
    /// A table could not be read.
    #[error("cannot read the kernel's {table}: {reason}; restart the daemon if this persists")]
    Dump {
        /// Which table.
        table: &'static str,
        /// What the kernel said.
        reason: String,
    },
}

/// The bridges of the network namespace in which this was opened.
///
/// Every method must be called on a thread of that namespace.
pub struct LinuxBridges {
    notifications: Notifications,
    foreign: Notifications,
    bridges: Bridges,
    vxlan_ports: VxlanPorts,
    stale: Stale,
    foreign_settled: Option<Instant>,
    /// What changed and was not returned yet: a caller may drop [`Self::changed`] at any time.
    changes: Changes,
}

/// What has to be dumped again. A flag is cleared when the dump has been taken over, so a dump
/// that was given up half-way is done again.
#[derive(Default)]
struct Stale {
    links: bool,
    fdbs: bool,
}

impl LinuxBridges {
    /// Subscribes to the kernel's notifications and reads its bridges.
    pub async fn open() -> Result<Self, Error> {
        Self::open_with_buffer(RECEIVE_BUFFER).await
    }

    /// As [`Self::open`], with another receive buffer than the default of 16 MiB. In bytes; the
    /// kernel allows twice as much for its own overhead and has a minimum of its own.
    pub async fn open_with_buffer(bytes: usize) -> Result<Self, Error> {
        let groups = [libc::RTNLGRP_LINK, libc::RTNLGRP_NEIGH, vlan::RTNLGRP_BRVLAN];
        let notifications = Notifications::open(&groups, bytes).map_err(Error::Subscribe)?;
        // Only ever read to learn that something happened: overrun or not is the same.
        let foreign =
            Notifications::open(&[libc::RTNLGRP_LINK], bytes).map_err(Error::Subscribe)?;
        foreign.listen_to_all_namespaces().map_err(Error::Subscribe)?;
        let mut this = Self {
            notifications,
            foreign,
            bridges: Bridges::new(),
            vxlan_ports: VxlanPorts::new(),
            stale: Stale { links: true, fdbs: true },
            foreign_settled: None,
            changes: Changes::default(),
        };
        this.catch_up().await?;
        this.changes = Changes::default();
        Ok(this)
    }

    /// The bridges as of the last call of [`Self::open`], [`Self::changed`] or [`Self::resync`].
    #[must_use]
    pub fn bridges(&self) -> &Bridges {
        &self.bridges
    }

    /// Waits for the kernel's next changes to the bridges, applies all that have arrived and says
    /// what changed. Never returns empty changes.
    ///
    /// May be dropped at any time (`tokio::select!`): nothing is lost. [`Self::bridges`] may then
    /// already have changes that the next call returns.
    pub async fn changed(&mut self) -> Result<Changes, Error> {
        loop {
            self.hear()?;
            self.catch_up().await?;
            if self.changes != Changes::default() {
                return Ok(self.take_changes());
            }
            let settled = self.foreign_settled;
            tokio::select! {
                heard = self.notifications.wait() => heard.map_err(Error::Receive)?,
                heard = self.foreign.wait(), if settled.is_none() => heard.map_err(Error::Receive)?,
                () = tokio::time::sleep_until(settled.unwrap_or_else(Instant::now)),
                    if settled.is_some() =>
                {
                    self.foreign_settled = None;
                    self.stale.links = true;
                }
            }
        }
    }

    /// Reads everything again and says what differed from what the notifications had told.
    /// May be dropped at any time, as [`Self::changed`].
    pub async fn resync(&mut self) -> Result<Changes, Error> {
        self.hear()?;
        self.stale = Stale { links: true, fdbs: true };
        self.catch_up().await?;
        Ok(self.take_changes())
    }

    fn take_changes(&mut self) -> Changes {
        let mut changes = std::mem::take(&mut self.changes);
        if changes.topology {
            changes.fdb = Vec::new();
        }
        changes
    }

    /// Applies the notifications that have arrived.
    fn hear(&mut self) -> Result<(), Error> {
        let Self { notifications, bridges, vxlan_ports, stale, changes, .. } = self;
        let heard = notifications
            .hear(BATCH, |frame| notification(&frame, bridges, vxlan_ports, stale, changes))
            .map_err(Error::Receive)?;
        if heard == Heard::Overrun {
            tracing::warn!("the kernel dropped bridge notifications: reading everything again");
            self.stale = Stale { links: true, fdbs: true };
            self.changes.topology = true;
        }
        if self.foreign_settled.is_none() {
            let mut any = false;
            let heard = self.foreign.hear(BATCH, |_| any = true).map_err(Error::Receive)?;
            if any || heard == Heard::Overrun {
                self.foreign_settled = Some(Instant::now() + PEERS_SETTLE);
            }
        }
        Ok(())
    }

    /// Dumps what is stale.
    async fn catch_up(&mut self) -> Result<(), Error> {
        if self.stale.links {
            let bridges = links::dump().await.map_err(dump_error("links"))?;
            self.stale.links = false;
            self.take_over(bridges);
        }
        if self.stale.fdbs {
            let tables = fdb::dump().await.map_err(dump_error("forwarding tables"))?;
            self.stale.fdbs = false;
            tables.install(&mut self.bridges, &self.vxlan_ports, &mut self.changes);
        }
        Ok(())
    }

    /// Replaces the bridges by newly dumped ones, which have no FDB, and carries the FDBs over.
    fn take_over(&mut self, mut bridges: Bridges) {
        let mut before = std::mem::take(&mut self.bridges);
        let tables: Vec<_> =
            before.values_mut().map(|bridge| std::mem::take(&mut bridge.fdb)).collect();
        let mut tunnels = Vec::new();
        for (device, bridge) in &self.vxlan_ports {
            if let Some(tunnel) = fdb::tunnel_mut(&mut before, *bridge, *device) {
                let link = tunnel.link;
                let remotes = std::mem::take(&mut tunnel.remotes);
                tunnels.push((*device, link, remotes, std::mem::take(&mut tunnel.fdb)));
            }
        }
        self.changes.topology |= !same_topology(&before, &bridges);

        self.vxlan_ports = fdb::vxlan_ports(&bridges);
        let mut unknown = bridges.len() + self.vxlan_ports.len();
        for (ifindex, table) in before.keys().zip(tables) {
            if let Some(bridge) = bridges.get_mut(ifindex) {
                bridge.fdb = table;
                unknown -= 1;
            }
        }
        for (device, link, remotes, table) in tunnels {
            let Some(bridge) = self.vxlan_ports.get(&device) else { continue };
            let Some(tunnel) = fdb::tunnel_mut(&mut bridges, *bridge, device) else { continue };
            tunnel.remotes = remotes;
            tunnel.fdb = table;
            // Remotes are worded relative to it.
            if tunnel.link == link {
                unknown -= 1;
            }
        }
        self.stale.fdbs |= unknown > 0;
        self.bridges = bridges;
    }
}

/// Applies one notification, or notes what it makes stale.
fn notification(
    frame: &Frame<'_>,
    bridges: &mut Bridges,
    vxlan_ports: &VxlanPorts,
    stale: &mut Stale,
    changes: &mut Changes,
) {
    match frame.kind {
        libc::RTM_NEWLINK | vlan::RTM_NEWVLAN | vlan::RTM_DELVLAN => stale.links = true,
        libc::RTM_DELLINK => {
            stale.links = true;
            // Its index may be taken by a new device before the links are dumped. An AF_BRIDGE
            // message tells of a port that left its bridge, which sends its entries' removal.
            stale.fdbs |= link_index(frame.payload).is_some_and(|index| {
                bridges.contains_key(&index) || vxlan_ports.contains_key(&index)
            });
        }
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH if fdb::is_fdb(frame.payload) => {
            if let Some(record) = fdb::parse(frame.payload) {
                let present = frame.kind == libc::RTM_NEWNEIGH;
                fdb::apply(bridges, vxlan_ports, record, present, changes);
            }
        }
        _ => {}
    }
}

/// `ifi_index` of a link message.
fn link_index(payload: &[u8]) -> Option<IfIndex> {
    payload.get(4..)?.first_chunk().map(|index| IfIndex::from_ne_bytes(*index))
}

pub(super) fn dump_error(table: &'static str) -> impl FnOnce(Refused) -> Error {
    move |refused| Error::Dump { table, reason: refused.to_string() }
}

/// Whether two sets of bridges are equal but for the bridges' FDBs.
pub(super) fn same_topology(one: &Bridges, other: &Bridges) -> bool {
    one.len() == other.len() && one.values().zip(other.values()).all(|(a, b)| same_bridge(a, b))
}

fn same_bridge(one: &Bridge, other: &Bridge) -> bool {
    let Bridge {
        ifindex,
        name,
        kind,
        mac,
        up,
        ageing,
        vlan_aware,
        nf_call,
        unsupported,
        ports,
        fdb: _,
    } = one;
    (ifindex, name, kind, mac) == (&other.ifindex, &other.name, &other.kind, &other.mac)
        && (up, ageing) == (&other.up, &other.ageing)
        && (vlan_aware, nf_call) == (&other.vlan_aware, &other.nf_call)
        && (unsupported, ports) == (&other.unsupported, &other.ports)
}
