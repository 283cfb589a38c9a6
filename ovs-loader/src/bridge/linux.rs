//! The kernel's own bridges, live through route netlink.
//!
//! The kernel's notifications are subscribed to before its tables are dumped, so nothing falls
//! between the two. FDB notifications are applied one by one; a link notification only says
//! *that* something changed, and the links are dumped anew (their notifications do not carry
//! everything, and a dump takes milliseconds).

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::model::{Bridge, Bridges, Changes, IfIndex};
use super::netlink::{Frame, Heard, Notifications, Refused};
use fdb::{Reading, VxlanPorts};
use record::Record;

pub(super) mod fdb;
pub(crate) mod links;
mod offloads;
mod record;
#[cfg(test)]
mod tests;
pub(super) mod tunnel;
mod vlan;
mod vnifilter;

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
    /// The forwarding tables, as far as they have been read anew.
    reading: Option<Reading>,
    /// The bridges and vxlan devices whose tables have not been read yet. They are empty till then: a part
    /// of a flood list would say that there is one remote.
    unread: BTreeSet<IfIndex>,
    /// How long they took to read last, and when that was.
    last_read: (Duration, Instant),
    foreign_settled: Option<Instant>,
    /// What changed and was not returned yet: a caller may drop [`Self::changed`] at any time.
    changes: Changes,
}

/// What has to be dumped again.
#[derive(Default)]
struct Stale {
    /// Cleared when the dump has been taken over, so that one that was given up half-way is done
    /// again.
    links: bool,
    /// Cleared when the tables begin to be read, which goes on whoever waits for it.
    fdbs: bool,
    /// Changes of the tables may not have been heard; cleared with it.
    missed: bool,
}

impl LinuxBridges {
    /// Subscribes to the kernel's notifications and reads its bridges.
    pub async fn open() -> Result<Self, Error> {
        Self::open_with_buffer(RECEIVE_BUFFER).await
    }

    /// As [`Self::open`], with another receive buffer than the default of 16 MiB. In bytes; the
    /// kernel allows twice as much for its own overhead and has a minimum of its own.
    pub async fn open_with_buffer(bytes: usize) -> Result<Self, Error> {
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            vlan::RTNLGRP_BRVLAN,
            vnifilter::RTNLGRP_TUNNEL,
        ];
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
            stale: Stale { links: true, fdbs: true, missed: true },
            reading: None,
            unread: BTreeSet::new(),
            last_read: (Duration::ZERO, Instant::now()),
            foreign_settled: None,
            changes: Changes::default(),
        };
        this.catch_up_with_all().await?;
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
    /// Where the kernel had to drop notifications, its tables are read again meanwhile: what is
    /// announced is still told at once, and what is not known to have changed stays.
    ///
    /// May be dropped at any time (`tokio::select!`): nothing is lost. [`Self::bridges`] may then
    /// already have changes that the next call returns.
    pub async fn changed(&mut self) -> Result<Changes, Error> {
        loop {
            self.hear()?;
            self.catch_up().await?;
            if self.changes != Changes::default() {
                return Ok(std::mem::take(&mut self.changes));
            }
            let settled = self.foreign_settled;
            tokio::select! {
                heard = self.notifications.wait() => heard.map_err(Error::Receive)?,
                heard = self.foreign.wait(), if settled.is_none() => heard.map_err(Error::Receive)?,
                readable = more(self.reading.as_ref()) => readable.map_err(Error::Receive)?,
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
        // What is being read may be older than what is to be found.
        self.reading = None;
        self.read_again();
        self.catch_up_with_all().await?;
        Ok(std::mem::take(&mut self.changes))
    }

    /// Has [`Self::changed`] read everything again, but forwarding tables no more often than that it
    /// takes a twentieth of the time.
    pub fn refresh(&mut self) {
        let (took, at) = self.last_read;
        self.stale.links = true;
        self.stale.fdbs |= self.reading.is_none() && at.elapsed() >= 20 * took;
    }

    fn read_again(&mut self) {
        self.stale.links = true;
        self.stale.fdbs = true;
        self.stale.missed = true;
    }

    /// Applies the notifications that have arrived.
    fn hear(&mut self) -> Result<(), Error> {
        let Self { notifications, bridges, vxlan_ports, stale, reading, unread, changes, .. } =
            self;
        let heard = notifications
            .hear(BATCH, |frame| {
                let notified = notification(&frame, bridges, vxlan_ports, stale);
                let Some((record, present)) = notified else { return };
                if let Some(reading) = reading {
                    reading.note(record.clone(), present);
                }
                if !unread.contains(&record.table()) {
                    fdb::apply(bridges, vxlan_ports, record, present, changes);
                }
            })
            .map_err(Error::Receive)?;
        if heard == Heard::Overrun {
            tracing::warn!("the kernel dropped bridge notifications: reading everything again");
            // What is being read may lack what was dropped.
            self.reading = None;
            self.read_again();
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

    /// [`Self::catch_up`] until nothing is stale.
    async fn catch_up_with_all(&mut self) -> Result<(), Error> {
        loop {
            self.catch_up().await?;
            if !self.stale.links && !self.stale.fdbs && self.reading.is_none() {
                return Ok(());
            }
            more(self.reading.as_ref()).await.map_err(Error::Receive)?;
            self.hear()?;
        }
    }

    /// Dumps what is stale; of the forwarding tables what can be had without waiting.
    async fn catch_up(&mut self) -> Result<(), Error> {
        if self.stale.links {
            let bridges = links::dump().await.map_err(dump_error("links"))?;
            self.stale.links = false;
            self.take_over(bridges);
        }
        loop {
            if self.stale.fdbs && self.reading.is_none() {
                let reading = Reading::begin(self.stale.missed);
                self.reading = Some(reading.map_err(dump_error("forwarding tables"))?);
                self.stale.fdbs = false;
                self.stale.missed = false;
            }
            let Some(mut reading) = self.reading.take() else { return Ok(()) };
            match reading.read() {
                Ok(false) => {
                    self.reading = Some(reading);
                    return Ok(());
                }
                Ok(true) => {}
                Err(refused) => {
                    self.stale.fdbs = true;
                    self.stale.missed = true;
                    return Err(dump_error("forwarding tables")(refused));
                }
            }
            if !self.stale.fdbs {
                self.unread.clear();
            }
            let Self { bridges, vxlan_ports, unread, changes, .. } = self;
            let took = reading.install(bridges, vxlan_ports, unread, changes);
            let entries: usize = self.bridges.values().map(|bridge| bridge.fdb.len()).sum();
            tracing::debug!(entries, seconds = took.as_secs_f32(), "read the forwarding tables");
            self.last_read = (took, Instant::now());
            // What became stale while this was read is read now: nobody would wait for it.
        }
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
        let mut unread: BTreeSet<IfIndex> = bridges.keys().copied().collect();
        unread.extend(self.vxlan_ports.keys());
        for (ifindex, table) in before.keys().zip(tables) {
            if let Some(bridge) = bridges.get_mut(ifindex) {
                bridge.fdb = table;
                unread.remove(ifindex);
            }
        }
        for (device, link, remotes, table) in tunnels {
            let Some(bridge) = self.vxlan_ports.get(&device) else { continue };
            let Some(tunnel) = fdb::tunnel_mut(&mut bridges, *bridge, device) else { continue };
            // Remotes are worded relative to it.
            if tunnel.link == link {
                tunnel.remotes = remotes;
                tunnel.fdb = table;
                unread.remove(&device);
            }
        }
        if !unread.is_empty() {
            self.stale.fdbs = true;
            self.stale.missed = true;
        }
        self.unread.extend(unread);
        self.bridges = bridges;
    }
}

/// Waits until there is more to read of the forwarding tables; forever where nothing is read.
async fn more(reading: Option<&Reading>) -> io::Result<()> {
    match reading {
        Some(reading) => reading.wait().await,
        None => std::future::pending().await,
    }
}

/// What a notification says of a forwarding table's entry and whether it is there. Of others, notes
/// what they make stale.
fn notification(
    frame: &Frame<'_>,
    bridges: &Bridges,
    vxlan_ports: &VxlanPorts,
    stale: &mut Stale,
) -> Option<(Record, bool)> {
    match frame.kind {
        libc::RTM_NEWLINK
        | vlan::RTM_NEWVLAN
        | vlan::RTM_DELVLAN
        | vnifilter::RTM_NEWTUNNEL
        | vnifilter::RTM_DELTUNNEL => stale.links = true,
        libc::RTM_DELLINK => {
            stale.links = true;
            // Its index may be taken by a new device before the links are dumped. An AF_BRIDGE
            // message tells of a port that left its bridge, which sends its entries' removal.
            let known = link_index(frame.payload).is_some_and(|index| {
                bridges.contains_key(&index) || vxlan_ports.contains_key(&index)
            });
            stale.fdbs |= known;
            stale.missed |= known;
        }
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH if record::is_fdb(frame.payload) => {
            return Some((record::parse(frame.payload)?, frame.kind == libc::RTM_NEWNEIGH));
        }
        _ => {}
    }
    None
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
