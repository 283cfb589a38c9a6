//! The filter on the uplinks.

use ovs_ebpf_common::{
    Reason,
    abi::{GuardKey, GuardKind},
};

use super::read::{self, ETHERNET, IP};
use super::{Model, Received};

/// A GRE header's flags (RFC 2784, RFC 2890, and RFC 1701's routing).
const CHECKSUM: u8 = 0x80;
const ROUTING: u8 = 0x40;
const KEY: u8 = 0x20;
const SEQUENCE: u8 = 0x10;

impl Model {
    /// Whether the filter lets a frame pass.
    pub(super) fn filter(&self, now: u64, packet: &Received<'_>) -> Result<(), Reason> {
        let frame = packet.frame;
        // What is not judged: anything but whole packets without options and extension headers, of UDP
        // or of GRE that carries Ethernet.
        let (l4, protocol, addresses) = match frame.get(12..14) {
            Some([0x08, 0x00]) if frame.len() >= IP + 28 => (IP + 20, frame[IP + 9], IP + 12),
            Some([0x86, 0xdd]) if frame.len() >= IP + 48 => (IP + 40, frame[IP + 6], IP + 8),
            _ => return Ok(()),
        };
        let ipv4 = l4 == IP + 20;
        let plain = match ipv4 {
            true => frame[IP] == 0x45 && read::word(frame, IP + 6) & 0x3fff == 0,
            false => frame[IP] / 16 == 6,
        };
        let gre = match protocol {
            17 => false,
            47 if frame[l4 + 1] & 7 == 0 && read::word(frame, l4 + 2) == 0x6558 => true,
            _ => return Ok(()),
        };
        if !plain {
            return Ok(());
        }
        let guard = |at: usize, key: [u8; 4], kind: GuardKind| GuardKey {
            address: match ipv4 {
                true => {
                    std::net::Ipv4Addr::from(read::some::<4>(frame, at)).to_ipv6_mapped().octets()
                }
                false => read::some(frame, at),
            },
            key,
            dst_port: if gre { [0; 2] } else { read::word(frame, l4 + 2).to_be_bytes() },
            protocol,
            kind: kind as u8,
        };
        let (source, destination) = (addresses, addresses + if ipv4 { 4 } else { 16 });
        let guarded =
            self.tables.guards.contains_key(&guard(destination, [0; 4], GuardKind::Endpoint));
        let ours = self.tables.uplinks.get(&packet.device).is_some_and(|up| up.mac == frame[..6]);
        if !guarded || !ours || self.lease(now).is_err() {
            return Ok(());
        }

        let flags = frame[l4];
        let has = |flag: u8| gre && flags & flag != 0;
        let optional = [CHECKSUM, KEY, SEQUENCE].into_iter().filter(|flag| has(*flag)).count();
        let headers = if gre { 4 + 4 * optional } else { 8 + 8 };
        // Where the packet ends by its own word, counted from the Ethernet header.
        let packet_end = match ipv4 {
            true => IP + usize::from(read::word(frame, IP + 2)),
            false => l4 + usize::from(read::word(frame, IP + 4)),
        };
        let mut end = packet_end;
        if !gre {
            // What the datagram's own length leaves; over IPv6 none is all (RFC 2675).
            let len = usize::from(read::word(frame, l4 + 4));
            end = if len == 0 && !ipv4 { packet_end } else { l4 + len };
        }
        if packet_end > frame.len()
            || end > packet_end
            || end < l4 + headers + ETHERNET
            || (ipv4 && read::ones_complement_sum(&frame[IP..l4]) != 0xffff)
            || has(ROUTING)
        {
            return Err(Reason::Malformed);
        }
        let key = if gre {
            let at = l4 + 4 + if has(CHECKSUM) { 4 } else { 0 };
            if has(KEY) { read::some(frame, at) } else { [0; 4] }
        } else {
            let [vni @ .., reserved] = read::some::<4>(frame, l4 + 12);
            if read::some(frame, l4 + 8) != [0x08, 0, 0, 0] || reserved != 0 {
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
