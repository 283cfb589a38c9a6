//! Veth pairs that join a bridge of this host with another network namespace.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};

use super::Error;
use super::change::{Change, check_name};
use super::error::Kind;
use super::message::set;
use crate::bridge::model::Mac;

/// What the kernel gives a veth that says nothing else, in bytes.
const DEFAULT_MTU: u32 = 1500;

/// The first byte of MACs of bridges' ports, locally administered: a bridge takes the lowest MAC of
/// its ports for its own, and the host's address on the bridge must not change its MAC with each
/// container.
const HIGHEST: u8 = 0xfe;

/// A veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct VethSpec<'a> {
    /// The end in this namespace.
    pub name: &'a str,
    /// The end in the other one.
    pub peer: &'a str,
    /// The other namespace.
    pub namespace: BorrowedFd<'a>,
    /// The other end's MAC. This end gets the same with `HIGHEST` in front.
    pub mac: Mac,
    /// The other end's MTU in bytes, 1,500 without one. This end follows upwards only: the bridge's
    /// own MTU is that of its smallest port.
    pub mtu: Option<u32>,
}

/// Whose an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// There is no such interface.
    Absent,
    /// Nobody's.
    Free,
    /// A port of this bridge (or bond, VRF, Open vSwitch datapath).
    Port(String),
}

/// Makes a veth pair. Both ends are down; the other one appears in its namespace with its name, MAC
/// and MTU.
pub async fn add_veth(spec: &VethSpec<'_>) -> Result<(), Error> {
    check_name(spec.name)?;
    check_name(spec.peer)?;
    let mut change = Change::about(&[]).await?;
    let made = change.add_veth(spec).await;
    change.end(made).await.map(drop)
}

/// Deletes an interface; false if there was none.
pub async fn del_interface(name: &str) -> Result<bool, Error> {
    let mut change = Change::about(&[]).await?;
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match change.requests.change(RouteNetlinkMessage::DelLink(message), 0).await {
        Ok(()) => Ok(true),
        Err(refused) if refused.error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(refused) => Err(Error::kernel(format!("delete {name}"), &refused)),
    }
}

/// The names of all interfaces.
pub async fn interfaces() -> Result<BTreeSet<String>, Error> {
    Ok(Change::begin().await?.names())
}

/// Whether there is an interface of a name.
pub async fn exists(name: &str) -> Result<bool, Error> {
    Ok(Change::about(&[name]).await?.link(name).is_some())
}

/// Whose port an interface is.
pub async fn owner(name: &str) -> Result<Owner, Error> {
    let change = Change::begin().await?;
    Ok(match change.link(name).map(|link| link.controller) {
        None => Owner::Absent,
        Some(None) => Owner::Free,
        Some(Some(controller)) => Owner::Port(change.name_of(controller)),
    })
}

impl Change {
    async fn add_veth(&mut self, spec: &VethSpec<'_>) -> Result<(), Error> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(spec.peer.to_owned()),
            LinkAttribute::Address(spec.mac.0.to_vec()),
            LinkAttribute::NetNsFd(spec.namespace.as_raw_fd()),
        ];
        peer.attributes.extend(spec.mtu.map(LinkAttribute::Mtu));
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        let index = self.create(spec.name, Kind::Veth, InfoKind::Veth, Some(data)).await?;
        let [_, rest @ ..] = spec.mac.0;
        let mut mac = [HIGHEST, 0, 0, 0, 0, 0];
        mac[1..].copy_from_slice(&rest);
        let message = set(index, LinkAttribute::Address(mac.to_vec()));
        self.request(message, 0, || format!("set the MAC of {}", spec.name)).await?;
        match spec.mtu.filter(|mtu| *mtu > DEFAULT_MTU) {
            None => Ok(()),
            Some(mtu) => {
                let message = set(index, LinkAttribute::Mtu(mtu));
                self.request(message, 0, || format!("set the MTU of {} to {mtu}", spec.name)).await
            }
        }
    }
}
