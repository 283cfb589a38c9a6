//! nftables: base chains that a packet on the fast path would not pass.
//!
//! A base chain counts when it has a rule or the policy drop, and its table is not dormant; what
//! the rule says does not matter, since even a counter would miss packets. Other chains are reached
//! from a base chain's rules only.
//!
//! Source: net/netfilter/nf_tables_api.c, uapi linux/netfilter/nf_tables.h.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::firewall::FirewallRule;
use super::netlink::{Dumper, attribute, attributes, be_u32, string};
use super::nft_rule::{self, Element};

/// `NFNLGRP_NFTABLES`.
pub(super) const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of message types.
const SUBSYSTEM: u16 = 10 << 8;
const NFT_MSG_GETTABLE: u16 = SUBSYSTEM | 1;
const NFT_MSG_GETCHAIN: u16 = SUBSYSTEM | 4;
const NFT_MSG_GETRULE: u16 = SUBSYSTEM | 7;
const NFT_MSG_GETGEN: u16 = SUBSYSTEM | 16;
const NFT_MSG_GETSETELEM: u16 = SUBSYSTEM | 13;
/// Bytes of `struct nfgenmsg`.
const NFGENMSG_LEN: usize = 4;

const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_NETDEV: u8 = 5;
const NFPROTO_BRIDGE: u8 = 7;
const NFPROTO_IPV6: u8 = 10;
const NF_INET_FORWARD: u32 = 2;
const NF_INET_INGRESS: u32 = 5;

const NFT_TABLE_F_DORMANT: u32 = 1;
const NF_DROP: u32 = 0;

/// What nftables has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nft {
    pub(super) bridge: Option<String>,
    /// By device name, or by its beginning and `*`.
    pub(super) netdev: BTreeMap<String, String>,
    pub(super) ip_ruleset: Option<String>,
    pub(super) firewall: Vec<FirewallRule>,
}

/// A table, by family and name.
type TableKey = (u8, String);
/// A chain, by its table and name.
type ChainKey = (TableKey, String);

/// Where a base chain hooks in, and whether it drops by default.
struct Base {
    hook: u32,
    devices: Vec<String>,
    drops: bool,
}

impl Nft {
    /// Reads tables, chains and rules; nothing where the kernel has no nf_tables.
    pub(super) fn read(dumper: &mut Dumper) -> io::Result<Self> {
        let before = match generation(dumper) {
            // No subsystem answers for the message type (nfnetlink_rcv_msg).
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Self::default()),
            generation => generation?,
        };
        let nft = Self::read_dumps(dumper)?;
        dumper.consistent &= generation(dumper)? == before;
        Ok(nft)
    }

    fn read_dumps(dumper: &mut Dumper) -> io::Result<Self> {
        let dormant = dormant_tables(&dump(dumper, NFT_MSG_GETTABLE, 0, &[])?);
        let bases = base_chains(&dump(dumper, NFT_MSG_GETCHAIN, 0, &[])?);
        let rules = dump(dumper, NFT_MSG_GETRULE, 0, &[])?;

        let mut nft = Self::default();
        let mut chains_with_rules = BTreeSet::new();
        for body in &rules {
            let Some((key, rule)) = chain_key(body, 1, 2) else { continue };
            if !dormant.contains(&key.0) {
                nft.firewall.extend(firewall_rule(dumper, &key, bases.get(&key), rule)?);
                chains_with_rules.insert(key);
            }
        }
        for (key, base) in &bases {
            let effective = chains_with_rules.contains(key) || base.drops;
            if effective && !dormant.contains(&key.0) {
                nft.add(key, base);
            }
        }
        Ok(nft)
    }

    fn add(&mut self, key: &ChainKey, base: &Base) {
        let ((family, _), _) = key;
        let place = place(key);
        match (*family, base.hook) {
            // Any hook: what a host sends to a remote may itself leave through a bridge.
            (NFPROTO_BRIDGE, _) => append(self.bridge.get_or_insert_default(), &place),
            (NFPROTO_NETDEV, _) | (NFPROTO_INET, NF_INET_INGRESS) => {
                for device in &base.devices {
                    append(self.netdev.entry(device.clone()).or_default(), &place);
                }
            }
            (NFPROTO_INET | NFPROTO_IPV4 | NFPROTO_IPV6, _) => {
                append(self.ip_ruleset.get_or_insert_default(), &place);
            }
            _ => {}
        }
    }
}

fn append(list: &mut String, item: &str) {
    if !list.is_empty() {
        list.push_str("; ");
    }
    list.push_str(item);
}

/// `table inet filter, chain input`.
fn place(((family, table), chain): &ChainKey) -> String {
    let family = match *family {
        NFPROTO_INET => "inet",
        NFPROTO_IPV4 => "ip",
        NFPROTO_IPV6 => "ip6",
        NFPROTO_NETDEV => "netdev",
        NFPROTO_BRIDGE => "bridge",
        _ => "",
    };
    format!("table {family} {table}, chain {chain}")
}

/// The ruleset's generation, which each transaction changes.
fn generation(dumper: &mut Dumper) -> io::Result<Option<u32>> {
    let messages = dumper.get(NFT_MSG_GETGEN, &[0; NFGENMSG_LEN])?;
    // NFTA_GEN_ID.
    let id = |body: &Vec<u8>| attribute(body.get(NFGENMSG_LEN..)?, 1).and_then(be_u32);
    Ok(messages.first().and_then(id))
}

/// Dumps one kind of object of a family, 0 for all of them.
fn dump(dumper: &mut Dumper, kind: u16, family: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut body = vec![family, 0, 0, 0];
    body.extend_from_slice(attributes);
    dumper.dump(kind, &body)
}

fn dormant_tables(tables: &[Vec<u8>]) -> BTreeSet<TableKey> {
    let dormant = tables.iter().filter_map(|body| {
        let (header, table) = body.split_at_checked(NFGENMSG_LEN)?;
        // NFTA_TABLE_NAME, _FLAGS.
        let flags = be_u32(attribute(table, 2)?)?;
        let name = string(attribute(table, 1)?);
        (flags & NFT_TABLE_F_DORMANT != 0).then_some((header[0], name))
    });
    dormant.collect()
}

/// The chain a message is about, from the attributes of these types, and the message's attributes.
fn chain_key(body: &[u8], table: u16, chain: u16) -> Option<(ChainKey, &[u8])> {
    let (header, rest) = body.split_at_checked(NFGENMSG_LEN)?;
    let table = string(attribute(rest, table)?);
    let chain = string(attribute(rest, chain)?);
    Some((((header[0], table), chain), rest))
}

fn base_chains(chains: &[Vec<u8>]) -> BTreeMap<ChainKey, Base> {
    let bases = chains.iter().filter_map(|body| {
        // NFTA_CHAIN_TABLE, _NAME, _HOOK, _POLICY.
        let (key, chain) = chain_key(body, 1, 3)?;
        let hook = attribute(chain, 4)?;
        let policy = attribute(chain, 5).and_then(be_u32);
        // NFTA_HOOK_HOOKNUM, _DEV, _DEVS.
        let mut devices: Vec<_> = attribute(hook, 3).map(string).into_iter().collect();
        for (kind, name) in attributes(attribute(hook, 4).unwrap_or_default()) {
            // NFTA_DEVICE_NAME, and NFTA_DEVICE_PREFIX of kernel 6.16.
            let device = if kind == 2 { format!("{}*", string(name)) } else { string(name) };
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
        let base = Base {
            hook: attribute(hook, 1).and_then(be_u32)?,
            devices,
            drops: policy == Some(NF_DROP),
        };
        Some((key, base))
    });
    bases.collect()
}

/// The rule, if it is one of the host firewall's that outer packets pass and names tunnel traffic.
fn firewall_rule(
    dumper: &mut Dumper,
    key: &ChainKey,
    base: Option<&Base>,
    rule: &[u8],
) -> io::Result<Option<FirewallRule>> {
    let ((family, table), _) = key;
    let host = matches!(*family, NFPROTO_INET | NFPROTO_IPV4 | NFPROTO_IPV6);
    // Outer packets are the host's own.
    let forwarded = base.is_some_and(|base| base.hook == NF_INET_FORWARD);
    if !host || forwarded {
        return Ok(None);
    }
    // NFTA_RULE_EXPRESSIONS.
    let expressions = attribute(rule, 4).unwrap_or_default();
    let mut elements = |set: &str| set_elements(dumper, *family, table, set);
    let traffic = nft_rule::traffic(expressions, &mut elements)?;
    Ok(traffic.map(|traffic| FirewallRule { place: format!("nftables {}", place(key)), traffic }))
}

/// The elements of a set; none where it went meanwhile, which the generation tells.
fn set_elements(
    dumper: &mut Dumper,
    family: u8,
    table: &str,
    set: &str,
) -> io::Result<Vec<Element>> {
    // NFTA_SET_ELEM_LIST_TABLE, _SET.
    let mut request = Vec::new();
    push_string(&mut request, 1, table);
    push_string(&mut request, 2, set);
    let messages = match dump(dumper, NFT_MSG_GETSETELEM, family, &request) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        messages => messages?,
    };
    // NFTA_SET_ELEM_LIST_ELEMENTS.
    let lists = messages.iter().filter_map(|body| attribute(body.get(NFGENMSG_LEN..)?, 3));
    Ok(lists.flat_map(attributes).filter_map(|(_, element)| parse_element(element)).collect())
}

fn parse_element(element: &[u8]) -> Option<Element> {
    const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
    // NFTA_SET_ELEM_KEY, _FLAGS, _KEY_END; NFTA_DATA_VALUE within the keys.
    let value = |kind| attribute(attribute(element, kind)?, 1).map(<[u8]>::to_vec);
    let flags = attribute(element, 3).and_then(be_u32).unwrap_or(0);
    Some(Element {
        key: value(1)?,
        last: value(10),
        interval_end: flags & NFT_SET_ELEM_INTERVAL_END != 0,
    })
}

/// Appends a string attribute. Names in nf_tables are far shorter than an attribute can be.
fn push_string(request: &mut Vec<u8>, kind: u16, text: &str) {
    let length = u16::try_from(text.len() + 5).unwrap_or(u16::MAX);
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(text.as_bytes());
    request.push(0);
    request.resize(request.len().next_multiple_of(4), 0);
}
