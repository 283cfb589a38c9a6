//! The order of writes and what a full map leaves out.

use ovs_ebpf_common::abi::{FdbFlags, TunnelFlags};

use super::maps::Maps;
use super::*;
use crate::mirror::Applied;

/// Plans from scratch and applies that to empty maps.
fn apply(host: &Host, maps: &mut Maps) -> (Plan, Applied) {
    let plan = host.plan();
    let mut applied = Applied::default();
    applied.replan(maps, &plan, host.all(), &[]).unwrap();
    (plan, applied)
}

#[test]
fn an_unchanged_plan_writes_nothing() {
    let host = Host::new();
    let mut maps = Maps::new(100);
    let (plan, mut applied) = apply(&host, &mut maps);
    assert_eq!(maps.contents.fdb.len(), 4);
    let writes = maps.writes;
    applied.replan(&mut maps, &plan, host.all(), &[]).unwrap();
    let all: Vec<_> = host.bridges[&BRIDGE].fdb.keys().map(|key| (BRIDGE, *key)).collect();
    applied.fdb_changed(&mut maps, &plan, host.all(), &all).unwrap();
    assert_eq!(maps.writes, writes);
}

#[test]
fn one_changed_station_is_one_write() {
    let mut host = Host::new();
    let mut maps = Maps::new(100);
    let (plan, mut applied) = apply(&host, &mut maps);
    let writes = maps.writes;
    host.bridge().fdb.get_mut(&key(NEAR)).unwrap().port = NIC;
    applied.fdb_changed(&mut maps, &plan, host.all(), &[(BRIDGE, key(NEAR))]).unwrap();
    assert_eq!(maps.writes, writes + 1);
    host.bridge().fdb.remove(&key(NEAR));
    applied.fdb_changed(&mut maps, &plan, host.all(), &[(BRIDGE, key(NEAR))]).unwrap();
    assert_eq!(maps.writes, writes + 2);
    assert_eq!(maps.contents.fdb.len(), 3);
}

#[test]
fn a_new_next_hop_is_one_write_and_touches_no_station() {
    let mut host = Host::new();
    let mut maps = Maps::new(100);
    let mut ids = TunnelIds::default();
    let mut applied = Applied::default();
    applied.replan(&mut maps, &host.plan_with(&mut ids), host.all(), &[]).unwrap();
    let (writes, fdb) = (maps.writes, maps.contents.fdb.clone());
    host.resolution().as_mut().unwrap().next_hop_mac = mac(0x77);
    applied.replan(&mut maps, &host.plan_with(&mut ids), host.all(), &[]).unwrap();
    assert_eq!(maps.writes, writes + 1);
    assert_eq!(maps.contents.fdb, fdb);
}

#[test]
fn a_station_that_moves_from_a_port_to_the_tunnel_of_the_same_number_is_followed() {
    let mut host = Host::new();
    let mut nic = host.bridge().ports.remove(&NIC).unwrap();
    nic.ifindex = 1;
    host.bridge().ports.insert(1, nic);
    host.bridge().fdb.get_mut(&key(WIRED)).unwrap().port = 1;
    let mut maps = Maps::new(100);
    let (_, mut applied) = apply(&host, &mut maps);
    let wired = ovs_ebpf_common::abi::FdbKey { bridge: BRIDGE, vlan: 0, mac: WIRED.0 };
    assert_eq!(maps.contents.fdb[&wired].flags & FdbFlags::TUNNEL, 0);
    for port in [VXLAN, 1] {
        host.bridge().fdb.get_mut(&key(WIRED)).unwrap().port = port;
        let plan = host.plan();
        assert_eq!(plan.entries().next().unwrap().id, 1);
        applied.replan(&mut maps, &plan, host.all(), &[(BRIDGE, key(WIRED))]).unwrap();
        let flags = maps.contents.fdb[&wired].flags;
        assert_eq!(flags & FdbFlags::TUNNEL != 0, port == VXLAN);
    }
}

#[test]
fn an_id_that_gets_another_tunnel_leaves_no_station_behind_the_old_one() {
    let mut host = Host::new();
    let mut maps = Maps::new(100);
    let (_, mut applied) = apply(&host, &mut maps);
    // The same ids are given in the same order to what is another tunnel now. Maps checks.
    host.tunnel().key_in = Some(43);
    applied.replan(&mut maps, &host.plan(), host.all(), &[]).unwrap();
    let mut fresh = Maps::new(100);
    apply(&host, &mut fresh);
    assert_eq!(maps.contents, fresh.contents);
}

#[test]
fn what_finds_the_map_full_is_refused_and_comes_when_there_is_room() {
    let mut host = Host::new();
    let mut maps = Maps::new(3);
    let (plan, mut applied) = apply(&host, &mut maps);
    let bridge = &host.bridges[&BRIDGE];
    let map_key = |mac| entry::map_key(bridge, &key(mac));
    let all = [NEAR, WIRED, FAR, OTHER_FAR];
    let refused: Vec<_> =
        all.into_iter().filter(|mac| applied.is_refused(&map_key(*mac))).collect();
    assert_eq!(refused.len(), 1);
    assert!(!applied.contains(&map_key(refused[0])));
    let goes = all.into_iter().find(|mac| !refused.contains(mac)).unwrap();
    let (refused, goes) = (map_key(refused[0]), key(goes));
    host.bridge().fdb.remove(&goes);
    // The write after the removal fails: what was refused must not be forgotten.
    maps.breaks_after = Some(1);
    applied.fdb_changed(&mut maps, &plan, host.all(), &[(BRIDGE, goes)]).unwrap_err();
    maps.breaks_after = None;
    assert!(applied.is_refused(&refused));
    applied.replan(&mut maps, &plan, host.all(), &[]).unwrap();
    assert!(applied.contains(&refused) && !applied.is_refused(&refused));
}

#[test]
fn a_full_map_is_asked_once() {
    let mut host = Host::new();
    for n in 0..50 {
        let entry = FdbEntry { port: NIC, kind: FdbKind::Dynamic };
        host.bridge().fdb.insert(key(mac(100 + n)), entry);
    }
    let mut maps = Maps::new(4);
    let mut empty = host.clone();
    empty.bridge().fdb.clear();
    let (plan, mut applied) = apply(&empty, &mut maps);
    let writes = maps.writes;
    applied.distrust();
    applied.replan(&mut maps, &plan, host.all(), &[]).unwrap();
    // Four entries, and one that finds no room.
    assert_eq!(maps.writes, writes + 4 + 1);
}

/// As [`Host::new`], with a second bridge `br-b` that has a station of its own behind a NIC.
fn two_bridges() -> (Host, FdbKey) {
    let mut host = Host::new();
    let mut bridge = empty_bridge(20, "br-b");
    bridge.ports.insert(21, port(21, "eth2", Device::Ethernet));
    let station = key(mac(77));
    bridge.fdb.insert(station, FdbEntry { port: 21, kind: FdbKind::Dynamic });
    host.bridges.insert(20, bridge);
    (host, station)
}

#[test]
fn only_the_stations_of_a_bridge_that_is_planned_otherwise_are_looked_at() {
    let (mut host, elsewhere) = two_bridges();
    let mut maps = Maps::new(100);
    let (_, mut applied) = apply(&host, &mut maps);
    let fdb = maps.contents.fdb.clone();
    // Not announced, so that it shows who was looked at.
    host.bridges.get_mut(&20).unwrap().fdb.remove(&elsewhere);
    host.bridge().fdb.remove(&key(WIRED));
    applied.replan(&mut maps, &host.plan(), host.all(), &[]).unwrap();
    assert_eq!(maps.contents.fdb, fdb);
    host.port(VETH).isolated = true;
    applied.replan(&mut maps, &host.plan(), host.all(), &[]).unwrap();
    assert_eq!(maps.contents.fdb.len(), fdb.len() - 1);
    assert!(maps.contents.fdb.keys().any(|key| key.bridge == 20));
    // A change that is announced is followed beside a replan.
    host.port(VETH).isolated = false;
    applied.replan(&mut maps, &host.plan(), host.all(), &[(20, elsewhere)]).unwrap();
    assert!(maps.contents.fdb.keys().all(|key| key.bridge == BRIDGE));
}

#[test]
fn a_bridge_that_is_gone_leaves_no_station() {
    let (mut host, _) = two_bridges();
    let mut maps = Maps::new(100);
    let (_, mut applied) = apply(&host, &mut maps);
    host.bridges.remove(&20);
    applied.replan(&mut maps, &host.plan(), host.all(), &[]).unwrap();
    assert!(maps.contents.fdb.keys().all(|key| key.bridge == BRIDGE));
    assert_eq!(maps.contents.fdb.len(), 4);
}

#[test]
fn tunnels_stop_before_anything_else_is_taken_away() {
    let mut host = Host::new();
    let mut maps = Maps::new(100);
    let (_, mut applied) = apply(&host, &mut maps);
    let fdb = maps.contents.fdb.clone();
    let ready = |maps: &Maps| {
        let tunnels = maps.contents.tunnels.values();
        tunnels.filter(|tunnel| tunnel.flags & TunnelFlags::READY != 0).count()
    };
    assert_eq!(ready(&maps), 2);
    host.tunnel().unsupported.push(Reason::TunnelOption.into());
    maps.breaks_after = Some(2);
    applied.replan(&mut maps, &host.plan(), host.all(), &[]).unwrap_err();
    assert_eq!(ready(&maps), 0);
    assert_eq!(maps.contents.fdb, fdb);
}
