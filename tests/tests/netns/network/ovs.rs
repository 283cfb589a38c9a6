//! Networks on Open vSwitch's bridges: the real daemons, on a datapath that forwards nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use ovs_ebpf_tests::lab::{Engine, Host, Lab};

use super::{docker, list, refused, run, serve};
use crate::support::State;

/// A lab whose first host has an Open vSwitch with bridge `br-ovs`.
fn lab() -> Result<Lab> {
    let mut lab = Lab::pair()?;
    lab.host_mut(0).add_dummy_ovs()?;
    lab.host(0).vsctl(&["add-br", "br-ovs"])?;
    Ok(lab)
}

fn get(host: &Host, table: &str, port: &str, column: &str) -> Result<String> {
    Ok(host.vsctl(&["get", table, port, column])?.trim().to_owned())
}

#[test]
fn bridges_tunnels_and_ports_are_rows_and_go_with_the_network() -> Result<()> {
    let lab = lab()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    let before = (State::of(host), host.vsctl(&["show"])?);
    let loader = serve(host)?;
    // One made for the network, as an operator would make it.
    let create = "network create -d ovs-ebpf --internal --subnet 10.5.0.0/24 -o vlan=5";
    docker(
        &engine,
        &format!("{create} -o remotes=192.0.2.1,192.0.2.2 -o tunnel=gre -o key=42 web"),
    )?;
    let network = &list(host)?[0];
    assert_eq!((&network["kind"], &network["mtu"]), (&"ovs".into(), &1458.into()), "{network}");
    let bridge = network["bridge"].as_str().context("a bridge")?;
    let tunnel = format!("gr-{}-1", &network["id"].as_str().context("an id")?[..8]);
    assert_eq!(get(host, "interface", &tunnel, "type")?, "gre");
    let options = get(host, "interface", &tunnel, "options")?;
    assert!(
        options.contains("key=\"42\"") && options.contains("remote_ip=\"192.0.2.2\""),
        "{options}"
    );
    assert_eq!(get(host, "port", &tunnel, "protected")?, "true");
    run(&engine, "web", "--network web --ip 10.5.0.11")?;
    let port = list(host)?[0]["endpoints"][0]["port"].as_str().context("a port")?.to_owned();
    assert_eq!(host.vsctl(&["port-to-br", &port])?.trim(), bridge);
    assert_eq!(get(host, "port", &port, "tag")?, "5");
    let ids = get(host, "interface", &port, "external_ids")?;
    assert!(
        ids.contains("attached-mac=\"02:42:0a:05:00:0b\"") && ids.contains("iface-id="),
        "{ids}"
    );
    docker(&engine, "rm -f web")?;
    docker(&engine, "network rm web")?;

    // One that was there.
    docker(
        &engine,
        "network create -d ovs-ebpf --internal --subnet 10.6.0.0/24 -o bridge=br-ovs there",
    )?;
    run(&engine, "web", "--network there")?;
    docker(&engine, "rm -f web")?;
    docker(&engine, "network rm there")?;
    drop(loader);
    before.0.is_unchanged();
    assert_eq!(host.vsctl(&["show"])?, before.1);
    Ok(())
}

#[test]
fn an_open_vswitch_that_does_nothing_is_named_within_a_second() -> Result<()> {
    let mut lab = lab()?;
    let engine = Engine::start(lab.host(0))?;
    let _loader = serve(lab.host(0))?;
    let create =
        "network create -d ovs-ebpf --internal --subnet 10.6.0.0/24 -o bridge=br-ovs there";
    docker(&engine, create)?;
    let ovs = lab.host_mut(0).ovs_mut().context("a host with Open vSwitch")?;
    ovs.end_vswitchd(Signal::SIGKILL)?;
    let started = Instant::now();
    let said = refused(&engine, "run -d --network there box sleep 1");
    let taken = started.elapsed();
    let ovs = lab.host_mut(0).ovs_mut().context("a host with Open vSwitch")?;
    ovs.start_vswitchd()?;
    assert!(said.contains("Open vSwitch hangs"), "{said}");
    assert!(taken < Duration::from_secs(10), "{taken:?}: Docker waits for no more than our second");
    Ok(())
}
