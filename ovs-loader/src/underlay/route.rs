//! The route request for a target and the kernel's answer to it.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use ovs_ebpf_common::Reason;
use ovs_ebpf_common::wire::ecn;

use super::Target;
use super::kernel::family;
use crate::bridge::model::{Encap, IfIndex, Why};

/// A unicast route out of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) uplink: IfIndex,
    pub(super) local: IpAddr,
    pub(super) next_hop: IpAddr,
    /// The route's own limit in bytes of the IP packet: its `mtu` metric, or a path MTU learned.
    pub(super) mtu: Option<u32>,
    /// The route's own hop limit: its `hoplimit` metric.
    pub(super) hop_limit: Option<u8>,
    /// The route itself encapsulates (MPLS, IP, SRv6 …).
    pub(super) encap: bool,
}

/// The request: as much of the outer flow as `RTM_GETROUTE` can express.
///
/// The kernel knows only TCP, UDP and ICMP there (`rtm_getroute_parse_ip_proto`) and assumes UDP
/// where none is named, so that GRE goes as UDP with ports 0.
pub(super) fn question(target: &Target) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(target.remote);
    message.header.tos = target.tos & !ecn::MASK;
    message.header.destination_prefix_length = prefix_length(target.remote);
    message.attributes.push(RouteAttribute::Destination(target.remote.into()));
    if let Some(local) = target.fixed_local() {
        message.header.source_prefix_length = prefix_length(local);
        message.attributes.push(RouteAttribute::Source(local.into()));
    }
    if let Some(link) = target.link {
        message.attributes.push(RouteAttribute::Oif(link));
    }
    if target.protocol == Encap::Vxlan.ip_protocol() {
        message.attributes.push(RouteAttribute::IpProto(target.protocol));
        message.attributes.push(RouteAttribute::Dport(target.dst_port));
    }
    message
}

/// The answer (`rt_fill_info`): one next hop, the one the kernel picked of several.
pub(super) fn answer(target: &Target, message: &RouteMessage) -> Result<Route, Why> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => {
            let detail = format!("{} is an address of this host", target.remote);
            return Err(Why::new(Reason::RemoteIsLocal, detail));
        }
        other => {
            let detail = format!("{} is a {} address", target.remote, word(other));
            return Err(Why::new(Reason::NoRoute, detail));
        }
    }
    let (mut uplink, mut source, mut gateway, mut encap) = (None, None, None, false);
    let (mut mtu, mut hop_limit) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => uplink = Some(*index),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => encap = true,
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(value) if *value > 0 => mtu = Some(*value),
                        RouteMetric::Hoplimit(value) if *value > 0 => {
                            hop_limit = u8::try_from(*value).ok();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let local = target.fixed_local().or(source);
    let (Some(uplink), Some(local)) = (uplink, local) else {
        let detail = format!("the route to {} names no device or source address", target.remote);
        return Err(Why::new(Reason::NoRoute, detail));
    };
    Ok(Route { uplink, local, next_hop: gateway.unwrap_or(target.remote), mtu, hop_limit, encap })
}

/// What a refused request says of the route; `None` where the error is not an answer.
///
/// `fib_props` gives each kind of route its error; `ip_route_output_key_hash_rcu` adds its own.
pub(super) fn refusal(target: &Target, error: &io::Error) -> Option<Why> {
    let remote = target.remote;
    let detail = match error.raw_os_error()? {
        libc::ENETUNREACH => format!("{remote}: network is unreachable"),
        libc::EHOSTUNREACH => format!("{remote}: unreachable route"),
        libc::EACCES => format!("{remote}: prohibit route"),
        libc::EINVAL => match target.fixed_local() {
            Some(local) => {
                format!("{remote}: blackhole route, or {local} is not an address of this host")
            }
            None => format!("{remote}: blackhole route"),
        },
        libc::ENODEV => format!("{remote}: the tunnel's device is gone"),
        _ => return None,
    };
    Some(Why::new(Reason::NoRoute, detail))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

const fn prefix_length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

const fn word(kind: RouteType) -> &'static str {
    match kind {
        RouteType::Broadcast => "broadcast",
        RouteType::Multicast => "multicast",
        RouteType::Anycast => "anycast",
        _ => "special",
    }
}
