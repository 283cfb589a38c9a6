//! Which VLANs the ports of bridges with `vlan_filtering` carry.
//!
//! `RTM_GETVLAN` (include/uapi/linux/if_bridge.h) tells of a VLAN's state too, which the links'
//! `IFLA_BRIDGE_VLAN_INFO` does not. The netlink library has neither its messages nor its group.

use std::collections::HashMap;

use netlink_packet_core::NlasIterator;
use ovs_ebpf_common::Reason;

use super::links::TRIES;
use crate::bridge::model::{Bridges, IfIndex, Port, Why};
use crate::bridge::netlink::{Refused, Requests};
use crate::bridge::vlans::PortVlans;

/// The group that tells of VLANs that ports join and leave.
pub(super) const RTNLGRP_BRVLAN: u32 = 33;
/// A port has joined a VLAN, or it has changed.
pub(super) const RTM_NEWVLAN: u16 = 112;
/// A port has left a VLAN.
pub(super) const RTM_DELVLAN: u16 = 113;
const RTM_GETVLAN: u16 = 114;

/// Bytes of `struct br_vlan_msg`: family, three reserved, ifindex.
const HEADER: usize = 8;

const BRIDGE_VLANDB_ENTRY: u16 = 1;
const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
const BRIDGE_VLANDB_ENTRY_RANGE: u16 = 2;
const BRIDGE_VLANDB_ENTRY_STATE: u16 = 3;

const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;

const BR_STATE_FORWARDING: u8 = 3;

/// VLANs of a port, first to last, that have everything in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Membership {
    first: u16,
    last: u16,
    flags: u16,
    /// `BR_STATE_*`.
    state: u8,
}

/// Enters the VLANs of their ports into the bridges that look at tags.
pub(super) async fn add(bridges: &mut Bridges, requests: &mut Requests) -> Result<(), Refused> {
    if !bridges.values().any(|bridge| bridge.vlan_aware) {
        return Ok(());
    }
    let mut request = [0; HEADER];
    request[0] = libc::AF_BRIDGE as u8;
    let mut found: HashMap<IfIndex, Vec<Membership>> = HashMap::new();
    for _ in 0..TRIES {
        found.clear();
        let interrupted = requests
            .dump_kind(RTM_GETVLAN, &request, |frame| {
                if let Some((ifindex, memberships)) = parse(frame.payload) {
                    found.entry(ifindex).or_default().extend(memberships);
                }
            })
            .await?;
        if !interrupted {
            break;
        }
    }
    for bridge in bridges.values_mut().filter(|bridge| bridge.vlan_aware) {
        for port in bridge.ports.values_mut() {
            enter(port, found.get(&port.ifindex).map(Vec::as_slice).unwrap_or_default());
        }
    }
    Ok(())
}

/// As `br_allowed_ingress` and `br_handle_vlan` have it (net/bridge/br_vlan.c).
fn enter(port: &mut Port, memberships: &[Membership]) {
    let range = |one: &Membership| one.first..=one.last;
    let with = |flag: u16| memberships.iter().filter(move |one| one.flags & flag != 0);
    port.vlans = PortVlans {
        untagged: with(BRIDGE_VLAN_INFO_PVID).map(|one| one.first).next(),
        takes_tags: true,
        carries: memberships.iter().map(range).collect(),
        strips: with(BRIDGE_VLAN_INFO_UNTAGGED).map(range).collect(),
    };
    // A spanning tree for each VLAN (MST), or set by hand.
    let held = memberships.iter().filter(|one| one.state != BR_STATE_FORWARDING);
    port.unsupported.extend(held.map(|one| {
        let words = format!("VLAN {} has state {}", one.first, one.state);
        Why::new(Reason::PortVlan, words)
    }));
}

/// The device that a message is of, and its VLANs.
fn parse(payload: &[u8]) -> Option<(IfIndex, Vec<Membership>)> {
    let (header, attributes) = payload.split_at_checked(HEADER)?;
    let ifindex = IfIndex::from_ne_bytes(*header.last_chunk()?);
    let entries = NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .filter(|attribute| attribute.kind() == BRIDGE_VLANDB_ENTRY)
        .filter_map(|attribute| entry(attribute.value()));
    Some((ifindex, entries.collect()))
}

fn entry(attributes: &[u8]) -> Option<Membership> {
    let word =
        |bytes: &[u8], at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let (mut info, mut last, mut state) = (None, None, BR_STATE_FORWARDING);
    for attribute in NlasIterator::new(attributes).filter_map(Result::ok) {
        let value = attribute.value();
        match attribute.kind() {
            // struct bridge_vlan_info: flags, VLAN id.
            BRIDGE_VLANDB_ENTRY_INFO => info = Some((word(value, 0)?, word(value, 2)?)),
            BRIDGE_VLANDB_ENTRY_RANGE => last = word(value, 0),
            BRIDGE_VLANDB_ENTRY_STATE => state = *value.first()?,
            _ => {}
        }
    }
    let (flags, first) = info?;
    Some(Membership { first, last: last.unwrap_or(first), flags, state })
}
