//! The outer header as a template: built once per tunnel, patched per packet.

use core::net::{IpAddr, Ipv4Addr};

use network_types::{
    ip::{IpProto, Ipv4Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};

use super::{
    CHECKSUM, DESTINATION, ETHER_TYPE, ETHER_TYPE_IPV4, FRAGMENT, ID, IP, L4, PROTOCOL, SOURCE,
    TOS, TOTAL_LEN, TTL, UDP_LEN, UDP_SOURCE,
};
use crate::{
    abi::{TEMPLATE_LEN, TunnelKind},
    wire::{gre, ipv4, vxlan},
};

/// What is the same in every packet of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The next hop's MAC.
    pub destination_mac: [u8; 6],
    /// The uplink's MAC.
    pub source_mac: [u8; 6],
    /// This host's address.
    pub local: IpAddr,
    /// The other host's address, of the same family.
    pub remote: IpAddr,
    /// VNI or GRE key; not used without key.
    pub key: u32,
    /// UDP destination port in host byte order; not used for GRE.
    pub dst_port: u16,
    /// Don't Fragment; not used over IPv6.
    pub df: bool,
    /// The flow label, 20 bits, 0 where each flow has its own; not used over IPv4.
    pub flow_label: u32,
}

/// The template of a tunnel's outer header and, over IPv4, the IPv4 header's checksum seed
/// ([`ipv4::sum`] of the template).
///
/// # Panics
/// Where the addresses are not of the kind's family.
#[must_use]
pub fn template(kind: TunnelKind, outer: &Outer) -> ([u8; TEMPLATE_LEN], u32) {
    let mut header = [0; TEMPLATE_LEN];
    header[..6].copy_from_slice(&outer.destination_mac);
    header[6..12].copy_from_slice(&outer.source_mac);
    match (outer.local, outer.remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) if !kind.is_ipv6() => {
            write_template(&mut header, kind, outer, [local, remote]);
            let mut ip = [0; Ipv4Hdr::LEN];
            ip.copy_from_slice(&header[IP..L4]);
            (header, ipv4::sum(&ip))
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) if kind.is_ipv6() => {
            super::ipv6::write_template(&mut header, kind, outer, [local, remote]);
            (header, 0)
        }
        (local, remote) => panic!("{local} and {remote} are not addresses for {kind:?}"),
    }
}

/// Writes the template over IPv4, from the EtherType on.
fn write_template(
    header: &mut [u8; TEMPLATE_LEN],
    kind: TunnelKind,
    outer: &Outer,
    [local, remote]: [Ipv4Addr; 2],
) {
    header[ETHER_TYPE..ETHER_TYPE + 2].copy_from_slice(&ETHER_TYPE_IPV4);
    header[IP] = ipv4::VERSION_IHL;
    header[FRAGMENT] = if outer.df { ipv4::DF } else { 0 };
    header[SOURCE..SOURCE + 4].copy_from_slice(&local.octets());
    header[DESTINATION..DESTINATION + 4].copy_from_slice(&remote.octets());
    header[PROTOCOL] = if kind.is_vxlan() { IpProto::Udp as u8 } else { IpProto::Gre as u8 };
    write_tunnel(header, L4, kind, outer);
}

/// Writes the UDP and VXLAN headers, or GRE's, which begin at `l4`.
pub(super) fn write_tunnel(
    header: &mut [u8; TEMPLATE_LEN],
    l4: usize,
    kind: TunnelKind,
    outer: &Outer,
) {
    match kind {
        TunnelKind::VxlanIpv4 | TunnelKind::VxlanIpv6 => {
            let vxlan = l4 + UdpHdr::LEN;
            header[l4 + 2..l4 + 4].copy_from_slice(&outer.dst_port.to_be_bytes());
            header[vxlan..vxlan + VxlanHdr::LEN].copy_from_slice(&vxlan::encode(outer.key));
        }
        TunnelKind::GreIpv4 | TunnelKind::GreIpv6 => {
            header[l4..l4 + gre::LEN].copy_from_slice(&gre::encode());
        }
        TunnelKind::GreKeyIpv4 | TunnelKind::GreKeyIpv6 => {
            header[l4..l4 + gre::KEY_LEN].copy_from_slice(&gre::encode_key(outer.key));
        }
    }
}

/// What differs from packet to packet over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Length of the outer IPv4 packet, in bytes: [`super::total_len`].
    pub total_len: u16,
    /// Outer TOS byte.
    pub tos: u8,
    /// Outer TTL.
    pub ttl: u8,
    /// IPv4 identification.
    pub id: u16,
    /// UDP source port; not used for GRE.
    pub source_port: u16,
}

/// Completes a copy of the template at the beginning of `header`.
///
/// The UDP checksum stays zero: RFC 7348 §4.1 asks for that, and every IPv4 receiver accepts it.
#[inline(always)]
pub fn patch(header: &mut [u8; TEMPLATE_LEN], kind: TunnelKind, checksum_seed: u32, patch: &Patch) {
    let sum = checksum_seed
        + u32::from(patch.tos)
        + u32::from(patch.total_len)
        + u32::from(patch.id)
        + (u32::from(patch.ttl) << 8);
    header[TOS] = patch.tos;
    put(header, TOTAL_LEN, patch.total_len);
    put(header, ID, patch.id);
    header[TTL] = patch.ttl;
    put(header, CHECKSUM, ipv4::checksum(sum));
    if matches!(kind, TunnelKind::VxlanIpv4) {
        put(header, UDP_SOURCE, patch.source_port);
        put(header, UDP_LEN, patch.total_len - Ipv4Hdr::LEN as u16);
    }
}

/// The UDP source port for a flow hash, as the kernel's `udp_flow_src_port` picks it, so that a flow
/// keeps its port, and with it its path and its receive queue, whichever path it takes.
#[inline(always)]
#[must_use]
pub const fn source_port(hash: u32, min: u16, span: u16) -> u16 {
    let hash = hash ^ (hash << 16);
    min + ((hash as u64 * span as u64) >> 32) as u16
}

#[inline(always)]
fn put(header: &mut [u8; TEMPLATE_LEN], at: usize, value: u16) {
    header[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
