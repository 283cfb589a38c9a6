//! Which frames may be forwarded, and as what: written from the RFCs and the rules of the fast path
//! alone, without a line of `ovs_ebpf_common::wire`.

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
        let room = UNDERLAY_MTU as usize - 20 - self.tunnel_header_len() - 14;
        frame.len() - 14 <= room && self.inner_tos(frame).is_some()
    }

    /// The frame to deliver to [`RECEIVER`]'s port, of one that arrives from the underlay.
    pub(crate) fn delivers<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = Reader(frame);
        let ([destination, _], ether_type) = (rest.array::<2, 6>()?, rest.bytes::<2>()?);
        if destination != self.tunnel.next_hop_mac || ether_type != [0x08, 0x00] {
            return None;
        }
        let length = rest.0.len();
        let ip = rest.bytes::<20>()?;
        let tos = ip[1];
        let whole = usize::from(u16::from_be_bytes([ip[2], ip[3]])) == length;
        // Neither More Fragments nor an offset; the reserved bit and Don't Fragment may be anything.
        let fragment = ip[6] & 0x3f != 0 || ip[7] != 0;
        let addresses =
            ip[12..16] == self.tunnel.local.octets() && ip[16..] == self.tunnel.remote.octets();
        if ip[0] != 0x45 || !whole || fragment || !addresses || ones_complement_sum(&ip) != 0xffff {
            return None;
        }
        match (self.tunnel.kind, ip[9]) {
            (Kind::Vxlan, 17) => self.vxlan(&mut rest)?,
            (Kind::Gre, 47) => self.gre(&mut rest)?,
            _ => return None,
        }
        let inner = rest.0;
        let inner_ecn = self.inner_tos(inner)? & 3;
        let cell = |cell: &&EcnEgress| cell.inner == inner_ecn && cell.outer == tos & 3;
        let result = self.egress.iter().find(cell).expect("RFC 6040 names every case").result;
        (result == Some(inner_ecn)).then_some(inner)
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
