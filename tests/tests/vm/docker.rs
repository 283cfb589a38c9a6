//! `ovs-loader docker` on Open vSwitch's kernel datapath.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::lab::{Encap, Host, Lab, binary, traffic, wait_until};

const LIMIT: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(20);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

/// `ovs-loader docker …` on a host with Open vSwitch.
fn docker(host: &Host, words: &str) -> Result<String> {
    let binary = binary()?.to_string_lossy().into_owned();
    let state = host.state().display().to_string();
    let rundir = host.ovs().context("a host with Open vSwitch")?.rundir().display().to_string();
    let mut arguments = vec![&*binary, "--state-dir", &state, "docker", "--ovs-rundir", &rundir];
    arguments.extend(words.split_whitespace());
    host.try_exec(&arguments)
}

/// Both of the lab's containers reach the one that was attached: on its host, and over the tunnel.
#[track_caller]
fn is_reached(lab: &Lab) -> Result<()> {
    for host in [0, 1] {
        let container = lab.container(host);
        wait_until(LIMIT, &format!("an echo from host {}", host + 1), || {
            let ping = traffic::ping(container, WEB, 56, 1, INTERVAL);
            ping.is_ok_and(|ping| ping.received == 1).then_some(())
        });
        assert_eq!(traffic::ping(container, WEB, 1300, 3, INTERVAL)?.received, 3);
    }
    Ok(())
}

#[test]
fn a_container_is_attached_moved_between_vlans_and_detached() -> Result<()> {
    let lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[1, 1])?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    let before = host.vsctl(&["show"])?;
    let netns = format!("--netns=/run/netns/{}", web.name());
    let add = format!("add-port br-ex eth1 web --ipaddress={WEB}/24 {netns}");
    docker(host, &add)?;
    is_reached(&lab)?;

    // Out of reach in a VLAN of its own, and back.
    docker(host, "set-vlan br-ex eth1 web 7")?;
    let ping = traffic::ping(lab.container(0), WEB, 56, 3, INTERVAL)?;
    assert_eq!(ping.received, 0, "{ping:?}");
    let port = host.vsctl(&["--bare", "--columns=name", "find", "port", "tag=7"])?;
    host.vsctl(&["clear", "port", port.trim(), "tag"])?;
    is_reached(&lab)?;

    docker(host, "del-port br-ex eth1 web")?;
    assert_eq!(host.vsctl(&["show"])?, before);
    assert!(web.try_exec(&["ip", "link", "show", "eth1"]).is_err());
    assert!(host.try_exec(&["ip", "link", "show", port.trim()]).is_err());
    Ok(())
}
