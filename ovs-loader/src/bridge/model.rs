//! The bridges of this host as the kernel has them: what a backend reads and the mirror works from.
//!
//! Plain data without behaviour of its own. A backend ([`super::linux`]) keeps it equal to the
//! kernel's state; nothing else writes it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ovs_ebpf_common::Reason;

use super::by_station::ByStation;
use super::vlans::PortVlans;

/// A network interface's index in the daemon's network namespace.
///
/// A port without an interface of its own (a tunnel of Open vSwitch's) has a number that no interface
/// can have: the kernel's are positive as `int`.
pub type IfIndex = u32;

/// The first number of ports without an interface.
pub const NO_INTERFACE: IfIndex = 1 << 31;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The all-zero address: in a vxlan device's FDB, the key of its flood list.
    pub const ZERO: Self = Self([0; 6]);
    /// All stations'.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether this is a group (broadcast or multicast) address.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why something is not accelerated: the reason, and what exactly was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Why {
    /// The stable reason.
    pub reason: Reason,
    /// What was found, in the words of the kernel or the tool that shows it; empty where the
    /// reason says it all.
    pub detail: String,
}

impl Why {
    /// A reason with what was found.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Self {
        Self::new(reason, "")
    }
}

/// Who forwards for a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeKind {
    /// The kernel's own bridge.
    Linux,
    /// Open vSwitch with the kernel datapath.
    Ovs,
}

/// A bridge with its ports and its FDB.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// The bridge device; also the bridge's number in the BPF maps.
    pub ifindex: IfIndex,
    /// The bridge's name.
    pub name: String,
    /// Who forwards.
    pub kind: BridgeKind,
    /// The bridge device's own MAC.
    pub mac: Mac,
    /// Administratively up.
    pub up: bool,
    /// How long an unused dynamic entry lives.
    pub ageing: Duration,
    /// The bridge looks at VLAN tags: `vlan_filtering` is on, or it is Open vSwitch's.
    pub vlan_aware: bool,
    /// The bridge's own `nf_call_iptables`, `nf_call_ip6tables` or `nf_call_arptables` is on.
    pub nf_call: bool,
    /// What forwards beside the FDB, and so is not reproduced, each with its reason.
    pub unsupported: Vec<Why>,
    /// The ports by their ifindex.
    pub ports: BTreeMap<IfIndex, Port>,
    /// The forwarding table.
    pub fdb: HashMap<FdbKey, FdbEntry>,
}

/// The key of a bridge's FDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbKey {
    /// VLAN id; 0 on a bridge that does not look at tags.
    pub vlan: u16,
    /// The station.
    pub mac: Mac,
}

/// Where a bridge has a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The port, or the bridge device itself for its own addresses.
    pub port: IfIndex,
    /// How it came to be.
    pub kind: FdbKind,
}

/// How an FDB entry came to be, and whether it ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdbKind {
    /// The bridge's or a port's own address: frames go up the host's stack.
    Local,
    /// Set by an operator or a control plane; does not age.
    Static,
    /// Learned (or `extern_learn`); ages.
    Dynamic,
    /// Not forwarded to like the others: `locked` (seen behind a locked port, not authorised).
    Locked,
}

/// A port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The device.
    pub ifindex: IfIndex,
    /// The device's name.
    pub name: String,
    /// The device's own MAC.
    pub mac: Mac,
    /// Administratively up and with carrier.
    pub up: bool,
    /// The device's MTU in bytes, of the packet within the Ethernet frame.
    pub mtu: u32,
    /// `IFLA_BRPORT_STATE`.
    pub stp: StpState,
    /// `IFLA_BRPORT_ISOLATED`, or OVS's `protected`: no forwarding between isolated ports.
    pub isolated: bool,
    /// `IFLA_BRPORT_LOCKED` (802.1X).
    pub locked: bool,
    /// The VLANs that it carries.
    pub vlans: PortVlans,
    /// There are VLAN devices on the device, which take frames of their VLANs before the bridge does.
    pub under_vlan_devices: bool,
    /// What is done to the port's frames beside forwarding, and so is not reproduced, each with its
    /// reason.
    pub unsupported: Vec<Why>,
    /// What the device is.
    pub device: Device,
}

/// A port's spanning tree state (`BR_STATE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StpState {
    /// Not part of the topology.
    Disabled,
    /// Hears BPDUs only.
    Listening,
    /// Learns, does not forward.
    Learning,
    /// Forwards.
    Forwarding,
    /// Blocked to break a loop.
    Blocking,
}

/// What kind of device a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// One end of a veth pair, with what is known of the other end.
    Veth(Option<VethPeer>),
    /// A VXLAN or GRE device.
    Tunnel(Box<Tunnel>),
    /// Any other Ethernet device that delivers frames like one: a NIC, a tap, a bond, a VLAN device.
    Ethernet,
    /// A device the fast path does not know, by its `IFLA_INFO_KIND`.
    Other(String),
}

/// The other end of a veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VethPeer {
    /// Its MAC.
    pub mac: Mac,
    /// Its MTU in bytes: what is behind it sends no larger packets.
    pub mtu: u32,
    /// It is in another network namespace than the daemon.
    pub other_namespace: bool,
    /// An XDP program is attached to it, which `bpf_redirect_peer` would go around.
    pub xdp: bool,
}

/// Which encapsulation a tunnel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encap {
    /// RFC 7348.
    Vxlan,
    /// RFC 2784 with Ethernet payload, RFC 2890 where there is a key.
    Gre,
}

impl Encap {
    /// The name `ip link` and OVS use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Gre => "gre",
        }
    }

    /// The outer IP protocol.
    #[must_use]
    pub const fn ip_protocol(self) -> u8 {
        match self {
            Self::Vxlan => libc::IPPROTO_UDP as u8,
            Self::Gre => libc::IPPROTO_GRE as u8,
        }
    }
}

/// Where an outer TTL or hop limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// The inner packet.
    Inherit,
    /// The tunnel's options. Never 0.
    Fixed(u8),
    /// The route to the remote, or else this (`ip4_dst_hoplimit`, `ip6_dst_hoplimit`).
    Route(u8),
}

/// Where an outer IPv6 flow label comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowLabel {
    /// The tunnel's options: 20 bits.
    Fixed(u32),
    /// The inner flow's hash (`ip6_make_flowlabel`).
    Flow,
}

/// A tunnel device's options, and for VXLAN its FDB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// VXLAN or GRE.
    pub encap: Encap,
    /// The local outer address; `None` leaves it to the route.
    pub local: Option<IpAddr>,
    /// Where frames go that have no FDB entry of their own: the remote, or the flood list. By VNI.
    pub remotes: Vec<Remote>,
    /// The key (GRE) or VNI expected of received packets; `None` in metadata mode too, where the VLANs
    /// say it ([`PortVlans::vnis`]).
    pub key_in: Option<u32>,
    /// The key (GRE) or VNI of sent packets, as `key_in`.
    pub key_out: Option<u32>,
    /// VXLAN: UDP destination port in host byte order. 0 for GRE.
    pub dst_port: u16,
    /// VXLAN: the range of UDP source ports, first to last, in host byte order, as the kernel picks
    /// them (the device's `srcport`, else the namespace's `ip_local_port_range`). (0, 0) for GRE.
    pub source_ports: (u16, u16),
    /// Outer TOS: `None` inherits the inner one. The ECN bits always follow RFC 6040.
    pub tos: Option<u8>,
    /// Whether the outer TOS of a frame without a tag that is marked ECT(1) is the inner one, whatever
    /// `tos` says.
    pub ect_1_inherits: bool,
    /// Of a frame with a tag, whose packet the device does not find, neither TOS nor TTL is inherited; then
    /// this is the TTL, if the route has none. `None` where a tag hides nothing.
    pub ttl_behind_tag: Option<u8>,
    /// Outer TTL or hop limit.
    pub ttl: Ttl,
    /// The Don't Fragment bit of the outer header; not over IPv6.
    pub df: bool,
    /// The flow label over IPv6.
    pub flow_label: FlowLabel,
    /// The device the tunnel is bound to (`dev`), if any.
    pub link: Option<IfIndex>,
    /// The device that the tunnel's packets pass where it is not the port's own: Open vSwitch has one
    /// for all tunnels of a kind (`gre_sys`, `vxlan_sys_4789`).
    pub device: Option<TunnelDevice>,
    /// VXLAN: how long a learned remote lives; `None` where remotes are not learned or do not age.
    pub ageing: Option<Duration>,
    /// Options that the fast path does not reproduce, each with its reason.
    pub unsupported: Vec<Why>,
    /// What stands against remotes over IPv6, where nothing but the remote says that it is IPv6.
    pub over_ipv6: Option<Why>,
    /// VXLAN: the remotes of single stations, each list by VNI. Without [`Mac::ZERO`], which is
    /// `remotes`.
    pub fdb: ByStation<Remote>,
}

impl Tunnel {
    /// Where the tunnel sends a station's frames: its own remotes (`vxlan_find_mac`), else the flood
    /// list. In metadata mode frames of that VNI.
    #[must_use]
    pub fn remotes_of(&self, station: Mac, vni: Option<u32>) -> &[Remote] {
        match of_vni(self.fdb.get(station).unwrap_or_default(), vni) {
            [] => of_vni(&self.remotes, vni),
            own => own,
        }
    }
}

/// The part of a list by VNI that is for one of them.
fn of_vni(remotes: &[Remote], vni: Option<u32>) -> &[Remote] {
    let start = remotes.partition_point(|remote| remote.vni < vni);
    let end = remotes.partition_point(|remote| remote.vni <= vni);
    &remotes[start..end]
}

/// A device that several tunnels share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelDevice {
    /// Its index.
    pub ifindex: IfIndex,
    /// Its name.
    pub name: String,
}

/// A tunnel's other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote {
    /// In metadata mode, the VNI whose frames go there (`src_vni`).
    pub vni: Option<u32>,
    /// Its outer address.
    pub address: IpAddr,
    /// Whether the kernel looks for it by the tunnel's own device alone, where that has one (`dev`).
    pub bound: bool,
    /// Options that differ from the tunnel's own (nexthop group, port, VNI, device), as `bridge fdb`
    /// shows them; empty where there are none.
    pub options: String,
}

impl Remote {
    /// A remote with the tunnel's own options.
    #[must_use]
    pub const fn plain(address: IpAddr) -> Self {
        Self { vni: None, address, bound: true, options: String::new() }
    }
}

/// What changed in a backend's bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Bridges, ports, tunnels or flood lists changed: plan anew.
    pub topology: bool,
    /// FDB entries changed, by bridge and key: all of them, also beside `topology`, but for those of
    /// bridges that are gone. May name one twice.
    pub fdb: Vec<(IfIndex, FdbKey)>,
}

/// A backend's bridges by ifindex.
pub type Bridges = BTreeMap<IfIndex, Bridge>;

/// All bridges of a host, whoever forwards for them. No two have the same ifindex.
#[derive(Clone, Copy, Debug)]
pub struct AllBridges<'a> {
    backends: [&'a Bridges; 2],
}

impl<'a> From<&'a Bridges> for AllBridges<'a> {
    fn from(bridges: &'a Bridges) -> Self {
        static NONE: Bridges = Bridges::new();
        Self::new(bridges, &NONE)
    }
}

impl<'a> AllBridges<'a> {
    /// The kernel's and Open vSwitch's.
    #[must_use]
    pub fn new(linux: &'a Bridges, ovs: &'a Bridges) -> Self {
        Self { backends: [linux, ovs] }
    }

    /// A bridge.
    #[must_use]
    pub fn get(self, ifindex: IfIndex) -> Option<&'a Bridge> {
        self.backends.into_iter().find_map(|bridges| bridges.get(&ifindex))
    }

    /// Every bridge.
    pub fn iter(self) -> impl Iterator<Item = &'a Bridge> {
        self.backends.into_iter().flat_map(BTreeMap::values)
    }
}
