/// Number of elements of `flows` on each CPU: a power of two.
pub const FLOW_CAPACITY: usize = 256;

/// What identifies a flow: what its packets begin with and where they arrive. Compared as whole words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// The receiving station.
    pub destination: [u8; 6],
    /// The sending station.
    pub source: [u8; 6],
    /// The device that its packets arrive on.
    pub ifindex: u32,
    /// What identifies the tunnel that they come by; zero of what comes from a port. Over IPv4 the
    /// [`super::TunnelIndexKey`]; over IPv6, whose addresses are too long, what the map says of them: the
    /// [`super::TunnelIndexValue`] without its last field.
    pub outer: [u8; 16],
    /// Control information of the frames' VLAN tag; 0 without.
    pub tag: u16,
    /// Protocol identifier of that tag; 0 without.
    pub tpid: u16,
    /// [`super::TunnelKind`]; 0 of what comes from a port.
    pub kind: u32,
}

/// Element of `flows`, which has some for each CPU: what was last decided for a flow.
///
/// The programs alone read and write it. It saves the look-ups in `ports`, `tunnel_index` and `fdb`,
/// and is worth nothing after any change there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Which flow.
    pub key: FlowKey,
    /// [`super::Control::generation`] before anything was looked up.
    pub generation: u64,
    /// From when on it has to be looked up again, in nanoseconds of `CLOCK_MONOTONIC`: when the
    /// source is to be re-validated, or the element is old.
    pub expires: u64,
    /// As in the destination's [`super::FdbValue`].
    pub target: u32,
    /// As in the destination's [`super::FdbValue`].
    pub mtu: u32,
    /// As in the destination's [`super::FdbValue`].
    pub flags: u16,
    /// Control information of the VLAN tag that its frames leave with; 0 is none.
    pub tag: u16,
    /// The tunnel that they came by; 0 of what comes from a port.
    pub tunnel: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<Flow>() == 72);
const _: () = assert!(FLOW_CAPACITY.is_power_of_two());
super::pod!(FlowKey, Flow);
