//! What `add-port` makes, and what `del-port` takes away.

use std::time::Duration;

use anyhow::Result;
use ovs_ebpf_tests::lab::{Lab, traffic};

use super::{docker, inside, list, refused};
use crate::support::{State, shell};

const ALL: &str = "add-port br-ex eth1 web --ipaddress=10.0.0.50/24 --ipaddress=fd00::50/64 \
    --gateway=10.0.0.11 --gateway=fd00::11 --macaddress=02:00:00:00:00:50 --mtu=1450";

#[test]
fn a_container_gets_all_that_was_asked_for_and_can_talk() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    let said = docker(host, ALL, Some(&web))?;
    assert!(said.starts_with("attached eth1 of web to br-ex (port "), "{said}");
    let port = list(host)?[0]["port"].as_str().expect("a port").to_owned();
    assert!(port.len() == 15 && port.ends_with("_l"), "{port}");

    let link = shell(&web, "ip -o link show eth1");
    for word in ["mtu 1450", "02:00:00:00:00:50", ",UP"] {
        assert!(link.contains(word), "{word}: {link}");
    }
    let addresses = shell(&web, "ip -o addr show eth1");
    assert!(addresses.contains("10.0.0.50/24") && addresses.contains("fd00::50/64"), "{addresses}");
    assert!(shell(&web, "ip route").contains("default via 10.0.0.11 dev eth1"));
    assert!(shell(&web, "ip -6 route").contains("default via fd00::11 dev eth1"));
    let outside = shell(host, &format!("ip -o link show {port}"));
    assert!(outside.contains("master br-ex") && outside.contains(",UP"), "{outside}");
    // The bridge keeps its own MTU.
    assert!(outside.contains("mtu 1500"), "{outside}");

    // One on the same host, and one behind the tunnel.
    for container in [lab.container(0), lab.container(1)] {
        let interval = Duration::from_millis(10);
        let answers = traffic::ping(container, [10, 0, 0, 50], 56, 5, interval)?;
        assert!(answers.received >= 4, "{answers:?}");
    }
    Ok(())
}

#[test]
fn del_port_leaves_the_host_and_the_container_as_they_were() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    let before = (State::of(host), inside(&web));
    docker(host, ALL, Some(&web))?;
    let said = docker(host, "del-port br-ex eth1 web", None)?;
    assert!(said.starts_with("detached eth1 of web from br-ex"), "{said}");
    before.0.is_unchanged();
    assert_eq!(inside(&web), before.1);
    assert!(list(host)?.is_empty());
    let said = refused(host, "del-port br-ex eth1 web", None);
    assert!(said.contains("no port is attached for eth1 of web"), "{said}");
    Ok(())
}

#[test]
fn del_ports_takes_all_of_one_container_on_one_bridge() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    shell(host, "ip link add br-int up type bridge");
    let (web, db) = (host.add_namespace("web")?, host.add_namespace("db")?);
    docker(host, "add-port br-ex eth1 web", Some(&web))?;
    docker(host, "add-port br-ex eth2 web", Some(&web))?;
    docker(host, "add-port br-int eth3 web", Some(&web))?;
    docker(host, "add-port br-ex eth1 db", Some(&db))?;
    docker(host, "del-ports br-ex web", None)?;
    let left: Vec<_> = list(host)?
        .iter()
        .map(|one| format!("{} {} {}", one["bridge"], one["interface"], one["container"]))
        .collect();
    assert_eq!(left, [r#""br-ex" "eth1" "db""#, r#""br-int" "eth3" "web""#]);
    assert_eq!(docker(host, "del-ports br-ex nobody", None)?, "nobody has no port on br-ex\n");
    Ok(())
}

#[test]
fn the_bridge_keeps_its_mac() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    shell(host, "ip link set v1 down address 06:ff:ff:ff:ff:ff up; ip link del vxlan0");
    let mac = || shell(host, "ip -o link show br-ex | grep -o 'ether [^ ]*'");
    let before = mac();
    assert_eq!(before, "ether 06:ff:ff:ff:ff:ff\n", "that of its only port");
    let web = host.add_namespace("web")?;
    docker(host, "add-port br-ex eth1 web --macaddress=02:00:00:00:00:50", Some(&web))?;
    assert_eq!(mac(), before);
    Ok(())
}

#[test]
fn once_more_is_no_change_and_other_settings_are_named() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    docker(host, ALL, Some(&web))?;
    let before = (State::of(host), inside(&web));
    let said = docker(host, ALL, Some(&web))?;
    assert!(said.starts_with("eth1 of web is already attached to br-ex"), "{said}");
    let json: serde_json::Value =
        serde_json::from_str(&docker(host, &format!("{ALL} --json"), Some(&web))?)?;
    assert_eq!(json["changed"], false);

    let other = ALL.replace("--mtu=1450", "--mtu=1400").replace("10.0.0.50/24", "10.0.0.51/24");
    let said = refused(host, &other, Some(&web));
    for words in [
        "mtu is 1450, not 1400",
        "ipaddress is 10.0.0.50/24, fd00::50/64, not 10.0.0.51/24, fd00::50/64",
        "ovs-loader docker del-port br-ex eth1 web",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("gateway is"), "{said}");
    before.0.is_unchanged();
    assert_eq!(inside(&web), before.1);
    Ok(())
}

#[test]
fn a_container_with_a_new_namespace_is_attached_again_as_it_was() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let without_mac = ALL.replace("--macaddress=02:00:00:00:00:50", "");
    let first = host.add_namespace("first")?;
    docker(host, &without_mac, Some(&first))?;
    let mac = shell(&first, "ip -o link show eth1 | grep -o 'ether [^ ]*'");
    let port = list(host)?[0]["port"].clone();

    let second = host.add_namespace("second")?;
    let said = docker(host, &without_mac, Some(&second))?;
    assert!(said.starts_with("attached eth1 of web to br-ex"), "{said}");
    assert!(first.try_exec(&["ip", "link", "show", "eth1"]).is_err(), "one at a time");
    assert!(shell(&second, "ip -o addr show eth1").contains("10.0.0.50/24"));
    let link = shell(&second, "ip -o link show eth1");
    assert!(link.contains(mac.trim()), "the MAC stays the same: {mac} {link}");
    assert_eq!(list(host)?[0]["port"], port, "and so does the port");
    Ok(())
}

#[test]
fn a_port_that_somebody_took_out_of_the_bridge_is_attached_again() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    docker(host, ALL, Some(&web))?;
    let port = list(host)?[0]["port"].as_str().expect("a port").to_owned();
    shell(host, &format!("ip link set {port} nomaster"));
    let said = docker(host, ALL, Some(&web))?;
    assert!(said.starts_with("attached eth1 of web to br-ex"), "{said}");
    assert!(shell(host, &format!("ip -o link show {port}")).contains("master br-ex"));
    Ok(())
}

#[test]
fn the_wrong_bridge_is_an_error_that_names_the_right_one() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    shell(host, "ip link add br-int up type bridge");
    let web = host.add_namespace("web")?;
    docker(host, "add-port br-ex eth1 web", Some(&web))?;
    let before = State::of(host);
    for command in
        ["del-port br-int eth1 web", "set-vlan br-int eth1 web 5", "del-ports br-int web"]
    {
        let said = refused(host, command, None);
        assert!(said.contains("eth1 of web is attached to br-ex, not to br-int"), "{said}");
    }
    before.is_unchanged();
    Ok(())
}

#[test]
fn a_missing_bridge_is_created() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    docker(host, "add-port br-new eth1 web", Some(&web))?;
    assert!(shell(host, "ip -d -o link show br-new type bridge").contains(",UP"));
    assert_eq!(list(host)?[0]["bridge"], "br-new");
    Ok(())
}
