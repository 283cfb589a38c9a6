//! The netlink messages of the steps.

use std::net::IpAddr;

use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, GreIOFlags, In6AddrGenMode, InfoBridgePort, InfoData, InfoGre,
    InfoGre6, InfoKind, InfoPortData, InfoPortKind, InfoVxlan, LinkAttribute, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::TunnelSpec;
use crate::bridge::linux::tunnel::{IFLA_GRE_FLAGS, IP6_TNL_F_IGN_ENCAP_LIMIT};
use crate::bridge::model::{IfIndex, Mac};

/// The outer TTL of GRE tunnels created here. The kernel's default inherits the inner one, so that
/// a container's `traceroute` would see the underlay; this is what Open vSwitch sends, and what
/// `vxlan` devices send by default.
const GRE_TTL: u8 = 64;

/// A message about a link.
pub(super) fn of(index: IfIndex) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Changes one attribute of a link.
pub(super) fn set(index: IfIndex, attribute: LinkAttribute) -> RouteNetlinkMessage {
    let mut message = of(index);
    message.attributes.push(attribute);
    RouteNetlinkMessage::SetLink(message)
}

/// Isolates a port or stops to. `RTM_NEWLINK`, since `RTM_SETLINK` does not look at port options.
pub(super) fn isolated(index: IfIndex, on: bool) -> RouteNetlinkMessage {
    let mut message = of(index);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(on)])),
    ]));
    RouteNetlinkMessage::NewLink(message)
}

/// Gives an interface no IPv6 address of its own when it comes up, until it moves to another namespace.
pub(super) fn without_addresses(index: IfIndex) -> RouteNetlinkMessage {
    let inet6 = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
    set(index, LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(inet6)]))
}

/// A remote of a vxlan device's flood list.
pub(super) fn flood_entry(index: IfIndex, remote: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(Mac::ZERO.0.to_vec()),
        NeighbourAttribute::Destination(remote.into()),
    ];
    message
}

/// The options of a vxlan device. All others are the kernel's defaults. Over IPv6 the UDP checksums are
/// off both ways, without which the fast path can't be (RFC 6935).
pub(super) fn vxlan_info(spec: &TunnelSpec, key: u32) -> Vec<InfoVxlan> {
    let mut info = vec![InfoVxlan::Id(key), InfoVxlan::Port(spec.port())];
    info.extend(spec.local.map(|local| match local {
        IpAddr::V4(local) => InfoVxlan::Local(local),
        IpAddr::V6(local) => InfoVxlan::Local6(local),
    }));
    if spec.is_ipv6() {
        info.extend([InfoVxlan::UDPZeroCsumTX(true), InfoVxlan::UDPZeroCsumRX(true)]);
    }
    info
}

/// The kind and options of a gretap or ip6gretap device. All others are the kernel's defaults, but for
/// ip6gretap's encapsulation limit: the option would be in every packet.
pub(super) fn gre_info(spec: &TunnelSpec, remote: IpAddr) -> (InfoKind, InfoData) {
    let flags = if spec.key.is_some() { GreIOFlags::Key } else { GreIOFlags::empty() };
    let key = spec.key.unwrap_or_default();
    match remote {
        IpAddr::V4(remote) => {
            let mut info = vec![
                InfoGre::IFlags(flags),
                InfoGre::OFlags(flags),
                InfoGre::IKey(key),
                InfoGre::OKey(key),
                InfoGre::Remote(remote),
                InfoGre::Ttl(GRE_TTL),
                InfoGre::PathMTUDiscovery(true),
            ];
            if let Some(IpAddr::V4(local)) = spec.local {
                info.push(InfoGre::Local(local));
            }
            (InfoKind::GreTap, InfoData::GreTap(info))
        }
        IpAddr::V6(remote) => {
            let mut info = vec![
                InfoGre6::IFlags(flags),
                InfoGre6::OFlags(flags),
                InfoGre6::IKey(key),
                InfoGre6::OKey(key),
                InfoGre6::Remote(remote),
                InfoGre6::Ttl(GRE_TTL),
                InfoGre6::Other(DefaultNla::new(
                    IFLA_GRE_FLAGS,
                    IP6_TNL_F_IGN_ENCAP_LIMIT.to_ne_bytes().to_vec(),
                )),
            ];
            if let Some(IpAddr::V6(local)) = spec.local {
                info.push(InfoGre6::Local(local));
            }
            (InfoKind::GreTap6, InfoData::GreTap6(info))
        }
    }
}
