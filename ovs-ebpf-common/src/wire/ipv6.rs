//! The outer IPv6 header (RFC 8200).

/// The flow label field's mask in the header's first four bytes.
pub const FLOW_LABEL: u32 = 0x000f_ffff;

/// The flow label that the kernel makes of a flow's hash (`ip6_make_flowlabel`), in its place in the
/// header's first four bytes, so that a flow keeps its label, and with it its path, whichever way it
/// takes.
#[inline(always)]
#[must_use]
pub const fn flow_label(hash: u32) -> [u8; 4] {
    // The kernel takes the rotated hash for network byte order as it is.
    let [_, b, c, d] = hash.rotate_left(16).to_ne_bytes();
    [0, b & 0x0f, c, d]
}

/// The first two bytes of a header, given those it had, with another traffic class.
#[inline(always)]
#[must_use]
pub const fn with_traffic_class(start: [u8; 2], class: u8) -> [u8; 2] {
    [(start[0] & 0xf0) | (class >> 4), (class << 4) | (start[1] & 0x0f)]
}
