//! Who a frame says that it is from: what port security holds against what is the port's own.
//!
//! Beside the source MAC and the source address that is whom ARP (RFC 826) and neighbour discovery
//! (RFC 4861) speak for, since their receivers believe it. What can't be told is not let through: a
//! receiver might read it.

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};

use crate::{Reason, wire::vlan};

/// A frame to read, without the VLAN tag that reception takes out.
pub trait Bytes {
    /// `N` bytes from `offset` on; `None` where the frame ends before.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// What is a port's own.
pub trait Own {
    /// Whether the port may speak for a MAC.
    fn mac(&self, mac: [u8; 6]) -> bool;
    /// Whether the port may speak for an IPv4 address.
    fn ipv4(&self, address: [u8; 4]) -> bool;
    /// Whether the port may speak for an IPv6 address.
    fn ipv6(&self, address: [u8; 16]) -> bool;
}

const HIDDEN: Reason = Reason::SenderHidden;
const IP: usize = EthHdr::LEN;
/// Headers between IPv6's and what is to be found: more than anybody sends.
const EXTENSIONS: usize = 6;
/// Options of a message of neighbour discovery: more than anybody sends.
const OPTIONS: usize = 16;

/// Holds a frame's senders against what is the port's own. A kind of address that the port is not
/// limited in is always its own.
///
/// # Errors
/// [`Reason::SpoofedMac`], [`Reason::SpoofedIp`], [`Reason::SenderHidden`].
#[inline(always)]
pub fn check(frame: &impl Bytes, own: &impl Own) -> Result<(), Reason> {
    let ethernet: [u8; EthHdr::LEN] = frame.load(0).ok_or(HIDDEN)?;
    check_mac(own, some(&ethernet, 6))?;
    match u16::from_be_bytes(some(&ethernet, 12)) {
        0x0800 => ipv4(frame, own),
        0x86dd => ipv6(frame, own),
        // RARP has ARP's form (RFC 903).
        0x0806 | 0x8035 => arp(frame, own),
        other if vlan::is_tag(other) => Err(HIDDEN),
        _ => Ok(()),
    }
}

#[inline(always)]
fn arp(frame: &impl Bytes, own: &impl Own) -> Result<(), Reason> {
    // Hardware, protocol, their lengths, operation; sender and target.
    let arp: [u8; 28] = frame.load(IP).ok_or(HIDDEN)?;
    if some::<6>(&arp, 0) != [0, 1, 0x08, 0x00, 6, 4] {
        return Err(HIDDEN);
    }
    check_mac(own, some(&arp, 8))?;
    // A probe, before an address is taken, has none (RFC 5227 §1.1).
    match some(&arp, 14) {
        [0, 0, 0, 0] => Ok(()),
        sender => check_ipv4(own, sender),
    }
}

#[inline(always)]
fn ipv4(frame: &impl Bytes, own: &impl Own) -> Result<(), Reason> {
    let ip: [u8; Ipv4Hdr::LEN] = frame.load(IP).ok_or(HIDDEN)?;
    let source = some(&ip, 12);
    if ip[0] >> 4 != 4 {
        return Err(HIDDEN);
    }
    if source == [0; 4] && asks_for_address(frame, &ip) {
        return Ok(());
    }
    check_ipv4(own, source)
}

/// Whether a packet of nobody's is a DHCP client's (RFC 2131 §4.1): whole, without options, from port 68
/// to port 67 of everybody.
#[inline(always)]
fn asks_for_address(frame: &impl Bytes, ip: &[u8; Ipv4Hdr::LEN]) -> bool {
    ip[0] == 0x45
        && u16::from_be_bytes(some(ip, 6)) & 0x3fff == 0
        && ip[9] == IpProto::Udp as u8
        && some::<4>(ip, 16) == [0xff; 4]
        && frame.load(IP + Ipv4Hdr::LEN) == Some([0, 68, 0, 67])
}

#[inline(always)]
fn ipv6(frame: &impl Bytes, own: &impl Own) -> Result<(), Reason> {
    const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    const ROUTING: u8 = IpProto::Ipv6Route as u8;
    const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
    const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    const AUTHENTICATION: u8 = IpProto::Ah as u8;
    const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;

    let ip: [u8; Ipv6Hdr::LEN] = frame.load(IP).ok_or(HIDDEN)?;
    if ip[0] >> 4 != 6 {
        return Err(HIDDEN);
    }
    let source: [u8; 16] = some(&ip, 8);
    // Of nobody's come the questions that are asked before an address is taken, and their kind is in
    // ICMPv6.
    let nobody = source == [0; 16];
    if !nobody {
        check_ipv6(own, source)?;
    }
    let end = IP + Ipv6Hdr::LEN + usize::from(u16::from_be_bytes(some(&ip, 4)));
    let (mut next, mut at, mut whole) = (ip[6], IP + Ipv6Hdr::LEN, true);
    for _ in 0..EXTENSIONS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION => {
                let [following, len]: [u8; 2] = frame.load(at).ok_or(HIDDEN)?;
                at += if next == AUTHENTICATION {
                    // RFC 4302 §2.2.
                    4 * (usize::from(len) + 2)
                } else {
                    8 * (usize::from(len) + 1)
                };
                next = following;
            }
            FRAGMENT => {
                let [following, _, high, low]: [u8; 4] = frame.load(at).ok_or(HIDDEN)?;
                // What follows the first is worth nothing without it.
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    return if nobody { check_ipv6(own, source) } else { Ok(()) };
                }
                (next, at, whole) = (following, at + 8, false);
            }
            ICMPV6 => {
                let kind = icmpv6(frame, at)?;
                let to_group = ip[24] == 0xff;
                if nobody && !(to_group && kind.is_of_nobody()) {
                    check_ipv6(own, source)?;
                }
                return discovery(frame, own, kind, at, end, nobody, whole);
            }
            _ if nobody => return check_ipv6(own, source),
            _ => return Ok(()),
        }
    }
    Err(HIDDEN)
}

/// A kind of ICMPv6 message, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    RouterSolicitation,
    RouterAdvertisement,
    NeighbourSolicitation,
    NeighbourAdvertisement,
    Redirect,
    /// A listener's report (RFC 3810 §5.2.13), or its end.
    Listener,
    Other,
}

impl Kind {
    /// Whether it is sent to groups before there is an address to send it from.
    #[inline(always)]
    const fn is_of_nobody(self) -> bool {
        matches!(self, Self::RouterSolicitation | Self::NeighbourSolicitation | Self::Listener)
    }
}

/// The kind of the message at `at`.
#[inline(always)]
fn icmpv6(frame: &impl Bytes, at: usize) -> Result<Kind, Reason> {
    let [kind, _]: [u8; 2] = frame.load(at).ok_or(HIDDEN)?;
    Ok(match kind {
        133 => Kind::RouterSolicitation,
        134 => Kind::RouterAdvertisement,
        135 => Kind::NeighbourSolicitation,
        136 => Kind::NeighbourAdvertisement,
        137 => Kind::Redirect,
        131 | 132 | 143 => Kind::Listener,
        _ => Kind::Other,
    })
}

/// Holds against the port's own whom a message of neighbour discovery speaks for: the target of an
/// advertisement, and of a solicitation from nobody, which is about to be taken (RFC 4862 §5.4.2); and the
/// link-layer addresses.
#[inline(always)]
fn discovery(
    frame: &impl Bytes,
    own: &impl Own,
    kind: Kind,
    at: usize,
    end: usize,
    nobody: bool,
    whole: bool,
) -> Result<(), Reason> {
    let options = match kind {
        Kind::RouterSolicitation => 8,
        Kind::RouterAdvertisement => 16,
        Kind::NeighbourSolicitation | Kind::NeighbourAdvertisement => 24,
        Kind::Redirect => 40,
        Kind::Listener | Kind::Other => return Ok(()),
    };
    // Receivers must not read it (RFC 6980 §5). Not all may know. Nor is it larger than its packet says, be it
    // that this says 0 and a receiver takes what there is (`ipv6_rcv_core`).
    if !whole || at + options > end {
        return Err(HIDDEN);
    }
    if kind == Kind::NeighbourAdvertisement || (kind == Kind::NeighbourSolicitation && nobody) {
        check_ipv6(own, frame.load(at + 8).ok_or(HIDDEN)?)?;
    }
    let mut at = at + options;
    for _ in 0..OPTIONS {
        if at >= end {
            return Ok(());
        }
        // RFC 4861 §4.6: type, and length in units of 8 bytes.
        let [kind, len]: [u8; 2] = frame.load(at).ok_or(HIDDEN)?;
        if len == 0 {
            return Err(HIDDEN);
        }
        // Source and target link-layer address.
        if kind == 1 || kind == 2 {
            check_mac(own, frame.load(at + 2).ok_or(HIDDEN)?)?;
        }
        at += 8 * usize::from(len);
    }
    Err(HIDDEN)
}

#[inline(always)]
fn check_mac(own: &impl Own, mac: [u8; 6]) -> Result<(), Reason> {
    if own.mac(mac) { Ok(()) } else { Err(Reason::SpoofedMac) }
}

#[inline(always)]
fn check_ipv4(own: &impl Own, address: [u8; 4]) -> Result<(), Reason> {
    if own.ipv4(address) { Ok(()) } else { Err(Reason::SpoofedIp) }
}

#[inline(always)]
fn check_ipv6(own: &impl Own, address: [u8; 16]) -> Result<(), Reason> {
    if own.ipv6(address) { Ok(()) } else { Err(Reason::SpoofedIp) }
}

/// `N` bytes of a header that has them.
#[inline(always)]
fn some<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}
