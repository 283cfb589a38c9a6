/// Key of `fdb`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdbKey {
    /// The bridge: its device's ifindex.
    pub bridge: u32,
    /// VLAN id in host byte order; 0 on a bridge without VLANs. An entry says that its port carries
    /// the VLAN: nothing else is asked of a frame from there, or to there.
    pub vlan: u16,
    /// The station.
    pub mac: [u8; 6],
}

/// Value of `fdb`: where a station is.
///
/// The programs read `target`, `flags` and `mtu` first and at once; they write `next_revalidation` only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbValue {
    /// The ifindex of a local port, or with [`FdbFlags::TUNNEL`] a tunnel id.
    pub target: u32,
    /// [`FdbFlags`].
    pub flags: u16,
    /// How often a packet from this station must pass the bridge, in seconds; 0 is never.
    pub revalidate_seconds: u16,
    /// Largest packet within the Ethernet frame that the port takes, in bytes. Not used for tunnels,
    /// whose limit is [`super::TunnelPath::mtu`].
    pub mtu: u32,
    /// Zero.
    pub reserved: u32,
    /// From when on the next packet from this station passes the bridge, in nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub next_revalidation: u64,
}

/// Bits of [`FdbValue::flags`].
pub struct FdbFlags;

impl FdbFlags {
    /// The station is behind a tunnel.
    pub const TUNNEL: u16 = 1 << 0;
    /// The port is a veth whose other end, in another network namespace, has this very MAC: the
    /// frame may be handed to that end at once.
    pub const PEER: u16 = 1 << 1;
    /// The port is isolated: no traffic with other isolated ports.
    pub const ISOLATED: u16 = 1 << 2;
    /// The port's device may cut GSO packets in hardware. A decapsulated one still says that it is
    /// tunnelled, which hardware would believe.
    pub const HARDWARE: u16 = 1 << 3;
    /// Frames of this VLAN, which is not 0, leave by the port, or within the tunnel, with a tag.
    pub const TAGGED: u16 = 1 << 4;
}

const _: () = assert!(size_of::<FdbKey>() == 12);
const _: () = assert!(size_of::<FdbValue>() == 24);
super::pod!(FdbKey, FdbValue);
