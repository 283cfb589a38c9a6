//! Why a packet was left to the bridge, and why a bridge, port, tunnel or FDB entry is not
//! accelerated.
//!
//! One enum for kernel and user space. Codes are part of the map ABI and of `--json` output:
//! append, never renumber, never reuse.

/// Codes below this count packets, in [`crate::abi::ProgramCounters::reasons`]; codes from here on
/// explain configuration and are never counted.
pub const PACKET_REASONS: usize = 64;

macro_rules! reasons {
    ($($(#[doc = $help:literal])+ $variant:ident = $code:literal, $name:literal;)+) => {
        /// Why something does not take the fast path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $help])+ $variant = $code,)+
        }

        impl Reason {
            /// Every reason, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable name, as `status`, `stats` and `--json` print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One line of help for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($help),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    // Packets, both programs.
    /// the daemon has not renewed its lease: everything goes to the bridge
    LeaseExpired = 1, "lease_expired";
    /// the frame is too short for the headers it announces
    Truncated = 2, "truncated";
    /// broadcast or multicast destination: the bridge floods it
    Multicast = 3, "multicast";
    /// a VLAN-tagged frame from a port that takes none, on a bridge that looks at no tags, or into ip6gre
    VlanTagged = 4, "vlan_tagged";
    /// neither IPv4 nor IPv6 (ARP, for example)
    NotIp = 5, "not_ip";
    /// the source MAC is not in the FDB yet: the bridge learns it
    SourceUnknown = 6, "source_unknown";
    /// the source MAC arrived from elsewhere than the FDB says: the bridge learns the move
    SourceMoved = 7, "source_moved";
    /// one packet per source MAC and interval, so that the bridge sees the flow and its FDB stays fresh
    Revalidation = 8, "revalidation";
    /// the destination MAC is not in the FDB, or is the host's own
    DestinationUnknown = 9, "destination_unknown";
    /// the destination is where the frame came from
    SamePort = 10, "same_port";
    /// source and destination are both isolated ports
    Isolated = 11, "isolated";
    /// larger than the destination's MTU allows: the bridge fragments, drops or answers
    TooBig = 12, "too_big";
    /// source or destination was heard elsewhere a moment ago: until the FDB is known again, the bridge decides
    Doubted = 13, "doubted";

    // Packets, port_ingress.
    /// the port is not accelerated (any more)
    PortUnknown = 16, "port_unknown";
    /// the tunnel has no route or no resolved neighbour at the moment
    TunnelUnresolved = 17, "tunnel_unresolved";
    /// the kernel refused to add the outer headers (the frame is encapsulated already, for example)
    EncapRefused = 18, "encap_refused";

    // Packets, both programs: VLANs.
    /// a frame without VLAN tag from a port that takes none
    VlanUntagged = 19, "vlan_untagged";
    /// a VLAN tag within another, or one of 802.1ad (QinQ)
    VlanStacked = 20, "vlan_stacked";
    /// a tag that names no VLAN (priority-tagged) or says drop eligible
    VlanPriority = 21, "vlan_priority";

    // Packets, uplink_ingress.
    /// not tunnel traffic: all the rest of what the host receives
    NotTunnel = 32, "not_tunnel";
    /// malformed outer headers, or options or extension headers that may hide a tunnel's
    OuterMalformed = 33, "outer_malformed";
    /// a fragment that may be of a tunnel's packet: the kernel reassembles it
    OuterFragment = 34, "outer_fragment";
    /// a VXLAN or GRE header with other flags than the tunnel uses
    TunnelFlags = 35, "tunnel_flags";
    /// no tunnel of an accelerated bridge has this remote, local address and key
    TunnelUnknown = 36, "tunnel_unknown";
    /// arrived on another device than the route to the remote leaves by
    WrongUplink = 37, "wrong_uplink";
    /// the destination MAC is behind a tunnel: the bridge decides
    DestinationIsTunnel = 38, "destination_is_tunnel";
    /// congestion was marked on a packet that can't carry the mark inside: the kernel drops it (RFC 6040)
    EcnMark = 39, "ecn_mark";
    /// the kernel refused to remove the outer headers
    DecapRefused = 40, "decap_refused";
    /// a packet still to be cut into segments, for a port that may do that in hardware
    HardwareGso = 41, "hardware_gso";

    // Packets, port_ingress, continued.
    /// IPv6 options inside for a GRE tunnel over IPv6, which reads them (encapsulation limit, RFC 2473)
    InnerOptions = 42, "inner_options";

    // Packets, uplink_ingress, continued.
    /// datagrams out of VXLAN that are still to be cut (UDP_SEGMENT, GRO): nobody but the kernel's tunnel tells them so
    UncutDatagrams = 43, "uncut_datagrams";

    // Packets that are discarded, uplink_xdp.
    /// discarded: tunnel traffic from an address that is no tunnel's remote (accelerate.xdp)
    UnknownRemote = 46, "unknown_remote";
    /// discarded: tunnel traffic of a remote with a key that it does not have (accelerate.xdp)
    WrongKey = 47, "wrong_key";
    /// discarded: tunnel traffic with headers that no tunnel accepts (accelerate.xdp)
    Malformed = 48, "malformed";

    // Packets that are discarded, port_security.
    /// discarded: from a secured port, with a MAC that is not its own
    SpoofedMac = 49, "spoofed_mac";
    /// discarded: from a secured port, with an address that is not its own
    SpoofedIp = 50, "spoofed_ip";
    /// discarded: from a secured port, and whose it is can't be told (stacked tags, cut or endless headers)
    SenderHidden = 51, "sender_hidden";
    /// discarded: from a secured port, broadcast, multicast or to an unknown station beyond its flood_limit
    FloodLimited = 52, "flood_limited";

    // Configuration: the whole bridge.
    /// switched off with `ovs-loader accelerate`
    SwitchedOff = 64, "switched_off";
    /// not named in the configuration's accelerate.bridges
    NotSelected = 65, "not_selected";
    /// the bridge device is down
    BridgeDown = 66, "bridge_down";
    /// vlan_filtering by a protocol other than 802.1Q
    VlanFiltering = 67, "vlan_filtering";
    /// entries age faster than the fast path can prove them again
    AgeingTooShort = 68, "ageing_too_short";
    /// nftables has a ruleset in the bridge family, or legacy ebtables a table (accelerate.bypass_nft_bridge)
    NftBridge = 69, "nft_bridge";
    /// bridge netfilter hands frames to a ruleset that is not empty (accelerate.bypass_br_netfilter)
    BrNetfilter = 70, "br_netfilter";
    /// ovs-vswitchd or ovsdb-server does not answer
    OvsUnreachable = 71, "ovs_unreachable";
    /// the bridge is not on OVS's kernel datapath
    OvsDatapath = 72, "ovs_datapath";
    /// OpenFlow rules other than one that forwards by NORMAL, or fragments that are to be dropped (set-frags)
    OvsFlows = 73, "ovs_flows";
    /// a mirror copies the bridge's traffic
    OvsMirror = 74, "ovs_mirror";
    /// NetFlow, sFlow or IPFIX samples the bridge's traffic
    OvsSampling = 75, "ovs_sampling";
    /// OVS could not set the bridge up
    OvsBridgeFailed = 76, "ovs_bridge_failed";

    // Configuration: a port.
    /// the STP state is not forwarding
    StpNotForwarding = 80, "stp_not_forwarding";
    /// the port's device is down
    PortDown = 81, "port_down";
    /// the port is locked (802.1X)
    PortLocked = 82, "port_locked";
    /// a kind of device the fast path does not know
    PortKind = 83, "port_kind";
    /// a tc or TCX filter on the device's egress (accelerate.bypass_egress_filters)
    EgressFilter = 84, "egress_filter";
    /// a classic tc filter on the device's ingress would run after the fast path
    IngressFilter = 85, "ingress_filter";
    /// nftables has a netdev hook on the device (accelerate.bypass_nft_netdev)
    NftNetdev = 86, "nft_netdev";
    /// the program could not be attached to the device
    AttachFailed = 87, "attach_failed";
    /// ingress policing limits the port's rate
    Policing = 88, "policing";
    /// the port has QoS queues
    Qos = 89, "qos";
    /// a bond of several interfaces
    Bond = 90, "bond";
    /// the port changes VLAN tags, or holds back a VLAN, in a way that the fast path does not
    PortVlan = 91, "port_vlan";
    /// OVS could not add the port
    OvsPortFailed = 92, "ovs_port_failed";
    /// the port's OpenFlow configuration does not receive or forward everything
    OvsPortConfig = 93, "ovs_port_config";

    /// not secured: what is the port's own is not known (configuration, section port)
    PortUnsecured = 94, "port_unsecured";

    // Configuration: a tunnel.
    /// external (collect_md) tunnel: its options come with each packet, from elsewhere than the port's VLANs
    TunnelExternal = 96, "tunnel_external";
    /// VXLAN-GPE
    TunnelGpe = 97, "tunnel_gpe";
    /// VXLAN group policy (GBP)
    TunnelGbp = 98, "tunnel_gbp";
    /// GRE with the checksum bit
    TunnelChecksum = 99, "tunnel_checksum";
    /// the remote is a multicast group
    TunnelGroup = 100, "tunnel_group";
    /// IPv6 outer addresses for a kind of tunnel that the kernel sends over IPv4 only
    TunnelIpv6 = 101, "tunnel_ipv6";
    /// an option that the fast path does not reproduce
    TunnelOption = 102, "tunnel_option";
    /// the tunnel has no remote
    NoRemote = 103, "no_remote";
    /// no route to the remote
    NoRoute = 104, "no_route";
    /// the next hop's link-layer address is not known yet
    NoNeighbour = 105, "no_neighbour";
    /// the route leaves by a device that is not Ethernet, or is down
    UplinkUnsupported = 106, "uplink_unsupported";
    /// the remote is this host
    RemoteIsLocal = 107, "remote_is_local";
    /// an IPsec (XFRM) policy covers the outer flow
    XfrmPolicy = 108, "xfrm_policy";
    /// another tunnel has the same addresses, key and port
    TunnelClash = 109, "tunnel_clash";
    /// OpenFlow rules set the tunnel's remote, local address or key (flow)
    TunnelFlow = 110, "tunnel_flow";
    /// over IPv6 the tunnel sends or wants UDP checksums, which the fast path neither makes nor checks
    TunnelUdpChecksum = 111, "tunnel_udp_checksum";
    /// metadata mode: no VLAN of the tunnel's port has the VNI to itself, or the VLAN has none (vlan_tunnel, vnifilter)
    VniUnmapped = 112, "vni_unmapped";
    /// a routing rule may choose by what the route can't be asked with: GRE, a port, a tunnel id, an inherited TOS
    RoutingRule = 113, "routing_rule";

    // Configuration: XDP on an uplink.
    /// the device's driver has no XDP of its own (native)
    XdpUnsupported = 116, "xdp_unsupported";
    /// another XDP program is attached to the device
    XdpTaken = 117, "xdp_taken";
    /// the device is a port of a bridge
    XdpPort = 118, "xdp_port";
    /// not filtered: other tunnels than those of accelerated bridges may receive the same packets
    XdpShared = 119, "xdp_shared";

    // Configuration: an FDB entry.
    /// the host's own MAC on the bridge
    FdbLocal = 120, "fdb_local";
    /// a group address
    FdbGroup = 121, "fdb_group";
    /// an entry within a VLAN that its port does not carry
    FdbVlan = 122, "fdb_vlan";
    /// the MAC has several remotes
    SeveralRemotes = 123, "several_remotes";
    /// the entry's remote has options of its own (nexthop group, port, VNI or device)
    RemoteOptions = 124, "remote_options";
    /// the entry's port is not accelerated
    PortNotAccelerated = 125, "port_not_accelerated";
    /// a BPF map is full (accelerate.fdb_capacity)
    Capacity = 126, "capacity";
    /// a station behind a locked port that is not authorised (802.1X)
    FdbLocked = 127, "fdb_locked";
}

impl Reason {
    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| *reason as u8 == code)
    }

    /// Whether packets counted under this reason are discarded: all others go on to the bridge.
    #[inline(always)]
    #[must_use]
    pub const fn discards(self) -> bool {
        matches!(self as u8, 46..=55)
    }

    /// Whether packets are counted under this reason.
    #[must_use]
    pub const fn counts_packets(self) -> bool {
        (self as usize) < PACKET_REASONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_names_are_unique() {
        assert!(Reason::ALL.windows(2).all(|pair| (pair[0] as u8) < (pair[1] as u8)));
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn what_is_discarded_says_so() {
        for reason in Reason::ALL {
            assert_eq!(reason.discards(), reason.help().starts_with("discarded:"), "{reason:?}");
        }
    }

    #[test]
    fn codes_never_change() {
        // A sample of each block: renumbering breaks maps that another build adopts.
        assert_eq!(Reason::LeaseExpired as u8, 1);
        assert_eq!(Reason::TooBig as u8, 12);
        assert_eq!(Reason::PortUnknown as u8, 16);
        assert_eq!(Reason::NotTunnel as u8, 32);
        assert_eq!(Reason::UnknownRemote as u8, 46);
        assert_eq!(Reason::SwitchedOff as u8, 64);
        assert_eq!(Reason::OvsUnreachable as u8, 71);
        assert_eq!(Reason::Policing as u8, 88);
        assert_eq!(Reason::TunnelExternal as u8, 96);
        assert_eq!(Reason::XdpUnsupported as u8, 116);
        assert_eq!(Reason::Capacity as u8, 126);
        assert_eq!(Reason::from_code(32), Some(Reason::NotTunnel));
        assert_eq!(Reason::from_code(0), None);
    }
}
