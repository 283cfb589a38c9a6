//! Port security: whom a frame speaks for, and how many may go to all.

use ovs_ebpf_common::{
    Reason,
    abi::{AllowedKey, FdbKey, SecurityFlags, SecurityValue},
};

use super::read::{self, ETHERNET, IP};
use super::{Model, Received};

/// Where an IPv6 payload begins.
const PAYLOAD: usize = IP + 40;
const NOBODY: [u8; 16] = [0; 16];

/// What a frame says of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Mac([u8; 6]),
    Ipv4([u8; 4]),
    Ipv6([u8; 16]),
    /// It says something that can't be read.
    Hidden,
}

impl Model {
    /// Whether a frame from a port may go on.
    pub(super) fn secure(&mut self, now: u64, packet: &Received<'_>) -> Result<(), Reason> {
        let Some(port) = self.tables.security.get(&packet.device).copied() else { return Ok(()) };
        let has = |flag| port.flags & flag != 0;
        let mut outcome = Ok(());
        if has(SecurityFlags::MACS) || has(SecurityFlags::ADDRESSES) {
            outcome = claims(packet.frame).into_iter().try_for_each(|claim| match claim {
                Claim::Mac(mac) if has(SecurityFlags::MACS) => {
                    self.owns(AllowedKey::mac(packet.device, mac), Reason::SpoofedMac)
                }
                Claim::Ipv4(address) if has(SecurityFlags::ADDRESSES) => {
                    self.owns(AllowedKey::ipv4(packet.device, address), Reason::SpoofedIp)
                }
                Claim::Ipv6(address) if has(SecurityFlags::ADDRESSES) => {
                    self.owns(AllowedKey::ipv6(packet.device, address), Reason::SpoofedIp)
                }
                Claim::Mac(_) | Claim::Ipv4(_) | Claim::Ipv6(_) => Ok(()),
                Claim::Hidden => Err(Reason::SenderHidden),
            });
        }
        let entry = self.tables.security.get_mut(&packet.device).expect("read just now");
        if outcome.is_ok() && has(SecurityFlags::FLOOD) {
            let known = |lease: bool| {
                let key = FdbKey {
                    bridge: port.bridge,
                    vlan: vlan(&port, packet),
                    mac: read::some(packet.frame, 0),
                };
                !has(SecurityFlags::UNKNOWN) || !lease || self.tables.stations.contains_key(&key)
            };
            let lease = now < self.tables.control.lease_deadline;
            if packet.frame[0] % 2 == 1 || !known(lease) {
                let packets =
                    packet.gso.map_or(1, |gso| packet.frame.len() as u64 / u64::from(gso.size) + 1);
                if entry.full_at > now && entry.full_at - now > port.burst {
                    outcome = Err(Reason::FloodLimited);
                } else {
                    entry.full_at = entry.full_at.max(now) + packets * port.interval;
                }
            }
        }
        entry.discarded += u64::from(outcome.is_err());
        outcome
    }

    fn owns(&self, key: AllowedKey, otherwise: Reason) -> Result<(), Reason> {
        if self.tables.allowed.contains_key(&key) { Ok(()) } else { Err(otherwise) }
    }
}

/// The VLAN that a frame is in, by the tag that reception took out.
fn vlan(port: &SecurityValue, packet: &Received<'_>) -> u16 {
    match packet.tag {
        Some([.., high, low]) if port.flags & SecurityFlags::TAGGED != 0 => {
            match u16::from(high % 16) * 256 + u16::from(low) {
                0 => port.vlan,
                vlan => vlan,
            }
        }
        _ => port.vlan,
    }
}

/// All that a frame says, in the order in which it is read.
fn claims(frame: &[u8]) -> Vec<Claim> {
    let mut claims = vec![Claim::Mac(read::source(frame))];
    let more = match frame[12..14] {
        [0x08, 0x00] => ipv4(frame),
        [0x08, 0x06] | [0x80, 0x35] => arp(frame),
        [0x86, 0xdd] => ipv6(frame),
        [0x81, 0x00] | [0x88, 0xa8] => vec![Claim::Hidden],
        _ => vec![],
    };
    claims.extend(more);
    claims
}

/// RFC 826, over Ethernet for IPv4; RFC 903. A sender without an address is RFC 5227's probe.
fn arp(frame: &[u8]) -> Vec<Claim> {
    if frame.len() < ETHERNET + 28 || frame[14..20] != [0, 1, 8, 0, 6, 4] {
        return vec![Claim::Hidden];
    }
    let mut claims = vec![Claim::Mac(read::some(frame, 22))];
    if frame[28..32] != [0; 4] {
        claims.push(Claim::Ipv4(read::some(frame, 28)));
    }
    claims
}

/// RFC 791; who has no address may send RFC 2131's questions.
fn ipv4(frame: &[u8]) -> Vec<Claim> {
    if frame.len() < IP + 20 || frame[IP] / 16 != 4 {
        return vec![Claim::Hidden];
    }
    let dhcp = frame.len() >= IP + 24
        && frame[IP] == 0x45
        && read::word(frame, IP + 6) & 0x3fff == 0
        && frame[IP + 9] == 17
        && frame[IP + 12..IP + 24] == [0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67];
    if dhcp { vec![] } else { vec![Claim::Ipv4(read::some(frame, IP + 12))] }
}

/// RFC 8200, and through up to five extension headers RFC 4861.
fn ipv6(frame: &[u8]) -> Vec<Claim> {
    if frame.len() < PAYLOAD || frame[IP] / 16 != 6 {
        return vec![Claim::Hidden];
    }
    let source: [u8; 16] = read::some(frame, IP + 8);
    let mut claims = vec![];
    if source != NOBODY {
        claims.push(Claim::Ipv6(source));
    }
    let (mut header, mut at, mut fragment) = (frame[IP + 6], PAYLOAD, false);
    for _ in 0..6 {
        let rest = frame.get(at..).unwrap_or_default();
        let len = match (header, rest) {
            (0 | 43 | 60, [_, len, ..]) => 8 + 8 * usize::from(*len),
            (51, [_, len, ..]) => 8 + 4 * usize::from(*len),
            (44, [_, _, high, low, ..]) => {
                if u16::from_be_bytes([*high, *low]) >= 8 {
                    if source == NOBODY {
                        claims.push(Claim::Ipv6(NOBODY));
                    }
                    return claims;
                }
                fragment = true;
                8
            }
            (58, [kind, _, ..]) => {
                let asks = frame[IP + 24] == 0xff && [131, 132, 133, 135, 143].contains(kind);
                if source == NOBODY && !asks {
                    claims.push(Claim::Ipv6(NOBODY));
                }
                claims.extend(discovery(frame, at, *kind, source == NOBODY, fragment));
                return claims;
            }
            (0 | 43 | 44 | 51 | 58 | 60, _) => return [claims, vec![Claim::Hidden]].concat(),
            _ => {
                if source == NOBODY {
                    claims.push(Claim::Ipv6(NOBODY));
                }
                return claims;
            }
        };
        (header, at) = (rest[0], at + len);
    }
    claims.push(Claim::Hidden);
    claims
}

/// RFC 4861 §4, with RFC 6980: not in fragments.
fn discovery(frame: &[u8], at: usize, kind: u8, nobody: bool, fragment: bool) -> Vec<Claim> {
    let fixed = match kind {
        133 => 8,
        134 => 16,
        135 | 136 => 24,
        137 => 40,
        _ => return vec![],
    };
    let end = PAYLOAD + usize::from(read::word(frame, IP + 4));
    if fragment || end < at + fixed {
        return vec![Claim::Hidden];
    }
    let mut claims = vec![];
    if kind == 136 || (kind == 135 && nobody) {
        if frame.len() < at + 24 {
            return vec![Claim::Hidden];
        }
        claims.push(Claim::Ipv6(read::some(frame, at + 8)));
    }
    let mut at = at + fixed;
    for _ in 0..16 {
        if at >= end {
            return claims;
        }
        match frame.get(at..).unwrap_or_default() {
            [_, 0, ..] | [] | [_] => break,
            [1 | 2, _, a, b, c, d, e, f, ..] => claims.push(Claim::Mac([*a, *b, *c, *d, *e, *f])),
            [1 | 2, ..] => break,
            _ => {}
        }
        at += 8 * usize::from(frame[at + 1]);
    }
    claims.push(Claim::Hidden);
    claims
}
