//! The filter on the uplinks.

use ovs_ebpf_common::{
    Reason,
    abi::{GuardKey, GuardKind},
};

use super::read::{self, ETHERNET, IP};
use super::{Model, Received};

/// Where UDP or GRE begins, behind IPv4 without options.
const UDP: usize = IP + 20;

/// A GRE header's flags (RFC 2784, RFC 2890, and RFC 1701's routing).
const CHECKSUM: u8 = 0x80;
const ROUTING: u8 = 0x40;
const KEY: u8 = 0x20;
const SEQUENCE: u8 = 0x10;

impl Model {
    /// Whether the filter lets a frame pass.
    pub(super) fn filter(&self, now: u64, packet: &Received<'_>) -> Result<(), Reason> {
        let frame = packet.frame;
        // What is not judged: anything but whole IPv4 packets without options, of UDP or of GRE that
        // carries Ethernet.
        if frame.len() < UDP + 8
            || frame[12..14] != [0x08, 0x00]
            || frame[IP] != 0x45
            || read::word(frame, IP + 6) & 0x3fff != 0
        {
            return Ok(());
        }
        let protocol = frame[IP + 9];
        let gre = match protocol {
            17 => false,
            47 if frame[UDP + 1] & 7 == 0 && read::word(frame, UDP + 2) == 0x6558 => true,
            _ => return Ok(()),
        };
        let guard = |address: usize, key: [u8; 4], kind: GuardKind| GuardKey {
            address: std::net::Ipv4Addr::from(read::some::<4>(frame, address))
                .to_ipv6_mapped()
                .octets(),
            key,
            dst_port: if gre { [0; 2] } else { read::word(frame, UDP + 2).to_be_bytes() },
            protocol,
            kind: kind as u8,
        };
        let (source, destination) = (IP + 12, IP + 16);
        let guarded =
            self.tables.guards.contains_key(&guard(destination, [0; 4], GuardKind::Endpoint));
        let ours = self.tables.uplinks.get(&packet.device).is_some_and(|up| up.mac == frame[..6]);
        if !guarded || !ours || self.lease(now).is_err() {
            return Ok(());
        }

        let flags = frame[UDP];
        let has = |flag: u8| gre && flags & flag != 0;
        let optional = [CHECKSUM, KEY, SEQUENCE].into_iter().filter(|flag| has(*flag)).count();
        let headers = if gre { 4 + 4 * optional } else { 8 + 8 };
        let total_len = usize::from(read::word(frame, IP + 2));
        let mut end = total_len;
        if !gre {
            // What the datagram's own length leaves.
            end = 20 + usize::from(read::word(frame, UDP + 4));
        }
        if total_len > frame.len() - ETHERNET
            || end > total_len
            || end < 20 + headers + ETHERNET
            || read::ones_complement_sum(&frame[IP..UDP]) != 0xffff
            || has(ROUTING)
        {
            return Err(Reason::Malformed);
        }
        let key = if gre {
            let at = UDP + 4 + if has(CHECKSUM) { 4 } else { 0 };
            if has(KEY) { read::some(frame, at) } else { [0; 4] }
        } else {
            let [vni @ .., reserved] = read::some::<4>(frame, UDP + 12);
            if read::some(frame, UDP + 8) != [0x08, 0, 0, 0] || reserved != 0 {
                return Err(Reason::Malformed);
            }
            [0, vni[0], vni[1], vni[2]]
        };
        if self.tables.guards.contains_key(&guard(source, key, GuardKind::Way)) {
            return Ok(());
        }
        let remote = guard(source, [0; 4], GuardKind::Remote);
        let known = self.tables.guards.contains_key(&remote);
        Err(if known { Reason::WrongKey } else { Reason::UnknownRemote })
    }
}
