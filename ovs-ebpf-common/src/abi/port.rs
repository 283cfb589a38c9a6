/// Value of `ports`, whose key is the ifindex (`u32`) of an accelerated bridge port.
///
/// The programs write `next_event` only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortValue {
    /// The bridge: its device's ifindex.
    pub bridge: u32,
    /// [`PortFlags`].
    pub flags: u16,
    /// VLAN of frames without a tag, in host byte order: 0 on a bridge without VLANs,
    /// [`super::NO_VLAN`] where the port takes no such frames.
    pub vlan: u16,
    /// From when on the port may raise the next event, in nanoseconds of `CLOCK_MONOTONIC`.
    pub next_event: u64,
}

/// Bits of [`PortValue::flags`].
pub struct PortFlags;

impl PortFlags {
    /// Raise an [`super::Event`] when a station appears at the port or moves to it.
    pub const EVENTS: u16 = 1 << 0;
    /// Frames with a VLAN tag are accepted, and belong to the VLAN that it names.
    pub const TAGGED: u16 = 1 << 1;
}

const _: () = assert!(size_of::<PortValue>() == 16);
super::pod!(PortValue);
