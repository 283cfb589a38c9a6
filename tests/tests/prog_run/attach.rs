//! Programs come and go on a device, as the daemon attaches them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use ovs_ebpf_common::abi::Program;
use ovs_loader::datapath::Attached;

use crate::batch::Opened;
use crate::host::ip;

#[test]
fn a_device_takes_a_program_again_as_soon_as_it_is_rid_of_it() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
    let mut opened = Opened::with_capacity("attach", 16);
    let loopback = BTreeMap::from([(1, "lo".to_owned())]);
    for _ in 0..50 {
        for devices in [&loopback, &BTreeMap::new()] {
            assert_eq!(attach(&mut opened, devices, Duration::MAX), Attached::default());
        }
    }
}

#[test]
fn many_devices_are_attached_to_bit_by_bit_and_hold_no_descriptors() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
    ip("link add name one type veth peer name two");
    let mut opened = Opened::with_capacity("attach-many", 16);
    let names = ["lo", "one", "two"];
    let index = |name: &&str| (if_nametoindex(*name).expect("made above"), (*name).to_owned());
    let devices: BTreeMap<_, _> = names.iter().map(index).collect();
    let descriptors = || fs::read_dir("/proc/self/fd").expect("procfs").count();
    let before = descriptors();
    for left in [2, 1, 0, 0] {
        let attached = attach(&mut opened, &devices, Duration::ZERO);
        assert_eq!(attached, Attached { left, ..Attached::default() });
    }
    assert_eq!(descriptors(), before);
}

fn attach(opened: &mut Opened, devices: &BTreeMap<u32, String>, limit: Duration) -> Attached {
    opened.datapath().attach(Program::PortIngress, devices, limit)
}
