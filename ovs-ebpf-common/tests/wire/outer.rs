//! `wire::outer` against Scapy's frames, and there and back.

use ovs_ebpf_common::{
    Reason,
    abi::TunnelKind,
    wire::{
        ecn, frame,
        outer::{self, Outer, Patch},
    },
};
use ovs_ebpf_tests::vectors::{self, Expected};
use proptest::prelude::*;

use crate::headers::{IP, VXLAN_PORT, decode, encode, index_key, kind, parameters};

#[test]
fn every_outer_header_is_scapy_s() {
    for vector in vectors::encap() {
        let (tunnel, kind) = (&vector.tunnel, kind(&vector.tunnel));
        let len = vector.inner.len() as u32;
        let head = vector.inner.first_chunk().expect("a whole head");
        let inner = frame::parse(head, len).expect(&vector.name);
        let patch = Patch {
            total_len: outer::total_len(kind, len) as u16,
            tos: ecn::encapsulate(tunnel.tos.unwrap_or(inner.tos), inner.tos),
            ttl: tunnel.ttl.unwrap_or(inner.ttl),
            id: 0,
            source_port: vector.source_port.unwrap_or(0),
        };
        let header = encode(kind, &parameters(tunnel), &patch);
        let expected = &vector.outer[..vector.outer.len() - vector.inner.len()];
        assert_eq!(header, expected, "{}: {}", vector.name, vector.description);
    }
}

#[test]
fn every_frame_of_scapy_s_is_accepted_as_its_tunnel_s() {
    for vector in vectors::encap() {
        let kind = kind(&vector.tunnel);
        let (found, accepted) = decode(&vector.outer, VXLAN_PORT).expect(&vector.name);
        assert_eq!(found, kind, "{}", vector.name);
        assert_eq!(accepted.key, index_key(kind, &parameters(&vector.tunnel)), "{}", vector.name);
        assert_eq!(accepted.tos, vector.outer[IP][1], "{}", vector.name);
    }
}

#[test]
fn what_is_wrong_with_outer_headers_has_the_vector_s_reason() {
    // The Ethernet destination is not the codec's to judge.
    const BY_THE_DEVICE: [&str; 3] = ["other_host", "broadcast", "group"];
    let of_the_header =
        [Reason::NotTunnel, Reason::OuterFragment, Reason::OuterMalformed, Reason::TunnelFlags];
    for vector in vectors::decap() {
        let (name, kind) = (&vector.name, kind(&vector.tunnel));
        let decoded = decode(&vector.outer, VXLAN_PORT);
        let key = index_key(kind, &parameters(&vector.tunnel));
        let by_the_device = BY_THE_DEVICE.iter().any(|end| name.ends_with(end));
        let whole = vector.outer.len() >= kind.header_len();
        match &vector.expected {
            Expected::Reason(reason) if reason == Reason::TunnelUnknown.name() => {
                let (_, accepted) = decoded.unwrap_or_else(|reason| panic!("{name}: {reason:?}"));
                assert_ne!(accepted.key, key, "{name}");
            }
            Expected::Reason(reason)
                if !by_the_device
                    && (of_the_header.iter().any(|one| one.name() == reason) || !whole) =>
            {
                let decoded = decoded.map_err(Reason::name);
                assert_eq!(decoded, Err(reason.as_str()), "{name}");
            }
            _ => {
                let (_, accepted) = decoded.unwrap_or_else(|reason| panic!("{name}: {reason:?}"));
                assert_eq!(accepted.key, key, "{name}");
            }
        }
    }
}

fn any_kind() -> impl Strategy<Value = TunnelKind> {
    prop::sample::select(vec![TunnelKind::VxlanIpv4, TunnelKind::GreIpv4, TunnelKind::GreKeyIpv4])
}

fn any_outer() -> impl Strategy<Value = Outer> {
    let macs = any::<([u8; 6], [u8; 6])>();
    let addresses = any::<([u8; 4], [u8; 4])>();
    (macs, addresses, any::<u32>(), 1..=u16::MAX, any::<bool>()).prop_map(
        |((destination_mac, source_mac), (local, remote), key, dst_port, df)| Outer {
            destination_mac,
            source_mac,
            local,
            remote,
            key,
            dst_port,
            df,
        },
    )
}

/// A packet: its tunnel, the length of the frame in it, and what is patched for it.
type Packet = (TunnelKind, Outer, u32, Patch);

fn any_packet() -> impl Strategy<Value = Packet> {
    let longest = u32::from(u16::MAX) - outer::total_len(TunnelKind::VxlanIpv4, 0);
    (any_kind(), any_outer(), 34..=longest, any::<(u8, u8, u16, u16)>()).prop_map(
        |(kind, outer, frame_len, (tos, ttl, id, source_port))| {
            let total_len = outer::total_len(kind, frame_len) as u16;
            (kind, outer, frame_len, Patch { total_len, tos, ttl, id, source_port })
        },
    )
}

/// The frame that the packet is, filled up with zeros.
fn frame((kind, outer, frame_len, patch): &Packet) -> Vec<u8> {
    let mut frame = encode(*kind, outer, patch);
    frame.resize(frame.len() + *frame_len as usize, 0);
    frame
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(packet in any_packet()) {
        let (kind, outer, _, patch) = packet;
        let (found, accepted) = decode(&frame(&packet), outer.dst_port).expect("accepted");
        prop_assert_eq!(found, kind);
        prop_assert_eq!(accepted.key, index_key(kind, &outer));
        prop_assert_eq!(accepted.tos, patch.tos);
    }

    #[test]
    fn every_bit_of_the_ipv4_header_is_under_its_checksum(packet in any_packet()) {
        let frame = frame(&packet);
        for bit in IP.start * 8..IP.end * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode(&damaged, packet.1.dst_port);
            prop_assert!(decoded.is_err(), "bit {} of byte {}: {:?}", bit % 8, bit / 8, decoded);
        }
    }

    #[test]
    fn every_bit_of_the_tunnel_header_counts(packet in any_packet()) {
        let frame = frame(&packet);
        let (kind, outer, ..) = packet;
        let whole = decode(&frame, outer.dst_port).expect("accepted");
        for bit in IP.end * 8..kind.header_len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // The UDP source port and checksum may be anything.
            let free = kind == TunnelKind::VxlanIpv4 && matches!(bit / 8, 34 | 35 | 40 | 41);
            let same = decode(&damaged, outer.dst_port) == Ok(whole);
            prop_assert_eq!(same, free, "bit {} of byte {}", bit % 8, bit / 8);
        }
    }

    #[test]
    fn another_length_than_the_header_s_is_not_accepted(packet in any_packet(), other in 42u32..) {
        let frame = frame(&packet);
        let (kind, ..) = packet;
        prop_assume!(other as usize != frame.len());
        let accepted = match kind {
            TunnelKind::VxlanIpv4 => outer::accept_vxlan(frame.first_chunk().expect("50"), other),
            TunnelKind::GreIpv4 | TunnelKind::GreKeyIpv4 => {
                outer::accept_gre(kind, frame.first_chunk().expect("42"), other)
            }
        };
        prop_assert_eq!(accepted, Err(Reason::OuterMalformed));
    }

    #[test]
    fn source_ports_stay_in_their_range(
        hash: u32,
        min: u16,
        span in prop_oneof![0..8u16, Just(u16::MAX), any::<u16>()],
    ) {
        let min = min.min(u16::MAX - span);
        for hash in [hash, 0, u32::MAX, 0xffff_0000, hash << 16, hash & 0xffff] {
            let port = outer::source_port(hash, min, span);
            prop_assert!((min..=min + span).contains(&port), "{} of {} + {}", port, min, span);
        }
    }

    #[test]
    fn source_ports_reach_both_ends_of_their_range(min: u16, span in 1u16..) {
        let min = min.min(u16::MAX - span);
        prop_assert_eq!(outer::source_port(0, min, span), min);
        // The kernel never takes the very last one either.
        prop_assert_eq!(outer::source_port(0xffff_0000, min, span), min + span - 1);
    }
}
