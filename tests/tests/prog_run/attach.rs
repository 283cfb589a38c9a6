//! Programs come and go on a device, as the daemon attaches them.

use std::collections::BTreeMap;

use nix::sched::{CloneFlags, unshare};
use ovs_ebpf_common::abi::Program;

use crate::batch::Opened;

#[test]
fn a_device_takes_a_program_again_as_soon_as_it_is_rid_of_it() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
    let mut opened = Opened::with_capacity("attach", 16);
    let loopback = BTreeMap::from([(1, "lo".to_owned())]);
    for _ in 0..50 {
        for devices in [&loopback, &BTreeMap::new()] {
            let refused = opened.datapath().attach(Program::PortIngress, devices);
            assert_eq!(refused, BTreeMap::new());
        }
    }
}
