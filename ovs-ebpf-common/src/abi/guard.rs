/// Capacity of the `guards` map: an endpoint, the remotes and the ways of as many tunnels as there
/// can be.
pub const GUARD_CAPACITY: usize = 16_384;
/// Capacity of the `xdp_uplinks` map.
pub const UPLINK_CAPACITY: usize = 64;
/// How many sources of discarded packets are remembered, those seen last.
pub const SOURCE_CAPACITY: usize = 4_096;

/// Key of `guards`, a set: what the filter on the uplinks knows of the tunnels' traffic.
///
/// A packet to an address and port without [`GuardKind::Endpoint`] is none of the filter's business.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuardKey {
    /// An outer address: IPv6, or IPv4 mapped into IPv6 (`::ffff:192.0.2.1`).
    pub address: [u8; 16],
    /// VNI or GRE key; 0 without key, and where it does not matter.
    pub key: [u8; 4],
    /// UDP destination port; 0 for GRE.
    pub dst_port: [u8; 2],
    /// IP protocol.
    pub protocol: u8,
    /// [`GuardKind`].
    pub kind: u8,
}

/// What an element of `guards` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GuardKind {
    /// A local address and port that accelerated tunnels have for themselves alone.
    Endpoint = 1,
    /// The address of a tunnel's remote.
    Remote = 2,
    /// A remote's address and the key that its packets may have.
    Way = 3,
}

/// Value of `guards`: always 1.
pub type GuardValue = u32;

/// Value of `xdp_uplinks`, whose key is the ifindex of a device with the filter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UplinkValue {
    /// The device's MAC: frames to others are not this host's.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

/// Key of `xdp_sources`: an outer source address, as in [`GuardKey::address`].
pub type SourceKey = [u8; 16];

/// Value of `xdp_sources`: how many packets of a source were discarded, by reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounters {
    /// [`crate::Reason::UnknownRemote`].
    pub unknown_remote: u64,
    /// [`crate::Reason::WrongKey`].
    pub wrong_key: u64,
    /// [`crate::Reason::Malformed`].
    pub malformed: u64,
}

const _: () = assert!(size_of::<GuardKey>() == 24);
const _: () = assert!(size_of::<UplinkValue>() == 8);
const _: () = assert!(size_of::<SourceCounters>() == 24);
super::pod!(GuardKey, UplinkValue, SourceCounters);
