//! The options of vxlan and gretap devices, as the kernel transmits with them.
//!
//! Mirrors `vxlan_fill_info` and `ipgre_fill_info` for what is read, `vxlan_xmit_one` and
//! `ip_tunnel_xmit` for what an option's value means.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::Nla;
use netlink_packet_route::link::{GreEncapType, GreIOFlags, InfoGre, InfoGre6, InfoVxlan, VxlanDf};
use ovs_ebpf_common::Reason;

use crate::bridge::model::{Encap, Remote, Tunnel, Why};

/// `IFLA_GRE_IGNORE_DF`, which the netlink library does not name.
const IFLA_GRE_IGNORE_DF: u16 = 19;

/// What the network namespace says where a device says nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::bridge) struct Defaults {
    /// `net.ipv4.ip_default_ttl`.
    pub(super) ttl: u8,
    /// `net.ipv4.ip_local_port_range`.
    pub(in crate::bridge) source_ports: (u16, u16),
}

impl Defaults {
    /// Reads them in the calling thread's network namespace; the kernel's own where `/proc` is
    /// not mounted.
    pub(in crate::bridge) fn read() -> Self {
        let text = |name| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
        Self {
            ttl: text("ip_default_ttl").and_then(|text| text.trim().parse().ok()).unwrap_or(64),
            source_ports: text("ip_local_port_range")
                .and_then(|text| {
                    let mut bounds = text.split_whitespace().map(str::parse);
                    Some((bounds.next()?.ok()?, bounds.next()?.ok()?))
                })
                .unwrap_or((32768, 60999)),
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
        ttl: None,
        df: false,
        link: None,
        device: None,
        ageing: None,
        unsupported: Vec::new(),
        fdb: HashMap::new(),
    }
}

fn option(words: impl Into<String>) -> Why {
    Why::new(Reason::TunnelOption, words)
}

/// A vxlan device. Its remotes come with its FDB, the device's own `remote` among them.
pub(super) fn vxlan(info: &[InfoVxlan], defaults: Defaults) -> Tunnel {
    let mut tunnel = bare(Encap::Vxlan);
    let mut ttl = 0;
    let mut ttl_inherit = false;
    let mut learning = false;
    let mut ageing = 0;
    let mut source_ports = (0, 0);
    let mut remote = None;
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
            InfoVxlan::Df(VxlanDf::Unset) => tunnel.df = false,
            InfoVxlan::Df(VxlanDf::Set) => tunnel.df = true,
            InfoVxlan::Df(df) => unsupported.push(option(format!("df {df}"))),
            InfoVxlan::CollectMetadata(true) => unsupported.push(Reason::TunnelExternal.into()),
            InfoVxlan::Vnifilter(true) => unsupported.push(option("vnifilter")),
            InfoVxlan::Gbp => unsupported.push(Reason::TunnelGbp.into()),
            InfoVxlan::Gpe => unsupported.push(Reason::TunnelGpe.into()),
            InfoVxlan::Proxy(true) => unsupported.push(option("proxy")),
            InfoVxlan::Rsc(true) => unsupported.push(option("rsc")),
            InfoVxlan::RemCsumTX(true) => unsupported.push(option("remcsumtx")),
            InfoVxlan::RemCsumRX(true) => unsupported.push(option("remcsumrx")),
            // l2miss and l3miss only report what the fast path leaves to the bridge anyway;
            // UDP checksums are optional for every receiver (RFC 7348 section 4.1); flow labels
            // and their checksums belong to an IPv6 underlay; localbypass to a remote that is
            // this host; the learning limit to the kernel's own learning.
            _ => {}
        }
    }
    tunnel.ttl = match ttl {
        _ if ttl_inherit => None,
        0 => Some(defaults.ttl),
        ttl => Some(ttl),
    };
    // udp_flow_src_port takes the namespace's range where the device's is empty.
    tunnel.source_ports =
        if source_ports.0 < source_ports.1 { source_ports } else { defaults.source_ports };
    tunnel.ageing = (learning && ageing != 0).then(|| Duration::from_secs(u64::from(ageing)));
    if let Some(group) = remote.filter(IpAddr::is_multicast) {
        unsupported.push(Why::new(Reason::TunnelGroup, group.to_string()));
    }
    if let Some(address) = tunnel.local.or(remote).filter(IpAddr::is_ipv6) {
        unsupported.push(Why::new(Reason::TunnelIpv6, address.to_string()));
    }
    tunnel.unsupported = unsupported;
    tunnel
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
        self.tunnel.remotes.push(Remote { address, options: String::new() });
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
        let local = self.tunnel.local;
        let remote = self.tunnel.remotes.first().map(|remote| remote.address);
        if let Some(address) = local.or(remote).filter(IpAddr::is_ipv6) {
            self.unsupported.push(Why::new(Reason::TunnelIpv6, address.to_string()));
        }
        self.tunnel.unsupported = self.unsupported;
        self.tunnel
    }
}

/// A gretap device.
pub(super) fn gretap(info: &[InfoGre]) -> Tunnel {
    let mut gre = Gre::new();
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
            InfoGre::Ttl(ttl) => gre.tunnel.ttl = Some(*ttl).filter(|ttl| *ttl != 0),
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

/// An ip6gretap device: an IPv6 underlay, so never accelerated yet; read for `status`.
pub(super) fn ip6gretap(info: &[InfoGre6]) -> Tunnel {
    let mut gre = Gre::new();
    for info in info {
        match info {
            InfoGre6::Link(link) => gre.tunnel.link = Some(*link).filter(|link| *link != 0),
            InfoGre6::IFlags(flags) => gre.flags.0 = *flags,
            InfoGre6::OFlags(flags) => gre.flags.1 = *flags,
            InfoGre6::IKey(key) => gre.keys.0 = *key,
            InfoGre6::OKey(key) => gre.keys.1 = *key,
            InfoGre6::Local(address) => gre.tunnel.local = Some(IpAddr::V6(*address)),
            InfoGre6::Remote(address) => gre.remote(IpAddr::V6(*address)),
            InfoGre6::Ttl(ttl) => gre.tunnel.ttl = Some(*ttl).filter(|ttl| *ttl != 0),
            InfoGre6::EncapType(kind) => gre.encap(kind),
            InfoGre6::FwMask(mark) => gre.fwmark(*mark),
            InfoGre6::CollectMetadata => gre.unsupported.push(Reason::TunnelExternal.into()),
            _ => {}
        }
    }
    gre.finish()
}

fn value_u8(attribute: &impl Nla) -> u8 {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value.first().copied().unwrap_or(0)
}
