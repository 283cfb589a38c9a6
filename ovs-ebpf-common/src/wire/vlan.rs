//! The VLAN tag of an Ethernet frame (IEEE 802.1Q), in front of the EtherType it protects:
//!
//! ```text
//! 12      14                16
//! |0x8100 |pcp 3|dei 1|vid 12| EtherType
//! ```

use crate::Reason;

/// Bytes that a tag adds to a frame.
pub const LEN: usize = 4;
/// Tag protocol identifier of a customer VLAN tag.
pub const TPID: u16 = 0x8100;
/// Tag protocol identifier of a service VLAN tag (802.1ad).
const TPID_SERVICE: u16 = 0x88a8;

/// The drop eligible indicator, in the tag control information.
const DEI: u16 = 1 << 12;
/// The VLAN id, in the tag control information.
const VID: u16 = DEI - 1;

/// Whether an EtherType announces a tag of either kind.
#[inline(always)]
#[must_use]
pub const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, TPID | TPID_SERVICE)
}

/// The VLAN of a tag, by its protocol identifier and its control information in host byte order.
///
/// Never 0: bridges differ in what they make of a tag that names no VLAN, and of the drop eligible
/// indicator, which Open vSwitch loses where it changes a tag.
///
/// # Errors
/// [`Reason::VlanStacked`] for another protocol, [`Reason::VlanPriority`].
#[inline(always)]
pub const fn accept(tpid: u16, tci: u16) -> Result<u16, Reason> {
    if tpid != TPID {
        return Err(Reason::VlanStacked);
    }
    if tci & DEI != 0 || tci & VID == 0 {
        return Err(Reason::VlanPriority);
    }
    Ok(tci & VID)
}

/// The VLAN id of a tag by its control information in host byte order; 0 where it names none.
#[inline(always)]
#[must_use]
pub const fn id(tci: u16) -> u16 {
    tci & VID
}
