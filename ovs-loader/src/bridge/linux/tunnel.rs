//! The options of vxlan and gretap devices, as the kernel transmits with them.
//!
//! Mirrors `vxlan_fill_info` and `ipgre_fill_info` for what is read, `vxlan_xmit_one` and
//! `ip_tunnel_xmit` for what an option's value means.

use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::Nla;
use netlink_packet_route::link::{GreEncapType, GreIOFlags, InfoGre, InfoGre6, InfoVxlan, VxlanDf};
use ovs_ebpf_common::Reason;
use ovs_ebpf_common::wire::ipv6;

use crate::bridge::by_station::ByStation;
use crate::bridge::model::{Encap, FlowLabel, Remote, Ttl, Tunnel, Why};

/// `IFLA_GRE_IGNORE_DF`, which the netlink library does not name.
const IFLA_GRE_IGNORE_DF: u16 = 19;

/// `IFLA_GRE_FLAGS`, which it does not name either.
pub(in crate::bridge) const IFLA_GRE_FLAGS: u16 = 13;

/// Bits of that (`linux/ip6_tunnel.h`).
pub(in crate::bridge) const IP6_TNL_F_IGN_ENCAP_LIMIT: u32 = 0x1;
const IP6_TNL_F_USE_ORIG_TCLASS: u32 = 0x2;
const IP6_TNL_F_USE_ORIG_FLOWLABEL: u32 = 0x4;
const IP6_TNL_F_RCV_DSCP_COPY: u32 = 0x10;
const IP6_TNL_F_USE_ORIG_FWMARK: u32 = 0x20;

/// What the network namespace says where a device says nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::bridge) struct Defaults {
    /// `net.ipv4.ip_default_ttl`.
    pub(in crate::bridge) ttl: u8,
    /// `net.ipv4.ip_local_port_range`.
    pub(in crate::bridge) source_ports: (u16, u16),
    /// The flow label of a GRE tunnel over IPv6 that sets none: `net.ipv6.auto_flowlabels`.
    pub(in crate::bridge) flow_label: FlowLabel,
}

impl Defaults {
    /// Reads them in the calling thread's network namespace; the kernel's own where `/proc` is
    /// not mounted.
    pub(in crate::bridge) fn read() -> Self {
        let text = |name| std::fs::read_to_string(format!("/proc/sys/net/{name}")).ok();
        Self {
            ttl: text("ipv4/ip_default_ttl")
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(64),
            source_ports: text("ipv4/ip_local_port_range")
                .and_then(|text| {
                    let mut bounds = text.split_whitespace().map(str::parse);
                    Some((bounds.next()?.ok()?, bounds.next()?.ok()?))
                })
                .unwrap_or((32768, 60999)),
            flow_label: match text("ipv6/auto_flowlabels").as_deref().map(str::trim) {
                Some("0") => FlowLabel::Fixed(0),
                _ => FlowLabel::Flow,
            },
        }
    }
}

fn bare(encap: Encap) -> Tunnel {
    Tunnel {
        encap,
        local: None,
        remotes: Vec::new(),
        key_in: None,
        key_out: None,
        dst_port: 0,
        source_ports: (0, 0),
        tos: Some(0),
        ect_1_inherits: false,
        ttl_behind_tag: None,
        ttl: Ttl::Inherit,
        df: false,
        flow_label: FlowLabel::Fixed(0),
        link: None,
        device: None,
        ageing: None,
        unsupported: Vec::new(),
        over_ipv6: None,
        fdb: ByStation::default(),
    }
}

fn option(words: impl Into<String>) -> Why {
    Why::new(Reason::TunnelOption, words)
}

/// A vxlan device. Its remotes come with its FDB, the device's own `remote` among them; whether it is in
/// metadata mode is the port's to judge.
pub(super) fn vxlan(info: &[InfoVxlan], defaults: Defaults) -> Tunnel {
    let mut tunnel = bare(Encap::Vxlan);
    let mut ttl = 0;
    let mut ttl_inherit = false;
    let mut learning = false;
    let mut ageing = 0;
    let mut source_ports = (0, 0);
    let mut remote = None;
    let mut zero_checksums = (false, false);
    let mut df = VxlanDf::Unset;
    let mut metadata = false;
    let mut unsupported = Vec::new();
    for info in info {
        match info {
            InfoVxlan::Id(vni) => (tunnel.key_in, tunnel.key_out) = (Some(*vni), Some(*vni)),
            InfoVxlan::Group(address) => remote = Some(IpAddr::V4(*address)),
            InfoVxlan::Group6(address) => remote = Some(IpAddr::V6(*address)),
            InfoVxlan::Local(address) => tunnel.local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => tunnel.local = Some(IpAddr::V6(*address)),
            InfoVxlan::Link(link) => tunnel.link = Some(*link).filter(|link| *link != 0),
            InfoVxlan::Port(port) => tunnel.dst_port = *port,
            InfoVxlan::PortRange(range) => source_ports = *range,
            InfoVxlan::Ttl(value) => ttl = *value,
            InfoVxlan::TtlInherit(value) => ttl_inherit = *value != 0,
            InfoVxlan::TtlInheritFlag => ttl_inherit = true,
            InfoVxlan::Tos(value) => tunnel.tos = Some(*value).filter(|tos| *tos != 1),
            InfoVxlan::Learning(value) => learning = *value,
            InfoVxlan::Ageing(seconds) => ageing = *seconds,
            InfoVxlan::Df(value) => df = *value,
            InfoVxlan::CollectMetadata(value) => metadata = *value,
            InfoVxlan::Gbp => unsupported.push(Reason::TunnelGbp.into()),
            InfoVxlan::Gpe => unsupported.push(Reason::TunnelGpe.into()),
            InfoVxlan::Proxy(true) => unsupported.push(option("proxy")),
            InfoVxlan::Rsc(true) => unsupported.push(option("rsc")),
            InfoVxlan::RemCsumTX(true) => unsupported.push(option("remcsumtx")),
            InfoVxlan::RemCsumRX(true) => unsupported.push(option("remcsumrx")),
            InfoVxlan::UDPZeroCsumTX(on) => zero_checksums.0 = *on,
            InfoVxlan::UDPZeroCsumRX(on) => zero_checksums.1 = *on,
            InfoVxlan::Label(label) => tunnel.flow_label = FlowLabel::Fixed(*label),
            InfoVxlan::LabelPolicy(policy) if *policy != 0 => {
                unsupported.push(option("flowlabel inherit"));
            }
            // l2miss and l3miss only report what the fast path leaves to the bridge anyway;
            // over IPv4, UDP checksums are optional for every receiver (RFC 7348 section 4.1);
            // localbypass belongs to a remote that is this host; the learning limit to the
            // kernel's own learning.
            _ => {}
        }
    }
    match df {
        // vxlan_xmit_one asks the metadata instead, in which the bridge sets nothing but the VNI.
        _ if metadata => {}
        VxlanDf::Unset => {}
        VxlanDf::Set => tunnel.df = true,
        df => unsupported.push(option(format!("df {df}"))),
    }
    if metadata {
        // It would take the place of the bridge's.
        let id = tunnel.key_out.filter(|id| *id != 0);
        unsupported.extend(id.map(|id| option(format!("id {id}"))));
        (tunnel.key_in, tunnel.key_out) = (None, None);
    }
    tunnel.ttl = match ttl {
        _ if ttl_inherit => Ttl::Inherit,
        0 => Ttl::Route(defaults.ttl),
        ttl => Ttl::Fixed(ttl),
    };
    // udp_flow_src_port takes the namespace's range where the device's is empty.
    tunnel.source_ports =
        if source_ports.0 < source_ports.1 { source_ports } else { defaults.source_ports };
    tunnel.ageing = (learning && ageing != 0).then(|| Duration::from_secs(u64::from(ageing)));
    if let Some(group) = remote.filter(IpAddr::is_multicast) {
        unsupported.push(Why::new(Reason::TunnelGroup, group.to_string()));
    }
    match tunnel.local.or(remote) {
        Some(IpAddr::V6(_)) => unsupported.extend(udp_checksum(zero_checksums)),
        Some(IpAddr::V4(_)) => {}
        // `vxlan_fill_info` leaves out an address that is any, and with it whether that is one of IPv6.
        None => tunnel.over_ipv6 = udp_checksum(zero_checksums),
    }
    tunnel.unsupported = unsupported;
    tunnel
}

/// What stands against sending without UDP checksums over IPv6, and receiving so (RFC 6935): both ends
/// have to be set to that, and a device can't be changed to it.
fn udp_checksum((send, receive): (bool, bool)) -> Option<Why> {
    let missing = match (send, receive) {
        (true, true) => return None,
        (false, true) => "noudp6zerocsumtx",
        (true, false) => "noudp6zerocsumrx",
        (false, false) => "noudp6zerocsumtx noudp6zerocsumrx",
    };
    let words =
        format!("{missing}: make the device with udp6zerocsumtx udp6zerocsumrx, on all hosts");
    Some(Why::new(Reason::TunnelUdpChecksum, words))
}

/// Options that gretap and ip6gretap share while they are read.
struct Gre {
    tunnel: Tunnel,
    keys: (u32, u32),
    flags: (GreIOFlags, GreIOFlags),
    unsupported: Vec<Why>,
}

impl Gre {
    fn new() -> Self {
        Self {
            tunnel: bare(Encap::Gre),
            keys: (0, 0),
            flags: (GreIOFlags::empty(), GreIOFlags::empty()),
            unsupported: Vec::new(),
        }
    }

    fn remote(&mut self, address: IpAddr) {
        if address.is_unspecified() {
            return;
        }
        if address.is_multicast() {
            self.unsupported.push(Why::new(Reason::TunnelGroup, address.to_string()));
        }
        self.tunnel.remotes.push(Remote::plain(address));
    }

    fn encap(&mut self, kind: &GreEncapType) {
        if *kind != GreEncapType::None {
            self.unsupported.push(option(format!("encap {kind}")));
        }
    }

    fn fwmark(&mut self, mark: u32) {
        if mark != 0 {
            self.unsupported.push(option(format!("fwmark {mark:#x}")));
        }
    }

    fn finish(mut self) -> Tunnel {
        let (input, output) = self.flags;
        self.tunnel.key_in = input.contains(GreIOFlags::Key).then_some(self.keys.0);
        self.tunnel.key_out = output.contains(GreIOFlags::Key).then_some(self.keys.1);
        for (flag, reason, words) in [
            (GreIOFlags::Checksum, Reason::TunnelChecksum, "csum"),
            (GreIOFlags::Seq, Reason::TunnelOption, "seq"),
        ] {
            match (input.contains(flag), output.contains(flag)) {
                (true, true) => self.unsupported.push(Why::new(reason, words)),
                (true, false) => self.unsupported.push(Why::new(reason, format!("i{words}"))),
                (false, true) => self.unsupported.push(Why::new(reason, format!("o{words}"))),
                (false, false) => {}
            }
        }
        let others = (input | output) - (GreIOFlags::Key | GreIOFlags::Checksum | GreIOFlags::Seq);
        if !others.is_empty() {
            self.unsupported.push(option(format!("flags {:#06x}", others.bits())));
        }
        self.tunnel.unsupported = self.unsupported;
        self.tunnel
    }
}

/// A gretap device.
pub(super) fn gretap(info: &[InfoGre], defaults: Defaults) -> Tunnel {
    let mut gre = Gre::new();
    // ip_tunnel_xmit finds no packet behind a tag: the GRE header is in front already (skb_protocol).
    gre.tunnel.ttl_behind_tag = Some(defaults.ttl);
    let mut pmtudisc = false;
    let mut ignore_df = false;
    for info in info {
        match info {
            InfoGre::Link(link) => gre.tunnel.link = Some(*link).filter(|link| *link != 0),
            InfoGre::IFlags(flags) => gre.flags.0 = *flags,
            InfoGre::OFlags(flags) => gre.flags.1 = *flags,
            InfoGre::IKey(key) => gre.keys.0 = *key,
            InfoGre::OKey(key) => gre.keys.1 = *key,
            InfoGre::Local(address) => {
                gre.tunnel.local = Some(IpAddr::V4(*address)).filter(|a| !a.is_unspecified());
            }
            InfoGre::Remote(address) => gre.remote(IpAddr::V4(*address)),
            InfoGre::Ttl(ttl) => gre.tunnel.ttl = ttl_of(*ttl),
            InfoGre::Tos(tos) => gre.tunnel.tos = Some(*tos).filter(|tos| tos & 1 == 0),
            InfoGre::PathMTUDiscovery(on) => pmtudisc = *on,
            InfoGre::Other(other) if other.kind() == IFLA_GRE_IGNORE_DF => {
                ignore_df = value_u8(other) != 0;
            }
            InfoGre::EncapType(kind) => gre.encap(kind),
            InfoGre::FwMask(mark) => gre.fwmark(*mark),
            InfoGre::CollectMetadata => gre.unsupported.push(Reason::TunnelExternal.into()),
            _ => {}
        }
    }
    gre.tunnel.df = pmtudisc;
    if !pmtudisc && !ignore_df {
        // ip_tunnel_xmit copies the inner IPv4 header's DF then.
        gre.unsupported.push(option("nopmtudisc"));
    }
    gre.finish()
}

/// An ip6gretap device, as `ip6gre_fill_info` tells of it and `ip6_tnl_xmit` sends.
pub(super) fn ip6gretap(info: &[InfoGre6], defaults: Defaults) -> Tunnel {
    let mut gre = Gre::new();
    let mut flags = 0;
    let mut encap_limit = 0;
    let mut flow_info = 0;
    for info in info {
        match info {
            InfoGre6::Link(link) => gre.tunnel.link = Some(*link).filter(|link| *link != 0),
            InfoGre6::IFlags(flags) => gre.flags.0 = *flags,
            InfoGre6::OFlags(flags) => gre.flags.1 = *flags,
            InfoGre6::IKey(key) => gre.keys.0 = *key,
            InfoGre6::OKey(key) => gre.keys.1 = *key,
            InfoGre6::Local(address) => {
                gre.tunnel.local = Some(IpAddr::V6(*address)).filter(|a| !a.is_unspecified());
            }
            InfoGre6::Remote(address) => gre.remote(IpAddr::V6(*address)),
            InfoGre6::Ttl(ttl) => gre.tunnel.ttl = ttl_of(*ttl),
            InfoGre6::EncapLimit(limit) => encap_limit = *limit,
            // The traffic class and the flow label (`IPV6_FLOWINFO_MASK`).
            InfoGre6::FlowLabel(info) => flow_info = *info,
            InfoGre6::Other(other) if other.kind() == IFLA_GRE_FLAGS => flags = value_u32(other),
            InfoGre6::EncapType(kind) => gre.encap(kind),
            InfoGre6::FwMask(mark) => gre.fwmark(*mark),
            InfoGre6::CollectMetadata => gre.unsupported.push(Reason::TunnelExternal.into()),
            _ => {}
        }
    }
    let is_set = |flag| flags & flag != 0;
    let class = (flow_info >> 20) as u8;
    gre.tunnel.tos = (!is_set(IP6_TNL_F_USE_ORIG_TCLASS)).then_some(class);
    gre.tunnel.flow_label = match flow_info & ipv6::FLOW_LABEL {
        0 => defaults.flow_label,
        label => FlowLabel::Fixed(label),
    };
    if !is_set(IP6_TNL_F_IGN_ENCAP_LIMIT) {
        // A destination option in every packet.
        let words = format!("encaplimit {encap_limit}: set encaplimit none");
        gre.unsupported.push(option(words));
    }
    for (flag, words) in [
        (IP6_TNL_F_USE_ORIG_FLOWLABEL, "flowlabel inherit"),
        (IP6_TNL_F_RCV_DSCP_COPY, "dscp inherit"),
        (IP6_TNL_F_USE_ORIG_FWMARK, "fwmark inherit"),
    ] {
        if is_set(flag) {
            gre.unsupported.push(option(words));
        }
    }
    gre.finish()
}

/// 0 stands for the inner packet's (`ip_tunnel_xmit`, `ip6_tnl_xmit`).
const fn ttl_of(ttl: u8) -> Ttl {
    match ttl {
        0 => Ttl::Inherit,
        ttl => Ttl::Fixed(ttl),
    }
}

fn value_u32(attribute: &impl Nla) -> u32 {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn value_u8(attribute: &impl Nla) -> u8 {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value.first().copied().unwrap_or(0)
}
