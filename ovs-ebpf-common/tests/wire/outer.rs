//! `wire::outer` against Scapy's frames, and there and back.

use std::net::IpAddr;

use ovs_ebpf_common::{
    Reason,
    abi::TunnelKind,
    wire::{
        ecn, frame, ipv6,
        outer::{self, Outer},
    },
};
use ovs_ebpf_tests::vectors::{self, Expected};
use proptest::prelude::*;

use crate::headers::{Fields, IP, VXLAN_PORT, accept, decode, encode, index_key, kind, parameters};

#[test]
fn every_outer_header_is_scapy_s() {
    for vector in vectors::encap() {
        let (tunnel, kind) = (&vector.tunnel, kind(&vector.tunnel));
        let len = vector.inner.len() as u32;
        let head = vector.inner.first_chunk().expect("a whole head");
        let inner = frame::parse(head, len).expect(&vector.name);
        let fields = Fields {
            frame_len: len,
            tos: ecn::encapsulate(tunnel.tos.unwrap_or(inner.tos), inner.tos),
            ttl: tunnel.ttl.unwrap_or(inner.ttl),
            id: 0,
            flow_label: [0; 4],
            source_port: vector.source_port.unwrap_or(0),
        };
        let header = encode(kind, &parameters(tunnel), &fields);
        let expected = &vector.outer[..vector.outer.len() - vector.inner.len()];
        assert_eq!(header, expected, "{}: {}", vector.name, vector.description);
    }
}

#[test]
fn every_frame_of_scapy_s_is_accepted_as_its_tunnel_s() {
    for vector in vectors::encap() {
        let kind = kind(&vector.tunnel);
        let (found, key, tos) = decode(&vector.outer, VXLAN_PORT).expect(&vector.name);
        assert_eq!(found, kind, "{}", vector.name);
        assert_eq!(key, index_key(kind, &parameters(&vector.tunnel)), "{}", vector.name);
        let expected = match vector.outer[14..16] {
            [0x45, tos] => tos,
            [first, second] => first << 4 | second >> 4,
            _ => unreachable!("two bytes"),
        };
        assert_eq!(tos, expected, "{}", vector.name);
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
                let (_, found, _) = decoded.unwrap_or_else(|reason| panic!("{name}: {reason:?}"));
                assert_ne!(found, key, "{name}");
            }
            Expected::Reason(reason)
                if !by_the_device
                    && (of_the_header.iter().any(|one| one.name() == reason) || !whole) =>
            {
                let decoded = decoded.map_err(Reason::name);
                assert_eq!(decoded, Err(reason.as_str()), "{name}");
            }
            _ => {
                let (_, found, _) = decoded.unwrap_or_else(|reason| panic!("{name}: {reason:?}"));
                assert_eq!(found, key, "{name}");
            }
        }
    }
}

fn any_outer() -> impl Strategy<Value = (TunnelKind, Outer)> {
    let kind = prop::sample::select(&TunnelKind::ALL[..]);
    let macs = any::<([u8; 6], [u8; 6])>();
    let addresses = any::<([u8; 16], [u8; 16])>();
    let label = any::<u32>().prop_map(|label| label & 0xf_ffff);
    (kind, macs, addresses, any::<u32>(), 1..=u16::MAX, any::<bool>(), label).prop_map(
        |(kind, (destination_mac, source_mac), (local, remote), key, dst_port, df, flow_label)| {
            let address = |bytes: [u8; 16]| match kind.is_ipv6() {
                true => IpAddr::from(bytes),
                false => IpAddr::from(*bytes.first_chunk::<4>().expect("sixteen bytes")),
            };
            let (local, remote) = (address(local), address(remote));
            let macs =
                Outer { destination_mac, source_mac, local, remote, key, dst_port, df, flow_label };
            (kind, macs)
        },
    )
}

/// A packet: its tunnel, and what is particular about it.
type Packet = ((TunnelKind, Outer), Fields);

fn any_packet() -> impl Strategy<Value = Packet> {
    let longest = u32::from(u16::MAX) - outer::total_len(TunnelKind::VxlanIpv4, 0);
    let fields = (34..=longest, any::<(u8, u8, u16, u16, u32)>()).prop_map(
        |(frame_len, (tos, ttl, id, source_port, hash))| {
            let flow_label = ipv6::flow_label(hash);
            Fields { frame_len, tos, ttl, id, flow_label, source_port }
        },
    );
    (any_outer(), fields)
}

/// The frame that the packet is, filled up with zeros.
fn frame(((kind, outer), fields): &Packet) -> Vec<u8> {
    let mut frame = encode(*kind, outer, fields);
    frame.resize(frame.len() + fields.frame_len as usize, 0);
    frame
}

/// Where UDP or GRE begins.
fn l4(kind: TunnelKind) -> usize {
    if kind.is_ipv6() { 54 } else { 34 }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(packet in any_packet()) {
        let ((kind, outer), fields) = packet;
        let (found, key, tos) = decode(&frame(&packet), outer.dst_port).expect("accepted");
        prop_assert_eq!(found, kind);
        prop_assert_eq!(key, index_key(kind, &outer));
        prop_assert_eq!(tos, fields.tos);
    }

    #[test]
    fn a_flow_label_is_the_tunnel_s_and_the_flow_s(packet in any_packet()) {
        let ((kind, outer), fields) = packet;
        prop_assume!(kind.is_ipv6());
        let frame = frame(&packet);
        let label = u32::from_be_bytes([0, frame[15] & 0x0f, frame[16], frame[17]]);
        prop_assert_eq!(label, outer.flow_label | u32::from_be_bytes(fields.flow_label));
    }

    #[test]
    fn every_bit_of_the_ipv4_header_is_under_its_checksum(packet in any_packet()) {
        prop_assume!(!packet.0.0.is_ipv6());
        let frame = frame(&packet);
        for bit in IP.start * 8..IP.end * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode(&damaged, packet.0.1.dst_port);
            prop_assert!(decoded.is_err(), "bit {} of byte {}: {:?}", bit % 8, bit / 8, decoded);
        }
    }

    #[test]
    fn every_bit_of_the_tunnel_header_counts(packet in any_packet()) {
        let frame = frame(&packet);
        let (kind, outer) = packet.0;
        let whole = decode(&frame, outer.dst_port).expect("accepted");
        let udp = l4(kind);
        for bit in udp * 8..kind.header_len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // The UDP source port and checksum may be anything.
            let free = kind.is_vxlan() && [udp, udp + 1, udp + 6, udp + 7].contains(&(bit / 8));
            let same = decode(&damaged, outer.dst_port) == Ok(whole);
            prop_assert_eq!(same, free, "bit {} of byte {}", bit % 8, bit / 8);
        }
    }

    #[test]
    fn every_bit_of_the_ipv6_header_but_the_label_and_the_hop_limit_counts(packet in any_packet()) {
        let (kind, outer) = packet.0;
        prop_assume!(kind.is_ipv6());
        let frame = frame(&packet);
        let whole = decode(&frame, outer.dst_port).expect("accepted");
        for bit in 14 * 8..54 * 8 {
            let mut damaged = frame.clone();
            // Bit 0 is the first on the wire.
            damaged[bit / 8] ^= 0x80 >> (bit % 8);
            let free = (14 * 8 + 12..18 * 8).contains(&bit) || bit / 8 == 21;
            let same = decode(&damaged, outer.dst_port) == Ok(whole);
            prop_assert_eq!(same, free, "bit {} of byte {}", bit % 8, bit / 8);
        }
    }

    #[test]
    fn another_length_than_the_header_s_is_not_accepted(packet in any_packet(), other in 42u32..) {
        let frame = frame(&packet);
        prop_assume!(other as usize != frame.len());
        prop_assert_eq!(accept(packet.0.0, &frame, other), Err(Reason::OuterMalformed));
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
