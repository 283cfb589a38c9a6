//! The kernel's announcements of what may change a path.
//!
//! A socket of its own, read only when the underlay asks for changes: what is not read yet waits in
//! the kernel's bounded buffer, and a lost announcement is reported as such.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;

use futures_util::FutureExt as _;
use netlink_packet_core::{NetlinkBuffer, Parseable as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, TokioSocket};
use rtnetlink::MulticastGroup;

use super::NextHop;

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// Ample for the largest netlink datagram the kernel sends to a group.
const DATAGRAM: usize = 64 * 1024;

/// What the kernel announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A neighbour was made, changed or removed.
    Neighbour(NextHop),
    /// A route to this prefix was added, changed or removed, in any table.
    Route(IpAddr, u8),
    /// A routing rule was added or removed.
    Rule,
    /// Something that can change any path: a device, a local address, a nexthop object, or an
    /// announcement that was lost or not understood.
    Any,
}

/// A subscription to everything that may change a path.
pub(super) struct Monitor {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Subscribes within the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group as u32)?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Waits for the next announcements. Cancelling it loses none.
    pub(super) async fn next(&mut self) -> io::Result<Vec<Event>> {
        let Self { socket, buffer } = self;
        loop {
            buffer.clear();
            match poll_fn(|cx| socket.poll_recv_from(cx, buffer)).await {
                // Only the kernel sends from port 0; privileged processes may write to a group, too.
                Ok(sender) if sender.port_number() != 0 => {}
                Ok(_) => return Ok(events(buffer)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(vec![Event::Rule, Event::Any]);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next announcements, if they are here already.
    pub(super) fn queued(&mut self) -> Option<io::Result<Vec<Event>>> {
        self.next().now_or_never()
    }
}

/// The events in one datagram.
fn events(mut datagram: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !datagram.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
            events.push(Event::Any);
            break;
        };
        events.extend(event(message.message_type(), message.payload()));
        let aligned = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(aligned..).unwrap_or_default();
    }
    events
}

fn event(kind: u16, payload: &[u8]) -> Option<Event> {
    match kind {
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbour_event(payload),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Some(route_event(payload)),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Event::Rule),
        // A bridge port's notice of itself, which no path depends on.
        libc::RTM_NEWLINK | libc::RTM_DELLINK
            if payload.first() == Some(&u8::from(AddressFamily::Bridge)) =>
        {
            None
        }
        _ => Some(Event::Any),
    }
}

/// FDB entries share the group with neighbours and are none.
fn neighbour_event(payload: &[u8]) -> Option<Event> {
    let family = AddressFamily::from(*payload.first()?);
    if !matches!(family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let Ok(message) = NeighbourMessage::parse(payload) else { return Some(Event::Any) };
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })?;
    Some(Event::Neighbour(NextHop { uplink: message.header.ifindex, address }))
}

fn route_event(payload: &[u8]) -> Event {
    let Ok(message) = RouteMessage::parse(payload) else { return Event::Any };
    let length = message.header.destination_prefix_length;
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        RouteAttribute::Destination(RouteAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    });
    // A default route has no destination.
    destination.map_or(Event::Any, |prefix| Event::Route(prefix, length))
}

/// Whether a route to `prefix`/`length` can carry packets to `address`.
pub(super) fn covers(prefix: IpAddr, length: u8, address: IpAddr) -> bool {
    match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            let differing = prefix.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(length)
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            let differing = prefix.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(length)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_its_own_addresses_only() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(covers(ip("192.0.2.0"), 24, ip("192.0.2.255")));
        assert!(!covers(ip("192.0.2.0"), 24, ip("192.0.3.0")));
        assert!(covers(ip("192.0.2.1"), 32, ip("192.0.2.1")));
        assert!(!covers(ip("192.0.2.1"), 32, ip("192.0.2.0")));
        assert!(covers(ip("0.0.0.0"), 0, ip("203.0.113.1")));
        assert!(!covers(ip("::"), 0, ip("203.0.113.1")));
        assert!(covers(ip("2001:db8::"), 32, ip("2001:db8::1")));
    }

    #[test]
    fn what_cannot_be_decoded_may_have_changed_any_path() {
        assert_eq!(events(&[1, 2, 3]), [Event::Any]);
        assert_eq!(event(libc::RTM_NEWROUTE, &[0; 3]), Some(Event::Any));
    }
}
