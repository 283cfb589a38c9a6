//! Tunnel packets that nobody on this host wants: what the filter on an uplink discards.
//!
//! A packet is judged only where it goes to an address and port that accelerated tunnels have for
//! themselves ([`GuardKind::Endpoint`]). Called malformed is what the kernel would drop too, whoever
//! the tunnel's device were; what can't be told from the first bytes is not judged.

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};

use crate::{
    Reason,
    abi::{GuardKey, GuardKind},
    wire::{gre, ipv4, vxlan},
};

/// Bytes that the filter looks at first of IPv4: a shorter frame is not judged.
pub const START_LEN: usize = EthHdr::LEN + Ipv4Hdr::LEN + UdpHdr::LEN;
/// The same of IPv6.
pub const START_LEN_IPV6: usize = EthHdr::LEN + Ipv6Hdr::LEN + UdpHdr::LEN;

/// EtherType of IPv4.
pub const IPV4: [u8; 2] = [0x08, 0x00];
/// EtherType of IPv6.
pub const IPV6: [u8; 2] = [0x86, 0xdd];

const IP: usize = EthHdr::LEN;
const UDP: u8 = IpProto::Udp as u8;
const GRE: u8 = IpProto::Gre as u8;

/// Where UDP or GRE begins, counted from the Ethernet header, in bytes.
const fn l4(ipv6: bool) -> usize {
    IP + if ipv6 { Ipv6Hdr::LEN } else { Ipv4Hdr::LEN }
}

/// Where the VXLAN header is, counted from the Ethernet header, in bytes.
#[must_use]
pub const fn vxlan_at(ipv6: bool) -> usize {
    l4(ipv6) + UdpHdr::LEN
}

/// Where the key of a GRE header is.
#[must_use]
pub const fn gre_key_at(ipv6: bool, behind_checksum: bool) -> usize {
    l4(ipv6) + gre::LEN + if behind_checksum { 4 } else { 0 }
}

/// A packet that may be a tunnel's, by the first bytes of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The endpoint that it goes to.
    pub endpoint: GuardKey,
    /// The address that it says to come from.
    pub source: [u8; 16],
    /// GRE: it has a checksum.
    pub has_checksum: bool,
    /// GRE: it has a key.
    pub has_key: bool,
    /// GRE: it has a sequence number.
    has_sequence: bool,
}

/// Reads the beginning of a frame of IPv4 or IPv6 to this host: as many bytes as [`START_LEN`] or
/// [`START_LEN_IPV6`] says, and the EtherType is looked at already.
///
/// `None` of every frame that is not judged: IP options or extension headers, a fragment, neither UDP nor
/// GRE (version 0) with an Ethernet frame within.
#[inline(always)]
#[must_use]
pub fn suspect<const IPV6: bool>(start: &[u8]) -> Option<Suspect> {
    let protocol = if IPV6 { start[IP + 6] } else { start[IP + 9] };
    let is_plain = if IPV6 {
        start[IP] >> 4 == 6
    } else {
        start[IP] == ipv4::VERSION_IHL && !ipv4::is_fragment([start[IP + 6], start[IP + 7]])
    };
    if !is_plain || (protocol != UDP && protocol != GRE) {
        return None;
    }
    let l4 = l4(IPV6);
    let [flags, version, p0, p1] = [start[l4], start[l4 + 1], start[l4 + 2], start[l4 + 3]];
    let is_gre = protocol == GRE;
    if is_gre && (version & gre::VERSION != 0 || [p0, p1] != gre::PROTOCOL) {
        return None;
    }
    let (source, destination) = if IPV6 {
        (address(start, IP + 8), address(start, IP + 24))
    } else {
        (mapped(start, IP + 12), mapped(start, IP + 16))
    };
    Some(Suspect {
        endpoint: GuardKey {
            address: destination,
            key: [0; 4],
            // UDP's destination is where GRE has its protocol.
            dst_port: if is_gre { [0; 2] } else { [p0, p1] },
            protocol,
            kind: GuardKind::Endpoint as u8,
        },
        source,
        has_checksum: is_gre && flags & gre::CHECKSUM_PRESENT != 0,
        has_key: is_gre && flags & gre::KEY_PRESENT != 0,
        has_sequence: is_gre && flags & gre::SEQUENCE_PRESENT != 0,
    })
}

impl Suspect {
    /// Whether it is VXLAN; else it is GRE.
    #[inline(always)]
    #[must_use]
    pub fn is_vxlan(&self) -> bool {
        self.endpoint.protocol == UDP
    }

    /// Checks what the kernel checks before it asks for a tunnel; `frame_len` is the whole frame's
    /// length with the Ethernet header and any padding, in bytes.
    ///
    /// # Errors
    /// [`Reason::Malformed`].
    #[inline(always)]
    pub fn check<const IPV6: bool>(&self, start: &[u8], frame_len: u32) -> Result<(), Reason> {
        let l4 = l4(IPV6);
        let word = |at: usize| u32::from(u16::from_be_bytes([start[at], start[at + 1]]));
        // What is behind the IP header by its own word (`ip_rcv_core`, `ip6_rcv_core`), and by UDP's
        // (`__udp4_lib_rcv`, `__udp6_lib_rcv`): what is behind the datagram's end is cut off. A tunnel
        // needs an Ethernet header behind its own (`vxlan_rcv`, `ip_tunnel_rcv`, `__ip6_tnl_rcv`).
        let least = self.header_len() + EthHdr::LEN as u32;
        let payload_len = if IPV6 {
            word(IP + 4)
        } else {
            let mut ip = [0; Ipv4Hdr::LEN];
            ip.copy_from_slice(&start[IP..l4]);
            if !ipv4::checksum_holds(&ip) {
                return Err(Reason::Malformed);
            }
            word(IP + 2).checked_sub(Ipv4Hdr::LEN as u32).ok_or(Reason::Malformed)?
        };
        if payload_len + l4 as u32 > frame_len || payload_len < least {
            return Err(Reason::Malformed);
        }
        if self.is_vxlan() {
            let udp_len = match word(l4 + 4) {
                // As long as there is (RFC 2675 §4).
                0 if IPV6 => payload_len,
                len => len,
            };
            if udp_len > payload_len || udp_len < least {
                return Err(Reason::Malformed);
            }
        } else if start[l4] & gre::ROUTING_PRESENT != 0 {
            // `gre_parse_header`.
            return Err(Reason::Malformed);
        }
        Ok(())
    }

    /// Bytes between the IP header and the inner frame.
    #[inline(always)]
    fn header_len(&self) -> u32 {
        if self.is_vxlan() {
            return (UdpHdr::LEN + VxlanHdr::LEN) as u32;
        }
        let optional = |present| if present { 4 } else { 0 };
        gre::LEN as u32
            + optional(self.has_checksum)
            + optional(self.has_key)
            + optional(self.has_sequence)
    }

    /// The VNI of the header at [`vxlan_at`], as a key.
    ///
    /// # Errors
    /// [`Reason::Malformed`] without the I flag or with a reserved bit: all tunnels of a guarded
    /// endpoint are without extensions (`vxlan_rcv`).
    #[inline(always)]
    pub fn vni(&self, header: [u8; VxlanHdr::LEN]) -> Result<[u8; 4], Reason> {
        vxlan::accept(header).map_err(|_| Reason::Malformed)
    }

    /// What must be in the set for a packet with this key.
    #[inline(always)]
    #[must_use]
    pub fn way(&self, key: [u8; 4]) -> GuardKey {
        GuardKey { address: self.source, key, kind: GuardKind::Way as u8, ..self.endpoint }
    }

    /// What is in the set where the packet's source is any tunnel's remote.
    #[inline(always)]
    #[must_use]
    pub fn remote(&self) -> GuardKey {
        GuardKey { address: self.source, kind: GuardKind::Remote as u8, ..self.endpoint }
    }
}

/// An IPv4 address as [`GuardKey::address`] has it.
#[inline(always)]
fn mapped(start: &[u8], at: usize) -> [u8; 16] {
    let [a, b, c, d] = [start[at], start[at + 1], start[at + 2], start[at + 3]];
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[inline(always)]
fn address(start: &[u8], at: usize) -> [u8; 16] {
    let mut address = [0; 16];
    address.copy_from_slice(&start[at..at + 16]);
    address
}
