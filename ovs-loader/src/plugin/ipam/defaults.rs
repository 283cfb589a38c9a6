//! The subnet of a network for which none is given: the first of a list that collides with nothing.
//!
//! The list is the same everywhere, so that hosts with nothing in the way choose the same. It begins
//! where neither Docker's own defaults (172.17.0.0/16 to 172.31.0.0/16, 192.168.0.0/16) nor most LANs
//! are.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::Parseable as _;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Error;
use super::subnet::Subnet;
use crate::bridge::netlink::{Frame, Requests};

/// The first default subnet of IPv6, of 65,536: unique local addresses (RFC 4193) of an identifier that
/// is the same on all hosts ("ovseb"), unlike a random one.
const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd6f, 0x7673, 0x6562, 0, 0, 0, 0, 0);

/// The first default subnet that overlaps none of those in use.
pub(super) fn choose(v6: bool, in_use: &[Subnet]) -> Option<Subnet> {
    let free = |subnet: &Subnet| !in_use.iter().any(|other| other.overlaps(*subnet));
    if v6 {
        return ipv6().find(free);
    }
    ipv4().find(free)
}

fn ipv4() -> impl Iterator<Item = Subnet> {
    let large = (224..=255).map(|second| ([10, second, 0, 0], 16));
    let docker = (18..=31).map(|second| ([172, second, 0, 0], 16));
    let small = (0..16).map(|third| ([192, 168, third * 16, 0], 20));
    large.chain(docker).chain(small).map(|(octets, length)| Subnet::of(octets.into(), length))
}

fn ipv6() -> impl Iterator<Item = Subnet> {
    (0..=u16::MAX).map(|number| {
        let mut segments = IPV6.segments();
        segments[3] = number;
        Subnet::of(Ipv6Addr::from(segments).into(), 64)
    })
}

/// The destinations of the host's routes, in whatever table, but for default routes.
///
/// # Errors
/// In words, when the kernel refuses.
pub(super) async fn routes(v6: bool) -> Result<Vec<Subnet>, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Routes(error.to_string());
    let mut requests = Requests::open().map_err(|error| failed(&error))?;
    loop {
        let mut question = RouteMessage::default();
        question.header.address_family =
            if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let mut found = Vec::new();
        let each = |frame: Frame<'_>| found.extend(destination(frame.payload));
        let changed = requests.dump(RouteNetlinkMessage::GetRoute(question), each).await;
        // Another dump, if a change meanwhile may have hidden a route.
        if !changed.map_err(|error| failed(&error))? {
            return Ok(found);
        }
    }
}

/// Where a route leads to; `None` for everywhere.
fn destination(payload: &[u8]) -> Option<Subnet> {
    let message = RouteMessage::parse(payload).ok()?;
    let length = message.header.destination_prefix_length;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    (length > 0).then(|| Subnet::of(address, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(v6: bool, in_use: &[&str]) -> Option<String> {
        choose(v6, &subnets(in_use)).map(|subnet| subnet.to_string())
    }

    #[test]
    fn the_first_default_is_the_same_everywhere() {
        assert_eq!(chosen(false, &[]).unwrap(), "10.224.0.0/16");
        assert_eq!(chosen(true, &[]).unwrap(), "fd6f:7673:6562::/64");
    }

    #[test]
    fn a_default_overlaps_no_route_be_it_larger_or_smaller() {
        assert_eq!(chosen(false, &["10.224.3.7/32", "10.225.0.0/17"]).unwrap(), "10.226.0.0/16");
        assert_eq!(chosen(false, &["10.0.0.0/8"]).unwrap(), "172.18.0.0/16");
        let most = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/18"];
        assert_eq!(chosen(false, &most).unwrap(), "192.168.64.0/20");
        let all = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
        assert_eq!(chosen(false, &all), None);
        assert_eq!(chosen(true, &["fd6f:7673:6562::/63"]).unwrap(), "fd6f:7673:6562:2::/64");
    }

    #[tokio::test]
    async fn this_machines_own_addresses_are_among_its_routes() {
        let routes = routes(false).await.expect("readable by anybody");
        let local: IpAddr = [127, 0, 0, 1].into();
        assert!(routes.iter().any(|subnet| subnet.contains(local)), "{routes:?}");
        assert!(routes.iter().all(|subnet| subnet.length() > 0), "{routes:?}");
    }
}
