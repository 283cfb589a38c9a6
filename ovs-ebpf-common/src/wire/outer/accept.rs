//! Which packets are a tunnel's, and which of those the fast path may take apart.

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};

use super::{
    DESTINATION, ETHER_TYPE, ETHER_TYPE_IPV4, FRAGMENT, IP, L4, PROTOCOL, SOURCE, TOS, TOTAL_LEN,
    UDP_DESTINATION, UDP_LEN, VXLAN,
};
use crate::{
    Reason,
    abi::{TunnelIndexKey, TunnelKind, VXLAN_PORTS},
    wire::{gre, ipv4, vxlan},
};

/// Bytes that [`classify`] looks at: up to the end of a UDP header. A shorter packet is no tunnel's.
pub const CLASSIFY_LEN: usize = L4 + UdpHdr::LEN;

/// Tells tunnel packets from all others by the first [`CLASSIFY_LEN`] bytes of the frame: the only
/// work done on most of a host's packets.
///
/// `vxlan_ports` are UDP destination ports in network byte order.
///
/// # Errors
/// [`Reason::NotTunnel`]; of GRE packets, and of UDP packets with one of the ports, also
/// [`Reason::OuterFragment`] and [`Reason::OuterMalformed`] (IP options), [`Reason::TunnelFlags`] (GRE).
#[inline(always)]
pub fn classify(
    start: &[u8; CLASSIFY_LEN],
    vxlan_ports: &[u16; VXLAN_PORTS],
) -> Result<TunnelKind, Reason> {
    const UDP: u8 = IpProto::Udp as u8;
    const GRE: u8 = IpProto::Gre as u8;
    if [start[ETHER_TYPE], start[ETHER_TYPE + 1]] != ETHER_TYPE_IPV4 {
        return Err(Reason::NotTunnel);
    }
    let protocol = start[PROTOCOL];
    let port = u16::from_ne_bytes([start[UDP_DESTINATION], start[UDP_DESTINATION + 1]]);
    // What most of a host's packets fail comes first. Behind IP options, and in fragments but the first,
    // there is something else in the port's place: those are the kernel's either way.
    if protocol != GRE && (protocol != UDP || !vxlan_ports.contains(&port)) {
        return Err(Reason::NotTunnel);
    }
    if ipv4::is_fragment([start[FRAGMENT], start[FRAGMENT + 1]]) {
        return Err(Reason::OuterFragment);
    }
    if start[IP] != ipv4::VERSION_IHL {
        return Err(Reason::OuterMalformed);
    }
    if protocol == UDP {
        return Ok(TunnelKind::VxlanIpv4);
    }
    Ok(match gre::accept([start[L4], start[L4 + 1], start[L4 + 2], start[L4 + 3]])? {
        true => TunnelKind::GreKeyIpv4,
        false => TunnelKind::GreIpv4,
    })
}

/// What is needed of accepted outer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What identifies the tunnel.
    pub key: TunnelIndexKey,
    /// The outer TOS byte.
    pub tos: u8,
}

/// Accepts the outer headers of a packet classified as VXLAN. `frame_len` is the whole frame's length
/// with the Ethernet header, in bytes.
///
/// # Errors
/// [`Reason::OuterMalformed`], [`Reason::TunnelFlags`].
#[inline(always)]
pub fn accept_vxlan(
    header: &[u8; TunnelKind::VxlanIpv4.header_len()],
    frame_len: u32,
) -> Result<Accepted, Reason> {
    let total_len = accept_ipv4(header, frame_len)?;
    let udp_len = u16::from_be_bytes([header[UDP_LEN], header[UDP_LEN + 1]]);
    if u32::from(udp_len) + Ipv4Hdr::LEN as u32 != u32::from(total_len) {
        return Err(Reason::OuterMalformed);
    }
    let mut vxlan_header = [0; VxlanHdr::LEN];
    vxlan_header.copy_from_slice(&header[VXLAN..VXLAN + VxlanHdr::LEN]);
    let key = vxlan::accept(vxlan_header)?;
    let dst_port = [header[UDP_DESTINATION], header[UDP_DESTINATION + 1]];
    Ok(accepted(header, TunnelKind::VxlanIpv4, key, dst_port))
}

/// Accepts the outer headers of a packet classified as GRE, with or without key; the key's place is
/// not looked at where there is none.
///
/// # Errors
/// [`Reason::OuterMalformed`].
#[inline(always)]
pub fn accept_gre(
    kind: TunnelKind,
    header: &[u8; TunnelKind::GreKeyIpv4.header_len()],
    frame_len: u32,
) -> Result<Accepted, Reason> {
    accept_ipv4(header, frame_len)?;
    let key = match kind {
        TunnelKind::GreKeyIpv4 => [header[L4 + 4], header[L4 + 5], header[L4 + 6], header[L4 + 7]],
        _ => [0; 4],
    };
    Ok(accepted(header, kind, key, [0; 2]))
}

/// Accepts the IPv4 header as the kernel's `ip_rcv_core` would, less padding behind the packet, which
/// is left to it. Gives the total length.
#[inline(always)]
fn accept_ipv4<const N: usize>(header: &[u8; N], frame_len: u32) -> Result<u16, Reason> {
    let mut ip = [0; Ipv4Hdr::LEN];
    ip.copy_from_slice(&header[IP..L4]);
    let total_len = u16::from_be_bytes([header[TOTAL_LEN], header[TOTAL_LEN + 1]]);
    if u32::from(total_len) + EthHdr::LEN as u32 != frame_len || !ipv4::checksum_holds(&ip) {
        return Err(Reason::OuterMalformed);
    }
    Ok(total_len)
}

#[inline(always)]
fn accepted<const N: usize>(
    header: &[u8; N],
    kind: TunnelKind,
    key: [u8; 4],
    dst_port: [u8; 2],
) -> Accepted {
    let address = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
    Accepted {
        key: TunnelIndexKey {
            remote: address(SOURCE),
            local: address(DESTINATION),
            key,
            dst_port,
            kind: kind as u8,
            reserved: 0,
        },
        tos: header[TOS],
    }
}
