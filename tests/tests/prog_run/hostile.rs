//! Frames cut, mutated and invented: never an error, and forwarded exactly where the oracle says so.

use ovs_ebpf_common::abi::Program;
use ovs_ebpf_tests::vectors::{self, Encap, Tunnel};

use crate::host::{Host, PORT, UPLINK, Verdict, receiver_key, sender_end};
use crate::oracle::{Oracle, ones_complement_sum};
use crate::run::too_short;

/// Frames for each of six tunnels, into each program.
const FRAMES: u32 = 20_000;

#[test]
fn a_container_s_frame_may_end_anywhere() {
    let mut host = Host::sending(&vectors::encap()[0].tunnel);
    for vector in vectors::encap() {
        host.set_tunnel(sender_end(&vector.tunnel));
        let oracle = Oracle::new(&vector.tunnel);
        for length in 14..=vector.inner.len() {
            send(&mut host, &oracle, &vector.inner[..length]);
        }
    }
}

#[test]
fn an_underlay_frame_may_end_anywhere() {
    let mut host = Host::receiving(&vectors::encap()[0].tunnel);
    for vector in vectors::encap() {
        host.set_tunnel_index(receiver_key(&vector.tunnel));
        let oracle = Oracle::new(&vector.tunnel);
        for length in 14..=vector.outer.len() {
            let mut frame = vector.outer[..length].to_vec();
            let whole = length == vector.outer.len();
            assert_eq!(receive(&mut host, &oracle, &frame), whole, "{}", vector.name);
            repair(&mut frame);
            receive(&mut host, &oracle, &frame);
        }
    }
}

#[test]
fn any_frame_from_a_container_is_forwarded_by_the_rules_or_left() {
    let mut random = Random(0x6f76_732d_6562_7066);
    let mut host = Host::sending(&vectors::encap()[0].tunnel);
    for (tunnel, vectors) in seeds() {
        host.set_tunnel(sender_end(&tunnel));
        let oracle = Oracle::new(&tunnel);
        let forwarded = (0..FRAMES).filter(|_| {
            let seed = &vectors[random.below(vectors.len())].inner;
            send(&mut host, &oracle, &random.frame_like(seed))
        });
        assert_both_are_common(forwarded.count());
    }
}

#[test]
fn any_frame_from_the_underlay_is_forwarded_by_the_rules_or_left() {
    let mut random = Random(0x6f76_732d_6562_7067);
    let mut host = Host::receiving(&vectors::encap()[0].tunnel);
    for (tunnel, vectors) in seeds() {
        host.set_tunnel_index(receiver_key(&tunnel));
        let oracle = Oracle::new(&tunnel);
        let forwarded = (0..FRAMES).filter(|_| {
            let seed = &vectors[random.below(vectors.len())].outer;
            receive(&mut host, &oracle, &random.frame_like(seed))
        });
        assert_both_are_common(forwarded.count());
    }
}

/// Whether the frame went into the tunnel, after comparing that with the oracle: what comes out must
/// be deliverable at the other end, as the frame that went in.
fn send(host: &mut Host, oracle: &Oracle, frame: &[u8]) -> bool {
    if too_short(frame) {
        return false;
    }
    match host.run(Program::PortIngress, PORT, frame) {
        Verdict::Forwarded(outer) => {
            assert!(oracle.takes(frame), "out of rule: {frame:02x?}");
            assert_eq!(oracle.delivers(&outer).as_deref(), Some(frame), "{outer:02x?}");
            true
        }
        Verdict::Left(reason) => {
            assert!(!oracle.takes(frame), "{reason:?}: {frame:02x?}");
            false
        }
    }
}

/// Whether the frame was delivered, after comparing that and the inner frame with the oracle.
fn receive(host: &mut Host, oracle: &Oracle, frame: &[u8]) -> bool {
    if too_short(frame) {
        return false;
    }
    let expected = oracle.delivers(frame);
    let is_forwarded = expected.is_some();
    match host.run(Program::UplinkIngress, UPLINK, frame) {
        Verdict::Forwarded(inner) => {
            assert_eq!(Some(inner), expected, "out of rule: {frame:02x?}");
        }
        Verdict::Left(reason) => assert_eq!(expected, None, "{reason:?}: {frame:02x?}"),
    }
    is_forwarded
}

/// A tunnel of each kind, with an IPv4 and an IPv6 frame of its own.
fn seeds() -> [(Tunnel, Vec<Encap>); 6] {
    ["vxlan_42", "gre", "gre_42", "vxlan6_42", "gre6", "gre6_42"].map(|tunnel| {
        let names = [format!("{tunnel}_ipv4_udp_60"), format!("{tunnel}_ipv6_tcp")];
        let vectors: Vec<_> =
            vectors::encap().into_iter().filter(|vector| names.contains(&vector.name)).collect();
        assert_eq!(vectors.len(), names.len(), "{names:?}");
        (vectors[0].tunnel.clone(), vectors)
    })
}

/// Where nearly all frames have the same fate, little was tried.
fn assert_both_are_common(forwarded: usize) {
    let share = forwarded as f64 / f64::from(FRAMES);
    assert!((0.1..0.9).contains(&share), "{share} of the frames were forwarded");
}

/// Makes the outer lengths and the IPv4 checksum agree with the frame, as far as it has them.
fn repair(frame: &mut [u8]) {
    let length = frame.len();
    let is_ipv6 = frame[12..14] == [0x86, 0xdd];
    let udp = frame.get(if is_ipv6 { 20 } else { 23 }) == Some(&17);
    let (ip_len, counts_from, l4) = if is_ipv6 { (18, 54, 54) } else { (16, 14, 34) };
    let mut put = |at: usize, value: usize| {
        if let Some(place) = frame.get_mut(at..at + 2) {
            place.copy_from_slice(&(value as u16).to_be_bytes());
        }
    };
    put(ip_len, length.saturating_sub(counts_from));
    if udp && length >= l4 + 6 {
        put(l4 + 4, length - l4);
    }
    if is_ipv6 {
        return;
    }
    put(24, 0);
    if let Some(header) = frame.get(14..34) {
        let checksum = !ones_complement_sum(header);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Marsaglia's xorshift64: the same frames in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 16) as u8
    }

    /// A frame that has one to three things changed against `seed`, or one in sixteen that has
    /// nothing to do with it.
    fn frame_like(&mut self, seed: &[u8]) -> Vec<u8> {
        if self.below(16) == 0 {
            let length = 14 + self.below(200);
            return (0..length).map(|_| self.byte()).collect();
        }
        let mut frame = seed.to_vec();
        for _ in 0..=self.below(3) {
            self.change(&mut frame);
        }
        if self.below(2) == 0 {
            repair(&mut frame);
        }
        frame
    }

    fn change(&mut self, frame: &mut Vec<u8>) {
        // What comes early decides most.
        let end = if self.below(4) == 0 { frame.len() } else { frame.len().min(100) };
        let at = self.below(end);
        match self.below(8) {
            0..=2 => frame[at] ^= 1 << self.below(8),
            3..=4 => frame[at] = self.byte(),
            5 => {
                const WORDS: [u16; 8] = [0, 1, 0x8000, 0xffff, 0x0800, 0x86dd, 0x8100, 0x6558];
                let word = WORDS[self.below(WORDS.len())].to_be_bytes();
                let at = at.min(frame.len() - 2);
                frame[at..at + 2].copy_from_slice(&word);
            }
            6 => frame.truncate(14 + self.below(frame.len() - 13)),
            _ => frame.extend((0..self.below(64)).map(|_| 0)),
        }
    }
}
