//! `wire::frame` against Scapy's frames.

use ovs_ebpf_common::{
    Reason,
    wire::frame::{self, Head, MIN_LEN, Network},
};
use ovs_ebpf_tests::vectors;
use proptest::prelude::*;

use crate::headers::IP;

fn parse(frame: &[u8]) -> Result<frame::Frame, Reason> {
    let head = frame.first_chunk().ok_or(Reason::Truncated)?;
    frame::parse(head, frame.len() as u32)
}

#[test]
fn every_frame_s_fields_are_those_scapy_put_there() {
    for vector in vectors::encap() {
        let (name, inner) = (&vector.name, &vector.inner);
        let frame = parse(inner).unwrap_or_else(|reason| panic!("{name}: {reason:?}"));
        let network = if name.contains("ipv6") { Network::Ipv6 } else { Network::Ipv4 };
        assert_eq!(frame.network, network, "{name}");
        // What Scapy copied from the inner packet.
        let outer = &vector.outer[IP];
        let (tos, ttl) = match outer[0] >> 4 {
            4 => (outer[1], outer[8]),
            _ => (outer[0] << 4 | outer[1] >> 4, outer[7]),
        };
        assert_eq!(frame.tos & 0x03, tos & 0x03, "{name}");
        if vector.tunnel.tos.is_none() {
            assert_eq!(frame.tos, tos, "{name}");
        }
        if vector.tunnel.ttl.is_none() {
            assert_eq!(frame.ttl, ttl, "{name}");
        }
    }
}

#[test]
fn the_transport_header_is_where_scapy_put_it() {
    let ports = |source: u16, destination: u16| {
        [source.to_be_bytes(), destination.to_be_bytes()].as_flattened().to_vec()
    };
    let transports = [
        ("ipv4_udp", 17, ports(4000, 5000)),
        ("ipv4_options", 17, ports(4000, 5000)),
        ("ipv4_tcp", 6, ports(4000, 80)),
        ("ipv4_icmp", 1, vec![8, 0]),
        ("ipv4_other_protocol", 253, vec![1, 8, 15]),
        ("ipv6_tcp", 6, ports(4000, 80)),
        ("ipv6_icmpv6", 58, vec![128, 0]),
    ];
    for (part, transport, start) in transports {
        let vectors = vectors::encap();
        let mut found = vectors.iter().filter(|vector| vector.name.contains(part)).peekable();
        assert!(found.peek().is_some(), "no vector {part:?}");
        for vector in found {
            let frame = parse(&vector.inner).expect(&vector.name);
            assert_eq!(frame.transport, transport, "{}", vector.name);
            let at = usize::from(frame.transport_offset);
            assert!(vector.inner[at..].starts_with(&start), "{}", vector.name);
        }
    }
}

#[test]
fn what_is_not_forwarded_has_the_vector_s_reason() {
    let of_the_head = [Reason::Multicast, Reason::VlanStacked, Reason::NotIp, Reason::Truncated]
        .map(Reason::name);
    for vector in vectors::encap_punt() {
        let parsed = parse(&vector.frame).map_err(Reason::name);
        if of_the_head.contains(&vector.reason.as_str()) {
            assert_eq!(parsed, Err(vector.reason.as_str()), "{}", vector.name);
        } else {
            assert!(parsed.is_ok(), "{}: {parsed:?}", vector.name);
        }
    }
}

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const VLAN: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
const TYPES: &[[u8; 2]] = &[IPV4, IPV6, VLAN[0], VLAN[1]];

proptest! {
    #[test]
    fn any_head_has_an_answer(
        head: Head,
        ether_type in prop::sample::select(TYPES),
        len in MIN_LEN as u32..80,
    ) {
        let mut head = head;
        head[12..14].copy_from_slice(&ether_type);
        let group = head[0] & 1 != 0;
        match frame::parse(&head, len) {
            Ok(frame) => {
                prop_assert!(!group);
                let (expected, least) = match frame.network {
                    Network::Ipv4 => (IPV4, 34),
                    Network::Ipv6 => (IPV6, 54),
                };
                prop_assert_eq!(ether_type, expected);
                prop_assert!(len >= least);
            }
            Err(Reason::Multicast) => prop_assert!(group),
            Err(Reason::VlanStacked) => prop_assert!(VLAN.contains(&ether_type)),
            Err(Reason::Truncated) => prop_assert!(ether_type == IPV6 && len < 54),
            Err(reason) => prop_assert!(false, "{:?}", reason),
        }
    }
}
