//! What somebody on the underlay may send to a host with a tunnel, to get in or to do harm.

use std::net::Ipv4Addr;

use super::Random;
use crate::model::set_ipv4_checksum;

const IP: usize = 14;
const L4: usize = 34;
/// Addresses that are no host's (RFC 5737), each with a last byte to come.
const FORGED: [u8; 3] = [198, 51, 100];

/// The host that is attacked, and its tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Victim {
    /// MAC of its uplink.
    pub mac: [u8; 6],
    /// Its underlay address.
    pub local: Ipv4Addr,
    /// The address of its tunnel's remote.
    pub remote: Ipv4Addr,
    /// The tunnel's VNI.
    pub vni: u32,
    /// A station behind it.
    pub station: [u8; 6],
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// From an address that is no remote.
    ForgedRemote,
    /// From the remote's address, with another VNI.
    WrongKey,
    /// Ends within its headers, whose lengths say so.
    Truncated,
    /// Its lengths say more than there is.
    Overlong,
    /// A tunnel's packet within the tunnel's packet.
    Nested,
    /// The first or a later fragment, from the remote's address.
    Fragment,
    /// GRE with checksum, routing, sequence number, or several.
    GreFlags,
    /// VXLAN with reserved bits, or without the I flag.
    VxlanReserved,
}

impl Attack {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::ForgedRemote,
        Self::WrongKey,
        Self::Truncated,
        Self::Overlong,
        Self::Nested,
        Self::Fragment,
        Self::GreFlags,
        Self::VxlanReserved,
    ];
}

/// A frame of this kind.
#[must_use]
pub fn frame(random: &mut Random, victim: &Victim, attack: Attack) -> Vec<u8> {
    let forged = Ipv4Addr::from([FORGED[0], FORGED[1], FORGED[2], random.byte()]);
    let vni = victim.vni;
    let inner = inside(random, victim);
    match attack {
        Attack::ForgedRemote => vxlan(random, victim, forged, vni, &inner),
        Attack::WrongKey => {
            let other = vni ^ (1 << random.below(24));
            vxlan(random, victim, victim.remote, other, &inner)
        }
        Attack::Truncated => {
            let mut frame = vxlan(random, victim, victim.remote, vni, &inner);
            // Within UDP, VXLAN or the inner Ethernet header.
            frame.truncate(L4 + 8 + random.below(8 + 14));
            relength(&mut frame);
            frame
        }
        Attack::Overlong => {
            let mut frame = vxlan(random, victim, victim.remote, vni, &inner);
            let at = random.of(&[IP + 2, L4 + 4]);
            let more =
                u16::from_be_bytes([frame[at], frame[at + 1]]) + 1 + u16::from(random.byte());
            frame[at..at + 2].copy_from_slice(&more.to_be_bytes());
            set_ipv4_checksum(&mut frame[IP..L4]);
            frame
        }
        Attack::Nested => {
            let within = vxlan(random, victim, victim.remote, vni, &inner);
            vxlan(random, victim, forged, vni, &within)
        }
        Attack::Fragment => {
            let mut frame = vxlan(random, victim, victim.remote, vni, &inner);
            let field: u16 = random.of(&[0x2000, 0x2001, 0x0001, 0x00b9]);
            frame[IP + 6..IP + 8].copy_from_slice(&field.to_be_bytes());
            set_ipv4_checksum(&mut frame[IP..L4]);
            frame
        }
        Attack::GreFlags => {
            let mut frame = headers(victim, random.of(&[forged, victim.remote]), 47);
            // C, R and S, at least one of them, and the key or not.
            let flags = random.of(&[0x80, 0x40, 0x10, 0xd0, 0x90]) | random.of(&[0, 0x20]);
            frame.extend([flags, 0, 0x65, 0x58]);
            random.fill(&mut frame, 12);
            frame.extend(&inner);
            relength(&mut frame);
            frame
        }
        Attack::VxlanReserved => {
            let mut frame = vxlan(random, victim, victim.remote, vni, &inner);
            let at = random.of(&[42, 43, 44, 45, 49]);
            frame[at] ^= 1 << random.below(8);
            frame
        }
    }
}

/// A frame to the station, from one of a few that nobody has: the bridge learns those that get so far.
fn inside(random: &mut Random, victim: &Victim) -> Vec<u8> {
    let mut frame = victim.station.to_vec();
    frame.extend([0x02, 0xbd, 0, 0, 0, random.below(16) as u8, 0x08, 0x00]);
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2]);
    frame.extend([0x30, 0x39, 0x00, 0x09, 0, 26, 0, 0]);
    set_ipv4_checksum(&mut frame[IP..L4]);
    random.fill(&mut frame, 18);
    frame
}

fn headers(victim: &Victim, source: Ipv4Addr, protocol: u8) -> Vec<u8> {
    let mut frame = victim.mac.to_vec();
    frame.extend([0x02, 0xbd, 0, 0, 1, 1, 0x08, 0x00]);
    frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(source.octets().into_iter().chain(victim.local.octets()));
    frame
}

fn vxlan(
    random: &mut Random,
    victim: &Victim,
    source: Ipv4Addr,
    vni: u32,
    inner: &[u8],
) -> Vec<u8> {
    let mut frame = headers(victim, source, 17);
    frame.extend(random.word().to_be_bytes());
    frame.extend(4789u16.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend([0x08, 0, 0, 0]);
    frame.extend((vni << 8).to_be_bytes());
    frame.extend(inner);
    relength(&mut frame);
    frame
}

/// Makes the outer lengths agree with the frame.
fn relength(frame: &mut [u8]) {
    let length = frame.len();
    frame[IP + 2..IP + 4].copy_from_slice(&((length - IP) as u16).to_be_bytes());
    if frame[IP + 9] == 17 {
        frame[L4 + 4..L4 + 6].copy_from_slice(&((length - L4) as u16).to_be_bytes());
    }
    set_ipv4_checksum(&mut frame[IP..L4]);
}
