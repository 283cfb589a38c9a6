use core::net::IpAddr;

/// Longest outer header: Ethernet 14, IPv6 40, UDP 8, VXLAN 8, rounded up to a multiple of 8.
pub const OUTER_HEADER_MAX: usize = 72;
/// Length of [`TunnelPath::header`]: behind the longest outer header is room for the inner Ethernet
/// header with a VLAN tag, so that both are one piece to copy and to complete.
pub const TEMPLATE_LEN: usize = (OUTER_HEADER_MAX + 14 + 4).next_multiple_of(8);

/// What a tunnel's outer header consists of; [`TunnelPath::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TunnelKind {
    /// Ethernet, IPv4, UDP, VXLAN: 50 bytes (RFC 7348).
    VxlanIpv4 = 1,
    /// Ethernet, IPv4, GRE without key: 38 bytes (RFC 2784).
    GreIpv4 = 2,
    /// Ethernet, IPv4, GRE with key: 42 bytes (RFC 2890).
    GreKeyIpv4 = 3,
    /// Ethernet, IPv6, UDP, VXLAN: 70 bytes.
    VxlanIpv6 = 4,
    /// Ethernet, IPv6, GRE without key: 58 bytes.
    GreIpv6 = 5,
    /// Ethernet, IPv6, GRE with key: 62 bytes.
    GreKeyIpv6 = 6,
}

impl TunnelKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::VxlanIpv4,
        Self::GreIpv4,
        Self::GreKeyIpv4,
        Self::VxlanIpv6,
        Self::GreIpv6,
        Self::GreKeyIpv6,
    ];

    /// Whether the outer header is IPv6's.
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self as u8 >= Self::VxlanIpv6 as u8
    }

    /// Whether it is VXLAN, over whatever IP.
    #[inline(always)]
    #[must_use]
    pub const fn is_vxlan(self) -> bool {
        matches!(self, Self::VxlanIpv4 | Self::VxlanIpv6)
    }

    /// Length of the outer header with its Ethernet header, in bytes.
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Self::VxlanIpv4 => 50,
            Self::GreIpv4 => 38,
            Self::GreKeyIpv4 => 42,
            Self::VxlanIpv6 => 70,
            Self::GreIpv6 => 58,
            Self::GreKeyIpv6 => 62,
        }
    }
}

/// Bits of [`TunnelValue::flags`].
pub struct TunnelFlags;

impl TunnelFlags {
    /// Route and neighbour are known: the active path may be used.
    pub const READY: u8 = 1 << 0;
    /// The outer DSCP is the inner one.
    pub const TOS_INHERIT: u8 = 1 << 1;
    /// The outer TTL is the inner one.
    pub const TTL_INHERIT: u8 = 1 << 2;
    /// The outer packet may be fragmented on its way, so that it needs an identification of its own
    /// (RFC 6864 §4). IPv4 only.
    pub const NEEDS_ID: u8 = 1 << 3;
    /// The outer flow label is made from the inner flow (RFC 6438). IPv6 only; without it the
    /// template's stays.
    pub const FLOW_LABEL: u8 = 1 << 4;
    /// Of a frame without a tag that is marked ECT(1), the outer DSCP is the inner one. GRE over IPv4
    /// only.
    pub const ECT_1_INHERIT: u8 = 1 << 5;
    /// A frame with a tag hands down neither TOS nor TTL: it gets the tunnel's own. GRE over IPv4 only.
    pub const TAG_HIDES: u8 = 1 << 6;
}

/// Value of `tunnels`, an array by tunnel id: how to reach one remote with one key.
///
/// A map update copies the value while programs read it. So that none ever sees half a header, a
/// new path is written into the slot that is not active, and made active by a second update.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelValue {
    /// [`TunnelFlags`]; 0 in an unused element.
    pub flags: u8,
    /// Which of `paths` is in use: 0 or 1.
    pub active: u8,
    /// Outer DSCP, shifted to its place in the TOS byte (IPv6: the traffic class), unless inherited.
    pub tos: u8,
    /// Outer TTL (IPv6: the hop limit), unless inherited.
    pub ttl: u8,
    /// Zero.
    pub reserved: [u8; 4],
    /// First UDP source port, host byte order.
    pub source_port_min: u16,
    /// Number of UDP source ports after the first; the kernel's `max - min`.
    pub source_port_span: u16,
    /// Zero.
    pub reserved2: u32,
    /// The two slots for the way to the remote.
    pub paths: [TunnelPath; 2],
}

/// One way to the remote.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelPath {
    /// The outer header from Ethernet on, as long as [`TunnelKind::header_len`] says. TOS, total length,
    /// identification, TTL, checksum, UDP source port and UDP length are zero (of IPv6, traffic class,
    /// payload length and hop limit); the kernel writes the MACs anew. What follows is zero.
    pub header: [u8; TEMPLATE_LEN],
    /// Sum of the header's IPv4 header as big-endian 16-bit words, not folded; 0 for IPv6.
    pub checksum_seed: u32,
    /// Device to send through.
    pub uplink: u32,
    /// Largest packet within the inner Ethernet frame, in bytes.
    pub mtu: u32,
    /// [`TunnelKind`] of the header; 0 in a slot that was never used.
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Next hop on the uplink, whose link-layer address the kernel fills in: an IPv6 address, or an
    /// IPv4 address in the first four bytes.
    pub next_hop: [u8; 16],
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub next_hop_family: u32,
    /// Zero.
    pub reserved2: u32,
}

impl Default for TunnelPath {
    fn default() -> Self {
        Self {
            header: [0; TEMPLATE_LEN],
            checksum_seed: 0,
            uplink: 0,
            mtu: 0,
            kind: 0,
            reserved: [0; 3],
            next_hop: [0; 16],
            next_hop_family: 0,
            reserved2: 0,
        }
    }
}

/// Key of `tunnel_index`: what identifies a received packet's tunnel.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelIndexKey {
    /// The sender's outer IPv4 address.
    pub remote: [u8; 4],
    /// This host's outer IPv4 address.
    pub local: [u8; 4],
    /// VNI or GRE key, 32 bits; 0 without key.
    pub key: [u8; 4],
    /// UDP destination port; 0 for GRE.
    pub dst_port: [u8; 2],
    /// [`TunnelKind`].
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
}

/// Key of `tunnel_index6`: what identifies a packet received over IPv6. A map of its own, so that
/// IPv4's key stays short.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelIndexKey6 {
    /// The sender's outer IPv6 address.
    pub remote: [u8; 16],
    /// This host's outer IPv6 address.
    pub local: [u8; 16],
    /// VNI or GRE key, 32 bits; 0 without key.
    pub key: [u8; 4],
    /// UDP destination port; 0 for GRE.
    pub dst_port: [u8; 2],
    /// [`TunnelKind`].
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
}

/// A key of `tunnel_index` or of `tunnel_index6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IndexKey {
    /// Over IPv4.
    Ipv4(TunnelIndexKey),
    /// Over IPv6.
    Ipv6(TunnelIndexKey6),
}

impl IndexKey {
    /// The key of what arrives from `remote` at `local`; the port in host byte order.
    ///
    /// # Panics
    /// Where the addresses are not of the kind's family.
    #[must_use]
    pub fn new(kind: TunnelKind, remote: IpAddr, local: IpAddr, key: u32, dst_port: u16) -> Self {
        let (key, dst_port) = (key.to_be_bytes(), dst_port.to_be_bytes());
        let ipv6 = kind.is_ipv6();
        let (kind, reserved) = (kind as u8, 0);
        match (remote, local) {
            (IpAddr::V4(remote), IpAddr::V4(local)) if !ipv6 => {
                let (remote, local) = (remote.octets(), local.octets());
                Self::Ipv4(TunnelIndexKey { remote, local, key, dst_port, kind, reserved })
            }
            (IpAddr::V6(remote), IpAddr::V6(local)) if ipv6 => {
                let (remote, local) = (remote.octets(), local.octets());
                Self::Ipv6(TunnelIndexKey6 { remote, local, key, dst_port, kind, reserved })
            }
            _ => panic!("{remote} and {local} are not addresses of tunnels of kind {kind}"),
        }
    }

    /// This host's outer address.
    #[must_use]
    pub fn local(&self) -> IpAddr {
        match self {
            Self::Ipv4(key) => key.local.into(),
            Self::Ipv6(key) => key.local.into(),
        }
    }

    /// The UDP destination port in network byte order; 0 for GRE.
    #[must_use]
    pub const fn dst_port(&self) -> [u8; 2] {
        match self {
            Self::Ipv4(key) => key.dst_port,
            Self::Ipv6(key) => key.dst_port,
        }
    }
}

/// Value of `tunnel_index` and `tunnel_index6`.
///
/// The programs write `next_event` only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelIndexValue {
    /// The tunnel id that the FDB names for stations behind this remote.
    pub tunnel: u32,
    /// The bridge: its device's ifindex.
    pub bridge: u32,
    /// The device that the remote's packets must arrive on.
    pub uplink: u32,
    /// VLAN of frames without a tag, as [`super::PortValue::vlan`].
    pub vlan: u16,
    /// [`TunnelIndexFlags`].
    pub flags: u16,
    /// From when on the tunnel may raise the next event, in nanoseconds of `CLOCK_MONOTONIC`.
    pub next_event: u64,
}

/// Bits of [`TunnelIndexValue::flags`].
pub struct TunnelIndexFlags;

impl TunnelIndexFlags {
    /// Raise an [`super::Event`] when a station appears behind the tunnel or moves there.
    pub const EVENTS: u16 = 1 << 0;
    /// As [`super::PortFlags::TAGGED`].
    pub const TAGGED: u16 = 1 << 1;
}

const _: () = assert!(size_of::<TunnelPath>() == 136);
const _: () = assert!(size_of::<TunnelValue>() == 16 + 2 * 136);
const _: () = assert!(size_of::<TunnelIndexKey>() == 16);
const _: () = assert!(size_of::<TunnelIndexKey6>() == 40);
const _: () = assert!(size_of::<TunnelIndexValue>() == 24);
super::pod!(TunnelValue, TunnelIndexKey, TunnelIndexKey6, TunnelIndexValue);
