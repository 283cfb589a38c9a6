//! The kernel devices of Open vSwitch's ports, live.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::bridge::linux::links::{self, Member};
use crate::bridge::netlink::{Notifications, Refused};

/// Only ever read to learn that something happened: overrun or not is the same.
const RECEIVE_BUFFER: usize = 1 << 20;

/// How many notifications are heard at once.
const BATCH: usize = 16 << 10;

/// Links of other namespaces are asked for again this long after one of them changed: setting up
/// a container changes a dozen at once.
const PEERS_SETTLE: Duration = Duration::from_millis(50);

/// Devices by name, and what tells that they changed.
pub(super) struct Devices {
    own: Notifications,
    foreign: Notifications,
    foreign_settled: Option<Instant>,
    members: BTreeMap<String, Member>,
}

impl Devices {
    /// Subscribes to the changes of links in the calling thread's network namespace and in others.
    pub(super) fn open() -> io::Result<Self> {
        let own = Notifications::open(&[libc::RTNLGRP_LINK], RECEIVE_BUFFER)?;
        let foreign = Notifications::open(&[libc::RTNLGRP_LINK], RECEIVE_BUFFER)?;
        foreign.listen_to_all_namespaces()?;
        Ok(Self { own, foreign, foreign_settled: None, members: BTreeMap::new() })
    }

    /// The devices as of the last [`Self::read`].
    pub(super) fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    /// Waits until a device may have changed. May be dropped at any time.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let settled = self.foreign_settled;
            tokio::select! {
                heard = self.own.wait() => return heard,
                heard = self.foreign.wait(), if settled.is_none() => {
                    heard?;
                    self.foreign.hear(BATCH, |_| ())?;
                    self.foreign_settled = Some(Instant::now() + PEERS_SETTLE);
                }
                () = sleep_until(settled.unwrap_or_else(Instant::now)), if settled.is_some() => {
                    return Ok(());
                }
            }
        }
    }

    /// Reads the devices of these names. Gives whether any is another than before.
    pub(super) async fn read(&mut self, wanted: impl Fn(&str) -> bool) -> Result<bool, Refused> {
        // What arrives from here on is heard after the dump.
        self.own.hear(BATCH, |_| ())?;
        self.foreign.hear(BATCH, |_| ())?;
        self.foreign_settled = None;
        let members = links::dump_members(wanted).await?;
        let changed = members != self.members;
        self.members = members;
        Ok(changed)
    }
}
