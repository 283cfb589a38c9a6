//! What ports carry, from bytes as the kernel lays them out (`linux/if_bridge.h`).

use super::*;
use crate::bridge::model::{Device, StpState};

/// A range of VLANs: flags, first, last, and the tunnel id of the first.
fn range(flags: u16, first: u16, last: u16, tunnel_id: Option<u32>) -> Vec<u8> {
    let words = |words: [u16; 4]| words.map(u16::to_ne_bytes).concat();
    let mut bytes = words([8, 1, flags, first]); // BRIDGE_VLANDB_ENTRY_INFO
    if last != first {
        bytes.extend(words([6, 2, last, 0])); // BRIDGE_VLANDB_ENTRY_RANGE, padded
    }
    bytes.extend([5, 0, 3, 0, 3, 0, 0, 0]); // BRIDGE_VLANDB_ENTRY_STATE: forwarding
    if let Some(id) = tunnel_id {
        // BRIDGE_VLANDB_ENTRY_TUNNEL_INFO, which is nested, with BRIDGE_VLANDB_TINFO_ID.
        bytes.extend([12, 0, 4, 0x80, 8, 0, 1, 0]);
        bytes.extend(id.to_ne_bytes());
    }
    let length = u16::try_from(4 + bytes.len()).expect("short");
    [length.to_ne_bytes(), 0x8001_u16.to_ne_bytes()].concat().into_iter().chain(bytes).collect()
}

/// A message of device 5.
fn message(ranges: &[Vec<u8>]) -> Vec<u8> {
    [&[7, 0, 0, 0, 5, 0, 0, 0][..], &ranges.concat()].concat()
}

/// What the port carries, in metadata mode or not, given its VLANs.
fn vlans(metadata: bool, ranges: &[Vec<u8>]) -> PortVlans {
    let message = message(ranges);
    let (ifindex, memberships) = parse(&message, &entry).expect("a message");
    let mut port = Port {
        ifindex,
        name: "vxlan0".to_owned(),
        mac: crate::bridge::model::Mac::ZERO,
        up: true,
        mtu: 1500,
        stp: StpState::Forwarding,
        isolated: false,
        locked: false,
        vlans: PortVlans { vnis: metadata.then(VlanVnis::default), ..PortVlans::default() },
        under_vlan_devices: false,
        unsupported: Vec::new(),
        device: Device::Ethernet,
    };
    enter(&mut port, &memberships.collect::<Vec<_>>());
    assert_eq!((port.ifindex, port.unsupported), (5, vec![]));
    port.vlans
}

const PVID_UNTAGGED: u16 = 6;
const UNTAGGED: u16 = 4;

#[test]
fn a_port_without_metadata_has_its_vlans_and_no_vnis() {
    let found = vlans(false, &[range(PVID_UNTAGGED, 1, 1, None), range(0, 10, 12, Some(1010))]);
    let expected = PortVlans {
        untagged: Some(1),
        takes_tags: true,
        carries: [1, 10, 11, 12].into_iter().collect(),
        strips: [1].into_iter().collect(),
        vnis: None,
    };
    assert_eq!(found, expected);
    assert_eq!(found.vni(10), Ok(None));
}

#[test]
fn a_range_of_vlans_has_a_range_of_vnis_and_their_frames_no_tags() {
    let found = vlans(true, &[range(0, 10, 12, Some(1010)), range(0, 20, 20, Some(7))]);
    assert_eq!((found.untagged, found.takes_tags), (None, false));
    assert_eq!((&found.strips, found.carries.to_string()), (&found.carries, "10-12,20".to_owned()));
    let vnis = found.vnis.as_ref().expect("metadata mode");
    for (vlan, vni) in [(10, 1010), (11, 1011), (12, 1012), (20, 7)] {
        assert_eq!(found.vni(vlan), Ok(Some(vni)));
        assert_eq!(vnis.vlan(vni), Ok(vlan));
    }
}

#[test]
fn vlans_without_a_vni_of_their_own_say_why() {
    let found = vlans(
        true,
        &[
            range(PVID_UNTAGGED, 1, 1, None),
            range(UNTAGGED, 10, 10, Some(1010)),
            range(0, 20, 20, Some(0)),
            range(0, 21, 22, Some((1 << 24) - 1)),
            range(0, 30, 30, Some(1030)),
            range(0, 31, 31, Some(1030)),
        ],
    );
    for (vlan, words) in [
        (1, "no VNI is mapped to VLAN 1"),
        (10, "VLAN 10 is untagged: set it without"),
        (20, "0 is no VNI that a bridge gives"),
        (22, "16777216 is no VNI that a bridge gives"),
        (30, "VNI 1030 is another VLAN's too"),
        (31, "VNI 1030 is another VLAN's too"),
        (40, "no VNI is mapped to VLAN 40"),
    ] {
        assert_eq!(found.vni(vlan), Err(Why::new(Reason::VniUnmapped, words)));
    }
    assert_eq!(found.vni(21), Ok(Some(0xff_ffff)));
    let vnis = found.vnis.expect("metadata mode");
    for vni in [0, 1010, 1030] {
        let why = Why::new(Reason::VniUnmapped, format!("no VLAN has VNI {vni} both ways"));
        assert_eq!(vnis.vlan(vni), Err(why));
    }
    // So does what vnifilter has not.
    let why = |vni: u32| Why::new(Reason::VniUnmapped, vni.to_string());
    let without = vnis.without(|vni| (vni == 0xff_ffff).then(|| why(vni)));
    assert_eq!(without.vni(21), Err(why(0xff_ffff)));
    assert!(without.vlan(0xff_ffff).is_err());
    assert_eq!(
        without.vni(20),
        Err(Why::new(Reason::VniUnmapped, "0 is no VNI that a bridge gives"))
    );
}
