//! What is asked of the underlay and what it answers.

use std::net::IpAddr;

use crate::bridge::model::{IfIndex, Mac, Why};

/// The outer flow of a tunnel to one remote: what the kernel's own tunnel device would look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The outer destination.
    pub remote: IpAddr,
    /// The outer source, where the tunnel fixes it; `None` or the unspecified address leaves it to
    /// the route.
    pub local: Option<IpAddr>,
    /// The outer TOS byte for the look-up, 0 where the tunnel inherits it. The ECN bits are ignored.
    pub tos: u8,
    /// Packets may have another one, inherited from what is inside.
    pub inherits_tos: bool,
    /// The outer IP protocol: 17 (UDP) or 47 (GRE).
    pub protocol: u8,
    /// The UDP destination port in host byte order, 0 for GRE.
    pub dst_port: u16,
    /// The device the tunnel is bound to.
    pub link: Option<IfIndex>,
}

impl Target {
    /// The fixed outer source, `None` where the route chooses it.
    pub(super) fn fixed_local(&self) -> Option<IpAddr> {
        self.local.filter(|local| !local.is_unspecified())
    }
}

/// The way of a target's packets out of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The outer source address.
    pub local: IpAddr,
    /// The device the packets leave by.
    pub uplink: IfIndex,
    /// The device's name.
    pub uplink_name: String,
    /// The device's address: the outer Ethernet source.
    pub source_mac: Mac,
    /// The gateway, or the remote itself where it is on-link. May be IPv6 for an IPv4 remote
    /// (RFC 5549).
    pub next_hop: IpAddr,
    /// The next hop's address: the outer Ethernet destination.
    pub next_hop_mac: Mac,
    /// The largest outer IP packet in bytes: the device's MTU or the route's, whichever is less. A
    /// path MTU that the kernel has learned counts as the route's.
    pub mtu: u32,
    /// The hop limit that the kernel gives packets whose sender does not: the route's, or over IPv6
    /// the device's. `None` over IPv4 where the route has none.
    pub hop_limit: Option<u8>,
}

/// A target's path, or why there is none.
pub type Resolution = Result<Path, Unresolved>;

/// A target without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Why: `NoRoute`, `RoutingRule`, `NoNeighbour`, `UplinkUnsupported` or `RemoteIsLocal`.
    pub why: Why,
    /// The route, where only what comes after it is missing: enough to accept the remote's packets.
    pub route: Option<KnownRoute>,
}

/// What a route says without its next hop's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRoute {
    /// The device the packets leave by.
    pub uplink: IfIndex,
    /// The outer source address.
    pub local: IpAddr,
}
