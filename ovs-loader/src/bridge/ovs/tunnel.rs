//! The options of an Interface of type `gre`, `ip6gre` or `vxlan`, as ovs-vswitchd takes them.
//!
//! Mirrors `set_tunnel_config` (lib/netdev-vport.c) for what is read, and `tnl_port_send`
//! (ofproto/tunnel.c) with the kernel's external tunnel devices for what an option means.

use std::collections::HashMap;
use std::net::IpAddr;

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::wire::vxlan::VNI_MAX;

use crate::bridge::by_station::ByStation;
use crate::bridge::linux::tunnel::Defaults;
use crate::bridge::model::{Encap, FlowLabel, Remote, Ttl, Tunnel, Why};

/// RFC 7348.
const VXLAN_PORT: u16 = 4789;

/// `DEFAULT_TTL`.
const TTL: u8 = 64;

/// The two bits of a TOS that are never set by an option (RFC 3168).
const ECN: u8 = 3;

/// An Interface's type that is a tunnel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Vxlan,
    Gre,
    Ip6Gre,
}

impl Kind {
    /// The type by its name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "vxlan" => Some(Self::Vxlan),
            "gre" => Some(Self::Gre),
            "ip6gre" => Some(Self::Ip6Gre),
            _ => None,
        }
    }

    /// The device that all tunnels of the type share, those of one port for VXLAN.
    pub(super) fn device(self, dst_port: u16) -> String {
        match self {
            Self::Vxlan => format!("vxlan_sys_{dst_port}"),
            Self::Gre => "gre_sys".to_owned(),
            Self::Ip6Gre => "ip6gre_sys".to_owned(),
        }
    }
}

/// Whether a device is one that tunnels share.
pub(super) fn is_shared_device(name: &str) -> bool {
    ["gre_sys", "ip6gre_sys"].contains(&name) || name.starts_with("vxlan_sys_")
}

/// Reads a tunnel's options. `defaults` are the network namespace's.
///
/// What is not understood is among the tunnel's [`Tunnel::unsupported`]: it is a value that
/// ovs-vswitchd does not understand either, or knows better.
pub(super) fn read<'a>(
    kind: Kind,
    options: impl Iterator<Item = (&'a str, &'a str)>,
    defaults: Defaults,
) -> Tunnel {
    let options: HashMap<_, _> = options.collect();
    let is_vxlan = kind == Kind::Vxlan;
    let mut tunnel = Tunnel {
        encap: if is_vxlan { Encap::Vxlan } else { Encap::Gre },
        local: None,
        remotes: Vec::new(),
        key_in: is_vxlan.then_some(0),
        key_out: is_vxlan.then_some(0),
        dst_port: if is_vxlan { VXLAN_PORT } else { 0 },
        source_ports: if is_vxlan { defaults.source_ports } else { (0, 0) },
        tos: Some(0),
        ect_1_inherits: false,
        ttl_behind_tag: None,
        ttl: Ttl::Fixed(TTL),
        df: true,
        flow_label: if is_vxlan { FlowLabel::Fixed(0) } else { defaults.flow_label },
        link: None,
        device: None,
        ageing: None,
        unsupported: Vec::new(),
        over_ipv6: None,
        fdb: ByStation::default(),
    };
    let mut keys: Vec<_> = options.iter().collect();
    keys.sort_unstable();
    for (&key, &value) in keys {
        if let Err(reason) = option(&mut tunnel, &options, key, value) {
            tunnel.unsupported.push(Why::new(reason, words(key, value)));
        }
    }
    // Open vSwitch hands the device the tunnel's DSCP with the packet's ECN field. Is that nothing but
    // ECT(1), the device takes it for the 1 that stands for `inherit` (`ip_md_tunnel_xmit`).
    tunnel.ect_1_inherits = kind == Kind::Gre && tunnel.tos == Some(0);
    let is_ipv6 = tunnel.remotes.iter().any(|remote| remote.address.is_ipv6());
    if is_vxlan && is_ipv6 && !options.contains_key("csum") {
        // Versions differ in what that means (RFC 6935). All of them receive such packets.
        let words = "options:csum is not set: set options:csum=false, on all hosts";
        tunnel.unsupported.push(Why::new(Reason::TunnelUdpChecksum, words));
    }
    let foreign = tunnel.remotes.iter().map(|remote| remote.address).chain(tunnel.local);
    let foreign = foreign.into_iter().find(|address| match kind {
        Kind::Vxlan => false,
        Kind::Gre => address.is_ipv6(),
        Kind::Ip6Gre => address.is_ipv4(),
    });
    if let Some(address) = foreign {
        // The kernel's device of the type takes no packets of the other family (`ip_md_tunnel_xmit`,
        // `__gre6_xmit`).
        let (name, other) = if kind == Kind::Gre { ("gre", "ip6gre") } else { ("ip6gre", "gre") };
        let words = format!("type={name} to {address}: set type={other}");
        tunnel.unsupported.push(Why::new(Reason::TunnelIpv6, words));
    }
    tunnel
}

/// As `ovs-vsctl` writes it, without what is secret.
fn words(key: &str, value: &str) -> String {
    match key {
        "psk" => "options:psk".to_owned(),
        _ => format!("options:{key}={value}"),
    }
}

/// Takes up one option.
fn option(
    tunnel: &mut Tunnel,
    options: &HashMap<&str, &str>,
    key: &str,
    value: &str,
) -> Result<(), Reason> {
    let limit = match tunnel.encap {
        Encap::Vxlan => VNI_MAX,
        Encap::Gre => u32::MAX,
    };
    match (key, value) {
        ("remote_ip" | "local_ip" | "key" | "in_key" | "out_key", "flow") => {
            return Err(Reason::TunnelFlow);
        }
        ("remote_ip", address) => {
            let address: IpAddr = address.parse().map_err(|_| Reason::TunnelOption)?;
            if address.is_multicast() {
                return Err(Reason::TunnelGroup);
            }
            tunnel.remotes.push(Remote::plain(address));
        }
        ("local_ip", address) => {
            tunnel.local = Some(address.parse().map_err(|_| Reason::TunnelOption)?);
        }
        ("key", _) => {
            let key = Some(number(value, limit)?);
            if !options.contains_key("in_key") {
                tunnel.key_in = key;
            }
            if !options.contains_key("out_key") {
                tunnel.key_out = key;
            }
        }
        ("in_key", _) => tunnel.key_in = Some(number(value, limit)?),
        ("out_key", _) => tunnel.key_out = Some(number(value, limit)?),
        ("dst_port", _) if tunnel.encap == Encap::Vxlan => {
            let port = number(value, u32::from(u16::MAX))?;
            tunnel.dst_port =
                u16::try_from(port).ok().filter(|port| *port != 0).ok_or(Reason::TunnelOption)?;
        }
        ("tos", "inherit") => tunnel.tos = None,
        ("tos", _) => {
            let tos = number(value, u32::from(u8::MAX))? as u8;
            if tos & ECN != 0 {
                return Err(Reason::TunnelOption);
            }
            tunnel.tos = Some(tos);
        }
        ("ttl", "inherit") => tunnel.ttl = Ttl::Inherit,
        ("ttl", _) => {
            let ttl = number(value, u32::from(u8::MAX))? as u8;
            // The kernel takes a TTL of 0 for no TTL at all.
            if ttl == 0 {
                return Err(Reason::TunnelOption);
            }
            tunnel.ttl = Ttl::Fixed(ttl);
        }
        ("df_default", "true") | ("csum" | "seq", "false") => {}
        ("df_default", "false") => tunnel.df = false,
        ("csum", _) => return Err(Reason::TunnelChecksum),
        ("exts", "gbp") => return Err(Reason::TunnelGbp),
        ("exts", "gpe") => return Err(Reason::TunnelGpe),
        ("packet_type", "legacy_l2") => {}
        _ => return Err(Reason::TunnelOption),
    }
    Ok(())
}

/// As `strtoull` with base 0: decimal, `0x` hexadecimal, `0` octal.
fn number(text: &str, limit: u32) -> Result<u32, Reason> {
    let parsed = if let Some(digits) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        u32::from_str_radix(digits, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        u32::from_str_radix(text, 8)
    } else {
        text.parse()
    };
    parsed.ok().filter(|number| *number <= limit).ok_or(Reason::TunnelOption)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults =
        Defaults { ttl: 64, source_ports: (32768, 60999), flow_label: FlowLabel::Flow };

    fn tunnel(kind: Kind, options: &[(&str, &str)]) -> Tunnel {
        read(kind, options.iter().copied(), DEFAULTS)
    }

    fn refused(kind: Kind, options: &[(&str, &str)]) -> Vec<(Reason, String)> {
        let unsupported = tunnel(kind, options).unsupported;
        unsupported.into_iter().map(|why| (why.reason, why.detail)).collect()
    }

    #[test]
    fn a_tunnel_without_options_has_open_vswitchs_defaults() {
        let vxlan = tunnel(Kind::Vxlan, &[]);
        assert_eq!((vxlan.key_in, vxlan.key_out), (Some(0), Some(0)));
        assert_eq!((vxlan.dst_port, vxlan.source_ports), (4789, (32768, 60999)));
        assert_eq!((vxlan.tos, vxlan.ttl, vxlan.df), (Some(0), Ttl::Fixed(64), true));
        assert_eq!((vxlan.remotes, vxlan.local, vxlan.unsupported), (vec![], None, vec![]));
        let gre = tunnel(Kind::Gre, &[]);
        assert_eq!((gre.key_in, gre.key_out, gre.dst_port), (None, None, 0));
        assert_eq!(gre.source_ports, (0, 0));
    }

    #[test]
    fn supported_options_are_taken_up() {
        let found = tunnel(
            Kind::Vxlan,
            &[
                ("remote_ip", "192.0.2.2"),
                ("local_ip", "192.0.2.1"),
                ("key", "0x10"),
                ("dst_port", "8472"),
                ("tos", "0x20"),
                ("ttl", "inherit"),
                ("df_default", "false"),
                ("csum", "false"),
            ],
        );
        assert_eq!(found.unsupported, []);
        assert_eq!(found.remotes[0].address, IpAddr::from([192, 0, 2, 2]));
        assert_eq!(found.local, Some(IpAddr::from([192, 0, 2, 1])));
        assert_eq!((found.key_in, found.key_out, found.dst_port), (Some(16), Some(16), 8472));
        assert_eq!((found.tos, found.ttl, found.df), (Some(32), Ttl::Inherit, false));
        assert_eq!(tunnel(Kind::Gre, &[("tos", "inherit")]).tos, None);
    }

    #[test]
    fn a_tos_that_is_ect_1_alone_is_taken_for_inherit_by_gre_over_ipv4() {
        let inherits = |kind, tos| tunnel(kind, &[("tos", tos)]).ect_1_inherits;
        assert!(tunnel(Kind::Gre, &[]).ect_1_inherits && inherits(Kind::Gre, "0"));
        assert!(!inherits(Kind::Gre, "0x20") && !inherits(Kind::Gre, "inherit"));
        assert!(!inherits(Kind::Ip6Gre, "0") && !inherits(Kind::Vxlan, "0"));
    }

    #[test]
    fn a_key_of_one_direction_wins_over_that_of_both() {
        let found = tunnel(Kind::Gre, &[("key", "7"), ("in_key", "010")]);
        assert_eq!((found.key_in, found.key_out), (Some(8), Some(7)));
        let found = tunnel(Kind::Gre, &[("key", "4294967295"), ("out_key", "0")]);
        assert_eq!((found.key_in, found.key_out), (Some(u32::MAX), Some(0)));
    }

    #[test]
    fn every_other_option_is_refused_in_ovs_vsctls_words() {
        use Reason::{TunnelChecksum, TunnelFlow, TunnelGbp, TunnelGpe, TunnelGroup, TunnelOption};
        for (kind, key, value, reason) in [
            (Kind::Gre, "csum", "true", TunnelChecksum),
            (Kind::Vxlan, "csum", "true", TunnelChecksum),
            (Kind::Gre, "remote_ip", "flow", TunnelFlow),
            (Kind::Gre, "local_ip", "flow", TunnelFlow),
            (Kind::Gre, "in_key", "flow", TunnelFlow),
            (Kind::Gre, "out_key", "flow", TunnelFlow),
            (Kind::Vxlan, "key", "flow", TunnelFlow),
            (Kind::Vxlan, "key", "16777216", TunnelOption),
            (Kind::Vxlan, "exts", "gbp", TunnelGbp),
            (Kind::Vxlan, "exts", "gpe", TunnelGpe),
            (Kind::Vxlan, "remote_ip", "239.1.1.1", TunnelGroup),
            (Kind::Vxlan, "remote_ip", "host-b", TunnelOption),
            (Kind::Vxlan, "dst_port", "0", TunnelOption),
            (Kind::Gre, "dst_port", "4789", TunnelOption),
            (Kind::Gre, "ttl", "0", TunnelOption),
            (Kind::Gre, "ttl", "256", TunnelOption),
            (Kind::Gre, "tos", "1", TunnelOption),
            (Kind::Gre, "seq", "true", TunnelOption),
            (Kind::Gre, "df_default", "maybe", TunnelOption),
            (Kind::Gre, "packet_type", "legacy_l3", TunnelOption),
            (Kind::Gre, "egress_pkt_mark", "5", TunnelOption),
            (Kind::Gre, "invented", "1", TunnelOption),
        ] {
            let found = refused(kind, &[(key, value)]);
            assert_eq!(found, [(reason, format!("options:{key}={value}"))]);
        }
    }

    #[test]
    fn a_pre_shared_key_is_not_shown() {
        let found = refused(Kind::Gre, &[("psk", "hunter2")]);
        assert_eq!(found, [(Reason::TunnelOption, "options:psk".to_owned())]);
    }

    #[test]
    fn gre_over_ipv6_is_a_type_of_its_own() {
        let found = tunnel(Kind::Ip6Gre, &[("remote_ip", "2001:db8::2"), ("key", "7")]);
        assert_eq!((found.encap, found.flow_label), (Encap::Gre, FlowLabel::Flow));
        assert_eq!(found.unsupported, []);
        let gre = refused(Kind::Gre, &[("remote_ip", "2001:db8::2")]);
        let words = "type=gre to 2001:db8::2: set type=ip6gre";
        assert_eq!(gre, [(Reason::TunnelIpv6, words.to_owned())]);
        let ip6gre = refused(Kind::Ip6Gre, &[("local_ip", "192.0.2.1")]);
        let words = "type=ip6gre to 192.0.2.1: set type=gre";
        assert_eq!(ip6gre, [(Reason::TunnelIpv6, words.to_owned())]);
    }

    #[test]
    fn vxlan_over_ipv6_has_to_say_that_it_sends_no_checksums() {
        let remote = ("remote_ip", "2001:db8::2");
        let found = tunnel(Kind::Vxlan, &[remote, ("csum", "false")]);
        assert_eq!((found.unsupported, found.flow_label), (vec![], FlowLabel::Fixed(0)));
        let words = "options:csum is not set: set options:csum=false, on all hosts";
        let unset = refused(Kind::Vxlan, &[remote]);
        assert_eq!(unset, [(Reason::TunnelUdpChecksum, words.to_owned())]);
        let set = refused(Kind::Vxlan, &[remote, ("csum", "true")]);
        assert_eq!(set, [(Reason::TunnelChecksum, "options:csum=true".to_owned())]);
    }
}
