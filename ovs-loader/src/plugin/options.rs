//! `-o` options of `docker network create`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ovs_ebpf_common::wire::vxlan::VNI_MAX;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::bridge::model::Encap;
use crate::bridge::provision::check_name;
use crate::config::suggest;
use crate::docker::spec::VLANS;

/// What there is.
const NAMES: [&str; 9] =
    ["bridge", "flat", "gateway", "key", "local", "mtu", "remotes", "tunnel", "vlan"];

/// Docker's own word for `mtu`, which the other drivers take.
const DOCKERS_MTU: &str = "com.docker.network.driver.mtu";

/// What was typed, checked as far as it can be without looking at the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) bridge: Option<String>,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) vlan: Option<u16>,
    pub(super) mtu: Option<u32>,
    pub(super) flat: Option<String>,
    pub(super) way_out: Option<WayOut>,
}

/// The tunnels to the other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// `vxlan` or `gre`.
    #[serde(with = "encap")]
    pub encap: Encap,
    /// VNI or GRE key; `None` until the network's name is known.
    pub key: Option<u32>,
    /// This host's address, if it was given.
    pub local: Option<IpAddr>,
    /// The other hosts'.
    pub remotes: Vec<IpAddr>,
}

/// How containers reach what is outside of their network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WayOut {
    /// Through this host: `docker_gwbridge`, as with Docker's own networks over several hosts.
    Host,
    /// By the subnet's gateway, a router in the network.
    Network,
}

impl Options {
    /// Reads what was typed.
    ///
    /// # Errors
    /// The first mistake, and what to write instead.
    pub(super) fn parse(typed: &BTreeMap<String, String>) -> Result<Self, Error> {
        if let Some(name) = typed.keys().find(|name| !NAMES.contains(&name.as_str())) {
            return Err(unknown(name));
        }
        let get = |name: &str| typed.get(name).map(String::as_str);
        let options = Self {
            bridge: interface("bridge", get("bridge"))?,
            tunnel: tunnel(&get)?,
            vlan: number("vlan", get("vlan"), *VLANS.start(), *VLANS.end())?,
            mtu: number("mtu", get("mtu"), 68, 65_535)?,
            flat: interface("flat", get("flat"))?,
            way_out: match get("gateway") {
                None => None,
                Some("host") => Some(WayOut::Host),
                Some("network") => Some(WayOut::Network),
                Some(other) => {
                    return Err(mistake(format!(
                        "gateway={other}: write host (the way out through docker_gwbridge) or \
                         network (by the router at the network's --gateway)"
                    )));
                }
            },
        };
        if options.flat.is_some() && options.tunnel.is_some() {
            return Err(mistake(
                "flat and remotes: a network is on this host's LAN or in tunnels; leave one out",
            ));
        }
        Ok(options)
    }
}

fn unknown(name: &str) -> Error {
    if name == DOCKERS_MTU {
        return mistake(format!("{name} is for Docker's own drivers: write -o mtu=N"));
    }
    mistake(match suggest::nearest(name, &NAMES) {
        Some(near) => format!("there is no option {name}: did you mean {near}?"),
        None => format!("there is no option {name}: there are {}", NAMES.join(", ")),
    })
}

fn tunnel<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<Option<Tunnel>, Error> {
    let Some(list) = get("remotes") else {
        return match ["tunnel", "key", "local"].into_iter().find(|name| get(name).is_some()) {
            Some(name) => Err(mistake(format!(
                "{name} without remotes: add the other hosts' addresses, such as \
                 -o remotes=192.0.2.2,192.0.2.3"
            ))),
            None => Ok(None),
        };
    };
    let (encap, most) = match get("tunnel") {
        None | Some("vxlan") => (Encap::Vxlan, VNI_MAX),
        Some("gre") => (Encap::Gre, u32::MAX),
        Some(other) => {
            return Err(mistake(format!("tunnel={other}: write tunnel=vxlan or tunnel=gre")));
        }
    };
    let mut remotes = Vec::new();
    for text in list.split(',') {
        let remote = address("remotes", text.trim())?;
        if remotes.contains(&remote) {
            return Err(mistake(format!("remotes has {remote} twice: name each host once")));
        }
        remotes.push(remote);
    }
    let local = get("local").map(|text| address("local", text)).transpose()?;
    let mut all = local.iter().chain(&remotes);
    if !(all.clone().all(IpAddr::is_ipv4) || all.all(IpAddr::is_ipv6)) {
        return Err(mistake(
            "the hosts' addresses are of IPv4 and IPv6: write those of one family",
        ));
    }
    Ok(Some(Tunnel { encap, key: number("key", get("key"), 0, most)?, local, remotes }))
}

fn address(name: &str, text: &str) -> Result<IpAddr, Error> {
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_multicast() && !address.is_unspecified() => Ok(address),
        _ => Err(mistake(format!(
            "{name} has \"{text}\", which is not one host's address: write one such as 192.0.2.2"
        ))),
    }
}

fn interface(name: &str, text: Option<&str>) -> Result<Option<String>, Error> {
    let Some(text) = text else { return Ok(None) };
    check_name(text).map_err(|error| mistake(format!("{name}: {error}")))?;
    Ok(Some(text.to_owned()))
}

fn number<T>(name: &str, text: Option<&str>, least: T, most: T) -> Result<Option<T>, Error>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let Some(text) = text else { return Ok(None) };
    match text.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(Some(number)),
        _ => Err(mistake(format!("{name}={text}: write a number from {least} to {most}"))),
    }
}

fn mistake(text: impl Into<String>) -> Error {
    Error::Options(text.into())
}

mod encap {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::bridge::model::Encap;

    pub(super) fn serialize<S: Serializer>(encap: &Encap, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(encap.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Encap, D::Error> {
        match &*String::deserialize(from)? {
            "vxlan" => Ok(Encap::Vxlan),
            "gre" => Ok(Encap::Gre),
            other => Err(de::Error::unknown_variant(other, &["vxlan", "gre"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Options, Error> {
        let pairs = words.split_whitespace().filter_map(|word| word.split_once('='));
        Options::parse(&pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(parse("").expect("none is needed"), Options::default());
        let all = "bridge=br-ex tunnel=gre key=4294967295 remotes=192.0.2.2,192.0.2.3 \
                   local=192.0.2.1 vlan=5 mtu=1400 gateway=network";
        let options = parse(all).expect("all at once");
        let tunnel = Tunnel {
            encap: Encap::Gre,
            key: Some(u32::MAX),
            local: Some("192.0.2.1".parse().unwrap()),
            remotes: vec!["192.0.2.2".parse().unwrap(), "192.0.2.3".parse().unwrap()],
        };
        let expected = Options {
            bridge: Some("br-ex".to_owned()),
            tunnel: Some(tunnel),
            vlan: Some(5),
            mtu: Some(1400),
            flat: None,
            way_out: Some(WayOut::Network),
        };
        assert_eq!(options, expected);
        let derived = parse("remotes=2001:db8::2").expect("IPv6").tunnel.expect("a tunnel");
        assert_eq!((derived.encap, derived.key), (Encap::Vxlan, None));
    }

    #[test]
    fn mistakes_say_what_to_write_instead() {
        for (words, said) in [
            ("remote=192.0.2.2", "did you mean remotes?"),
            ("remotes=192.0.2.2 key=-1", "from 0 to 16777215"),
            ("remotes=192.0.2.2, local=x", "has \"\", which is not one host's address"),
            ("remotes=0.0.0.0", "not one host's address"),
            ("vlan=0", "from 1 to 4094"),
            ("flat=eth1 remotes=192.0.2.2", "leave one out"),
            ("bridge=a/b", "cannot name an interface"),
        ] {
            let error = parse(words).expect_err(words).to_string();
            assert!(error.contains(said), "{words}: {error}");
        }
    }
}
