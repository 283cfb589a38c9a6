//! More stations than the FDB map has room for.

use anyhow::Result;
use ovs_ebpf_tests::lab::wait_until;

use super::{FAST, Gate, REPORTED};
use crate::support::{At, BothWays, has, shell};

#[test]
fn a_station_for_which_there_is_no_room_takes_the_slow_path_until_there_is() -> Result<()> {
    let mut gate = Gate::configured("[accelerate]\nfdb_capacity = 1024\n")?;
    let entries = |what: &str| {
        format!(
            "for i in $(seq 0 1099); do
                 printf 'fdb {what} 02:aa:00:00:%02x:%02x dev v1 master static\\n' \
                     $((i / 256)) $((i % 256))
             done | bridge -batch -"
        )
    };
    shell(gate.host(), &entries("add"));
    gate.lab.host_mut(0).add_container()?;
    let station = gate.host().container(1).mac().to_owned();
    let traffic = BothWays::start(gate.host().container(1), gate.lab.container(1))?;
    wait_until(REPORTED, "a full map", || {
        has(&gate.loader, At::Station(&station), "capacity").then_some(())
    });
    let before = gate.loader.fast_packets()?;
    traffic.goes_on(200);
    let meanwhile = gate.loader.fast_packets()? - before;
    assert_eq!((meanwhile.sent, meanwhile.received), (0, 0));

    shell(gate.host(), &entries("del"));
    wait_until(REPORTED, "room", || {
        (!has(&gate.loader, At::Station(&station), "capacity")).then_some(())
    });
    traffic.is_fast(&gate.loader, FAST);
    traffic.arrived_whole()
}
