//! Explicit Congestion Notification across a tunnel (RFC 6040).

/// The two ECN bits of a TOS or traffic class byte.
pub const MASK: u8 = 0b11;
/// Not ECN-capable transport.
const NOT_ECT: u8 = 0b00;
/// ECN-capable transport (1).
const ECT_1: u8 = 0b01;
/// ECN-capable transport (0).
const ECT_0: u8 = 0b10;
/// Congestion experienced.
const CE: u8 = 0b11;

/// Whether a TOS or traffic class byte is marked ECT(1).
#[inline(always)]
#[must_use]
pub const fn is_ect_1(tos: u8) -> bool {
    tos & MASK == ECT_1
}

/// The outer TOS byte for an inner one: the tunnel's DSCP, the packet's ECN (RFC 6040 §4.1, normal
/// mode).
#[inline(always)]
#[must_use]
pub const fn encapsulate(tunnel_tos: u8, inner_tos: u8) -> u8 {
    (tunnel_tos & !MASK) | (inner_tos & MASK)
}

/// The inner TOS byte after decapsulation (RFC 6040 §4.2, figure 4); `None` where the packet has to be
/// dropped: congestion was marked on one that can't say so.
///
/// As the kernel's `INET_ECN_decapsulate` has it. Combinations that it only warns of stay as they are.
#[inline(always)]
#[must_use]
pub const fn decapsulate(outer_tos: u8, inner_tos: u8) -> Option<u8> {
    match (outer_tos & MASK, inner_tos & MASK) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(inner_tos | CE),
        (ECT_1, ECT_0) => Some(inner_tos ^ MASK),
        _ => Some(inner_tos),
    }
}
