//! Forwarding tables.

use std::time::Duration;

use super::{attribute, port, remote};
use crate::bridge::linux::fdb::{self, VxlanPorts};
use crate::bridge::linux::record::{self, Record};
use crate::bridge::model::{
    Bridge, BridgeKind, Bridges, Changes, FdbEntry, FdbKey, FdbKind, Mac, Remote,
};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_VNI: u16 = 7;
const NDA_MASTER: u16 = 9;
const NDA_SRC_VNI: u16 = 11;
const NDA_NH_ID: u16 = 13;
const NDA_FLAGS_EXT: u16 = 15;
const NTF_SELF: u8 = 2;
const NTF_EXT_LOCKED: u32 = 2;
const NUD_REACHABLE: u16 = 2;
const NUD_STALE: u16 = 4;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

fn neighbour(state: u16, flags: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![7, 0, 0, 0]; // struct ndmsg: AF_BRIDGE
    bytes.extend(5_u32.to_ne_bytes());
    bytes.extend(state.to_ne_bytes());
    bytes.extend([flags, 0]);
    bytes.extend(attribute(NDA_LLADDR, &MAC.0));
    bytes.extend(attributes.concat());
    assert!(record::is_fdb(&bytes));
    bytes
}

#[test]
fn a_bridge_entrys_kind_is_its_state() {
    let master = attribute(NDA_MASTER, &9_u32.to_ne_bytes());
    let vlan = attribute(NDA_VLAN, &100_u16.to_ne_bytes());
    let locked = attribute(NDA_FLAGS_EXT, &NTF_EXT_LOCKED.to_ne_bytes());
    let plain = attribute(NDA_FLAGS_EXT, &[0; 4]);
    for (state, extension, kind) in [
        (NUD_PERMANENT, &plain, FdbKind::Local),
        (NUD_NOARP, &plain, FdbKind::Static),
        (NUD_REACHABLE, &plain, FdbKind::Dynamic),
        (NUD_STALE, &plain, FdbKind::Dynamic),
        (NUD_REACHABLE, &locked, FdbKind::Locked),
    ] {
        let attributes = [master.clone(), vlan.clone(), extension.clone()];
        assert_eq!(
            record::parse(&neighbour(state, 0, &attributes)),
            Some(Record::Bridge {
                bridge: 9,
                key: FdbKey { vlan: 100, mac: MAC },
                entry: FdbEntry { port: 5, kind },
            })
        );
    }
}

/// A bridge (9) with a vxlan port (5).
fn bridges() -> (Bridges, VxlanPorts) {
    let mut vxlan = port("vxlan", &[], &[]);
    vxlan.ifindex = 5;
    let bridge = Bridge {
        ifindex: 9,
        name: "br-ex".to_owned(),
        kind: BridgeKind::Linux,
        mac: Mac::ZERO,
        up: true,
        ageing: Duration::from_secs(300),
        vlan_aware: false,
        nf_call: false,
        unsupported: Vec::new(),
        ports: [(5, vxlan)].into(),
        fdb: [].into(),
    };
    let bridges = Bridges::from([(9, bridge)]);
    let ports = fdb::vxlan_ports(&bridges);
    (bridges, ports)
}

#[test]
fn a_nexthop_group_shows_in_the_remotes_options() {
    let (mut bridges, ports) = bridges();
    let message = neighbour(NUD_NOARP, NTF_SELF, &[attribute(NDA_NH_ID, &7_u32.to_ne_bytes())]);
    let record = record::parse(&message).expect("a record");
    let mut changes = Changes::default();
    fdb::apply(&mut bridges, &ports, record, true, &mut changes);
    assert_eq!(changes.fdb, [(9, FdbKey { vlan: 0, mac: MAC })]);
    let tunnel = fdb::tunnel_mut(&mut bridges, 9, 5).expect("the tunnel");
    assert_eq!(tunnel.fdb.get(MAC), Some([remote("0.0.0.0", "nhid 7")].as_slice()));
}

/// A remote of [`MAC`] for frames of a VNI, sent with another if there is one.
fn remote_of_vni(last: u8, source_vni: u32, vni: Option<u32>) -> Record {
    let mut attributes = vec![attribute(NDA_DST, &[192, 0, 2, last])];
    attributes.extend(vni.map(|vni| attribute(NDA_VNI, &vni.to_ne_bytes())));
    attributes.push(attribute(NDA_SRC_VNI, &source_vni.to_ne_bytes()));
    record::parse(&neighbour(NUD_PERMANENT, NTF_SELF, &attributes)).expect("a record")
}

#[test]
fn a_station_has_a_remote_for_each_vni() {
    let (mut bridges, ports) = bridges();
    let vnis = [(10, Ok(1010)), (20, Ok(1020))];
    let vlans =
        &mut bridges.get_mut(&9).expect("the bridge").ports.get_mut(&5).expect("a port").vlans;
    vlans.vnis = Some(vnis.into_iter().collect());
    let of_vni =
        |address, vni, options: &str| Remote { vni: Some(vni), ..remote(address, options) };
    let mut follow = |record, present, changed: Option<u16>| {
        let mut changes = Changes::default();
        fdb::apply(&mut bridges, &ports, record, present, &mut changes);
        let key = changed.map(|vlan| (9, FdbKey { vlan, mac: MAC }));
        assert_eq!((changes.topology, changes.fdb), (false, Vec::from_iter(key)));
        let tunnel = fdb::tunnel_mut(&mut bridges, 9, 5).expect("the tunnel");
        [1010, 1020].map(|vni| tunnel.remotes_of(MAC, Some(vni)).to_vec())
    };
    // The frame's own VNI is no option.
    assert_eq!(
        follow(remote_of_vni(3, 1020, Some(1020)), true, Some(20)),
        [vec![], vec![of_vni("192.0.2.3", 1020, "")]]
    );
    assert_eq!(
        follow(remote_of_vni(2, 1010, Some(7)), true, Some(10)),
        [vec![of_vni("192.0.2.2", 1010, "vni 7")], vec![of_vni("192.0.2.3", 1020, "")]]
    );
    // A remote is replaced in place, that of the other VNI stays.
    assert_eq!(
        follow(remote_of_vni(4, 1010, None), true, Some(10)),
        [vec![of_vni("192.0.2.4", 1010, "")], vec![of_vni("192.0.2.3", 1020, "")]]
    );
    // Of no VLAN's VNI: nobody's station.
    assert_eq!(follow(remote_of_vni(5, 1030, None), true, None)[0].len(), 1);
    assert_eq!(
        follow(remote_of_vni(3, 1020, None), false, Some(20)),
        [vec![of_vni("192.0.2.4", 1010, "")], vec![]]
    );
}

#[test]
fn an_entry_told_twice_is_one_change() {
    let (mut bridges, ports) = bridges();
    let message = neighbour(NUD_NOARP, NTF_SELF, &[attribute(NDA_DST, &[192, 0, 2, 2])]);
    for (present, expected) in [(true, 1), (true, 0), (false, 1), (false, 0)] {
        let mut changes = Changes::default();
        let record = record::parse(&message).expect("a record");
        fdb::apply(&mut bridges, &ports, record, present, &mut changes);
        assert_eq!(changes.fdb.len(), expected);
    }
}

#[test]
fn another_devices_address_list_is_no_fdb() {
    assert_eq!(record::parse(&neighbour(NUD_PERMANENT, NTF_SELF, &[])), None);
}
