//! Maps that an earlier daemon left.

use ovs_ebpf_common::abi::VXLAN_PORTS;

use super::maps::Maps;
use super::*;
use crate::mirror::Applied;

fn left_by(host: &Host) -> Maps {
    let mut maps = Maps::new(100);
    Applied::default().replan(&mut maps, &host.plan(), host.all(), &[]).unwrap();
    maps.writes = 0;
    maps
}

fn take_over(host: &Host, maps: &mut Maps) {
    let mut applied = Applied::adopt(maps).unwrap();
    let mut ids = TunnelIds::adopt(applied.tunnel_ids());
    applied.replan(maps, &host.plan_with(&mut ids), host.all(), &[]).unwrap();
}

#[test]
fn maps_of_an_unchanged_host_are_taken_over_without_a_write() {
    let mut host = Host::new();
    *host.resolution() = no_neighbour();
    let mut maps = left_by(&host);
    take_over(&host, &mut maps);
    assert_eq!(maps.writes, 0);
}

#[test]
fn what_changed_in_between_is_all_that_is_written() {
    let mut host = Host::new();
    let mut maps = left_by(&host);
    let before = maps.contents.clone();
    host.bridge().fdb.remove(&key(WIRED));
    host.tunnel().fdb.remove(OTHER_FAR);
    take_over(&host, &mut maps);
    // The station that is gone; the remote that is gone with its tunnel, which is stopped first, and
    // index entry; the station that was behind it, removed and added.
    assert_eq!(maps.writes, 1 + 3 + 2);
    assert_eq!(maps.contents.ports, before.ports);
    let kept: Vec<_> = maps.contents.tunnels.iter().collect();
    assert_eq!(kept, before.tunnels.iter().filter(|(id, _)| **id == 1).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_where_the_bridge_is_gone() {
    let mut host = Host::new();
    let mut maps = left_by(&host);
    host.bridges.clear();
    take_over(&host, &mut maps);
    assert_eq!(maps.contents, Default::default());
    assert_eq!(maps.contents.vxlan_ports, [0; VXLAN_PORTS]);
}
