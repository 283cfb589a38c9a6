//! Sections `[[port]]`: port security.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use serde::Deserialize;
use toml::Spanned;

use super::super::error::Mistake;
use super::super::{PortRule, PortSelector};
use super::{number, unique};
use crate::docker::spec::station;

/// In `allowed`: what `ovs-loader` gave the container.
const OWN: &str = "own";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    name: Option<Spanned<String>>,
    bridge: Option<Spanned<String>>,
    allowed: Option<Spanned<Vec<Spanned<String>>>>,
    flood_limit: Option<Spanned<i64>>,
}

/// Checks all sections.
pub(super) fn rules(sections: &[Spanned<Port>]) -> Result<Vec<PortRule>, Mistake> {
    let (mut names, mut bridges) = (HashSet::new(), HashSet::new());
    sections.iter().map(|section| rule(section, &mut names, &mut bridges)).collect()
}

fn rule(
    section: &Spanned<Port>,
    names: &mut HashSet<String>,
    bridges: &mut HashSet<String>,
) -> Result<PortRule, Mistake> {
    let Port { name, bridge, allowed, flood_limit } = section.get_ref();
    let of = match (name, bridge) {
        (Some(name), None) => PortSelector::Name(unique(name, names)?),
        (None, Some(bridge)) => PortSelector::ContainersOf(unique(bridge, bridges)?),
        _ => {
            return Err(Mistake::new(
                section.span(),
                "a [[port]] has either a name or a bridge",
                "write name = \"veth-a\" for one port, or bridge = \"br-ex\" for all ports to \
                 containers that ovs-loader has attached there",
            ));
        }
    };
    let flood_limit = number("flood_limit", flood_limit.as_ref(), 1..=1_000_000)?;
    let mut rule =
        PortRule { of, own: false, macs: BTreeSet::new(), addresses: BTreeSet::new(), flood_limit };
    for text in allowed.iter().flat_map(Spanned::get_ref) {
        match (text.get_ref().as_str(), &rule.of) {
            (OWN, _) => rule.own = true,
            (_, PortSelector::ContainersOf(_)) => {
                return Err(Mistake::new(
                    text.span(),
                    "the ports of a bridge differ in what is their own",
                    "write allowed = [\"own\"], or a [[port]] with its name for each port",
                ));
            }
            (one, _) => allow(&mut rule, one).map_err(|problem| {
                let help = "write a MAC, an IPv4 or IPv6 address, or \"own\"";
                Mistake::new(text.span(), problem, help)
            })?,
        }
    }
    let limits_senders = rule.own || !rule.macs.is_empty() || !rule.addresses.is_empty();
    if !limits_senders && (allowed.is_some() || rule.flood_limit.is_none()) {
        return Err(Mistake::new(
            allowed.as_ref().map_or(section.span(), Spanned::span),
            "a [[port]] that limits nothing",
            "add allowed = [\"02:00:00:00:00:05\", \"10.0.0.5\"] or flood_limit = 1000",
        ));
    }
    Ok(rule)
}

/// Adds a MAC or an address to what a port may send from.
fn allow(rule: &mut PortRule, text: &str) -> Result<(), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        if address.is_multicast() || address.is_unspecified() || broadcast {
            return Err(format!("{address} is not one station's address"));
        }
        rule.addresses.insert(address);
        return Ok(());
    }
    let no_mac = text.split(':').count() != 6;
    if no_mac {
        return Err(format!("\"{text}\" is neither a MAC nor an address"));
    }
    rule.macs.insert(station(text)?);
    Ok(())
}
