//! From text to [`Config`]: first the shape, then what each value may be.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ovs_ebpf_common::wire::vxlan::VNI_MAX;
use serde::Deserialize;
use toml::Spanned;

use super::error::Mistake;
use super::{Accelerate, Config, Xdp, suggest};
use crate::bridge::model::Encap;
use crate::bridge::provision::{BridgeSpec, TunnelSpec};

mod port;

/// The longest name of an interface: `IFNAMSIZ` less the final zero.
const LONGEST_NAME: usize = 15;

/// RFC 7348: 24 bits.
const VNI: RangeInclusive<i64> = 0..=VNI_MAX as i64;

/// RFC 2890: 32 bits.
const GRE_KEY: RangeInclusive<i64> = 0..=u32::MAX as i64;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    accelerate: Section,
    ovs: Ovs,
    docker: Docker,
    bridge: Vec<Spanned<Bridge>>,
    port: Vec<Spanned<port::Port>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    bridges: Option<Spanned<Vec<Spanned<String>>>>,
    lease_seconds: Option<Spanned<i64>>,
    revalidate_seconds: Option<Spanned<i64>>,
    fdb_capacity: Option<Spanned<i64>>,
    xdp: Option<Spanned<String>>,
    bypass_nft_bridge: bool,
    bypass_nft_netdev: bool,
    bypass_br_netfilter: bool,
    bypass_egress_filters: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ovs {
    rundirs: Option<Vec<PathBuf>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Docker {
    enabled: bool,
    plugin: Option<PathBuf>,
    socket: Option<PathBuf>,
    answer_ms: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bridge {
    name: Option<Spanned<String>>,
    kind: Option<Spanned<String>>,
    tunnel: Option<Spanned<String>>,
    key: Option<Spanned<i64>>,
    local: Option<Spanned<String>>,
    remotes: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    ports: Vec<Spanned<String>>,
    dst_port: Option<Spanned<i64>>,
}

pub(super) fn parse(text: &str) -> Result<Config, Mistake> {
    let file: File = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..text.len());
        // The known names are for the help to choose from.
        let message = error.message();
        let problem = message.split(", expected one of").next().unwrap_or(message);
        Mistake::new(span, problem, suggest::help(message))
    })?;
    let mut bridges: Vec<BridgeSpec> = Vec::new();
    let mut owners = HashSet::new();
    for section in &file.bridge {
        let spec = bridge(section, &mut owners)?;
        bridges.push(spec);
    }
    let accelerate = accelerate(&file.accelerate)?;
    let Docker { enabled, plugin, socket, answer_ms } = file.docker;
    let answer_ms = number("answer_ms", answer_ms.as_ref(), 100..=20_000)?;
    let docker = super::Docker { enabled, plugin, socket, answer_ms };
    let ports = port::rules(&file.port)?;
    Ok(Config { accelerate, ovs_rundirs: file.ovs.rundirs, docker, bridges, ports })
}

fn accelerate(section: &Section) -> Result<Accelerate, Mistake> {
    let default = Accelerate::default();
    let bridges = section.bridges.as_ref().map(|names| {
        if names.get_ref().is_empty() {
            return Err(Mistake::new(
                names.span(),
                "bridges is an empty list",
                "name at least one bridge, or leave the line out to accelerate every bridge",
            ));
        }
        let mut seen = HashSet::new();
        names.get_ref().iter().map(|name| unique(name, &mut seen)).collect()
    });
    Ok(Accelerate {
        bridges: bridges.transpose()?,
        lease_seconds: number("lease_seconds", section.lease_seconds.as_ref(), 3..=3600)?
            .unwrap_or(default.lease_seconds),
        revalidate_seconds: number(
            "revalidate_seconds",
            section.revalidate_seconds.as_ref(),
            1..=3600,
        )?
        .unwrap_or(default.revalidate_seconds),
        fdb_capacity: number("fdb_capacity", section.fdb_capacity.as_ref(), 1024..=4_194_304)?
            .unwrap_or(default.fdb_capacity),
        xdp: section.xdp.as_ref().map_or(Ok(default.xdp), xdp)?,
        bypass_nft_bridge: section.bypass_nft_bridge,
        bypass_nft_netdev: section.bypass_nft_netdev,
        bypass_br_netfilter: section.bypass_br_netfilter,
        bypass_egress_filters: section.bypass_egress_filters,
    })
}

fn xdp(text: &Spanned<String>) -> Result<Xdp, Mistake> {
    match text.get_ref().as_str() {
        "off" => Ok(Xdp::Off),
        "filter" => Ok(Xdp::Filter),
        "forward" => Err(Mistake::new(
            text.span(),
            "xdp = \"forward\": the kernel would lose frames to ordinary containers",
            "write \"filter\": forwarding is done at TC (docs/decisions/0018-no-forwarding-in-xdp.md)",
        )),
        other => Err(Mistake::new(
            text.span(),
            format!("xdp = \"{other}\" is nothing that can be done there"),
            "write \"off\" or \"filter\"",
        )),
    }
}

/// Checks a section `[[bridge]]`; `taken` are the names of bridges and ports of those before it.
fn bridge(section: &Spanned<Bridge>, taken: &mut HashSet<String>) -> Result<BridgeSpec, Mistake> {
    let bridge = section.get_ref();
    let Some(name) = &bridge.name else {
        return Err(Mistake::new(
            section.span(),
            "a [[bridge]] without a name",
            "add a line such as name = \"br-ex\"",
        ));
    };
    let name = unique(name, taken)?;
    if let Some(kind) = &bridge.kind {
        match kind.get_ref().as_str() {
            "linux" => {}
            "ovs" => {
                return Err(Mistake::new(
                    kind.span(),
                    "kind = \"ovs\": a [[bridge]] is always a Linux bridge",
                    "make it with `ovs-vsctl add-br` and take the section out: Open vSwitch's \
                     bridges are found by themselves",
                ));
            }
            other => {
                return Err(Mistake::new(
                    kind.span(),
                    format!("\"{other}\" is no kind of bridge"),
                    "write kind = \"linux\"",
                ));
            }
        }
    }
    let ports = bridge.ports.iter().map(|port| unique(port, taken)).collect::<Result<_, _>>()?;
    Ok(BridgeSpec { name, tunnel: tunnel(bridge)?, ports })
}

fn tunnel(bridge: &Bridge) -> Result<Option<TunnelSpec>, Mistake> {
    let Some(kind) = &bridge.tunnel else {
        let orphan = [
            bridge.key.as_ref().map(|key| ("key", key.span())),
            bridge.local.as_ref().map(|local| ("local", local.span())),
            bridge.remotes.as_ref().map(|remotes| ("remotes", remotes.span())),
            bridge.dst_port.as_ref().map(|port| ("dst_port", port.span())),
        ];
        return match orphan.into_iter().flatten().next() {
            Some((what, span)) => Err(Mistake::new(
                span,
                format!("{what} without a tunnel"),
                "add tunnel = \"vxlan\" or tunnel = \"gre\"",
            )),
            None => Ok(None),
        };
    };
    let (encap, keys) = match kind.get_ref().as_str() {
        "vxlan" => (Encap::Vxlan, VNI),
        "gre" => (Encap::Gre, GRE_KEY),
        other => {
            return Err(Mistake::new(
                kind.span(),
                format!("\"{other}\" is no kind of tunnel"),
                "write \"vxlan\" or \"gre\"",
            ));
        }
    };
    let key = number("key", bridge.key.as_ref(), keys)?;
    if encap == Encap::Vxlan && key.is_none() {
        return Err(Mistake::new(
            kind.span(),
            "a VXLAN tunnel without a key",
            "add the VNI, for example key = 42",
        ));
    }
    let dst_port = number("dst_port", bridge.dst_port.as_ref(), 1..=65_535)?;
    if let (Encap::Gre, Some(port)) = (encap, &bridge.dst_port) {
        return Err(Mistake::new(
            port.span(),
            "GRE has no port",
            "remove dst_port: it is for VXLAN only",
        ));
    }
    let local = bridge.local.as_ref().map(|local| address("local", local)).transpose()?;
    let Some(list) = bridge.remotes.as_ref().filter(|list| !list.get_ref().is_empty()) else {
        let span = bridge.remotes.as_ref().map_or(kind.span(), Spanned::span);
        return Err(Mistake::new(
            span,
            "a tunnel without remotes",
            "add the addresses of the other hosts, for example remotes = [\"192.0.2.2\"]",
        ));
    };
    let remotes = remotes(local, list.get_ref())?;
    if local.is_none() && remotes.iter().any(IpAddr::is_ipv6) {
        return Err(Mistake::new(
            list.span(),
            "IPv6 remotes without a local address",
            "add this host's address: local = \"…\"",
        ));
    }
    Ok(Some(TunnelSpec { name: None, encap, local, remotes, key, dst_port }))
}

fn remotes(local: Option<IpAddr>, list: &[Spanned<String>]) -> Result<Vec<IpAddr>, Mistake> {
    let mut remotes: Vec<IpAddr> = Vec::new();
    for text in list {
        let remote = address("remote", text)?;
        let wrong = |problem: String, help: &str| Err(Mistake::new(text.span(), problem, help));
        if local == Some(remote) {
            return wrong(
                format!("remote {remote} is the local address"),
                "remove it: remotes are the other hosts",
            );
        }
        if remotes.contains(&remote) {
            return wrong(format!("remote {remote} is there twice"), "remove one of the two");
        }
        if local.iter().chain(&remotes).any(|other| other.is_ipv4() != remote.is_ipv4()) {
            return wrong(
                format!("remote {remote} is of another family than the addresses before it"),
                "write local and remotes all as IPv4 or all as IPv6",
            );
        }
        remotes.push(remote);
    }
    Ok(remotes)
}

fn address(what: &str, text: &Spanned<String>) -> Result<IpAddr, Mistake> {
    let help = "write the IPv4 or IPv6 address of one host, for example \"192.0.2.1\"";
    match text.get_ref().parse::<IpAddr>() {
        Ok(address) if address.is_multicast() || address.is_unspecified() => {
            Err(Mistake::new(text.span(), format!("{what} {address} is not one host"), help))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(Mistake::new(
            text.span(),
            format!("{what} \"{}\" is not an IP address", text.get_ref()),
            help,
        )),
    }
}

fn number<T: TryFrom<i64>>(
    what: &str,
    value: Option<&Spanned<i64>>,
    range: RangeInclusive<i64>,
) -> Result<Option<T>, Mistake> {
    let Some(value) = value else { return Ok(None) };
    let (first, last) = (range.start(), range.end());
    let number = *value.get_ref();
    match T::try_from(number) {
        Ok(fits) if range.contains(&number) => Ok(Some(fits)),
        _ => Err(Mistake::new(
            value.span(),
            format!("{what} = {number} is out of range"),
            format!("write a number from {first} to {last}"),
        )),
    }
}

/// A valid interface name that was not taken before.
fn unique(name: &Spanned<String>, taken: &mut HashSet<String>) -> Result<String, Mistake> {
    let text = name.get_ref();
    if let Some(problem) = name_problem(text) {
        return Err(Mistake::new(
            name.span(),
            format!("\"{text}\" is no name of an interface: {problem}"),
            format!("write 1 to {LONGEST_NAME} characters without spaces, '/', ':' or '%'"),
        ));
    }
    if !taken.insert(text.clone()) {
        return Err(Mistake::new(
            name.span(),
            format!("\"{text}\" is there twice"),
            "give each bridge and port one name and one place",
        ));
    }
    Ok(text.clone())
}

/// What the kernel would refuse in an interface's name (`dev_valid_name`), and `%`, for which it would put a
/// number.
fn name_problem(name: &str) -> Option<&'static str> {
    let forbidden = |byte: u8| b"/:%".contains(&byte) || byte.is_ascii_whitespace();
    match name {
        "" => Some("it is empty"),
        "." | ".." => Some("it is a directory"),
        _ if name.len() > LONGEST_NAME => Some("it is too long"),
        _ if name.bytes().any(forbidden) => Some("it has a space, '/', ':' or '%'"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
