//! Port security: which ports are limited to what.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::{
    self, ALLOWED_CAPACITY, AllowedKey, PORT_CAPACITY, SecurityFlags, SecurityValue,
};

use super::plan::{takes_tags, untagged_vlan};
use crate::bridge::model::{AllBridges, Bridge, Device, IfIndex, Mac, NO_INTERFACE, Port, Why};
use crate::config::{PortRule, PortSelector};
use crate::docker::spec::Given;

const SECOND: u64 = 1_000_000_000;
/// What a bucket holds: the packets of so many nanoseconds …
const BURST: u64 = SECOND / 10;
/// … and no fewer than these: what a host sends at once when an interface comes up.
const LEAST_BURST: u64 = 16;

/// The secured ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secured {
    /// By ifindex.
    pub ports: BTreeMap<IfIndex, SecuredPort>,
    /// Names in the configuration that no port has.
    pub missing: Vec<String>,
}

/// A port that is to be secured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecuredPort {
    /// The device's name.
    pub name: String,
    /// MACs that it may send from; any where there is none.
    pub macs: BTreeSet<Mac>,
    /// Addresses that it may send from; any where there is none.
    pub addresses: BTreeSet<IpAddr>,
    /// So many packets per second to groups and unknown stations.
    pub flood_limit: Option<u32>,
    /// What the map says of it.
    pub value: SecurityValue,
    /// What stands against it, or a part of it.
    pub why: Vec<Why>,
}

impl Secured {
    /// Decides on every port; `given` is what containers have been given, by their ports.
    #[must_use]
    pub fn make(
        bridges: AllBridges<'_>,
        rules: &[PortRule],
        given: &BTreeMap<String, Given>,
        fdb_capacity: u32,
    ) -> Self {
        let mut secured = Self::default();
        let mut found = HashSet::new();
        for bridge in bridges.iter().filter(|_| !rules.is_empty()) {
            for port in bridge.ports.values() {
                let given = given.get(&port.name);
                let Some(rule) = rule(rules, bridge, port, given) else { continue };
                found.insert(&rule.of);
                secured.ports.insert(port.ifindex, secure(bridge, port, rule, given));
            }
        }
        let missing = rules.iter().filter(|rule| !found.contains(&rule.of));
        secured.missing = missing
            .filter_map(|rule| match &rule.of {
                PortSelector::Name(name) => Some(name.clone()),
                // May be without containers.
                PortSelector::ContainersOf(_) => None,
            })
            .collect();
        secured.keep_within_capacity(bridges, fdb_capacity);
        secured
    }

    /// What is the ports' own, of those that nothing stands against.
    pub fn allowed(&self) -> impl Iterator<Item = AllowedKey> + '_ {
        self.ports.iter().filter(|(_, port)| port.is_possible()).flat_map(|(&ifindex, port)| {
            let macs = port.macs.iter().map(move |mac| AllowedKey::mac(ifindex, mac.0));
            let addresses = port.addresses.iter().map(move |address| match address {
                IpAddr::V4(address) => AllowedKey::ipv4(ifindex, address.octets()),
                IpAddr::V6(address) => AllowedKey::ipv6(ifindex, address.octets()),
            });
            macs.chain(addresses)
        })
    }

    /// The bridges whose stations have to be known.
    #[must_use]
    pub fn watched_bridges(&self) -> BTreeSet<IfIndex> {
        let values = self.ports.values().map(|port| &port.value);
        values
            .filter(|value| value.flags & SecurityFlags::UNKNOWN != 0)
            .map(|value| value.bridge)
            .collect()
    }

    /// The stations of those bridges.
    #[must_use]
    pub fn stations(&self, bridges: AllBridges<'_>) -> BTreeSet<abi::FdbKey> {
        let watched = self.watched_bridges();
        let bridges = watched.into_iter().filter_map(|ifindex| bridges.get(ifindex));
        bridges
            .flat_map(|bridge| {
                let stations = bridge.fdb.keys().filter(|key| !key.mac.is_group());
                stations.map(|key| super::entry::map_key(bridge, key))
            })
            .collect()
    }

    /// Stops telling unknown stations from others, for which there is no room.
    pub fn forget_stations(&mut self) {
        for port in self.ports.values_mut() {
            if port.value.flags & SecurityFlags::UNKNOWN != 0 {
                port.value.flags &= !SecurityFlags::UNKNOWN;
                let words = "unknown stations are not limited: raise accelerate.fdb_capacity";
                port.why.push(Why::new(Reason::Capacity, words));
            }
        }
    }

    fn keep_within_capacity(&mut self, bridges: AllBridges<'_>, fdb_capacity: u32) {
        let mut room = ALLOWED_CAPACITY;
        for (number, port) in self.ports.values_mut().filter(|port| port.is_possible()).enumerate()
        {
            let needed = port.macs.len() + port.addresses.len();
            if number >= PORT_CAPACITY || needed > room {
                port.value.flags = 0;
                port.why.push(Why::new(Reason::Capacity, "more ports or addresses than fit"));
            } else {
                room -= needed;
            }
        }
        if self.stations(bridges).len() > fdb_capacity as usize {
            self.forget_stations();
        }
    }
}

impl SecuredPort {
    /// Whether anything of it can be done.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.value.flags & !SecurityFlags::TAGGED != 0
    }
}

/// The rule for a port, if there is one.
fn rule<'a>(
    rules: &'a [PortRule],
    bridge: &Bridge,
    port: &Port,
    given: Option<&Given>,
) -> Option<&'a PortRule> {
    let named = rules
        .iter()
        .find(|rule| matches!(&rule.of, PortSelector::Name(name) if *name == port.name));
    let of_bridge = |rule: &&PortRule| matches!(&rule.of, PortSelector::ContainersOf(name) if *name == bridge.name);
    named.or_else(|| given.and_then(|_| rules.iter().find(of_bridge)))
}

fn secure(bridge: &Bridge, port: &Port, rule: &PortRule, given: Option<&Given>) -> SecuredPort {
    let mut secured = SecuredPort {
        name: port.name.clone(),
        macs: rule.macs.clone(),
        addresses: rule.addresses.clone(),
        flood_limit: rule.flood_limit,
        ..SecuredPort::default()
    };
    if matches!(port.device, Device::Tunnel(_)) || port.ifindex >= NO_INTERFACE {
        secured.why.push(Why::new(Reason::PortKind, "a tunnel: secure the ports behind it"));
        return secured;
    }
    match given {
        // It is the host that sends: a network asks there whether an address is free, in nobody's name.
        Some(_) if rule.own && is_still_here(port) => {
            let words = "the container's end is still on the host";
            secured.why.push(Why::new(Reason::PortUnsecured, words));
            return secured;
        }
        Some(given) if rule.own => {
            secured.macs.insert(given.mac);
            secured.addresses.extend(&given.addresses);
        }
        None if rule.own => {
            let words = "ovs-loader did not attach a container here";
            secured.why.push(Why::new(Reason::PortUnsecured, words));
        }
        _ => {}
    }
    if !secured.addresses.is_empty() {
        // What an interface gives itself (RFC 4291 §2.5.6, appendix A).
        secured.addresses.extend(secured.macs.iter().map(|mac| IpAddr::V6(link_local(*mac))));
    }
    let flag = |on, flag| if on { flag } else { 0 };
    let limits = rule.flood_limit.is_some();
    let interval = rule.flood_limit.map_or(0, |limit| SECOND / u64::from(limit));
    secured.value = SecurityValue {
        bridge: bridge.ifindex,
        flags: flag(!secured.macs.is_empty(), SecurityFlags::MACS)
            | flag(!secured.addresses.is_empty(), SecurityFlags::ADDRESSES)
            | flag(limits, SecurityFlags::FLOOD | SecurityFlags::UNKNOWN)
            | flag(takes_tags(port), SecurityFlags::TAGGED),
        vlan: untagged_vlan(port),
        interval,
        // The packet that finds the bucket just not empty is one more.
        burst: BURST.max(LEAST_BURST * interval).saturating_sub(interval),
        ..SecurityValue::default()
    };
    secured
}

/// Whether a veth's other end is in the daemon's network namespace.
fn is_still_here(port: &Port) -> bool {
    matches!(port.device, Device::Veth(Some(peer)) if !peer.other_namespace)
}

fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
