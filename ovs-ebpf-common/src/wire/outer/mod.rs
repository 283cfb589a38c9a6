//! The outer headers of a tunnel packet: [`template`](template()) and [`patch`] write them,
//! [`classify`], [`accept_vxlan`] and [`accept_gre`] read them. Each has its like for IPv6.
//!
//! Over IPv4, Ethernet (14 bytes) and IPv4 without options (20) come first for every kind, so that the
//! offsets are constants:
//!
//! ```text
//! 0          14   15   16      18 20    22   23    24     26  30   34    36    38   40     42
//! | Ethernet |vihl|tos |tot_len|id|frag |ttl |proto|check |src|dst |sport|dport|len |check |VXLAN
//!                                                                |GRE        |GRE key    |
//! ```

mod accept;
mod ipv6;
mod template;

use network_types::{eth::EthHdr, ip::Ipv4Hdr, udp::UdpHdr};

use super::frame::ETHER_TYPE;
use crate::abi::TunnelKind;

pub use accept::{Accepted, CLASSIFY_LEN, accept_gre, accept_vxlan, classify};
pub use ipv6::{
    AcceptedIpv6, CLASSIFY_LEN_IPV6, PatchIpv6, accept_gre_ipv6, accept_vxlan_ipv6, classify_ipv6,
    is_ipv6, patch_ipv6, payload_len,
};
pub use template::{Outer, Patch, patch, source_port, template};

const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const IP: usize = EthHdr::LEN;
const TOS: usize = IP + 1;
const TOTAL_LEN: usize = IP + 2;
const ID: usize = IP + 4;
const FRAGMENT: usize = IP + 6;
const TTL: usize = IP + 8;
const PROTOCOL: usize = IP + 9;
const CHECKSUM: usize = IP + 10;
const SOURCE: usize = IP + 12;
const DESTINATION: usize = IP + 16;
const L4: usize = IP + Ipv4Hdr::LEN;
const UDP_SOURCE: usize = L4;
const UDP_DESTINATION: usize = L4 + 2;
const UDP_LEN: usize = L4 + 4;
const VXLAN: usize = L4 + UdpHdr::LEN;

/// The outer IPv4 packet's length for an inner frame, in bytes, given a kind over IPv4; more than 65,535 does not fit.
#[inline(always)]
#[must_use]
pub const fn total_len(kind: TunnelKind, frame_len: u32) -> u32 {
    (kind.header_len() - EthHdr::LEN) as u32 + frame_len
}
