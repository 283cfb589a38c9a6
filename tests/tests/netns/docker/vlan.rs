//! `set-vlan`.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::lab::{Host, Lab, traffic, try_until, wait_until};

use super::{docker, list, refused};
use crate::support::{State, shell};

/// Makes `br-int`, a bridge that filters VLANs; false on a kernel that can't, where a container's
/// port can be in none.
fn vlan_bridge(host: &Host) -> Result<bool> {
    if host.try_exec(&["sh", "-c", "ip link add br-int up type bridge vlan_filtering 1"]).is_ok() {
        return Ok(true);
    }
    let web = host.add_namespace("web")?;
    docker(host, "add-port br-ex eth1 web", Some(&web))?;
    let said = refused(host, "set-vlan br-ex eth1 web 5", None);
    assert!(said.contains("does not filter VLANs"), "{said}");
    Ok(false)
}

#[test]
fn containers_of_one_vlan_reach_each_other_and_no_other() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    if !vlan_bridge(host)? {
        return Ok(());
    }
    let mut containers = Vec::new();
    for (number, name) in ["web", "db", "lone"].iter().enumerate() {
        let container = host.add_namespace(name)?;
        let words = format!("add-port br-int eth1 {name} --ipaddress=10.1.0.{}/24", number + 1);
        docker(host, &words, Some(&container))?;
        containers.push(container);
    }
    let reaches = |from: usize, to: usize| {
        let to = Ipv4Addr::new(10, 1, 0, to as u8 + 1);
        traffic::ping(&containers[from], to, 56, 1, Duration::ZERO).is_ok_and(|p| p.received == 1)
    };
    let soon = Duration::from_secs(5);
    for to in [1, 2] {
        try_until(soon, || Ok(reaches(0, to).then_some(()))).with_context(|| {
            let bridge = shell(host, "bridge -d link; bridge vlan; bridge fdb show br br-int");
            let own = shell(&containers[0], "ip -s link show eth1; ip neigh");
            let its = shell(&containers[to], "ip -s link show eth1; ip neigh");
            format!("all are in VLAN 1, and {to} is not reached:\n{bridge}\n{own}\n{its}")
        })?;
    }

    docker(host, "set-vlan br-int eth1 web 5", None)?;
    assert!(!reaches(0, 1), "web alone in its VLAN");
    let said = docker(host, "set-vlan br-int eth1 db 5", None)?;
    assert_eq!(said, "eth1 of db is in VLAN 5\n");
    wait_until(soon, "both in VLAN 5", || reaches(0, 1).then_some(()));
    assert!(!reaches(0, 2), "lone in its own");
    let port = list(host)?.iter().find(|one| one["container"] == "web").cloned().expect("web");
    assert_eq!(port["vlan"], 5);
    let shown = shell(host, &format!("bridge vlan show dev {}", port["port"].as_str().unwrap()));
    assert!(shown.contains("5 PVID Egress Untagged") && !shown.contains(" 1 "), "{shown}");

    // It lasts: a container that comes back is in its VLAN from its first frame on.
    let again = host.add_namespace("web-again")?;
    docker(host, "add-port br-int eth1 web --ipaddress=10.1.0.1/24", Some(&again))?;
    let shown = shell(host, &format!("bridge vlan show dev {}", port["port"].as_str().unwrap()));
    assert!(shown.contains("5 PVID Egress Untagged") && !shown.contains(" 1 "), "{shown}");
    Ok(())
}

#[test]
fn a_bridge_that_does_not_filter_vlans_is_an_error_that_says_how_to() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    docker(host, "add-port br-ex eth1 web", Some(&web))?;
    let before = State::of(host);
    let said = refused(host, "set-vlan br-ex eth1 web 5", None);
    assert!(said.contains("ip link set br-ex type bridge vlan_filtering 1"), "{said}");
    for vlan in ["0", "4095", "x"] {
        refused(host, &format!("set-vlan br-ex eth1 web {vlan}"), None);
    }
    before.is_unchanged();
    assert!(list(host)?[0]["vlan"].is_null());
    Ok(())
}

#[test]
fn a_vlan_that_can_no_longer_be_had_leaves_the_container_detached_not_in_another() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    if !vlan_bridge(host)? {
        return Ok(());
    }
    let first = host.add_namespace("first")?;
    docker(host, "add-port br-int eth1 web", Some(&first))?;
    docker(host, "set-vlan br-int eth1 web 5", None)?;
    shell(host, "ip link set br-int type bridge vlan_filtering 0");
    let second = host.add_namespace("second")?;
    let said = refused(host, "add-port br-int eth1 web", Some(&second));
    assert!(said.contains("br-int does not filter VLANs"), "{said}");
    assert!(second.try_exec(&["ip", "link", "show", "eth1"]).is_err());
    assert_eq!(shell(host, "bridge link | grep -c _l@ || true"), "0\n");
    // And once it can be had, it is attached as before.
    shell(host, "ip link set br-int type bridge vlan_filtering 1");
    docker(host, "add-port br-int eth1 web", Some(&second))?;
    shell(&second, "ip link show eth1");
    Ok(())
}
