//! Tunnel packets that nobody on this host wants: what the filter on an uplink discards.
//!
//! A packet is judged only where it goes to an address and port that accelerated tunnels have for
//! themselves ([`GuardKind::Endpoint`]). Called malformed is what the kernel would drop too, whoever
//! the tunnel's device were; what can't be told from the first bytes is not judged.

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};

use crate::{
    Reason,
    abi::{GuardKey, GuardKind},
    wire::{gre, ipv4, vxlan},
};

/// Bytes that the filter looks at first: a shorter frame is not judged.
pub const START_LEN: usize = EthHdr::LEN + Ipv4Hdr::LEN + UdpHdr::LEN;

const ETHER_TYPE: usize = 12;
const IP: usize = EthHdr::LEN;
const TOTAL_LEN: usize = IP + 2;
const FRAGMENT: usize = IP + 6;
const PROTOCOL: usize = IP + 9;
const SOURCE: usize = IP + 12;
const DESTINATION: usize = IP + 16;
const L4: usize = IP + Ipv4Hdr::LEN;
const UDP_DESTINATION: usize = L4 + 2;
const UDP_LEN: usize = L4 + 4;
const UDP: u8 = IpProto::Udp as u8;
const GRE: u8 = IpProto::Gre as u8;

/// Where the VXLAN header is, counted from the Ethernet header, in bytes.
pub const VXLAN: usize = L4 + UdpHdr::LEN;
/// Where the key of a GRE header without checksum is.
pub const GRE_KEY: usize = L4 + gre::LEN;
/// Where the key of a GRE header with checksum is.
pub const GRE_KEY_BEHIND_CHECKSUM: usize = GRE_KEY + 4;

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

/// Reads the beginning of a frame to this host.
///
/// `None` of every frame that is not judged: no IPv4, IP options, a fragment, neither UDP nor GRE
/// (version 0) with an Ethernet frame within.
#[inline(always)]
#[must_use]
pub fn suspect(start: &[u8; START_LEN]) -> Option<Suspect> {
    let protocol = start[PROTOCOL];
    if [start[ETHER_TYPE], start[ETHER_TYPE + 1]] != [0x08, 0x00]
        || start[IP] != ipv4::VERSION_IHL
        || (protocol != UDP && protocol != GRE)
        || ipv4::is_fragment([start[FRAGMENT], start[FRAGMENT + 1]])
    {
        return None;
    }
    let [flags, version, p0, p1] = [start[L4], start[L4 + 1], start[L4 + 2], start[L4 + 3]];
    let is_gre = protocol == GRE;
    if is_gre && (version & gre::VERSION != 0 || [p0, p1] != gre::PROTOCOL) {
        return None;
    }
    let dst_port = match is_gre {
        true => [0; 2],
        false => [start[UDP_DESTINATION], start[UDP_DESTINATION + 1]],
    };
    Some(Suspect {
        endpoint: GuardKey {
            address: mapped(start, DESTINATION),
            key: [0; 4],
            dst_port,
            protocol,
            kind: GuardKind::Endpoint as u8,
        },
        source: mapped(start, SOURCE),
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
    pub fn check(&self, start: &[u8; START_LEN], frame_len: u32) -> Result<(), Reason> {
        let mut ip = [0; Ipv4Hdr::LEN];
        ip.copy_from_slice(&start[IP..L4]);
        let total_len = u32::from(u16::from_be_bytes([start[TOTAL_LEN], start[TOTAL_LEN + 1]]));
        // `ip_rcv_core`. A tunnel needs an Ethernet header behind its own (`vxlan_rcv`,
        // `ip_tunnel_rcv`).
        let least = Ipv4Hdr::LEN as u32 + self.header_len() + EthHdr::LEN as u32;
        if total_len + EthHdr::LEN as u32 > frame_len
            || total_len < least
            || !ipv4::checksum_holds(&ip)
        {
            return Err(Reason::Malformed);
        }
        if self.is_vxlan() {
            // `__udp4_lib_rcv`: what is behind the datagram's end is cut off.
            let udp_len = u32::from(u16::from_be_bytes([start[UDP_LEN], start[UDP_LEN + 1]]));
            let udp_end = udp_len + Ipv4Hdr::LEN as u32;
            if udp_end > total_len || udp_end < least {
                return Err(Reason::Malformed);
            }
        } else if start[L4] & gre::ROUTING_PRESENT != 0 {
            // `gre_parse_header`.
            return Err(Reason::Malformed);
        }
        Ok(())
    }

    /// Bytes between the IPv4 header and the inner frame.
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

    /// The VNI of the header at [`VXLAN`], as a key.
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
fn mapped(start: &[u8; START_LEN], at: usize) -> [u8; 16] {
    let [a, b, c, d] = [start[at], start[at + 1], start[at + 2], start[at + 3]];
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
