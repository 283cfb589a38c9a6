//! How packets to a remote leave this host, asked once.

use std::net::IpAddr;

use super::kernel::Kernel;
use super::{Error, Target};
use crate::bridge::model::{Encap, Why};

/// The way out to a remote, without its next hop's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The device.
    pub name: String,
    /// The source address.
    pub local: IpAddr,
    /// The largest IP packet in bytes: the device's or the route's, whichever is less.
    pub mtu: u32,
}

/// The way out to a remote, or why there is none. Changes nothing.
///
/// # Errors
/// No netlink socket, or a kernel that does not answer.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn uplink(remote: IpAddr) -> Result<Result<Uplink, Why>, Error> {
    let kernel = Kernel::open().map_err(Error::Open)?;
    let protocol = Encap::Gre.ip_protocol();
    let target = Target {
        remote,
        local: None,
        tos: 0,
        inherits_tos: false,
        protocol,
        dst_port: 0,
        link: None,
    };
    let route = match kernel.route(&target).await? {
        Ok(route) => route,
        Err(why) => return Ok(Err(why)),
    };
    let link = kernel.link(route.uplink).await?.ok_or(Error::NoAnswer("device"))?;
    let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
    Ok(Ok(Uplink { name: link.name, local: route.local, mtu }))
}
