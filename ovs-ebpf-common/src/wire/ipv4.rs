//! The outer IPv4 header (RFC 791).

use network_types::ip::Ipv4Hdr;

/// Version 4, header of five 32-bit words: without options.
pub const VERSION_IHL: u8 = 0x45;
/// Don't Fragment, in the first byte of the flags and fragment offset field.
pub const DF: u8 = 0x40;
/// More Fragments and the fragment offset.
const FRAGMENT: u16 = 0x3fff;

/// Sum of the header's big-endian 16-bit words, not folded: at most 10 × 65,535.
#[must_use]
pub const fn sum(header: &[u8; Ipv4Hdr::LEN]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at < Ipv4Hdr::LEN {
        sum += u16::from_be_bytes([header[at], header[at + 1]]) as u32;
        at += 2;
    }
    sum
}

/// The Internet checksum (RFC 1071) of what was summed, in host byte order.
#[inline(always)]
#[must_use]
pub const fn checksum(sum: u32) -> u16 {
    // Two folds suffice: the first leaves at most one carry.
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Whether a received header's checksum is right.
///
/// The ones' complement sum does not care for byte order or word size (RFC 1071 §2), so that five
/// native words do.
#[inline(always)]
#[must_use]
pub const fn checksum_holds(header: &[u8; Ipv4Hdr::LEN]) -> bool {
    let mut sum = 0u64;
    let mut at = 0;
    while at < Ipv4Hdr::LEN {
        let word = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        sum += u32::from_ne_bytes(word) as u64;
        at += 4;
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    checksum(sum as u32) == 0
}

/// The checksum of a header whose TOS byte changes, from what it was before, both in host byte order.
///
/// RFC 1624 with the kernel's choice between the two zeros of ones' complement (`IP_ECN_set_ce`).
#[must_use]
pub const fn checksum_with_tos(checksum: u16, from: u8, to: u8) -> u16 {
    let sum = checksum as u32 + from as u32 + !(to as u16) as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

/// Whether the flags and fragment offset field is that of a fragment.
#[inline(always)]
#[must_use]
pub const fn is_fragment(field: [u8; 2]) -> bool {
    u16::from_be_bytes(field) & FRAGMENT != 0
}
