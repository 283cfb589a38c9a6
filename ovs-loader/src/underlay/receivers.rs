//! Who on this host may receive tunnel packets: every device that does, and raw sockets. The filter on
//! the uplinks must know all of them, for what it discards none of them gets.
//!
//! A tunnel's device may have been moved to, or made in, another network namespace while its packets
//! still come from this one's underlay (Docker's overlay networks do that). Such devices are looked for
//! in every namespace that has an id in this one.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use netlink_packet_core::Parseable;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoGre, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use tokio::time::sleep;

use crate::bridge::model::{Encap, IfIndex};
use crate::bridge::netlink::{Heard, Notifications, Refused, Requests};

/// `RTNLGRP_NSID`.
const RTNLGRP_NSID: u32 = 28;
/// Room for notifications, in bytes. They are read to learn that something happened: overrun or not
/// is the same.
const RECEIVE_BUFFER: usize = 1 << 20;
/// How many notifications are read at once.
const BATCH: usize = 1 << 10;
/// How long after a notification is read again, so that a burst costs one read.
const SETTLE: Duration = Duration::from_millis(10);
/// What a vxlan device refuses of its header unless told otherwise (`vxlan_nl2conf`): all but the I
/// flag and the VNI.
const RESERVED_BITS: [u8; 8] = [0xf7, 0xff, 0xff, 0xff, 0, 0, 0, 0xff];

/// Somebody who may receive tunnel packets from this namespace's underlay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receiver {
    /// VXLAN, or GRE with Ethernet frames within.
    pub encap: Encap,
    /// VXLAN: the UDP port in host byte order. 0 for GRE.
    pub dst_port: u16,
    /// The device in this namespace, if it is one and takes no more than others of its kind.
    pub ifindex: Option<IfIndex>,
    /// Who it is, for people.
    pub name: String,
}

/// The receivers of the network namespace in which this was opened, live.
pub struct Receivers {
    notifications: Notifications,
    current: BTreeSet<Receiver>,
    /// Notifications were heard since `current` was read.
    is_stale: bool,
}

impl Receivers {
    /// Subscribes to changes and reads the receivers. To be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn open() -> io::Result<Self> {
        let notifications =
            Notifications::open(&[libc::RTNLGRP_LINK, RTNLGRP_NSID], RECEIVE_BUFFER)?;
        notifications.listen_to_all_namespaces()?;
        let mut this = Self { notifications, current: BTreeSet::new(), is_stale: true };
        this.read().await?;
        Ok(this)
    }

    /// The receivers as of the last read.
    #[must_use]
    pub fn current(&self) -> &BTreeSet<Receiver> {
        &self.current
    }

    /// Waits until there are others. May be dropped at any time.
    ///
    /// # Errors
    /// Where they can't be read.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            // What a read heard that was dropped is not announced once more.
            if !self.is_stale {
                self.notifications.wait().await?;
            }
            sleep(SETTLE).await;
            if self.read().await? {
                return Ok(());
            }
        }
    }

    /// Reads them again, for what the kernel does not announce. Gives whether there are others.
    ///
    /// # Errors
    /// Where they can't be read.
    pub async fn read(&mut self) -> io::Result<bool> {
        self.is_stale = true;
        while self.notifications.hear(BATCH, |_| {})? == Heard::More {}
        let read = read().await.map_err(|refused| refused.error)?;
        let differs = read != self.current;
        self.current = read;
        self.is_stale = false;
        Ok(differs)
    }
}

async fn read() -> Result<BTreeSet<Receiver>, Refused> {
    let mut requests = Requests::open()?;
    let mut receivers = BTreeSet::new();
    links(&mut requests, None, &mut receivers).await?;
    let mut namespaces = BTreeSet::new();
    let message = RouteNetlinkMessage::GetNsId(NsidMessage::default());
    requests
        .dump(message, |frame| {
            let message = NsidMessage::parse(frame.payload).ok();
            let attributes = message.into_iter().flat_map(|message| message.attributes);
            namespaces.extend(attributes.filter_map(|attribute| match attribute {
                NsidAttribute::Id(id) if id >= 0 => Some(id),
                _ => None,
            }));
        })
        .await?;
    for namespace in namespaces {
        if let Err(refused) = links(&mut requests, Some(namespace), &mut receivers).await {
            // It has just gone.
            tracing::debug!(namespace, %refused, "a network namespace is out of sight");
        }
    }
    if has_raw_gre_socket() {
        let name = "a raw socket for GRE".to_owned();
        receivers.insert(Receiver { encap: Encap::Gre, dst_port: 0, ifindex: None, name });
    }
    Ok(receivers)
}

async fn links(
    requests: &mut Requests,
    namespace: Option<i32>,
    receivers: &mut BTreeSet<Receiver>,
) -> Result<(), Refused> {
    let mut message = LinkMessage::default();
    message.attributes.extend(namespace.map(LinkAttribute::IfNetnsId));
    requests
        .dump(RouteNetlinkMessage::GetLink(message), |frame| {
            // What can't be decoded is no tunnel of a kind that matters.
            let link = LinkMessage::parse(frame.payload).ok();
            receivers.extend(link.and_then(|link| receiver(&link, namespace)));
        })
        .await
        .map(drop)
}

fn receiver(link: &LinkMessage, namespace: Option<i32>) -> Option<Receiver> {
    if !link.header.flags.contains(LinkFlags::Up) {
        return None;
    }
    let mut name = "";
    let mut elsewhere = false;
    let mut data = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text,
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                data = infos.iter().find_map(|info| match info {
                    LinkInfo::Data(data) => Some(data),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    // A device of this namespace with its underlay elsewhere, or the other way round.
    if namespace.is_none() == elsewhere {
        return None;
    }
    let mut ifindex = namespace.is_none().then_some(link.header.index);
    let mut what = String::new();
    let (encap, dst_port) = match data? {
        InfoData::Vxlan(info) => {
            for info in info {
                if let InfoVxlan::ReservedBits(bits) = info
                    && bits.to_be_bytes() != RESERVED_BITS
                {
                    ifindex = None;
                    what = " with reserved_bits of its own".to_owned();
                }
            }
            let port = info.iter().find_map(|info| match info {
                InfoVxlan::Port(port) => Some(*port),
                _ => None,
            });
            (Encap::Vxlan, port?)
        }
        InfoData::GreTap(_) | InfoData::GreTap6(_) => (Encap::Gre, 0),
        // Takes Ethernet frames too then (`gre_rcv`).
        InfoData::GreTun(info) if info.contains(&InfoGre::CollectMetadata) => (Encap::Gre, 0),
        // Over IPv6 any of them takes what no ip6gretap has (`ip6gre_tunnel_lookup`).
        InfoData::GreTun6(_) => (Encap::Gre, 0),
        _ => return None,
    };
    if let Some(namespace) = namespace {
        what = format!(" in the network namespace with id {namespace}");
    }
    Some(Receiver { encap, dst_port, ifindex, name: format!("{name}{what}") })
}

/// Whether a process receives all GRE packets through a raw socket: `/proc/net/raw` and `raw6` have the
/// protocol in the place of the port.
fn has_raw_gre_socket() -> bool {
    ["raw", "raw6"].into_iter().any(|table| {
        let path = format!("/proc/thread-self/net/{table}");
        let table = std::fs::read_to_string(path).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let local = line.split_whitespace().nth(1);
            local.and_then(|local| local.split(':').nth(1)) == Some("002F")
        })
    })
}
