//! The outer headers over IPv6. IPv6 without extension headers (40 bytes) follows Ethernet (14):
//!
//! ```text
//! 0          14                 18  20   21   22   38   54    56    58   60     62
//! | Ethernet |ver|class|label   |len|next|hops|src |dst |sport|dport|len |check |VXLAN
//!                                                       |GRE        |GRE key    |
//! ```

use core::net::Ipv6Addr;

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv6Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};

use super::{
    ETHER_TYPE,
    template::{Outer, write_tunnel},
};
use crate::{
    Reason,
    abi::{TEMPLATE_LEN, TunnelIndexKey6, TunnelKind, VXLAN_PORTS},
    wire::{gre, ipv6, vxlan},
};

const ETHER_TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const IP: usize = EthHdr::LEN;
const PAYLOAD_LEN: usize = IP + 4;
const NEXT_HEADER: usize = IP + 6;
const HOP_LIMIT: usize = IP + 7;
const SOURCE: usize = IP + 8;
const DESTINATION: usize = IP + 24;
const L4: usize = IP + Ipv6Hdr::LEN;
const UDP_SOURCE: usize = L4;
const UDP_DESTINATION: usize = L4 + 2;
const UDP_LEN: usize = L4 + 4;
const VXLAN: usize = L4 + UdpHdr::LEN;

const UDP: u8 = IpProto::Udp as u8;
const GRE: u8 = IpProto::Gre as u8;

/// Bytes that [`classify_ipv6`] looks at: up to the end of a UDP header. A shorter packet is no
/// tunnel's.
pub const CLASSIFY_LEN_IPV6: usize = L4 + UdpHdr::LEN;

/// Whether a frame's first bytes say that IPv6 follows.
#[inline(always)]
#[must_use]
pub const fn is_ipv6<const N: usize>(start: &[u8; N]) -> bool {
    start[ETHER_TYPE] == ETHER_TYPE_IPV6[0] && start[ETHER_TYPE + 1] == ETHER_TYPE_IPV6[1]
}

/// [`super::classify`] of a frame that [`is_ipv6`].
///
/// # Errors
/// [`Reason::NotTunnel`]; of UDP and GRE packets also [`Reason::OuterFragment`] and
/// [`Reason::OuterMalformed`] (extension headers), [`Reason::TunnelFlags`] (GRE).
#[inline(always)]
pub fn classify_ipv6(
    start: &[u8; CLASSIFY_LEN_IPV6],
    vxlan_ports: &[u16; VXLAN_PORTS],
) -> Result<TunnelKind, Reason> {
    const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    const ROUTING: u8 = IpProto::Ipv6Route as u8;
    const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
    match start[NEXT_HEADER] {
        UDP => {
            let port = u16::from_ne_bytes([start[UDP_DESTINATION], start[UDP_DESTINATION + 1]]);
            if vxlan_ports.contains(&port) {
                Ok(TunnelKind::VxlanIpv6)
            } else {
                Err(Reason::NotTunnel)
            }
        }
        GRE => Ok(match gre::accept([start[L4], start[L4 + 1], start[L4 + 2], start[L4 + 3]])? {
            true => TunnelKind::GreKeyIpv6,
            false => TunnelKind::GreIpv6,
        }),
        // Every extension header begins with what follows it. What is behind two of them goes the
        // kernel's way under another name.
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS if is_tunnel_protocol(start[L4]) => {
            Err(Reason::OuterMalformed)
        }
        FRAGMENT if is_tunnel_protocol(start[L4]) => Err(Reason::OuterFragment),
        _ => Err(Reason::NotTunnel),
    }
}

const fn is_tunnel_protocol(protocol: u8) -> bool {
    protocol == UDP || protocol == GRE
}

/// What is needed of accepted outer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedIpv6 {
    /// What identifies the tunnel.
    pub key: TunnelIndexKey6,
    /// The outer traffic class.
    pub tos: u8,
}

/// Accepts the outer headers of a packet classified as VXLAN over IPv6. `frame_len` is the whole frame's
/// length with the Ethernet header, in bytes.
///
/// # Errors
/// [`Reason::OuterMalformed`], [`Reason::TunnelFlags`].
#[inline(always)]
pub fn accept_vxlan_ipv6(
    header: &[u8; TunnelKind::VxlanIpv6.header_len()],
    frame_len: u32,
) -> Result<AcceptedIpv6, Reason> {
    let payload_len = accept_ip(header, frame_len)?;
    if [header[UDP_LEN], header[UDP_LEN + 1]] != payload_len {
        return Err(Reason::OuterMalformed);
    }
    let mut vxlan_header = [0; VxlanHdr::LEN];
    vxlan_header.copy_from_slice(&header[VXLAN..VXLAN + VxlanHdr::LEN]);
    let key = vxlan::accept(vxlan_header)?;
    let dst_port = [header[UDP_DESTINATION], header[UDP_DESTINATION + 1]];
    Ok(accepted(header, TunnelKind::VxlanIpv6, key, dst_port))
}

/// Accepts the outer headers of a packet classified as GRE over IPv6, with or without key; the key's
/// place is not looked at where there is none.
///
/// # Errors
/// [`Reason::OuterMalformed`].
#[inline(always)]
pub fn accept_gre_ipv6(
    kind: TunnelKind,
    header: &[u8; TunnelKind::GreKeyIpv6.header_len()],
    frame_len: u32,
) -> Result<AcceptedIpv6, Reason> {
    accept_ip(header, frame_len)?;
    let key = if matches!(kind, TunnelKind::GreKeyIpv6) {
        [header[L4 + 4], header[L4 + 5], header[L4 + 6], header[L4 + 7]]
    } else {
        [0; 4]
    };
    Ok(accepted(header, kind, key, [0; 2]))
}

/// Accepts the IPv6 header as the kernel's `ip6_rcv_core` would, less padding behind the packet, which
/// is left to it. Gives the payload length as it is in the header.
#[inline(always)]
fn accept_ip<const N: usize>(header: &[u8; N], frame_len: u32) -> Result<[u8; 2], Reason> {
    let payload_len = [header[PAYLOAD_LEN], header[PAYLOAD_LEN + 1]];
    let packet_len = u32::from(u16::from_be_bytes(payload_len)) + L4 as u32;
    if header[IP] >> 4 != 6 || packet_len != frame_len {
        return Err(Reason::OuterMalformed);
    }
    Ok(payload_len)
}

#[inline(always)]
fn accepted<const N: usize>(
    header: &[u8; N],
    kind: TunnelKind,
    key: [u8; 4],
    dst_port: [u8; 2],
) -> AcceptedIpv6 {
    let mut accepted = AcceptedIpv6 {
        key: TunnelIndexKey6 {
            remote: [0; 16],
            local: [0; 16],
            key,
            dst_port,
            kind: kind as u8,
            reserved: 0,
        },
        tos: (header[IP] << 4) | (header[IP + 1] >> 4),
    };
    accepted.key.remote.copy_from_slice(&header[SOURCE..SOURCE + 16]);
    accepted.key.local.copy_from_slice(&header[DESTINATION..DESTINATION + 16]);
    accepted
}

/// Writes what [`super::template`] says, from the EtherType on; the addresses come in the order of the
/// header.
pub(super) fn write_template(
    header: &mut [u8; TEMPLATE_LEN],
    kind: TunnelKind,
    outer: &Outer,
    [local, remote]: [Ipv6Addr; 2],
) {
    header[ETHER_TYPE..ETHER_TYPE + 2].copy_from_slice(&ETHER_TYPE_IPV6);
    let start = 0x6000_0000 | (outer.flow_label & ipv6::FLOW_LABEL);
    header[IP..IP + 4].copy_from_slice(&start.to_be_bytes());
    header[NEXT_HEADER] = if kind.is_vxlan() { UDP } else { GRE };
    header[SOURCE..SOURCE + 16].copy_from_slice(&local.octets());
    header[DESTINATION..DESTINATION + 16].copy_from_slice(&remote.octets());
    write_tunnel(header, L4, kind, outer);
}

/// What differs from packet to packet over IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchIpv6 {
    /// Length of what follows the IPv6 header, in bytes: [`payload_len`].
    pub payload_len: u16,
    /// Outer traffic class.
    pub tos: u8,
    /// Outer hop limit.
    pub ttl: u8,
    /// The flow's label in its place in four bytes ([`ipv6::flow_label`]); zero leaves the template's.
    pub flow_label: [u8; 4],
    /// UDP source port; not used for GRE.
    pub source_port: u16,
}

/// The outer IPv6 packet's payload length for an inner frame, in bytes; more than 65,535 does not fit.
#[inline(always)]
#[must_use]
pub const fn payload_len(kind: TunnelKind, frame_len: u32) -> u32 {
    (kind.header_len() - L4) as u32 + frame_len
}

/// Completes a copy of the template at the beginning of `header`.
///
/// The UDP checksum stays zero: only tunnels whose both ends are configured for that are given here
/// (RFC 6935, RFC 6936).
#[inline(always)]
pub fn patch_ipv6<const N: usize>(header: &mut [u8; N], kind: TunnelKind, patch: &PatchIpv6) {
    const { assert!(N >= TEMPLATE_LEN) };
    let [_, a, b, c] = patch.flow_label;
    header[IP] = 0x60 | (patch.tos >> 4);
    header[IP + 1] |= (patch.tos << 4) | a;
    header[IP + 2] |= b;
    header[IP + 3] |= c;
    let payload_len = patch.payload_len.to_be_bytes();
    header[PAYLOAD_LEN..PAYLOAD_LEN + 2].copy_from_slice(&payload_len);
    header[HOP_LIMIT] = patch.ttl;
    if kind.is_vxlan() {
        header[UDP_SOURCE..UDP_SOURCE + 2].copy_from_slice(&patch.source_port.to_be_bytes());
        header[UDP_LEN..UDP_LEN + 2].copy_from_slice(&payload_len);
    }
}
