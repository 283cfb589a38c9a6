/// Value of `ports`, whose key is the ifindex (`u32`) of an accelerated bridge port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortValue {
    /// The bridge: its device's ifindex.
    pub bridge: u32,
    /// Zero.
    pub flags: u16,
    /// Access VLAN; 0 on a bridge without VLANs, the only kind accelerated so far.
    pub vlan: u16,
}

const _: () = assert!(size_of::<PortValue>() == 8);
super::pod!(PortValue);
