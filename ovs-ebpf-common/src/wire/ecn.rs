//! Explicit Congestion Notification across a tunnel (RFC 6040).

/// The two ECN bits of a TOS or traffic class byte.
pub const MASK: u8 = 0b11;
/// ECN-capable transport (1).
const ECT_1: u8 = 0b01;
/// Congestion experienced.
const CE: u8 = 0b11;

/// The outer TOS byte for an inner one: the tunnel's DSCP, the packet's ECN (RFC 6040 §4.1, normal
/// mode).
#[inline(always)]
#[must_use]
pub const fn encapsulate(tunnel_tos: u8, inner_tos: u8) -> u8 {
    (tunnel_tos & !MASK) | (inner_tos & MASK)
}

/// Whether the inner ECN bits stay as they are on decapsulation (RFC 6040 §4.2, figure 4).
///
/// Where they do not, the packet has to be marked or dropped, which is left to the kernel.
#[inline(always)]
#[must_use]
pub const fn keeps_inner(outer_tos: u8, inner_tos: u8) -> bool {
    let (outer, inner) = (outer_tos & MASK, inner_tos & MASK);
    match outer {
        CE => inner == CE,
        // ECT(1) outside turns ECT(0) inside into ECT(1).
        ECT_1 => inner != 0b10,
        _ => true,
    }
}
