//! Which VLANs the ports of bridges with `vlan_filtering` carry, and which VNIs are theirs.
//!
//! `RTM_GETVLAN` (include/uapi/linux/if_bridge.h) tells of a VLAN's state too, which the links'
//! `IFLA_BRIDGE_VLAN_INFO` does not. The netlink library has neither its messages nor its group.

use std::collections::HashMap;

use netlink_packet_core::NlasIterator;
use ovs_ebpf_common::Reason;

use super::links::TRIES;
use crate::bridge::model::{Bridges, IfIndex, Port, Why};
use crate::bridge::netlink::{Refused, Requests};
use crate::bridge::vlans::{PortVlans, VlanSet, VlanVnis};

/// The group that tells of VLANs that ports join and leave.
pub(super) const RTNLGRP_BRVLAN: u32 = 33;
/// A port has joined a VLAN, or it has changed.
pub(super) const RTM_NEWVLAN: u16 = 112;
/// A port has left a VLAN.
pub(super) const RTM_DELVLAN: u16 = 113;
const RTM_GETVLAN: u16 = 114;

/// Bytes of `struct br_vlan_msg` and of `struct tunnel_msg`: family, three others, ifindex.
const HEADER: usize = 8;

const BRIDGE_VLANDB_ENTRY: u16 = 1;
const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
const BRIDGE_VLANDB_ENTRY_RANGE: u16 = 2;
const BRIDGE_VLANDB_ENTRY_STATE: u16 = 3;
const BRIDGE_VLANDB_ENTRY_TUNNEL_INFO: u16 = 4;
const BRIDGE_VLANDB_TINFO_ID: u16 = 1;

const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;

const BR_STATE_FORWARDING: u8 = 3;

/// The largest VNI: it has 24 bits.
const LAST_VNI: u32 = (1 << 24) - 1;

/// VLANs of a port, first to last, that have everything in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Membership {
    first: u16,
    last: u16,
    flags: u16,
    /// `BR_STATE_*`.
    state: u8,
    /// The tunnel id of the first; each VLAN's is the next of the one before.
    tunnel_id: Option<u32>,
}

impl Membership {
    /// Each VLAN with its tunnel id.
    fn tunnel_ids(&self) -> impl Iterator<Item = (u16, u32)> + use<> {
        let (first, vlans) = (self.first, self.first..=self.last);
        let id = self.tunnel_id;
        vlans.filter_map(move |vlan| Some((vlan, id?.wrapping_add(u32::from(vlan - first)))))
    }
}

/// Enters the VLANs of their ports into the bridges that look at tags.
pub(super) async fn add(bridges: &mut Bridges, requests: &mut Requests) -> Result<(), Refused> {
    if !bridges.values().any(|bridge| bridge.vlan_aware) {
        return Ok(());
    }
    let found = dump(requests, RTM_GETVLAN, entry).await?;
    for bridge in bridges.values_mut().filter(|bridge| bridge.vlan_aware) {
        for port in bridge.ports.values_mut() {
            enter(port, found.get(&port.ifindex).map(Vec::as_slice).unwrap_or_default());
        }
    }
    Ok(())
}

/// Dumps what devices tell of themselves: what `read` makes of the kind and the value of each attribute
/// behind a header that names the device.
pub(super) async fn dump<T>(
    requests: &mut Requests,
    kind: u16,
    read: impl Fn(u16, &[u8]) -> Option<T>,
) -> Result<HashMap<IfIndex, Vec<T>>, Refused> {
    let mut request = [0; HEADER];
    request[0] = libc::AF_BRIDGE as u8;
    let mut found: HashMap<IfIndex, Vec<T>> = HashMap::new();
    for _ in 0..TRIES {
        found.clear();
        let interrupted = requests
            .dump_kind(kind, &request, |frame| {
                if let Some((ifindex, all)) = parse(frame.payload, &read) {
                    found.entry(ifindex).or_default().extend(all);
                }
            })
            .await?;
        if !interrupted {
            break;
        }
    }
    Ok(found)
}

/// As `br_allowed_ingress` and `br_handle_vlan` have it (net/bridge/br_vlan.c).
fn enter(port: &mut Port, memberships: &[Membership]) {
    let range = |one: &Membership| one.first..=one.last;
    let with = |flag: u16| memberships.iter().filter(move |one| one.flags & flag != 0);
    let carries: VlanSet = memberships.iter().map(range).collect();
    port.vlans = match port.vlans.vnis {
        None => PortVlans {
            untagged: with(BRIDGE_VLAN_INFO_PVID).map(|one| one.first).next(),
            takes_tags: true,
            carries,
            strips: with(BRIDGE_VLAN_INFO_UNTAGGED).map(range).collect(),
            vnis: None,
        },
        // A frame that arrives with a tag is in that VLAN whatever its VNI is: the bridge's to judge.
        Some(_) => PortVlans {
            untagged: None,
            takes_tags: false,
            strips: carries.clone(),
            carries,
            vnis: Some(vnis(memberships)),
        },
    };
    // A spanning tree for each VLAN (MST), or set by hand.
    let held = memberships.iter().filter(|one| one.state != BR_STATE_FORWARDING);
    port.unsupported.extend(held.map(|one| {
        let words = format!("VLAN {} has state {}", one.first, one.state);
        Why::new(Reason::PortVlan, words)
    }));
}

/// As `br_handle_ingress_vlan_tunnel` and `br_handle_egress_vlan_tunnel` have it
/// (net/bridge/br_vlan_tunnel.c).
fn vnis(memberships: &[Membership]) -> VlanVnis {
    let refused = |words: String| Err(Why::new(Reason::VniUnmapped, words));
    let vnis = memberships.iter().flat_map(|membership| {
        // The tag that says the VLAN is gone before the VNI is looked for.
        let untagged = membership.flags & BRIDGE_VLAN_INFO_UNTAGGED != 0;
        membership.tunnel_ids().map(move |(vlan, id)| match id {
            _ if untagged => (vlan, refused(format!("VLAN {vlan} is untagged: set it without"))),
            1..=LAST_VNI => (vlan, Ok(id)),
            _ => (vlan, refused(format!("{id} is no VNI that a bridge gives"))),
        })
    });
    vnis.collect()
}

/// The device that a message is of, and what its attributes say.
pub(super) fn parse<'a, T>(
    payload: &'a [u8],
    read: &'a impl Fn(u16, &[u8]) -> Option<T>,
) -> Option<(IfIndex, impl Iterator<Item = T> + 'a)> {
    let (header, attributes) = payload.split_at_checked(HEADER)?;
    let ifindex = IfIndex::from_ne_bytes(*header.last_chunk()?);
    let attributes = NlasIterator::new(attributes).filter_map(Result::ok);
    Some((ifindex, attributes.filter_map(|one| read(one.kind(), one.value()))))
}

/// The VLANs that an attribute of a message tells of.
fn entry(kind: u16, attributes: &[u8]) -> Option<Membership> {
    if kind != BRIDGE_VLANDB_ENTRY {
        return None;
    }
    let word =
        |bytes: &[u8], at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let (mut info, mut last, mut state) = (None, None, BR_STATE_FORWARDING);
    let mut id = None;
    for attribute in NlasIterator::new(attributes).filter_map(Result::ok) {
        let value = attribute.value();
        match attribute.kind() {
            // struct bridge_vlan_info: flags, VLAN id.
            BRIDGE_VLANDB_ENTRY_INFO => info = Some((word(value, 0)?, word(value, 2)?)),
            BRIDGE_VLANDB_ENTRY_RANGE => last = word(value, 0),
            BRIDGE_VLANDB_ENTRY_STATE => state = *value.first()?,
            BRIDGE_VLANDB_ENTRY_TUNNEL_INFO => id = tunnel_id(value),
            _ => {}
        }
    }
    let (flags, first) = info?;
    Some(Membership { first, last: last.unwrap_or(first), flags, state, tunnel_id: id })
}

fn tunnel_id(attributes: &[u8]) -> Option<u32> {
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == BRIDGE_VLANDB_TINFO_ID)
        .and_then(|attribute| attribute.value().try_into().ok().map(u32::from_ne_bytes))
}

#[cfg(test)]
mod tests;
