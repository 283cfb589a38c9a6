//! The options of an Interface of type `gre` or `vxlan`, as ovs-vswitchd takes them.
//!
//! Mirrors `set_tunnel_config` (lib/netdev-vport.c) for what is read, and `tnl_port_send`
//! (ofproto/tunnel.c) with the kernel's external tunnel devices for what an option means.

use std::collections::HashMap;
use std::net::IpAddr;

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::wire::vxlan::VNI_MAX;

use crate::bridge::model::{Encap, Remote, Tunnel, Why};

/// RFC 7348.
const VXLAN_PORT: u16 = 4789;

/// `DEFAULT_TTL`.
const TTL: u8 = 64;

/// The two bits of a TOS that are never set by an option (RFC 3168).
const ECN: u8 = 3;

/// Reads a tunnel's options. `source_ports` is the network namespace's range for UDP.
///
/// What is not understood is among the tunnel's [`Tunnel::unsupported`]: it is a value that
/// ovs-vswitchd does not understand either, or knows better.
pub(super) fn read<'a>(
    encap: Encap,
    options: impl Iterator<Item = (&'a str, &'a str)>,
    source_ports: (u16, u16),
) -> Tunnel {
    let options: HashMap<_, _> = options.collect();
    let is_vxlan = encap == Encap::Vxlan;
    let mut tunnel = Tunnel {
        encap,
        local: None,
        remotes: Vec::new(),
        key_in: is_vxlan.then_some(0),
        key_out: is_vxlan.then_some(0),
        dst_port: if is_vxlan { VXLAN_PORT } else { 0 },
        source_ports: if is_vxlan { source_ports } else { (0, 0) },
        tos: Some(0),
        ttl: Some(TTL),
        df: true,
        link: None,
        device: None,
        ageing: None,
        unsupported: Vec::new(),
        fdb: HashMap::new(),
    };
    let mut keys: Vec<_> = options.iter().collect();
    keys.sort_unstable();
    for (&key, &value) in keys {
        if let Err(reason) = option(&mut tunnel, &options, key, value) {
            tunnel.unsupported.push(Why::new(reason, words(key, value)));
        }
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
            tunnel.remotes.push(Remote { address, options: String::new() });
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
        ("ttl", "inherit") => tunnel.ttl = None,
        ("ttl", _) => {
            let ttl = number(value, u32::from(u8::MAX))? as u8;
            // The kernel takes a TTL of 0 for no TTL at all.
            tunnel.ttl = Some(ttl).filter(|ttl| *ttl != 0);
            if ttl == 0 {
                return Err(Reason::TunnelOption);
            }
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

    fn tunnel(encap: Encap, options: &[(&str, &str)]) -> Tunnel {
        read(encap, options.iter().copied(), (32768, 60999))
    }

    fn refused(encap: Encap, options: &[(&str, &str)]) -> Vec<(Reason, String)> {
        let unsupported = tunnel(encap, options).unsupported;
        unsupported.into_iter().map(|why| (why.reason, why.detail)).collect()
    }

    #[test]
    fn a_tunnel_without_options_has_open_vswitchs_defaults() {
        let vxlan = tunnel(Encap::Vxlan, &[]);
        assert_eq!((vxlan.key_in, vxlan.key_out), (Some(0), Some(0)));
        assert_eq!((vxlan.dst_port, vxlan.source_ports), (4789, (32768, 60999)));
        assert_eq!((vxlan.tos, vxlan.ttl, vxlan.df), (Some(0), Some(64), true));
        assert_eq!((vxlan.remotes, vxlan.local, vxlan.unsupported), (vec![], None, vec![]));
        let gre = tunnel(Encap::Gre, &[]);
        assert_eq!((gre.key_in, gre.key_out, gre.dst_port), (None, None, 0));
        assert_eq!(gre.source_ports, (0, 0));
    }

    #[test]
    fn supported_options_are_taken_up() {
        let found = tunnel(
            Encap::Vxlan,
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
        assert_eq!((found.tos, found.ttl, found.df), (Some(32), None, false));
        assert_eq!(tunnel(Encap::Gre, &[("tos", "inherit")]).tos, None);
    }

    #[test]
    fn a_key_of_one_direction_wins_over_that_of_both() {
        let found = tunnel(Encap::Gre, &[("key", "7"), ("in_key", "010")]);
        assert_eq!((found.key_in, found.key_out), (Some(8), Some(7)));
        let found = tunnel(Encap::Gre, &[("key", "4294967295"), ("out_key", "0")]);
        assert_eq!((found.key_in, found.key_out), (Some(u32::MAX), Some(0)));
    }

    #[test]
    fn every_other_option_is_refused_in_ovs_vsctls_words() {
        use Reason::{TunnelChecksum, TunnelFlow, TunnelGbp, TunnelGpe, TunnelGroup, TunnelOption};
        for (encap, key, value, reason) in [
            (Encap::Gre, "csum", "true", TunnelChecksum),
            (Encap::Vxlan, "csum", "true", TunnelChecksum),
            (Encap::Gre, "remote_ip", "flow", TunnelFlow),
            (Encap::Gre, "local_ip", "flow", TunnelFlow),
            (Encap::Gre, "in_key", "flow", TunnelFlow),
            (Encap::Gre, "out_key", "flow", TunnelFlow),
            (Encap::Vxlan, "key", "flow", TunnelFlow),
            (Encap::Vxlan, "key", "16777216", TunnelOption),
            (Encap::Vxlan, "exts", "gbp", TunnelGbp),
            (Encap::Vxlan, "exts", "gpe", TunnelGpe),
            (Encap::Vxlan, "remote_ip", "239.1.1.1", TunnelGroup),
            (Encap::Vxlan, "remote_ip", "host-b", TunnelOption),
            (Encap::Vxlan, "dst_port", "0", TunnelOption),
            (Encap::Gre, "dst_port", "4789", TunnelOption),
            (Encap::Gre, "ttl", "0", TunnelOption),
            (Encap::Gre, "ttl", "256", TunnelOption),
            (Encap::Gre, "tos", "1", TunnelOption),
            (Encap::Gre, "seq", "true", TunnelOption),
            (Encap::Gre, "df_default", "maybe", TunnelOption),
            (Encap::Gre, "packet_type", "legacy_l3", TunnelOption),
            (Encap::Gre, "egress_pkt_mark", "5", TunnelOption),
            (Encap::Gre, "invented", "1", TunnelOption),
        ] {
            let found = refused(encap, &[(key, value)]);
            assert_eq!(found, [(reason, format!("options:{key}={value}"))]);
        }
    }

    #[test]
    fn a_pre_shared_key_is_not_shown() {
        let found = refused(Encap::Gre, &[("psk", "hunter2")]);
        assert_eq!(found, [(Reason::TunnelOption, "options:psk".to_owned())]);
    }
}
