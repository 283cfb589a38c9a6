//! What an interface is like, before anything is made of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::Parseable as _;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::LinkAttribute;

use super::change::Change;
use super::message::set;
use super::{Error, Owner};
use crate::bridge::linux::fdb;
use crate::bridge::model::{Device, Encap, IfIndex};

/// An interface as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whose port it is.
    pub owner: Owner,
    /// It is a Linux bridge that keeps VLANs apart.
    pub vlan_filtering: bool,
    /// Its addresses with their prefix lengths, without those of IPv6 that are only for the link.
    pub addresses: Vec<String>,
}

/// An interface by its name; `None` if there is none.
pub async fn look(name: &str) -> Result<Option<Interface>, Error> {
    let mut change = Change::begin().await?;
    let Some(link) = change.link(name) else { return Ok(None) };
    let (index, mtu, vlan_filtering) = (link.index(), link.mtu(), link.vlan_filtering());
    let owner = match link.controller {
        None => Owner::Free,
        Some(controller) => Owner::Port(change.name_of(controller)),
    };
    let addresses = change.addresses(index, name).await?;
    Ok(Some(Interface { mtu, owner, vlan_filtering, addresses }))
}

/// Whose port each interface is.
pub async fn owners() -> Result<BTreeMap<String, Owner>, Error> {
    let change = Change::begin().await?;
    let owner = |name: &String| match change.link(name).and_then(|link| link.controller) {
        None => Owner::Free,
        Some(controller) => Owner::Port(change.name_of(controller)),
    };
    Ok(change.names().into_iter().map(|name| (name.clone(), owner(&name))).collect())
}

/// The tunnels of a bridge: how they encapsulate, and to where.
pub async fn tunnels(bridge: &str) -> Result<Vec<(Encap, IpAddr)>, Error> {
    let change = Change::begin().await?;
    let ports = change.ports_of(change.bridge(bridge)?);
    let flooded = fdb::dump()
        .await
        .map_err(|refused| Error::kernel(format!("read the remotes of {bridge}"), &refused))?;
    let mut all = Vec::new();
    for port in ports {
        let Device::Tunnel(tunnel) = &port.device else { continue };
        let own = tunnel.remotes.iter().map(|remote| remote.address);
        all.extend(own.chain(flooded.flood(port.ifindex)).map(|remote| (tunnel.encap, remote)));
    }
    Ok(all)
}

/// Sets an interface's MTU where it is less.
pub async fn raise_mtu(interface: &str, mtu: u32) -> Result<(), Error> {
    let mut change = Change::begin().await?;
    let index = change.interface(interface)?;
    if change.link(interface).is_some_and(|link| link.mtu() >= mtu) {
        return Ok(());
    }
    let message = set(index, LinkAttribute::Mtu(mtu));
    change.request(message, 0, || format!("set the MTU of {interface} to {mtu}")).await
}

impl Change {
    async fn addresses(&mut self, index: IfIndex, name: &str) -> Result<Vec<String>, Error> {
        let mut addresses = Vec::new();
        self.requests
            .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |frame| {
                let Ok(message) = AddressMessage::parse(frame.payload) else { return };
                if message.header.index != index {
                    return;
                }
                let of_host = |attribute: &AddressAttribute| match attribute {
                    AddressAttribute::Address(IpAddr::V6(address))
                        if address.is_unicast_link_local() =>
                    {
                        None
                    }
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                };
                let length = message.header.prefix_len;
                let found = message.attributes.iter().find_map(of_host);
                addresses.extend(found.map(|address| format!("{address}/{length}")));
            })
            .await
            .map_err(|refused| Error::kernel(format!("read the addresses of {name}"), &refused))?;
        Ok(addresses)
    }
}
