//! The container's end of a port: addresses and default routes, set through a netlink socket of the
//! container's namespace.

use std::fs;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable as _};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Error;
use super::namespace::Namespace;
use super::spec::{Prefix, Settings};
use crate::bridge::linux::links::{Link, dump_links};
use crate::bridge::model::{IfIndex, Mac};
use crate::bridge::netlink::{Refused, Requests};

/// The metric of an IPv6 route that names none (`IP6_RT_PRIO_USER`); of an IPv4 route it is 0.
const IPV6_METRIC: u32 = 1024;

/// A container's namespace from within.
pub(super) struct Inside<'a> {
    namespace: &'a Namespace,
    requests: Requests,
}

impl<'a> Inside<'a> {
    pub(super) fn open(namespace: &'a Namespace) -> Result<Self, Error> {
        Ok(Self { namespace, requests: namespace.requests()? })
    }

    /// Refuses what would fail later, before anything is made.
    pub(super) async fn check(&mut self, settings: &Settings) -> Result<(), Error> {
        if self.find(&settings.interface).await?.is_some() {
            return Err(Error::InterfaceExists(settings.interface.clone()));
        }
        for gateway in &settings.gateways {
            self.check_default_route(*gateway).await?;
        }
        Ok(())
    }

    /// Whether there is an interface of this name and MAC.
    pub(super) async fn has(&mut self, interface: &str, mac: Mac) -> Result<bool, Error> {
        Ok(self.find(interface).await?.is_some_and(|(_, found)| found == mac))
    }

    async fn find(&mut self, interface: &str) -> Result<Option<(IfIndex, Mac)>, Error> {
        let links = dump_links(&mut self.requests)
            .await
            .map_err(|refused| Error::inside("list the interfaces", &refused))?;
        let mut links = links.iter().map(Link::new);
        Ok(links.find(|link| link.name == interface).map(|link| (link.index(), link.mac)))
    }

    /// A default route that would win over the new one, or be in its place.
    async fn check_default_route(&mut self, gateway: IpAddr) -> Result<(), Error> {
        let most = if gateway.is_ipv4() { 0 } else { IPV6_METRIC };
        let mut query = RouteMessage::default();
        query.header.address_family = family(gateway);
        let mut found: Vec<RouteMessage> = Vec::new();
        self.requests
            .dump(RouteNetlinkMessage::GetRoute(query), |frame| {
                found.extend(RouteMessage::parse(frame.payload));
            })
            .await
            .map_err(|refused| Error::inside("read the routes", &refused))?;
        let Some(first) = found.iter().find(|route| is_default(route) && metric(route) <= most)
        else {
            return Ok(());
        };
        let links = dump_links(&mut self.requests)
            .await
            .map_err(|refused| Error::inside("list the interfaces", &refused))?;
        let name = |index| {
            let mut links = links.iter().map(Link::new);
            links.find(|link| link.index() == index).map_or("?", |link| link.name).to_owned()
        };
        Err(Error::DefaultRoute { gateway, existing: words(first, name) })
    }

    /// Gives the interface its addresses, brings it up, and sets the default routes.
    pub(super) async fn configure(&mut self, settings: &Settings) -> Result<(), Error> {
        let Settings { interface, addresses, gateways, .. } = settings;
        let Some((index, _)) = self.find(interface).await? else {
            return Err(Error::InterfaceGone(interface.clone()));
        };
        if addresses.iter().any(|prefix| prefix.address.is_ipv6()) {
            self.enable_ipv6(interface)?;
        }
        for prefix in addresses {
            let message = RouteNetlinkMessage::NewAddress(address(index, *prefix));
            self.create(message, || format!("give {interface} the address {prefix}")).await?;
        }
        let mut up = LinkMessage::default();
        up.header.index = index;
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        self.requests
            .change(RouteNetlinkMessage::SetLink(up), 0)
            .await
            .map_err(|refused| Error::inside(format!("bring {interface} up"), &refused))?;
        for gateway in gateways {
            let message = RouteNetlinkMessage::NewRoute(default_route(index, *gateway));
            let doing = || format!("set the default route via {gateway} dev {interface}");
            self.create(message, doing).await?;
        }
        Ok(())
    }

    async fn create(
        &mut self,
        message: RouteNetlinkMessage,
        doing: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        self.requests
            .change(message, NLM_F_CREATE | NLM_F_EXCL)
            .await
            .map_err(|refused: Refused| Error::inside(doing(), &refused))
    }

    /// Docker switches IPv6 off in containers whose networks have none.
    fn enable_ipv6(&self, interface: &str) -> Result<(), Error> {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        self.namespace.run(|| match fs::read_to_string(&path) {
            Ok(value) if value.trim() == "0" => Ok(()),
            Ok(_) => fs::write(&path, "0"),
            // The kernel has no IPv6, and says so when it is asked for an address.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        })
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address(index: IfIndex, prefix: Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(prefix.address);
    message.header.index = index;
    message.header.prefix_len = prefix.length;
    message.attributes =
        vec![AddressAttribute::Local(prefix.address), AddressAttribute::Address(prefix.address)];
    message
}

fn default_route(index: IfIndex, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::from(gateway)), RouteAttribute::Oif(index)];
    message
}

fn is_default(route: &RouteMessage) -> bool {
    let header = &route.header;
    header.destination_prefix_length == 0
        && header.kind == RouteType::Unicast
        && header.table == RouteHeader::RT_TABLE_MAIN
}

fn metric(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

/// As `ip route` shows it.
fn words(route: &RouteMessage, name: impl Fn(IfIndex) -> String) -> String {
    let mut words = "default".to_owned();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(via)) => words += &format!(" via {via}"),
            RouteAttribute::Gateway(RouteAddress::Inet6(via)) => words += &format!(" via {via}"),
            RouteAttribute::Oif(index) => words += &format!(" dev {}", name(*index)),
            _ => {}
        }
    }
    words
}
