//! Which VNIs vxlan devices with `vnifilter` receive (`bridge vni`).
//!
//! As `vxlan_vnifilter_dump` and `vxlan_vnifilter_notify` tell of them
//! (drivers/net/vxlan/vxlan_vnifilter.c). The netlink library has neither their messages nor their group.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use netlink_packet_core::NlasIterator;
use netlink_packet_route::link::LinkMessage;
use ovs_ebpf_common::Reason;

use super::links::Link;
use super::vlan;
use crate::bridge::model::{Bridges, IfIndex, Port, Why};
use crate::bridge::netlink::{Refused, Requests};

/// The group that tells of VNIs that devices are given and lose.
pub(super) const RTNLGRP_TUNNEL: u32 = 35;
/// A device has been given a VNI.
pub(super) const RTM_NEWTUNNEL: u16 = 120;
/// A device has lost a VNI.
pub(super) const RTM_DELTUNNEL: u16 = 121;
const RTM_GETTUNNEL: u16 = 122;

const VXLAN_VNIFILTER_ENTRY: u16 = 1;
const VXLAN_VNIFILTER_ENTRY_START: u16 = 1;
const VXLAN_VNIFILTER_ENTRY_END: u16 = 2;

/// VNIs, first to last.
type Vnis = RangeInclusive<u32>;

/// Takes the VNIs from VLANs that are mapped to what the device does not receive (`vxlan_vs_find_vni`).
/// It would send with them.
pub(super) async fn apply(
    bridges: &mut Bridges,
    links: &[LinkMessage],
    requests: &mut Requests,
) -> Result<(), Refused> {
    let filtering: HashSet<IfIndex> =
        links.iter().map(Link::new).filter(Link::filters_vnis).map(|link| link.index()).collect();
    let mut ports: Vec<&mut Port> = bridges
        .values_mut()
        .flat_map(|bridge| bridge.ports.values_mut())
        .filter(|port| port.vlans.vnis.is_some() && filtering.contains(&port.ifindex))
        .collect();
    if ports.is_empty() {
        return Ok(());
    }
    let found = vlan::dump(requests, RTM_GETTUNNEL, entry).await?;
    for port in &mut ports {
        let received = found.get(&port.ifindex).map(Vec::as_slice).unwrap_or_default();
        let against = |vni| {
            let words = || format!("vnifilter has no VNI {vni}");
            let missing = !received.iter().any(|range| range.contains(&vni));
            missing.then(|| Why::new(Reason::VniUnmapped, words()))
        };
        port.vlans.vnis = port.vlans.vnis.take().map(|vnis| vnis.without(against));
    }
    Ok(())
}

/// The VNIs that an attribute of a message tells of.
fn entry(kind: u16, attributes: &[u8]) -> Option<Vnis> {
    if kind != VXLAN_VNIFILTER_ENTRY {
        return None;
    }
    let (mut first, mut last) = (None, None);
    for attribute in NlasIterator::new(attributes).filter_map(Result::ok) {
        let word = || attribute.value().try_into().ok().map(u32::from_ne_bytes);
        match attribute.kind() {
            VXLAN_VNIFILTER_ENTRY_START => first = word(),
            VXLAN_VNIFILTER_ENTRY_END => last = word(),
            _ => {}
        }
    }
    Some(first?..=last.or(first)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `bridge vni add dev vxlan0 vni 1010-1012`, `… vni 1020`, as Linux 6.18 dumps them.
    const DUMPED: [u8; 40] = [
        0x07, 0, 0, 0, 0x02, 0, 0, 0, 0x14, 0, 0x01, 0x80, 0x08, 0, 0x01, 0, 0xf2, 0x03, 0, 0,
        0x08, 0, 0x02, 0, 0xf4, 0x03, 0, 0, 0x0c, 0, 0x01, 0x80, 0x08, 0, 0x01, 0, 0xfc, 0x03, 0,
        0,
    ];

    #[test]
    fn single_vnis_and_ranges_are_read() {
        let (device, vnis) = vlan::parse(&DUMPED, &entry).expect("a message");
        assert_eq!((device, vnis.collect::<Vec<_>>()), (2, vec![1010..=1012, 1020..=1020]));
    }
}
