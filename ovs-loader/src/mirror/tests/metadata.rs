//! A VXLAN device in metadata mode: VLANs 10 and 20 have VNIs 1010 and 1020, a flood list and a station
//! behind the tunnel each.

use std::collections::BTreeMap;

use ovs_ebpf_common::abi::{FdbFlags, IndexKey, TunnelIndexFlags, TunnelKind};

use super::maps::Maps;
use super::*;
use crate::bridge::vlans::VlanVnis;
use crate::mirror::plan::{TunnelEntry, TunnelPlan};
use crate::mirror::{Applied, Guards};

const FIRST: FdbKey = FdbKey { vlan: 10, mac: FAR };
const SECOND: FdbKey = FdbKey { vlan: 20, mac: FAR };

fn of_vni(vni: u32, address: IpAddr) -> Remote {
    Remote { vni: Some(vni), ..plain(address) }
}

fn vnis(vnis: [(u16, u32); 2]) -> Option<VlanVnis> {
    Some(vnis.into_iter().map(|(vlan, vni)| (vlan, Ok(vni))).collect())
}

/// The same MAC in both VLANs, in the first behind the flood list's one remote, in the second behind its
/// own.
fn host() -> Host {
    let mut host = Host::new();
    host.port(VXLAN).vlans = PortVlans {
        untagged: None,
        takes_tags: false,
        carries: [10, 20, 30].into_iter().collect(),
        strips: [10, 20, 30].into_iter().collect(),
        vnis: vnis([(10, 1010), (20, 1020)]),
    };
    let tunnel = host.tunnel();
    (tunnel.key_in, tunnel.key_out) = (None, None);
    tunnel.remotes = vec![of_vni(1010, REMOTE), of_vni(1020, REMOTE)];
    tunnel.fdb = ByStation::default();
    tunnel.fdb.insert(FAR, &[of_vni(1020, OTHER_REMOTE)]);
    host.bridge().vlan_aware = true;
    host.bridge().fdb.clear();
    for key in [FIRST, SECOND, FdbKey { vlan: 30, mac: FAR }] {
        host.bridge().fdb.insert(key, FdbEntry { port: VXLAN, kind: FdbKind::Dynamic });
    }
    host.resolve_all();
    host
}

fn way_to(plan: &Plan, remote: IpAddr, vni: u32) -> &TunnelPlan {
    let ways = plan.bridges[&BRIDGE].ports[&VXLAN].tunnels.as_ref().expect("a tunnel");
    &ways[&Way { remote, vni: Some(vni) }]
}

fn entry_to(plan: &Plan, remote: IpAddr, vni: u32) -> &TunnelEntry {
    way_to(plan, remote, vni).entry.as_ref().expect("accelerated")
}

/// The tunnel that a station is behind.
fn target(host: &Host, plan: &Plan, key: &FdbKey) -> Option<u32> {
    let bridge = &host.bridges[&BRIDGE];
    let value = entry::decide(plan, bridge, key, &bridge.fdb[key]).value?;
    assert_eq!(value.flags & (FdbFlags::TUNNEL | FdbFlags::TAGGED), FdbFlags::TUNNEL);
    Some(value.target)
}

#[test]
fn each_vni_is_a_way_of_its_own_whose_frames_are_in_its_vlan_without_a_tag() {
    let plan = host().plan();
    for (remote, vni, vlan) in [(REMOTE, 1010, 10), (REMOTE, 1020, 20), (OTHER_REMOTE, 1020, 20)] {
        let TunnelEntry { key, index, value, .. } = entry_to(&plan, remote, vni);
        assert_eq!(*key, IndexKey::new(TunnelKind::VxlanIpv4, remote, LOCAL, vni, 4789));
        assert_eq!((index.vlan, index.flags & TunnelIndexFlags::TAGGED), (vlan, 0));
        // The VXLAN header: VNI and a zero.
        assert_eq!(value.paths[0].header[46..50], (vni << 8).to_be_bytes());
    }
    assert_eq!(plan.entries().count(), 3);
}

#[test]
fn a_station_is_behind_the_remote_of_its_vlan_s_vni() {
    let mut host = host();
    let plan = host.plan();
    assert_eq!(target(&host, &plan, &FIRST), Some(entry_to(&plan, REMOTE, 1010).id));
    assert_eq!(target(&host, &plan, &SECOND), Some(entry_to(&plan, OTHER_REMOTE, 1020).id));

    // Several remotes of one VNI are none of the other's.
    host.tunnel().remotes = vec![
        of_vni(1010, REMOTE),
        of_vni(1010, OTHER_REMOTE),
        of_vni(1020, REMOTE),
        of_vni(1020, OTHER_REMOTE),
    ];
    let plan = host.plan();
    assert_eq!(reasons(&host.why(&plan, &FIRST)), [Reason::SeveralRemotes]);
    assert_eq!(reasons(&host.why(&plan, &SECOND)), []);
}

#[test]
fn vlans_and_vnis_without_one_another_are_left_to_the_bridge() {
    let mut host = host();
    let unmapped = |words: &str| [Why::new(Reason::VniUnmapped, words)];
    let third = FdbKey { vlan: 30, mac: FAR };
    assert_eq!(host.why(&host.plan(), &third), unmapped("no VNI is mapped to VLAN 30"));

    let missing = Why::new(Reason::VniUnmapped, "vnifilter has no VNI 1020");
    let vnis = [(10, Ok(1010)), (20, Err(missing.clone()))].into_iter().collect();
    host.port(VXLAN).vlans.vnis = Some(vnis);
    let plan = host.plan();
    assert_eq!(host.why(&plan, &SECOND), [missing]);
    assert_eq!(target(&host, &plan, &SECOND), None);
    for remote in [REMOTE, OTHER_REMOTE] {
        let way = way_to(&plan, remote, 1020);
        assert_eq!(way.why, unmapped("no VLAN has VNI 1020 both ways"));
        assert_eq!(way.entry, None);
    }
    assert_eq!(target(&host, &plan, &FIRST), Some(entry_to(&plan, REMOTE, 1010).id));

    // An entry without a source VNI is of VNI 0, which no frame has.
    host.tunnel().remotes.insert(0, plain(REMOTE));
    let plan = host.plan();
    let way =
        &plan.bridges[&BRIDGE].ports[&VXLAN].tunnels.as_ref().expect("a tunnel")[&way(REMOTE)];
    assert_eq!(way.why, unmapped("no VLAN has VNI 0 both ways"));
    assert_eq!(target(&host, &plan, &FIRST), Some(entry_to(&plan, REMOTE, 1010).id));
}

/// `maps` looks after each write that no entry points at a tunnel of another VLAN.
#[test]
fn vnis_that_change_places_are_followed_and_never_mixed() {
    let mut host = host();
    let mut maps = Maps::new(100);
    let mut ids = TunnelIds::default();
    let mut applied = Applied::default();
    let plan = host.plan_with(&mut ids);
    applied.replan(&mut maps, &plan, host.all(), &[]).unwrap();
    let before: BTreeMap<_, _> = plan.entries().map(|entry| (entry.key, entry.id)).collect();

    host.port(VXLAN).vlans.vnis = vnis([(10, 1020), (20, 1010)]);
    let plan = host.plan_with(&mut ids);
    applied.replan(&mut maps, &plan, host.all(), &[]).unwrap();
    assert_eq!(target(&host, &plan, &FIRST), Some(entry_to(&plan, OTHER_REMOTE, 1020).id));
    assert_eq!(target(&host, &plan, &SECOND), Some(entry_to(&plan, REMOTE, 1010).id));
    assert_eq!(entry_to(&plan, REMOTE, 1010).index.vlan, 20);
    assert!(plan.entries().all(|entry| before[&entry.key] == entry.id));
    for key in [FIRST, SECOND] {
        let bridge = &host.bridges[&BRIDGE];
        let held = maps.contents.fdb[&entry::map_key(bridge, &key)];
        assert_eq!(Some(held.target), target(&host, &plan, &key));
    }
}

#[test]
fn a_plan_does_not_serve_a_known_remote_of_another_vni() {
    let mut host = host();
    let plan = host.plan();
    let changed = [(BRIDGE, FIRST)];
    assert!(plan.serves(host.all(), &changed));
    host.tunnel().fdb.insert(FAR, &[of_vni(1010, OTHER_REMOTE)]);
    assert!(!plan.serves(host.all(), &changed));
    host.tunnel().fdb.insert(FAR, &[of_vni(1010, REMOTE), of_vni(1020, OTHER_REMOTE)]);
    assert!(plan.serves(host.all(), &changed));
}

#[test]
fn nothing_is_filtered_that_a_bridge_may_want_of_other_vnis() {
    let host = host();
    let guards = Guards::make(host.all(), &host.plan(), &BTreeSet::new());
    assert!(guards.keys.is_empty());
    assert_eq!(reasons(&guards.flows[&(Encap::Vxlan, 4789)]), [Reason::XdpShared]);
}
