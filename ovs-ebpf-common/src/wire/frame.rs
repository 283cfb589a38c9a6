//! The overlay's Ethernet frame: as much of it as forwarding needs.

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};

use crate::{Reason, wire::vlan};

/// Bytes that a frame must have for the fast path: Ethernet and an IPv4 header without options.
pub const MIN_LEN: usize = EthHdr::LEN + Ipv4Hdr::LEN;
/// Bytes that an IPv6 frame must have: all of its fixed header. The kernel's tunnels drop what is
/// shorter (`skb_vlan_inet_prepare`, `pskb_inet_may_pull`), its bridges pass it on.
const MIN_LEN_IPV6: u32 = (EthHdr::LEN + Ipv6Hdr::LEN) as u32;

/// The network protocol of a frame the fast path forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// EtherType 0x0800.
    Ipv4,
    /// EtherType 0x86dd.
    Ipv6,
}

/// Where a frame says what it carries, in bytes.
pub const ETHER_TYPE: usize = 12;

/// The first [`MIN_LEN`] bytes of a frame.
pub type Head = [u8; MIN_LEN];

/// What forwarding reads of a frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// IPv4 or IPv6.
    pub network: Network,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IP protocol, or the first IPv6 next header.
    pub transport: u8,
    /// Where that begins, counted from the Ethernet header, in bytes.
    pub transport_offset: u8,
}

impl Frame {
    /// Whether the IPv6 header is followed by hop-by-hop options, routing, authentication or destination
    /// options: where a tunnel encapsulation limit may stand, or stand behind (RFC 2473 §4.1.1).
    #[inline(always)]
    #[must_use]
    pub const fn has_ipv6_options(&self) -> bool {
        const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
        const ROUTING: u8 = IpProto::Ipv6Route as u8;
        const AUTHENTICATION: u8 = IpProto::Ah as u8;
        const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
        matches!(self.network, Network::Ipv6)
            && matches!(self.transport, HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS)
    }
}

/// Reads the head of a frame whose VLAN tag, if it had one, is taken out; `frame_len` bytes long with
/// its Ethernet header.
///
/// # Errors
/// [`Reason::Multicast`], [`Reason::VlanStacked`], [`Reason::NotIp`], [`Reason::Truncated`].
#[inline(always)]
pub const fn parse(head: &Head, frame_len: u32) -> Result<Frame, Reason> {
    if head[0] & 1 != 0 {
        return Err(Reason::Multicast);
    }
    let (network, tos, ttl, transport, ip_len) =
        match u16::from_be_bytes([head[ETHER_TYPE], head[ETHER_TYPE + 1]]) {
            0x0800 => (Network::Ipv4, head[15], head[22], head[23], (head[14] & 0x0f) * 4),
            0x86dd if frame_len < MIN_LEN_IPV6 => return Err(Reason::Truncated),
            0x86dd => (Network::Ipv6, (head[14] << 4) | (head[15] >> 4), head[21], head[20], 40),
            other if vlan::is_tag(other) => return Err(Reason::VlanStacked),
            _ => return Err(Reason::NotIp),
        };
    Ok(Frame { network, tos, ttl, transport, transport_offset: EthHdr::LEN as u8 + ip_len })
}
