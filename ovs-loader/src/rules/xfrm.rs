//! IPsec policies: whether the kernel would transform or block a tunnel's outer flow.
//!
//! Sources: `xfrm_policy_lookup_bytype`, `xfrm_policy_match` (net/xfrm/xfrm_policy.c),
//! `xfrm_selector_match` (include/net/xfrm.h) and uapi linux/xfrm.h.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{Dumper, attributes, ne_u16, ne_u32};
use crate::bridge::model::IfIndex;

/// `XFRMNLGRP_POLICY`.
pub(super) const GROUP: u32 = 4;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_GETDEFAULT: u16 = 0x28;
/// `XFRM_USERPOLICY_BLOCK`, the default policy.
const DEFAULT_BLOCK: u8 = 1;
/// Bytes of `struct xfrm_userpolicy_id`, what a request for policies begins with.
const POLICY_ID_LEN: usize = 64;
/// Bytes of `struct xfrm_userpolicy_info`, what an answer begins with.
const POLICY_INFO_LEN: usize = 168;
const XFRMA_TMPL: u16 = 5;
const XFRMA_SEC_CTX: u16 = 8;
const XFRMA_POLICY_TYPE: u16 = 16;
const XFRMA_MARK: u16 = 21;
const XFRMA_IF_ID: u16 = 31;

/// The namespace's IPsec policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xfrm {
    /// The policies in the kernel's order. Without those of single sockets.
    pub policies: Vec<XfrmPolicy>,
    /// `ip xfrm policy setdefault in block`: what no policy matches is dropped on arrival.
    pub default_in_block: bool,
    /// `ip xfrm policy setdefault out block`: what no policy matches is not sent.
    pub default_out_block: bool,
}

/// Which packets a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Packets to this host.
    In,
    /// Packets from this host.
    Out,
    /// Packets through this host.
    Forward,
}

/// One IPsec policy, as `ip xfrm policy` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XfrmPolicy {
    /// Source address and prefix length.
    pub source: (IpAddr, u8),
    /// Destination address and prefix length.
    pub destination: (IpAddr, u8),
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// Source port and mask, host byte order.
    pub source_port: (u16, u16),
    /// Destination port and mask, host byte order. A GRE key, for the kernel, is a pair of ports.
    pub destination_port: (u16, u16),
    /// The device of the flow's route, 0 for any.
    pub ifindex: IfIndex,
    /// Which packets it is for.
    pub direction: Direction,
    /// The lowest number wins.
    pub priority: u32,
    /// It drops what it matches.
    pub block: bool,
    /// It has templates: it transforms what it matches.
    pub templates: bool,
    /// It is of the sub type, which is looked up beside the main type.
    pub sub: bool,
    /// Only for flows through the XFRM interfaces of this id, 0 for all others.
    pub if_id: u32,
    /// It also depends on a mark or a security context, which are the packet's.
    pub conditional: bool,
}

/// A tunnel's outer flow, as this host sends it. The UDP source port is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterFlow {
    /// The local address; `None` where it is not known.
    pub local: Option<IpAddr>,
    /// The remote's address.
    pub remote: IpAddr,
    /// 17 (UDP) or 47 (GRE).
    pub protocol: u8,
    /// UDP destination port, host byte order; the same in both directions. 0 for GRE.
    pub dst_port: u16,
    /// The device that the route to the remote leaves by.
    pub uplink: IfIndex,
}

/// Whether a policy matches a flow of which not everything is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    No,
    Maybe,
    Yes,
}

impl Xfrm {
    /// Reads policies and defaults.
    pub(super) fn read(dumper: &mut Dumper) -> io::Result<Self> {
        let messages = dumper.dump(XFRM_MSG_GETPOLICY, &[0; POLICY_ID_LEN])?;
        let (default_in_block, default_out_block) = defaults(dumper)?;
        Ok(Self {
            policies: messages.iter().filter_map(|body| XfrmPolicy::parse(body)).collect(),
            default_in_block,
            default_out_block,
        })
    }

    /// What transforms or blocks a tunnel's outer flow in either direction, in the words of
    /// `ip xfrm policy`; `None` where its packets go out and come in as they are.
    ///
    /// As in the kernel, the matching policy of the lowest priority number decides for each
    /// direction and policy type: a policy with action allow and without templates lets the flow
    /// pass before a later one that would not. A policy that depends on what is not known here
    /// (source port, mark, GRE key, device of received packets) never lets pass but always covers.
    #[must_use]
    pub fn covers(&self, flow: &OuterFlow) -> Option<String> {
        [(Direction::Out, self.default_out_block), (Direction::In, self.default_in_block)]
            .into_iter()
            .find_map(|(direction, default_block)| {
                let sub = self.decide(flow, direction, true);
                let main = self.decide(flow, direction, false);
                let covering = [sub, main].into_iter().flatten().find(|policy| policy.covers());
                match covering {
                    Some(policy) => Some(policy.to_string()),
                    None if default_block && sub.is_none() && main.is_none() => {
                        Some(format!("default policy for {} is block", direction.name()))
                    }
                    None => None,
                }
            })
    }

    /// The policy that decides, or might: the first that surely matches or covers.
    fn decide(&self, flow: &OuterFlow, direction: Direction, sub: bool) -> Option<&XfrmPolicy> {
        let mut candidates: Vec<_> = self
            .policies
            .iter()
            .filter(|policy| policy.direction == direction && policy.sub == sub)
            .map(|policy| (policy, policy.matches(flow)))
            .filter(|(policy, matched)| match matched {
                Match::No => false,
                Match::Maybe => policy.covers(),
                Match::Yes => true,
            })
            .collect();
        // Among equals, the one that covers: the kernel's order depends on its hash tables.
        candidates.sort_by_key(|(policy, _)| (policy.priority, !policy.covers()));
        candidates.first().map(|(policy, _)| *policy)
    }
}

/// Whether the defaults for in and out are block. Kernels before 5.15 have none and accept.
fn defaults(dumper: &mut Dumper) -> io::Result<(bool, bool)> {
    match dumper.get(XFRM_MSG_GETDEFAULT, &[0; 4]) {
        Ok(messages) => {
            // struct xfrm_userpolicy_default: in, fwd, out.
            let body = messages.first().map_or(&[][..], Vec::as_slice);
            let blocks = |offset: usize| body.get(offset) == Some(&DEFAULT_BLOCK);
            Ok((blocks(0), blocks(2)))
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((false, false)),
        Err(error) => Err(error),
    }
}

impl XfrmPolicy {
    /// Parses `struct xfrm_userpolicy_info` and its attributes; `None` for a socket's own policy.
    fn parse(body: &[u8]) -> Option<Self> {
        let info = body.get(..POLICY_INFO_LEN)?;
        let direction = match info[160] {
            0 => Direction::In,
            1 => Direction::Out,
            2 => Direction::Forward,
            _ => return None,
        };
        let family = ne_u16(info, 40)?;
        let mut policy = Self {
            source: (address(family, info.get(16..)?)?, info[43]),
            destination: (address(family, info)?, info[42]),
            protocol: info[44],
            source_port: (port(info, 36)?, port(info, 38)?),
            destination_port: (port(info, 32)?, port(info, 34)?),
            ifindex: ne_u32(info, 48)?,
            direction,
            priority: ne_u32(info, 152)?,
            block: info[161] != 0,
            templates: false,
            sub: false,
            if_id: 0,
            conditional: false,
        };
        for (kind, value) in attributes(&body[POLICY_INFO_LEN..]) {
            match kind {
                XFRMA_TMPL => policy.templates = !value.is_empty(),
                XFRMA_SEC_CTX => policy.conditional = true,
                XFRMA_POLICY_TYPE => policy.sub = value.first() == Some(&1),
                // struct xfrm_mark: value, mask.
                XFRMA_MARK => policy.conditional |= ne_u32(value, 4)? != 0,
                XFRMA_IF_ID => policy.if_id = ne_u32(value, 0)?,
                _ => {}
            }
        }
        Some(policy)
    }

    fn covers(&self) -> bool {
        self.block || self.templates
    }

    fn matches(&self, flow: &OuterFlow) -> Match {
        // An XFRM interface is not an Ethernet device, so no uplink is one.
        if self.if_id != 0 || (self.protocol != 0 && self.protocol != flow.protocol) {
            return Match::No;
        }
        let outgoing = self.direction == Direction::Out;
        let (local, remote) = match outgoing {
            true => (self.source, self.destination),
            false => (self.destination, self.source),
        };
        let device = match self.ifindex {
            0 => Match::Yes,
            index if outgoing && index != flow.uplink => Match::No,
            _ if outgoing => Match::Yes,
            _ => Match::Maybe,
        };
        [
            address_matches(remote, Some(flow.remote)),
            address_matches(local, flow.local),
            device,
            port_matches(self.source_port, None),
            port_matches(
                self.destination_port,
                (flow.protocol == libc::IPPROTO_UDP as u8).then_some(flow.dst_port),
            ),
            if self.conditional { Match::Maybe } else { Match::Yes },
        ]
        .into_iter()
        .min()
        .unwrap_or(Match::No)
    }
}

fn address_matches((selector, length): (IpAddr, u8), address: Option<IpAddr>) -> Match {
    let Some(address) = address else {
        return if length == 0 { Match::Yes } else { Match::Maybe };
    };
    let equal = match (selector, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            (a.to_bits() ^ b.to_bits()) & mask == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            (a.to_bits() ^ b.to_bits()) & mask == 0
        }
        _ => false,
    };
    if equal { Match::Yes } else { Match::No }
}

fn port_matches((selector, mask): (u16, u16), port: Option<u16>) -> Match {
    match port {
        _ if mask == 0 => Match::Yes,
        Some(port) if (port ^ selector) & mask == 0 => Match::Yes,
        Some(_) => Match::No,
        None => Match::Maybe,
    }
}

fn address(family: u16, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn port(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

impl Direction {
    const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Forward => "fwd",
        }
    }
}

impl fmt::Display for XfrmPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((source, source_len), (destination, destination_len)) =
            (self.source, self.destination);
        write!(f, "src {source}/{source_len} dst {destination}/{destination_len}")?;
        match i32::from(self.protocol) {
            0 => {}
            libc::IPPROTO_UDP => write!(f, " proto udp")?,
            libc::IPPROTO_GRE => write!(f, " proto gre")?,
            other => write!(f, " proto {other}")?,
        }
        for (name, (port, mask)) in [("sport", self.source_port), ("dport", self.destination_port)]
        {
            match mask {
                0 => {}
                u16::MAX => write!(f, " {name} {port}")?,
                _ => write!(f, " {name} {port}/{mask:#06x}")?,
            }
        }
        write!(f, " dir {}", self.direction.name())?;
        if self.block {
            write!(f, " action block")?;
        }
        write!(f, " priority {}", self.priority)
    }
}
