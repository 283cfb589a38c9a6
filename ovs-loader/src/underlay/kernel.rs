//! The kernel's answers: one typed function per question asked of it.

use std::io;
use std::net::IpAddr;

use futures_util::StreamExt as _;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourMessage};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::neighbour::{self, NEIGHBOUR_PROTOCOL, Neighbour};
use super::route::{self, Route};
use super::rules::{self, UnprovableRule};
use super::{Error, NextHop, Target};
use crate::bridge::model::{IfIndex, Mac, Why};

/// A netlink connection of the network namespace it was opened in.
pub(super) struct Kernel {
    handle: rtnetlink::Handle,
}

/// A device, as far as a path depends on it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    /// `None` where the address is not an Ethernet one.
    pub(super) mac: Option<Mac>,
    /// In bytes of the packet within the Ethernet frame.
    pub(super) mtu: u32,
    pub(super) ethernet: bool,
    pub(super) up: bool,
    pub(super) noarp: bool,
    /// `net.ipv6.conf.DEVICE`; `None` where the device has no IPv6.
    pub(super) ipv6: Option<Ipv6>,
}

/// A device's own settings for IPv6.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ipv6 {
    /// `hop_limit`.
    pub(super) hop_limit: Option<u8>,
    /// `mtu`, which is at most the device's, in bytes.
    pub(super) mtu: Option<u32>,
}

impl Kernel {
    /// Connects; the connection is served by a task of its own until the last request is done.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The route the kernel takes for the target's packets (`inet_rtm_getroute`).
    pub(super) async fn route(&self, target: &Target) -> Result<Result<Route, Why>, Error> {
        let question = RouteNetlinkMessage::GetRoute(route::question(target));
        match self.ask(question, 0).await? {
            Ok(answers) => {
                let answer = answers.into_iter().find_map(|answer| match answer {
                    RouteNetlinkMessage::NewRoute(message) => Some(message),
                    _ => None,
                });
                answer
                    .map(|message| route::answer(target, &message))
                    .ok_or(Error::NoAnswer("route"))
            }
            Err(error) => route::refusal(target, &error).map(Err).ok_or(Error::Request {
                request: format!("route to {}", target.remote),
                source: error,
            }),
        }
    }

    /// The device with this index, `None` where there is none.
    pub(super) async fn link(&self, index: IfIndex) -> Result<Option<Link>, Error> {
        let mut question = LinkMessage::default();
        question.header.index = index;
        match self.ask(RouteNetlinkMessage::GetLink(question), 0).await? {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(link(message)),
                _ => None,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(source) => Err(Error::Request { request: format!("device {index}"), source }),
        }
    }

    /// The entry of the neighbour table (`neigh_get`), `None` where there is none.
    pub(super) async fn neighbour(&self, next_hop: NextHop) -> Result<Option<Neighbour>, Error> {
        let question = RouteNetlinkMessage::GetNeighbour(neighbour::message(next_hop));
        match self.ask(question, 0).await? {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => Some(Neighbour::from(message)),
                _ => None,
            })),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
                Ok(None)
            }
            Err(source) => {
                Err(Error::Request { request: format!("neighbour {}", next_hop.address), source })
            }
        }
    }

    /// The managed neighbours that carry [`NEIGHBOUR_PROTOCOL`].
    pub(super) async fn own_neighbours(&self) -> Result<Vec<NextHop>, Error> {
        let mut own = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = NeighbourMessage::default();
            question.header.family = family;
            let answers = self
                .ask(RouteNetlinkMessage::GetNeighbour(question), NLM_F_DUMP)
                .await?
                .map_err(|source| Error::Request { request: "neighbour table".into(), source })?;
            own.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => {
                    let entry = Neighbour::from(message);
                    (entry.managed && entry.protocol == NEIGHBOUR_PROTOCOL)
                        .then(|| neighbour::next_hop(message))
                        .flatten()
                }
                _ => None,
            }));
        }
        Ok(own)
    }

    /// Has the kernel resolve a next hop and keep it resolved, making the entry if need be.
    ///
    /// `neigh_add` with `NTF_USE` leaves an entry's state and address alone, except that it takes a
    /// permanent entry's permanence: never call it on one. The kernel before 5.16 ignores the
    /// managed flag and resolves once.
    ///
    /// # Errors
    /// The kernel's refusal within; a broken connection without.
    pub(super) async fn manage(
        &self,
        next_hop: NextHop,
        mark: bool,
    ) -> Result<io::Result<()>, Error> {
        let mut message = neighbour::use_message(next_hop);
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        if mark {
            message.attributes.push(NeighbourAttribute::Protocol(NEIGHBOUR_PROTOCOL));
        }
        let request = RouteNetlinkMessage::NewNeighbour(message);
        Ok(self.ask(request, NLM_F_CREATE).await?.map(drop))
    }

    /// Takes the managed flag from an entry, if it is still there: `neigh_update_flags` sets the flag
    /// to what the request says.
    ///
    /// # Errors
    /// The kernel's refusal within; a broken connection without.
    pub(super) async fn unmanage(&self, next_hop: NextHop) -> Result<io::Result<()>, Error> {
        let request = RouteNetlinkMessage::NewNeighbour(neighbour::use_message(next_hop));
        Ok(match self.ask(request, 0).await? {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
                Ok(())
            }
            other => other.map(drop),
        })
    }

    /// The routing rules that a route request can't be matched against.
    pub(super) async fn unprovable_rules(&self) -> Result<Vec<UnprovableRule>, Error> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RuleMessage::default();
            question.header.family = family;
            let answers = self
                .ask(RouteNetlinkMessage::GetRule(question), NLM_F_DUMP)
                .await?
                .map_err(|source| Error::Request { request: "routing rules".into(), source })?;
            rules.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => rules::unprovable(message),
                _ => None,
            }));
        }
        Ok(rules)
    }

    /// Sends one request and collects its answers; the kernel's refusal is the inner error.
    ///
    /// The acknowledgement ends the answers: without it the library would wait for ever for an
    /// answer that it could not decode.
    async fn ask(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<io::Result<Vec<RouteNetlinkMessage>>, Error> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut stream = self.handle.clone().request(message).map_err(|_| Error::Closed)?;
        let mut answers = Vec::new();
        while let Some(answer) = stream.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                NetlinkPayload::Error(error) => return Ok(Err(error.to_io())),
                NetlinkPayload::Overrun(_) => {
                    return Ok(Err(io::Error::from_raw_os_error(libc::ENOBUFS)));
                }
                _ => {}
            }
        }
        Ok(Ok(answers))
    }
}

fn link(message: &LinkMessage) -> Link {
    let header = &message.header;
    let mut link = Link {
        name: String::new(),
        mac: None,
        mtu: 0,
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        up: header.flags.contains(LinkFlags::Up),
        noarp: header.flags.contains(LinkFlags::Noarp),
        ipv6: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(address) => {
                link.mac = address.as_slice().try_into().ok().map(Mac);
            }
            LinkAttribute::AfSpecUnspec(families) => link.ipv6 = ipv6(families),
            _ => {}
        }
    }
    link
}

fn ipv6(families: &[AfSpecUnspec]) -> Option<Ipv6> {
    families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet6(attributes) => {
            attributes.iter().find_map(|attribute| match attribute {
                AfSpecInet6::DevConf(settings) => Some(Ipv6 {
                    hop_limit: u8::try_from(settings.hoplimit).ok(),
                    mtu: u32::try_from(settings.mtu6).ok(),
                }),
                _ => None,
            })
        }
        _ => None,
    })
}

/// The family of an address, as netlink numbers it.
pub(super) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
