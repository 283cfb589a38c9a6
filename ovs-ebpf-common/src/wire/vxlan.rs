//! VXLAN (RFC 7348 §5).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                VXLAN Network Identifier (VNI) |   Reserved    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use network_types::vxlan::{VXLAN_I_FLAG_MASK, VxlanHdr};

use crate::Reason;

/// The UDP port assigned to VXLAN.
pub const PORT: u16 = 4789;
/// The largest VNI.
pub const VNI_MAX: u32 = 0xff_ffff;

/// The VNI of a plain VXLAN header, as the 32-bit key of a tunnel.
///
/// # Errors
/// [`Reason::TunnelFlags`] where the I flag is missing or any other bit is set: an extension (GPE,
/// GBP) that the kernel has to judge.
#[inline(always)]
pub const fn accept(header: [u8; VxlanHdr::LEN]) -> Result<[u8; 4], Reason> {
    let [flags, r1, r2, r3, a, b, c, r4] = header;
    if flags != VXLAN_I_FLAG_MASK || r1 | r2 | r3 | r4 != 0 {
        return Err(Reason::TunnelFlags);
    }
    Ok([0, a, b, c])
}

/// The header of a VNI; bits above the 24th are ignored.
#[must_use]
pub const fn encode(vni: u32) -> [u8; VxlanHdr::LEN] {
    let [_, a, b, c] = vni.to_be_bytes();
    [VXLAN_I_FLAG_MASK, 0, 0, 0, a, b, c, 0]
}
