//! Ports of containers that may send in their own names alone: what the daemon can't know for a while changes
//! nothing of that.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use ovs_ebpf_tests::lab::{Host, Lab, Loader, Namespace, wait_until};

use super::{SOON, docker};
use crate::support::shell;

const OWN: &str = "[[port]]\nbridge = \"BRIDGE\"\nallowed = [\"own\"]\n";

/// A lab whose first host has such a container on a bridge, and the daemon.
fn secured(lab: &Lab, bridge: &str) -> Result<(Loader, Namespace)> {
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    docker(host, &format!("add-port {bridge} eth1 web --ipaddress=10.0.0.50/24"), Some(&web))?;
    let loader = start(host, bridge)?;
    assert!(spoof_is_discarded(&loader, &web));
    Ok((loader, web))
}

fn start(host: &Host, bridge: &str) -> Result<Loader> {
    Loader::start_with(host, &OWN.replace("BRIDGE", bridge))
}

/// Sends in another's name, and says whether that was discarded.
fn spoof_is_discarded(loader: &Loader, web: &Namespace) -> bool {
    let discarded = || {
        let stats = loader.stats().expect("stats");
        stats["discarded"]["spoofed_ip"].as_u64().unwrap_or(0)
    };
    let before = discarded();
    shell(
        web,
        "ip addr add 10.0.0.99/24 dev eth1; ip neigh replace 10.0.0.98 lladdr 02:00:00:00:0e:0e dev eth1
         ping -n -c 3 -i 0.05 -W 0.1 -I 10.0.0.99 10.0.0.98 || true; ip addr del 10.0.0.99/24 dev eth1",
    );
    match discarded() - before {
        0 => false,
        3 => true,
        some => panic!("{some} of three were discarded"),
    }
}

#[test]
fn a_file_that_can_not_be_read_frees_no_port() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let (mut loader, web) = secured(&lab, "br-ex")?;
    let damaged = host.state().join("attachments/damaged.json");
    fs::write(&damaged, "{").context("the state directory")?;
    // Everything is planned anew.
    loader.accelerate("br-ex", false)?;
    assert!(spoof_is_discarded(&loader, &web), "as it was read last");
    let warnings = |loader: &Loader| loader.status().map(|status| status["warnings"].to_string());
    let said = warnings(&loader)?;
    assert!(said.contains("damaged.json is not understood"), "{said}");

    loader.kill_9()?;
    let loader = start(host, "br-ex")?;
    assert!(warnings(&loader)?.contains("damaged.json"));
    assert!(spoof_is_discarded(&loader, &web), "as the daemon before it had it");
    fs::remove_file(damaged)?;
    loader.accelerate("br-ex", true)?;
    assert!(spoof_is_discarded(&loader, &web));
    assert!(!warnings(&loader)?.contains("damaged.json"));
    Ok(())
}

#[test]
fn open_vswitch_that_is_away_when_the_daemon_starts_frees_no_port() -> Result<()> {
    let mut lab = Lab::pair()?;
    lab.host_mut(0).add_dummy_ovs()?;
    lab.host(0).vsctl(&["add-br", "br-ovs"])?;
    let (mut loader, web) = secured(&lab, "br-ovs")?;
    loader.kill_9()?;
    let ovs = lab.host_mut(0).ovs_mut().context("Open vSwitch")?;
    ovs.end_ovsdb_server(Signal::SIGTERM)?;
    let loader = start(lab.host(0), "br-ovs")?;
    assert!(spoof_is_discarded(&loader, &web), "not heard yet");
    lab.host_mut(0).ovs_mut().context("Open vSwitch")?.start_ovsdb_server()?;
    wait_until(SOON, "the bridge", || {
        loader.status().ok().filter(|status| status.to_string().contains("br-ovs"))
    });
    assert!(spoof_is_discarded(&loader, &web), "heard");
    // What is really gone from the bridge is free.
    let port = lab.host(0).vsctl(&["list-ports", "br-ovs"])?;
    lab.host(0).vsctl(&["del-port", port.trim()])?;
    wait_until(SOON, "the port's end", || {
        loader.status().ok().filter(|status| !status.to_string().contains(port.trim()))
    });
    assert!(!spoof_is_discarded(&loader, &web));
    Ok(())
}
