//! Which frames may be forwarded, and as what: written from the RFCs and the rules of the fast path
//! alone, without a line of `ovs_ebpf_common::wire`.

use std::net::IpAddr;

use ovs_ebpf_tests::vectors::{EcnEgress, Kind, Tunnel, ecn};

use crate::host::{RECEIVER, SENDER, UNDERLAY_MTU};

/// A host where [`SENDER`] and [`RECEIVER`] are known, at one end of a tunnel.
pub(crate) struct Oracle {
    tunnel: Tunnel,
    egress: Vec<EcnEgress>,
}

impl Oracle {
    pub(crate) fn new(tunnel: &Tunnel) -> Self {
        Self { tunnel: tunnel.clone(), egress: ecn().egress }
    }

    /// Whether a frame from [`SENDER`]'s port goes into the tunnel.
    pub(crate) fn takes(&self, frame: &[u8]) -> bool {
        let ip_len = if self.tunnel.remote.is_ipv6() { 40 } else { 20 };
        let room = UNDERLAY_MTU as usize - ip_len - self.tunnel_header_len() - 14;
        frame.len() - 14 <= room && self.inner_tos(frame).is_some() && !self.has_limit(frame)
    }

    /// Whether it may hold an encapsulation limit that a device for GRE over IPv6 obeys (RFC 2473): behind
    /// hop-by-hop options, routing, authentication or destination options.
    fn has_limit(&self, frame: &[u8]) -> bool {
        self.tunnel.remote.is_ipv6()
            && self.tunnel.kind == Kind::Gre
            && frame[12..14] == [0x86, 0xdd]
            && [0, 43, 51, 60].contains(&frame[20])
    }

    /// The frame to deliver to [`RECEIVER`]'s port, of one that arrives from the underlay.
    pub(crate) fn delivers(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut rest = Reader(frame);
        let ([destination, _], ether_type) = (rest.array::<2, 6>()?, rest.bytes::<2>()?);
        if destination != self.tunnel.next_hop_mac {
            return None;
        }
        let (protocol, tos) = match (self.tunnel.local, self.tunnel.remote, ether_type) {
            (IpAddr::V4(from), IpAddr::V4(to), [0x08, 0x00]) => {
                ipv4(&mut rest, [from.octets(), to.octets()])?
            }
            (IpAddr::V6(from), IpAddr::V6(to), [0x86, 0xdd]) => {
                ipv6(&mut rest, [from.octets(), to.octets()])?
            }
            _ => return None,
        };
        match (self.tunnel.kind, protocol) {
            (Kind::Vxlan, 17) => self.vxlan(&mut rest)?,
            (Kind::Gre, 47) => self.gre(&mut rest)?,
            _ => return None,
        }
        let inner = rest.0;
        let inner_tos = self.inner_tos(inner)?;
        let cell = |cell: &&EcnEgress| cell.inner == inner_tos & 3 && cell.outer == tos & 3;
        let result = self.egress.iter().find(cell).expect("RFC 6040 names every case").result?;
        Some(with_ecn(inner, result))
    }

    fn vxlan(&self, rest: &mut Reader<'_>) -> Option<()> {
        let length = rest.0.len();
        // Any checksum will do: a receiver need not verify it (RFC 7348 §4.1).
        let [_, port, udp_length, _] = rest.array::<4, 2>()?.map(u16::from_be_bytes);
        let header = rest.bytes::<8>()?;
        let [vni @ .., last] = self.tunnel.key?.rotate_left(8).to_be_bytes();
        assert_eq!(last, 0, "a VNI has 24 bits");
        let expected = [8, 0, 0, 0, vni[0], vni[1], vni[2], 0];
        let fits = Some(port) == self.tunnel.destination_port && usize::from(udp_length) == length;
        (fits && header == expected).then_some(())
    }

    fn gre(&self, rest: &mut Reader<'_>) -> Option<()> {
        let header = rest.bytes::<4>()?;
        match self.tunnel.key {
            None => header == [0, 0, 0x65, 0x58],
            Some(key) => {
                header == [0x20, 0, 0x65, 0x58] && u32::from_be_bytes(rest.bytes()?) == key
            }
        }
        .then_some(())
    }

    /// The TOS or traffic class of a frame from [`SENDER`] to [`RECEIVER`] that is IP.
    fn inner_tos(&self, frame: &[u8]) -> Option<u8> {
        let mut rest = Reader(frame);
        if rest.array::<2, 6>()? != [RECEIVER, SENDER] {
            return None;
        }
        match rest.bytes::<2>()? {
            [0x08, 0x00] => Some(rest.bytes::<20>()?[1]),
            [0x86, 0xdd] => {
                let [first, second, ..] = rest.bytes::<40>()?;
                Some(first << 4 | second >> 4)
            }
            _ => None,
        }
    }

    fn tunnel_header_len(&self) -> usize {
        match (self.tunnel.kind, self.tunnel.key) {
            (Kind::Vxlan, _) => 16,
            (Kind::Gre, None) => 4,
            (Kind::Gre, Some(_)) => 8,
        }
    }
}

/// An IPv4 header between these addresses without anything out of the ordinary: protocol and TOS.
fn ipv4(rest: &mut Reader<'_>, addresses: [[u8; 4]; 2]) -> Option<(u8, u8)> {
    let length = rest.0.len();
    let ip = rest.bytes::<20>()?;
    let whole = usize::from(u16::from_be_bytes([ip[2], ip[3]])) == length;
    // Neither More Fragments nor an offset; the reserved bit and Don't Fragment may be anything.
    let fragment = ip[6] & 0x3f != 0 || ip[7] != 0;
    let between = ip[12..] == *addresses.as_flattened();
    if ip[0] != 0x45 || !whole || fragment || !between || ones_complement_sum(&ip) != 0xffff {
        return None;
    }
    Some((ip[9], ip[1]))
}

/// The same of IPv6.
fn ipv6(rest: &mut Reader<'_>, addresses: [[u8; 16]; 2]) -> Option<(u8, u8)> {
    let ip = rest.bytes::<40>()?;
    let whole = usize::from(u16::from_be_bytes([ip[4], ip[5]])) == rest.0.len();
    if ip[0] >> 4 != 6 || !whole || ip[8..] != *addresses.as_flattened() {
        return None;
    }
    Some((ip[6], ip[0] << 4 | ip[1] >> 4))
}

/// The frame with another ECN field. RFC 1624, equation 3, for IPv4's checksum, which stays as right or
/// wrong as it was; of two zeros the one that the kernel's addition gives.
fn with_ecn(frame: &[u8], ecn: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame[12..14] == [0x86, 0xdd] {
        frame[15] = frame[15] & 0xcf | ecn << 4;
        return frame;
    }
    let (old, new) = (frame[15], frame[15] & 0xfc | ecn);
    if old != new {
        let checksum = u16::from_be_bytes([frame[24], frame[25]]);
        let sum = u32::from(checksum) + u32::from(old) + u32::from(!u16::from(new));
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
        frame[15] = new;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// RFC 1071, one word at a time.
pub(crate) fn ones_complement_sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum: u16, word| {
        let word = u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// The bytes not read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn array<const N: usize, const M: usize>(&mut self) -> Option<[[u8; M]; N]> {
        let mut all = [[0; M]; N];
        for one in &mut all {
            *one = self.bytes()?;
        }
        Some(all)
    }
}
