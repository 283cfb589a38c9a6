use crate::reason::PACKET_REASONS;

/// The programs, as indices of the `counters` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Program {
    /// TC ingress of a bridge port.
    PortIngress = 0,
    /// TC ingress of an uplink.
    UplinkIngress = 1,
    /// XDP of an uplink.
    UplinkXdp = 2,
    /// TC ingress of a secured bridge port, before all others.
    PortSecurity = 3,
}

impl Program {
    /// Every program.
    pub const ALL: [Self; 4] =
        [Self::PortIngress, Self::UplinkIngress, Self::UplinkXdp, Self::PortSecurity];
    /// Those at TC hooks.
    pub const TC: [Self; 3] = [Self::PortIngress, Self::UplinkIngress, Self::PortSecurity];
    /// Those of them that forward.
    pub const FORWARDING: [Self; 2] = [Self::PortIngress, Self::UplinkIngress];

    /// The program's name in the object, in `stats` and as a pin.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortIngress => "port_ingress",
            Self::UplinkIngress => "uplink_ingress",
            Self::UplinkXdp => "uplink_xdp",
            Self::PortSecurity => "port_security",
        }
    }
}

/// One program's counters on one CPU. A packet is an skb: one GSO or GRO packet counts once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramCounters {
    /// Packets forwarded on the fast path.
    pub packets: u64,
    /// Their bytes as received by the program.
    pub bytes: u64,
    /// Packets left to the bridge or discarded, by [`crate::Reason`] code.
    pub reasons: [u64; PACKET_REASONS],
}

const _: () = assert!(size_of::<ProgramCounters>() == 16 + 8 * PACKET_REASONS);

/// One tunnel's fast-path traffic on one CPU. Bytes are of the inner Ethernet frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelCounters {
    /// Packets sent into the tunnel.
    pub tx_packets: u64,
    /// Bytes sent into the tunnel.
    pub tx_bytes: u64,
    /// Packets received from the tunnel.
    pub rx_packets: u64,
    /// Bytes received from the tunnel.
    pub rx_bytes: u64,
}

const _: () = assert!(size_of::<TunnelCounters>() == 32);
super::pod!(ProgramCounters, TunnelCounters);
