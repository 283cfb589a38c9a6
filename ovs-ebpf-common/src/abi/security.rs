/// Capacity of the `allowed` map: MACs and addresses of all secured ports.
pub const ALLOWED_CAPACITY: usize = 65_536;

/// Value of `security`, whose key is the ifindex (`u32`) of a secured bridge port.
///
/// The programs write `full_at` and `discarded` only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityValue {
    /// The bridge: its device's ifindex.
    pub bridge: u32,
    /// [`SecurityFlags`].
    pub flags: u16,
    /// VLAN of frames without a tag, as [`super::PortValue::vlan`].
    pub vlan: u16,
    /// Nanoseconds that a packet to many takes from the bucket.
    pub interval: u64,
    /// Nanoseconds that the bucket holds before it is empty.
    pub burst: u64,
    /// When the bucket is full again, in nanoseconds of `CLOCK_MONOTONIC` ([`crate::bucket`]).
    pub full_at: u64,
    /// How many of the port's packets were discarded.
    pub discarded: u64,
}

/// Bits of [`SecurityValue::flags`].
pub struct SecurityFlags;

impl SecurityFlags {
    /// Source MACs are limited to those in `allowed`.
    pub const MACS: u16 = 1 << 0;
    /// Source addresses are limited to those in `allowed`.
    pub const ADDRESSES: u16 = 1 << 1;
    /// Packets to groups are limited in their rate.
    pub const FLOOD: u16 = 1 << 2;
    /// With [`Self::FLOOD`]: so are packets to stations that are not in `stations`.
    pub const UNKNOWN: u16 = 1 << 3;
    /// Frames with a VLAN tag belong to the VLAN that it names.
    pub const TAGGED: u16 = 1 << 4;
}

/// Key of `allowed`, a set: what is a secured port's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllowedKey {
    /// The port.
    pub ifindex: u32,
    /// [`AllowedKind`].
    pub kind: u32,
    /// The address, and as many bytes of zero as it is shorter.
    pub address: [u8; 16],
}

impl AllowedKey {
    /// The element of a MAC.
    #[inline(always)]
    #[must_use]
    pub const fn mac(ifindex: u32, mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        let address = [a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Self { ifindex, kind: AllowedKind::Mac as u32, address }
    }

    /// The element of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4(ifindex: u32, [a, b, c, d]: [u8; 4]) -> Self {
        let address = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Self { ifindex, kind: AllowedKind::Ipv4 as u32, address }
    }

    /// The element of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn ipv6(ifindex: u32, address: [u8; 16]) -> Self {
        Self { ifindex, kind: AllowedKind::Ipv6 as u32, address }
    }
}

/// What an element of `allowed` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AllowedKind {
    /// A MAC.
    Mac = 1,
    /// An IPv4 address.
    Ipv4 = 2,
    /// An IPv6 address: one that maps an IPv4 address is another than that.
    Ipv6 = 3,
}

/// Value of `allowed`, and of `stations`, whose key is [`super::FdbKey`]: always 1.
pub type AllowedValue = u32;

const _: () = assert!(size_of::<SecurityValue>() == 40);
const _: () = assert!(size_of::<AllowedKey>() == 24);
super::pod!(SecurityValue, AllowedKey);
