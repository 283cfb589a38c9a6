//! GRE with Ethernet payload (RFC 2784), with or without key (RFC 2890).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |C| |K|S| Reserved0       | Ver |  Protocol Type: 0x6558        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                      Key (where K is set)                     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use crate::Reason;

/// Length of the header without key, in bytes.
pub const LEN: usize = 4;
/// Length of the header with key, in bytes.
pub const KEY_LEN: usize = 8;
/// Transparent Ethernet bridging.
pub(super) const PROTOCOL: [u8; 2] = [0x65, 0x58];
/// The C bit, in the first byte.
pub(super) const CHECKSUM_PRESENT: u8 = 0x80;
/// The R bit, in the first byte, reserved since RFC 2784.
pub(super) const ROUTING_PRESENT: u8 = 0x40;
/// The K bit, in the first byte.
pub(super) const KEY_PRESENT: u8 = 0x20;
/// The S bit, in the first byte.
pub(super) const SEQUENCE_PRESENT: u8 = 0x10;
/// The version, in the second byte.
pub(super) const VERSION: u8 = 0x07;

/// Whether a key follows, of a plain GRE header with Ethernet payload.
///
/// # Errors
/// [`Reason::TunnelFlags`] for checksum, routing, sequence number, another version or payload: left
/// to the kernel.
#[inline(always)]
pub const fn accept(header: [u8; LEN]) -> Result<bool, Reason> {
    let [flags, version, p0, p1] = header;
    if flags & !KEY_PRESENT != 0 || version != 0 || p0 != PROTOCOL[0] || p1 != PROTOCOL[1] {
        return Err(Reason::TunnelFlags);
    }
    Ok(flags & KEY_PRESENT != 0)
}

/// The header without key.
#[must_use]
pub const fn encode() -> [u8; LEN] {
    [0, 0, PROTOCOL[0], PROTOCOL[1]]
}

/// The header with key.
#[must_use]
pub const fn encode_key(key: u32) -> [u8; KEY_LEN] {
    let [a, b, c, d] = key.to_be_bytes();
    [KEY_PRESENT, 0, PROTOCOL[0], PROTOCOL[1], a, b, c, d]
}
