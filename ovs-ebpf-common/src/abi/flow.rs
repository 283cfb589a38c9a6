/// Number of elements of `flows` on each CPU: a power of two.
pub const FLOW_CAPACITY: usize = 256;

/// What identifies a flow: where its frames come from, and both stations. Compared as whole words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// Where its frames come from: an ifindex, or of a tunnel its id.
    pub from: u32,
    /// The bridge: its device's ifindex.
    pub bridge: u32,
    /// The receiving station.
    pub destination: [u8; 6],
    /// The sending station.
    pub source: [u8; 6],
    /// VLAN id in host byte order; 0 on a bridge without VLANs.
    pub vlan: u16,
    /// 1 where `from` is a tunnel, else 0.
    pub is_tunnel: u16,
}

/// Element of `flows`, which has some for each CPU: what the FDB last said of a flow.
///
/// The programs alone read and write it. It saves the two look-ups in `fdb`, and is worth nothing after
/// any change there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Which flow.
    pub key: FlowKey,
    /// [`super::Control::generation`] before the FDB was looked at.
    pub generation: u64,
    /// From when on the FDB has to be looked at again, in nanoseconds of `CLOCK_MONOTONIC`: when the
    /// source is to be re-validated, or the element is old.
    pub expires: u64,
    /// As in the destination's [`super::FdbValue`].
    pub target: u32,
    /// As in the destination's [`super::FdbValue`].
    pub mtu: u32,
    /// As in the destination's [`super::FdbValue`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 24);
const _: () = assert!(size_of::<Flow>() == 56);
const _: () = assert!(FLOW_CAPACITY.is_power_of_two());
super::pod!(FlowKey, Flow);
