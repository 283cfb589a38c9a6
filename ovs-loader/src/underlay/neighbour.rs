//! Entries of the kernel's neighbour table, and the requests that keep one fresh.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;

use super::NextHop;
use super::kernel::family;
use crate::bridge::model::Mac;

/// Who made a neighbour managed (`NDA_PROTOCOL`; shown as `proto 79` by `ip -d neigh`): how a daemon
/// finds again what a predecessor that was killed has left, and tells it from other people's managed
/// neighbours. A routing protocol number that nobody has taken in `rtnetlink.h` or iproute2.
pub const NEIGHBOUR_PROTOCOL: RouteProtocol = RouteProtocol::Other(79);

/// The mark of an entry that nobody has marked.
pub(super) const UNMARKED: RouteProtocol = RouteProtocol::Unspec;

/// An entry of the neighbour table.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    pub(super) state: NeighbourState,
    pub(super) mac: Option<Mac>,
    pub(super) managed: bool,
    pub(super) protocol: RouteProtocol,
    /// Set by an operator or another control plane, which keeps it.
    pub(super) foreign: bool,
}

impl Neighbour {
    /// The address to send to, where the state lets the kernel send without resolving first
    /// (`NUD_VALID`).
    pub(super) fn usable_mac(&self) -> Option<Mac> {
        match self.state {
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp => self.mac,
            _ => None,
        }
    }
}

impl From<&NeighbourMessage> for Neighbour {
    fn from(message: &NeighbourMessage) -> Self {
        let state = message.header.state;
        let mut entry = Self {
            state,
            mac: None,
            managed: false,
            protocol: RouteProtocol::Unspec,
            foreign: matches!(state, NeighbourState::Permanent | NeighbourState::Noarp)
                || message.header.flags.contains(NeighbourFlags::ExtLearned),
        };
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(address) => {
                    entry.mac = address.as_slice().try_into().ok().map(Mac);
                }
                NeighbourAttribute::Protocol(protocol) => entry.protocol = *protocol,
                NeighbourAttribute::ExtFlags(flags) => {
                    entry.managed = flags.contains(NeighbourExtFlags::Managed);
                    entry.foreign |= flags.contains(NeighbourExtFlags::ExtValidated);
                }
                _ => {}
            }
        }
        entry
    }
}

/// A message about this neighbour.
pub(super) fn message(next_hop: NextHop) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(next_hop.address);
    message.header.ifindex = next_hop.uplink;
    message.attributes.push(NeighbourAttribute::Destination(next_hop.address.into()));
    message
}

/// A message that has the kernel use this neighbour: resolve it, or confirm it where it is stale.
pub(super) fn use_message(next_hop: NextHop) -> NeighbourMessage {
    let mut message = message(next_hop);
    message.header.flags = NeighbourFlags::Use;
    message
}

/// Which neighbour a message is about.
pub(super) fn next_hop(message: &NeighbourMessage) -> Option<NextHop> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })?;
    Some(NextHop { uplink: message.header.ifindex, address })
}
