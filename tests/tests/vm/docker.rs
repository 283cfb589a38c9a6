//! `ovs-loader docker` on Open vSwitch's kernel datapath, alone and beside the real `ovs-docker`.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, assert_fast},
    lab::{Encap, Engine, Host, Lab, binary, traffic, wait_until},
};

use crate::support::{INTERVAL, LIMIT, at_once, fact};

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

/// `ovs-docker` as an operator runs it.
fn script(host: &Host, engine: &Engine, words: &str) -> Result<String> {
    let socket = format!("DOCKER_HOST=unix://{}", engine.socket().display());
    let mut arguments = vec![&*socket, "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "ovs-docker"];
    arguments.extend(words.split_whitespace());
    host.ovs().context("a host with Open vSwitch")?.run("env", &arguments)
}

/// Every packet between a container and those of the engine, on their host and over the tunnel, takes
/// the fast path.
fn is_fast(pair: &Accelerated, addresses: &[Ipv4Addr]) -> Result<()> {
    const ECHOES: u32 = 20;
    for host in [0, 1] {
        for address in addresses {
            let container = pair.lab.container(host);
            wait_until(LIMIT, &format!("{address} is fast from host {}", host + 1), || {
                let one = || traffic::ping(container, *address, 56, 1, INTERVAL);
                let counted = pair.counted(|| one().map(|_| ())).ok()?;
                (counted.get("sent")? + counted.get("received").unwrap_or(&0)
                    == 2 * (1 + host as u64))
                    .then_some(())
            });
            let counted = pair.counted(|| {
                let ping = traffic::ping(container, *address, 1300, ECHOES, INTERVAL)?;
                assert_eq!(ping.received, ECHOES);
                Ok(())
            })?;
            // Request and reply, on each of the hosts on their way.
            assert_fast(&counted, u64::from(2 * ECHOES) * (1 + host as u64));
        }
    }
    Ok(())
}

#[test]
fn ovs_docker_and_ours_know_each_others_ports_and_all_are_fast() -> Result<()> {
    const DB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 51);
    let pair =
        Accelerated::start_on(Lab::build_ovs(Encap::Gre, "options:key=42", &[1, 1])?, &[0, 1])?;
    let host = pair.lab.host(0);
    let engine = Engine::start(host)?;
    for name in ["web", "db"] {
        engine.run(name)?;
    }
    let before = host.vsctl(&["show"])?;
    let socket = format!("--docker-socket={}", engine.socket().display());
    script(host, &engine, &format!("add-port br-ex eth1 web --ipaddress={WEB}/24 --mtu=1450"))?;
    docker(host, &format!("add-port br-ex eth1 db --ipaddress={DB}/24 --mtu=1450 {socket}"))?;
    fact("both are fast", || is_fast(&pair, &[WEB, DB]))?;

    fact("each refuses what the other has attached", || {
        let add = "add-port br-ex eth1";
        let said = script(host, &engine, &format!("{add} db")).expect_err("ours is there");
        assert!(format!("{said:#}").contains("Port already attached"), "{said:#}");
        let said = docker(host, &format!("{add} web {socket}")).expect_err("theirs is there");
        assert!(format!("{said:#}").contains("`ovs-docker` made port"), "{said:#}");
        Ok(())
    })?;
    fact("each changes and deletes what the other has attached", || {
        script(host, &engine, "set-vlan br-ex eth1 db 7")?;
        docker(host, &format!("set-vlan br-ex eth1 web 7 {socket}"))?;
        for address in [WEB, DB] {
            // The daemon hears of it from the database when ovs-vswitchd does.
            at_once(&format!("{address} is out of reach, in another VLAN"), || {
                let ping = traffic::ping(pair.lab.container(1), address, 56, 1, INTERVAL);
                ping.is_ok_and(|ping| ping.received == 0).then_some(())
            });
            let ping = traffic::ping(pair.lab.container(1), address, 56, 3, INTERVAL)?;
            assert_eq!(ping.received, 0, "{address} is in another VLAN: {ping:?}");
        }
        engine.exec("web", &["ping", "-c3", "-W5", &DB.to_string()])?;
        script(host, &engine, "del-port br-ex eth1 db")?;
        docker(host, &format!("del-port br-ex eth1 web {socket}"))?;
        assert_eq!(host.vsctl(&["show"])?, before);
        Ok(())
    })
}
