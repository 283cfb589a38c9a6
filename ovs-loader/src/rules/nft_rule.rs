//! What traffic an nftables rule names, read from its expressions.
//!
//! Understood are the forms in which nft and iptables-nft say `udp dport 4789`, port ranges and
//! sets, and `meta l4proto gre` or `ip protocol gre`. Not understood, and so never claimed:
//! negations, concatenations, maps of variables and arithmetic on registers.
//!
//! Source: uapi linux/netfilter/nf_tables.h.

use std::collections::HashMap;
use std::io;

use super::firewall::{Ports, Traffic};
use super::netlink::{attribute, attributes, be_u32, string};
use super::xtables;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFT_META_L4PROTO: u32 = 16;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const GRE: u8 = libc::IPPROTO_GRE as u8;

/// One element of a set.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// The range's last key, for sets of concatenated ranges.
    pub(super) last: Option<Vec<u8>>,
    /// Marks the first key after an interval, rather than a key that is in the set.
    pub(super) interval_end: bool,
}

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Protocol,
    DestinationPort,
}

/// What a rule has asked for so far.
struct Conditions {
    protocols: Option<Vec<u8>>,
    ports: Ports,
    registers: HashMap<u32, Loaded>,
}

/// What a rule names, if that is UDP ports or GRE. `elements` reads the set of a name.
pub(super) fn traffic(
    expressions: &[u8],
    elements: &mut dyn FnMut(&str) -> io::Result<Vec<Element>>,
) -> io::Result<Option<Traffic>> {
    let mut conditions =
        Conditions { protocols: None, ports: Ports::all(), registers: HashMap::new() };
    for (_, expression) in attributes(expressions) {
        let name = attribute(expression, NFTA_EXPR_NAME).map(string).unwrap_or_default();
        let data = attribute(expression, NFTA_EXPR_DATA).unwrap_or_default();
        match name.as_str() {
            "meta" => conditions.meta(data),
            "payload" => conditions.payload(data),
            "cmp" => conditions.compare(data),
            "range" => conditions.range(data),
            "lookup" => conditions.lookup(data, elements)?,
            "match" => conditions.xtables_match(data),
            "counter" | "log" | "limit" | "quota" | "immediate" | "connlimit" => {}
            // It may change any register.
            _ => conditions.registers.clear(),
        }
    }
    Ok(conditions.traffic())
}

impl Conditions {
    fn traffic(self) -> Option<Traffic> {
        let protocols = self.protocols?;
        if protocols.contains(&GRE) {
            return Some(Traffic::Gre);
        }
        let named = protocols.contains(&UDP) && self.ports != Ports::all();
        named.then_some(Traffic::Udp(self.ports))
    }

    fn meta(&mut self, data: &[u8]) {
        // NFTA_META_DREG, NFTA_META_KEY; a meta that sets something has no DREG.
        if let Some(dreg) = number(data, 1) {
            let what = (number(data, 2) == Some(NFT_META_L4PROTO)).then_some(Loaded::Protocol);
            self.load(dreg, what);
        }
    }

    fn payload(&mut self, data: &[u8]) {
        // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN.
        let Some(dreg) = number(data, 1) else { return };
        let what = match (number(data, 2), number(data, 3), number(data, 4)) {
            // The protocol of an IPv4 header, the next header of an IPv6 one.
            (Some(NFT_PAYLOAD_NETWORK_HEADER), Some(9 | 6), Some(1)) => Some(Loaded::Protocol),
            (Some(NFT_PAYLOAD_TRANSPORT_HEADER), Some(2), Some(2)) => Some(Loaded::DestinationPort),
            _ => None,
        };
        self.load(dreg, what);
    }

    fn compare(&mut self, data: &[u8]) {
        // NFTA_CMP_SREG, _OP (equal, unequal, less, at most, greater, at least), _DATA.
        let (Some(loaded), Some(operation)) = (self.loaded(data, 1), number(data, 2)) else {
            return;
        };
        let Some(value) = attribute(data, 3).and_then(|data| attribute(data, 1)) else { return };
        match (loaded, operation, value) {
            (Loaded::Protocol, 0, [protocol]) => self.restrict_protocols(vec![*protocol]),
            (Loaded::DestinationPort, _, [high, low]) => {
                let port = u16::from_be_bytes([*high, *low]);
                self.restrict_ports(match operation {
                    0 => vec![(port, port)],
                    2 => port.checked_sub(1).map(|last| (0, last)).into_iter().collect(),
                    3 => vec![(0, port)],
                    4 => port.checked_add(1).map(|first| (first, u16::MAX)).into_iter().collect(),
                    5 => vec![(port, u16::MAX)],
                    // Whatever a negation leaves is not named by it.
                    _ => vec![],
                });
            }
            _ => self.restrict_ports(vec![]),
        }
    }

    fn range(&mut self, data: &[u8]) {
        // NFTA_RANGE_SREG, _OP (equal, unequal), _FROM_DATA, _TO_DATA.
        let Some(loaded) = self.loaded(data, 1) else { return };
        let bound = |kind| attribute(data, kind).and_then(|data| attribute(data, 1));
        let ports = match (loaded, number(data, 2), bound(3), bound(4)) {
            (Loaded::DestinationPort, Some(0), Some([a, b]), Some([c, d])) => {
                vec![(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))]
            }
            _ => vec![],
        };
        self.restrict_ports(ports);
    }

    fn lookup(
        &mut self,
        data: &[u8],
        elements: &mut dyn FnMut(&str) -> io::Result<Vec<Element>>,
    ) -> io::Result<()> {
        // NFTA_LOOKUP_SET, _SREG, _DREG (of a map), _FLAGS (inverted).
        let loaded = self.loaded(data, 2);
        if let Some(dreg) = number(data, 3) {
            self.load(dreg, None);
        }
        let (Some(loaded), Some(set)) = (loaded, attribute(data, 1)) else { return Ok(()) };
        if number(data, 5).unwrap_or(0) != 0 {
            self.restrict_ports(vec![]);
            return Ok(());
        }
        let elements = elements(&string(set))?;
        match loaded {
            Loaded::DestinationPort => self.restrict_ports(ports_of(&elements)),
            Loaded::Protocol => {
                self.restrict_protocols(elements.iter().filter_map(Element::single_byte).collect());
            }
        }
        Ok(())
    }

    fn xtables_match(&mut self, data: &[u8]) {
        // NFTA_MATCH_NAME, _REV, _INFO.
        let name = attribute(data, 1).map(string).unwrap_or_default();
        let revision = number(data, 2).unwrap_or(0);
        let info = attribute(data, 3).unwrap_or_default();
        if let Some(ports) = xtables::destination_ports(&name, revision, info) {
            if name == "udp" {
                self.restrict_protocols(vec![UDP]);
            }
            self.ports = self.ports.intersect(&ports);
        }
    }

    fn load(&mut self, register: u32, what: Option<Loaded>) {
        match what {
            Some(what) => self.registers.insert(unit(register), what),
            None => self.registers.remove(&unit(register)),
        };
    }

    fn loaded(&self, data: &[u8], sreg: u16) -> Option<Loaded> {
        self.registers.get(&unit(number(data, sreg)?)).copied()
    }

    fn restrict_ports(&mut self, ranges: Vec<(u16, u16)>) {
        self.ports = self.ports.intersect(&Ports::new(ranges));
    }

    fn restrict_protocols(&mut self, mut protocols: Vec<u8>) {
        if let Some(before) = &self.protocols {
            protocols.retain(|protocol| before.contains(protocol));
        }
        self.protocols = Some(protocols);
    }
}

impl Element {
    fn single_byte(&self) -> Option<u8> {
        match (self.key.as_slice(), self.interval_end) {
            ([byte], false) => Some(*byte),
            _ => None,
        }
    }
}

/// The ports in a set: single keys, ranges with both ends, or intervals that begin with a key and
/// end before the next one that is marked so.
fn ports_of(elements: &[Element]) -> Vec<(u16, u16)> {
    let port = |key: &[u8]| match key {
        [high, low] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    };
    let intervals = elements.iter().any(|element| element.interval_end);
    let ends: Vec<u16> =
        elements.iter().filter(|e| e.interval_end).filter_map(|e| port(&e.key)).collect();
    elements
        .iter()
        .filter(|element| !element.interval_end)
        .filter_map(|element| {
            let first = port(&element.key)?;
            let last = match &element.last {
                Some(last) => port(last)?,
                None if intervals => ends
                    .iter()
                    .filter(|end| **end > first)
                    .min()
                    .map_or(u16::MAX, |after| after - 1),
                None => first,
            };
            Some((first, last))
        })
        .collect()
}

fn number(data: &[u8], kind: u16) -> Option<u32> {
    be_u32(attribute(data, kind)?)
}

/// The register's first four-byte unit: registers 1 to 4 are 16 bytes each, those from 8
/// (`NFT_REG32_00`) on are 4 bytes each of the same space (`nft_parse_register`).
fn unit(register: u32) -> u32 {
    if register <= 4 { register * 4 } else { register - 4 }
}
