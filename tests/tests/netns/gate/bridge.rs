//! What the bridge and its ports say themselves.

use anyhow::Result;
use ovs_ebpf_tests::lab::{Lab, Loader};

use super::{FAST, Gate, Packets, REPORTED, Still};
use crate::support::{At, BothWays, has};

#[test]
fn a_port_that_stp_does_not_let_forward_stops_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Port("v1"), "stp_not_forwarding"),
        ("bridge link set dev v1 state 0", "bridge link set dev v1 state 3"),
        Packets::Stop,
        Still::Both,
    )
}

#[test]
fn a_tunnel_port_that_is_disabled_stops_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), "stp_not_forwarding"),
        ("bridge link set dev vxlan0 state 0", "bridge link set dev vxlan0 state 3"),
        Packets::Stop,
        Still::Both,
    )
}

#[test]
fn a_tunnel_port_that_is_down_stops_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), "port_down"),
        ("ip link set vxlan0 down", "ip link set vxlan0 up"),
        Packets::Stop,
        Still::Both,
    )
}

#[test]
fn a_bridge_that_is_down_stops_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Bridge, "bridge_down"),
        ("ip link set br-ex down", "ip link set br-ex up"),
        Packets::Stop,
        Still::Both,
    )
}

#[test]
fn a_port_that_is_down_is_reported_and_fast_again_when_it_is_up() -> Result<()> {
    let gate = Gate::open()?;
    let traffic = gate.traffic()?;
    gate.host().exec(&["ip", "link", "set", "v1", "down"]);
    ovs_ebpf_tests::lab::wait_until(REPORTED, "port_down", || {
        has(&gate.loader, At::Port("v1"), "port_down").then_some(())
    });
    gate.host().exec(&["ip", "link", "set", "v1", "up"]);
    traffic.is_fast(&gate.loader, FAST);
    traffic.stop().map(|_| ())
}

#[test]
fn a_locked_port_stops_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Port("v1"), "port_locked"),
        ("bridge link set dev v1 locked on", "bridge link set dev v1 locked off"),
        Packets::Arrive,
        Still::Both,
    )
}

#[test]
fn an_ageing_time_too_short_to_prove_entries_stops_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Bridge, "ageing_too_short"),
        (
            "ip link set br-ex type bridge ageing_time 200",
            "ip link set br-ex type bridge ageing_time 30000",
        ),
        Packets::Arrive,
        Still::Both,
    )
}

#[test]
fn a_bridge_that_is_switched_off_stays_on_the_slow_path_until_it_is_on() -> Result<()> {
    let gate = Gate::open()?;
    let traffic = gate.traffic()?;
    gate.loader.accelerate("br-ex", false)?;
    assert!(has(&gate.loader, At::Bridge, "switched_off"));
    let before = gate.loader.fast_packets()?;
    traffic.goes_on(200);
    let meanwhile = gate.loader.fast_packets()? - before;
    assert_eq!((meanwhile.sent, meanwhile.received), (0, 0));
    gate.loader.accelerate("br-ex", true)?;
    traffic.is_fast(&gate.loader, FAST);
    traffic.arrived_whole()
}

#[test]
fn a_bridge_that_the_configuration_does_not_name_is_not_accelerated() -> Result<()> {
    let lab = Lab::pair()?;
    let other = "[accelerate]\nbridges = [\"br-other\"]\n";
    let mut loader = Loader::start_with(lab.host(0), other)?;
    assert!(has(&loader, At::Bridge, "not_selected"));
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.goes_on(200);
    let fast = loader.fast_packets()?;
    assert_eq!((fast.sent, fast.received), (0, 0));
    loader.kill_9()?;
    let loader = Loader::start_with(lab.host(0), "[accelerate]\nbridges = [\"br-ex\"]\n")?;
    traffic.is_fast(&loader, FAST);
    traffic.arrived_whole()
}
