//! The frames of a probe: ARP as RFC 5227 uses it, and neighbour discovery as duplicate address
//! detection uses it (RFC 4861, section 4.3 and 4.4; RFC 4862, section 5.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bridge::model::Mac;

const ETHERNET: usize = 14;
const ARP_TYPE: [u8; 2] = [0x08, 0x06];
const IPV6_TYPE: [u8; 2] = [0x86, 0xdd];
/// ARP for IPv4 over Ethernet: hardware type 1, protocol 0x0800, lengths 6 and 4.
const ARP_HEAD: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// Ethernet and IPv6 header.
const ICMPV6: usize = ETHERNET + 40;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// It takes the place of what a neighbour has in its cache.
const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
/// The option with the target's MAC, of one unit of 8 bytes.
const TARGET_MAC: [u8; 2] = [2, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a frame says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// This station has it.
    Owner(Mac),
    /// This station probes for it too.
    Rival(Mac),
}

/// Asks whether anybody has an address, without claiming it.
pub(super) fn probe(address: IpAddr, mac: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            arp(Mac::BROADCAST, REQUEST, (mac, Ipv4Addr::UNSPECIFIED), (Mac::ZERO, address))
        }
        IpAddr::V6(address) => {
            let [.., a, b, c] = address.octets();
            let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
            group[13..].copy_from_slice(&[a, b, c]);
            let message = [[0; 4].as_slice(), &address.octets()].concat();
            let way = (Ipv6Addr::UNSPECIFIED, group.into());
            icmpv6(mac, way, NEIGHBOUR_SOLICITATION, &message)
        }
    }
}

/// Says to everybody whose address it is, so that nobody goes on sending to whose it was.
pub(super) fn announcement(address: IpAddr, mac: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(Mac::BROADCAST, REQUEST, (mac, address), (Mac::ZERO, address)),
        IpAddr::V6(address) => advertisement(address, mac),
    }
}

/// Says whose address it is to a station that probes for it.
pub(super) fn defence(address: IpAddr, mac: Mac, rival: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(rival, REPLY, (mac, address), (rival, Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(address) => advertisement(address, mac),
    }
}

/// What a frame that was received says of an address.
pub(super) fn heard(frame: &[u8], address: IpAddr) -> Option<Heard> {
    let (ethernet, rest) = frame.split_at_checked(ETHERNET)?;
    match (address, &ethernet[12..]) {
        (IpAddr::V4(address), kind) if kind == ARP_TYPE => heard_arp(rest, address),
        (IpAddr::V6(address), kind) if kind == IPV6_TYPE => {
            heard_icmpv6(rest, Mac(*ethernet[6..].first_chunk()?), address)
        }
        _ => None,
    }
}

fn heard_arp(arp: &[u8], address: Ipv4Addr) -> Option<Heard> {
    let (head, rest) = arp.split_at_checked(8)?;
    let sender = Mac(*rest.first_chunk()?);
    let sender_ip = Ipv4Addr::from(*rest.get(6..)?.first_chunk::<4>()?);
    let target_ip = Ipv4Addr::from(*rest.get(16..)?.first_chunk::<4>()?);
    if head[..6] != ARP_HEAD {
        return None;
    }
    match (sender_ip, target_ip) {
        (sender_ip, _) if sender_ip == address => Some(Heard::Owner(sender)),
        (Ipv4Addr::UNSPECIFIED, target) if target == address && head[7] == REQUEST => {
            Some(Heard::Rival(sender))
        }
        _ => None,
    }
}

fn heard_icmpv6(ip: &[u8], source: Mac, address: Ipv6Addr) -> Option<Heard> {
    let (header, icmp) = ip.split_at_checked(40)?;
    // Both messages are valid only from the same link: hop limit 255 (RFC 4861, section 7.1).
    let target = Ipv6Addr::from(*icmp.get(8..)?.first_chunk::<16>()?);
    if (header[6], header[7], target) != (58, 255, address) {
        return None;
    }
    let from = Ipv6Addr::from(*header[8..].first_chunk::<16>()?);
    match icmp[0] {
        NEIGHBOUR_ADVERTISEMENT => Some(Heard::Owner(source)),
        NEIGHBOUR_SOLICITATION if from.is_unspecified() => Some(Heard::Rival(source)),
        _ => None,
    }
}

fn arp(to: Mac, operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = [&to.0[..], &sender.0.0, &ARP_TYPE, &ARP_HEAD, &[0, operation]].concat();
    for (mac, address) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(address.octets());
    }
    frame
}

fn advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let message = [&OVERRIDE[..], &address.octets(), &TARGET_MAC, &mac.0].concat();
    icmpv6(mac, (address, ALL_NODES), NEIGHBOUR_ADVERTISEMENT, &message)
}

/// To a group, whose MAC is 33:33 and its last four bytes (RFC 2464, section 7).
fn icmpv6(mac: Mac, (from, to): (Ipv6Addr, Ipv6Addr), kind: u8, message: &[u8]) -> Vec<u8> {
    let to = to.octets();
    let length = u8::try_from(4 + message.len()).expect("a short message");
    let header = [0x60, 0, 0, 0, 0, length, 58, 255];
    let mut frame = [&[0x33, 0x33][..], &to[12..], &mac.0, &IPV6_TYPE].concat();
    frame.extend([&header[..], &from.octets(), &to, &[kind, 0, 0, 0], message].concat());
    // The sum goes over both addresses, length, protocol, and the message (RFC 8200, section 8.1).
    let sum = checksum(&frame[ETHERNET + 8..], u32::from(length) + 58);
    frame[ICMPV6 + 2..ICMPV6 + 4].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = start + words.sum::<u32>();
    while let carry @ 1.. = sum >> 16 {
        sum = (sum & 0xffff) + carry;
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    //! The frames are Scapy's.

    use super::*;

    const OURS: Mac = Mac([0x02, 0x42, 0x0a, 0x05, 0x00, 0x09]);
    const OTHER: Mac = Mac([0x02, 0x42, 0x0a, 0x05, 0x00, 0x63]);

    const ARP_PROBE: &str = "ffffffffffff02420a0500090806000108000604000102420a05000900000000\
        0000000000000a050009";
    const ARP_OTHERS_PROBE: &str = "ffffffffffff02420a0500630806000108000604000102420a05006300000000\
        0000000000000a050009";
    const ARP_ANNOUNCEMENT: &str = "ffffffffffff02420a0500090806000108000604000102420a0500090a050009\
        0000000000000a050009";
    const ARP_DEFENCE: &str = "02420a05006302420a0500090806000108000604000202420a0500090a050009\
        02420a05006300000000";
    const ARP_OTHERS_REPLY: &str = "02420a05000902420a0500630806000108000604000202420a0500630a050009\
        02420a05000900000000";
    const ARP_OTHERS_REQUEST: &str = "ffffffffffff02420a0500630806000108000604000102420a0500630a050008\
        0000000000000a050009";
    const SOLICITATION: &str = "3333ff42000902420a05000986dd6000000000183aff00000000000000000000\
        000000000000ff0200000000000000000001ff42000987007d0c00000000fd050000000000000000000000420009";
    const OTHERS_SOLICITATION: &str = "3333ff42000902420a05006386dd6000000000183aff0000000000000000\
        0000000000000000ff0200000000000000000001ff42000987007d0c00000000\
        fd050000000000000000000000420009";
    const ADVERTISEMENT: &str = "33330000000102420a05000986dd6000000000203afffd050000000000000000\
        000000420009ff02000000000000000000000000000188004fae20000000fd05000000000000000000000042\
        0009020102420a050009";
    const OTHERS_ADVERTISEMENT: &str = "33330000000102420a05006386dd6000000000203afffd05000000000000\
        0000000000420009ff02000000000000000000000000000188004f5420000000fd050000000000000000000000\
        420009020102420a050063";

    fn bytes(hex: &str) -> Vec<u8> {
        let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(pair).collect()
    }

    fn v4() -> IpAddr {
        "10.5.0.9".parse().unwrap()
    }

    fn v6() -> IpAddr {
        "fd05::42:9".parse().unwrap()
    }

    #[test]
    fn frames_are_as_scapy_makes_them() {
        assert_eq!(probe(v4(), OURS), bytes(ARP_PROBE));
        assert_eq!(announcement(v4(), OURS), bytes(ARP_ANNOUNCEMENT));
        assert_eq!(defence(v4(), OURS, OTHER), bytes(ARP_DEFENCE));
        assert_eq!(probe(v6(), OURS), bytes(SOLICITATION));
        assert_eq!(announcement(v6(), OURS), bytes(ADVERTISEMENT));
        assert_eq!(defence(v6(), OURS, OTHER), bytes(ADVERTISEMENT));
    }

    #[test]
    fn another_stations_answer_and_another_stations_probe_are_heard() {
        let cases = [
            (v4(), ARP_OTHERS_REPLY, Some(Heard::Owner(OTHER))),
            (v4(), ARP_OTHERS_PROBE, Some(Heard::Rival(OTHER))),
            (v4(), ARP_OTHERS_REQUEST, None),
            (v4(), OTHERS_ADVERTISEMENT, None),
            (v6(), OTHERS_ADVERTISEMENT, Some(Heard::Owner(OTHER))),
            (v6(), OTHERS_SOLICITATION, Some(Heard::Rival(OTHER))),
            (v6(), ARP_OTHERS_REPLY, None),
        ];
        for (address, frame, expected) in cases {
            assert_eq!(heard(&bytes(frame), address), expected, "{frame}");
        }
        assert_eq!(heard(&bytes(ARP_OTHERS_REPLY), "10.5.0.8".parse().unwrap()), None);
        assert_eq!(heard(&bytes(OTHERS_ADVERTISEMENT), "fd05::9".parse().unwrap()), None);
    }

    #[test]
    fn a_frame_cut_short_says_nothing() {
        for (address, frame) in [(v4(), ARP_OTHERS_REPLY), (v6(), OTHERS_SOLICITATION)] {
            let frame = bytes(frame);
            for length in 0..ETHERNET + 20 {
                assert_eq!(heard(&frame[..length], address), None);
            }
        }
    }
}
