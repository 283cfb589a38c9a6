//! `wire::ipv4` against Scapy's headers and RFC 1071 as it is written.

use ovs_ebpf_common::wire::ipv4;
use ovs_ebpf_tests::vectors::{self, Expected};
use proptest::prelude::*;

use crate::headers::IP;

const CHECKSUM: std::ops::Range<usize> = 10..12;

/// RFC 1071 §1: the ones' complement of the ones' complement sum of the 16-bit words, byte by byte
/// with the carry taken around each time.
fn reference(header: &[u8; 20]) -> u16 {
    let (mut high, mut low) = (0u8, 0u8);
    for (at, byte) in header.iter().enumerate() {
        let (mut to_high, mut to_low) = if at % 2 == 0 { (*byte, 0) } else { (0, *byte) };
        while (to_high, to_low) != (0, 0) {
            let (sum, carry_low) = low.overflowing_add(to_low);
            low = sum;
            let (sum, carry_high) = high.overflowing_add(to_high);
            high = sum;
            (to_high, to_low) = (u8::from(carry_low), u8::from(carry_high));
        }
    }
    !u16::from_be_bytes([high, low])
}

fn without_checksum(mut header: [u8; 20]) -> [u8; 20] {
    header[CHECKSUM].fill(0);
    header
}

#[test]
fn the_checksum_is_scapy_s() {
    let mut checksums = Vec::new();
    for vector in vectors::encap().iter().filter(|vector| vector.tunnel.remote.is_ipv4()) {
        let header: [u8; 20] = vector.outer[IP].try_into().expect("20 bytes");
        assert!(ipv4::checksum_holds(&header), "{}", vector.name);
        let checksum = ipv4::checksum(ipv4::sum(&without_checksum(header)));
        assert_eq!(checksum.to_be_bytes(), header[CHECKSUM], "{}", vector.name);
        checksums.push(checksum);
    }
    assert!(checksums.contains(&0), "a checksum of zero is one that holds");
}

#[test]
fn a_checksum_of_scapy_s_that_is_wrong_does_not_hold() {
    let vectors = vectors::decap();
    let wrong: Vec<_> =
        vectors.iter().filter(|vector| vector.name.ends_with("_ip_checksum")).collect();
    assert_eq!(wrong.len(), 3, "one for each kind of tunnel");
    for vector in wrong {
        let header = vector.outer[IP].try_into().expect("20 bytes");
        assert!(!ipv4::checksum_holds(&header), "{}", vector.name);
    }
}

#[test]
fn every_sum_that_ten_words_can_have_is_folded_right() {
    for sum in 0..=10 * 0xffff_u32 {
        // Ones' complement arithmetic is modulo 65,535, with 65,535 for every multiple but zero.
        let folded = if sum == 0 { 0 } else { (sum - 1) % 0xffff + 1 };
        assert_eq!(ipv4::checksum(sum), !(folded as u16), "{sum}");
    }
    for header in [[0; 20], [0xff; 20]] {
        assert_eq!(ipv4::checksum_holds(&header), reference(&header) == 0);
    }
}

#[test]
fn fragments_are_told_by_offset_and_more_fragments() {
    // RFC 791: reserved, Don't Fragment, More Fragments, then 13 bits of offset.
    for field in 0..=u16::MAX {
        let fragment = field & 0x2000 != 0 || field & 0x1fff != 0;
        assert_eq!(ipv4::is_fragment(field.to_be_bytes()), fragment, "{field:#06x}");
    }
}

proptest! {
    #[test]
    fn the_checksum_is_rfc_1071_s(header: [u8; 20]) {
        prop_assert_eq!(ipv4::checksum(ipv4::sum(&header)), reference(&header));
    }

    #[test]
    fn a_checksum_holds_where_rfc_1071_says_so(header: [u8; 20], noise: u16) {
        prop_assert_eq!(ipv4::checksum_holds(&header), reference(&header) == 0);
        // Random headers are nearly all wrong: one that is right, and one next to it.
        let mut right = without_checksum(header);
        right[CHECKSUM].copy_from_slice(&reference(&without_checksum(header)).to_be_bytes());
        prop_assert!(ipv4::checksum_holds(&right));
        let mut near = right;
        near[CHECKSUM].copy_from_slice(&noise.to_be_bytes());
        prop_assert_eq!(ipv4::checksum_holds(&near), reference(&near) == 0);
    }
}

#[test]
fn a_changed_tos_keeps_a_header_s_checksum_right() {
    let marked = vectors::decap().into_iter().filter_map(|vector| match vector.expected {
        Expected::Inner(inner) if vector.name.contains("_ecn_ipv4_") => {
            let before = vector.outer[vector.outer.len() - inner.len()..].to_vec();
            Some((vector.name, before, inner))
        }
        _ => None,
    });
    let mut changed = 0;
    for (name, before, after) in marked {
        let checksum = |frame: &[u8]| u16::from_be_bytes([frame[24], frame[25]]);
        let found = ipv4::checksum_with_tos(checksum(&before), before[15], after[15]);
        assert_eq!(found, checksum(&after), "{name}");
        changed += usize::from(before != after);
    }
    // ECT(0) and ECT(1) in CE, and ECT(0) in ECT(1), for each kind of tunnel.
    assert_eq!(changed, 3 * 6);
}

#[test]
fn a_wrong_checksum_stays_as_wrong_as_it_was() {
    for checksum in 0..=u16::MAX {
        for (from, to) in [(1, 3), (2, 3), (2, 1), (0xfe, 0xff)] {
            let found = u32::from(ipv4::checksum_with_tos(checksum, from, to));
            // Modulo 65,535, where the two zeros are one.
            let expected = u32::from(checksum) + u32::from(from) + 0xffff - u32::from(to);
            assert_eq!(found % 0xffff, expected % 0xffff);
        }
    }
}
