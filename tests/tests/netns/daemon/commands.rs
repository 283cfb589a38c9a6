//! What the command line and the configuration change on the host, and what they must not.

use std::fs;

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::lab::{Host, Lab, Loader, traffic, wait_until};

use super::FOLLOWED;
use crate::support::{BothWays, State, elements, ovs_loader, shell};

/// Takes away the bridge and tunnel that the lab has made: only the containers' devices are left.
fn strip(host: &Host) {
    shell(host, "ip link del vxlan0; ip link del br-ex");
}

#[test]
fn the_configuration_makes_bridges_and_tunnels_from_nothing() -> Result<()> {
    let lab = Lab::pair()?;
    let start = |own: usize, other: usize| -> Result<Loader> {
        strip(lab.host(own));
        let (local, remote) = (lab.host(own).underlay(), lab.host(other).underlay());
        Loader::start_with(
            lab.host(own),
            &format!(
                "[[bridge]]\nname = \"br-ex\"\ntunnel = \"vxlan\"\nkey = 42\nlocal = \"{local}\"\n\
                 remotes = [\"{remote}\"]\nports = [\"v1\"]\n"
            ),
        )
    };
    let loaders = [start(0, 1)?, start(1, 0)?];
    let links = shell(lab.host(0), "ip -d -o link show type vxlan");
    for word in ["id 42", "local 192.0.2.1", "dstport 4789", "master br-ex"] {
        assert!(links.contains(word), "{word}: {links}");
    }
    assert!(shell(lab.host(0), "bridge fdb").contains("00:00:00:00:00:00 dev"), "a flood list");
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    for loader in &loaders {
        traffic.is_fast(loader, FOLLOWED);
    }
    traffic.arrived_whole()
}

#[test]
fn the_configuration_leaves_a_complete_bridge_as_it_is() -> Result<()> {
    let lab = Lab::pair()?;
    let before = State::of(lab.host(0));
    let configuration = "[[bridge]]\nname = \"br-ex\"\ntunnel = \"vxlan\"\nkey = 42\n\
        local = \"192.0.2.1\"\nremotes = [\"192.0.2.2\"]\nports = [\"v1\"]\n";
    drop(Loader::start_with(lab.host(0), configuration)?);
    before.is_unchanged();
    Ok(())
}

#[test]
fn bridges_ports_and_tunnels_are_added_and_deleted() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    strip(host);
    ovs_loader(host, &["bridge", "add", "br-ex"])?;
    assert!(shell(host, "ip -d -o link show br-ex type bridge").contains("UP"));
    ovs_loader(host, &["port", "add", "br-ex", "v1"])?;
    assert!(shell(host, "bridge link show dev v1").contains("master br-ex"));
    let tunnel =
        "tunnel add br-ex vxlan0 --type vxlan --key 42 --local 192.0.2.1 --remote 192.0.2.2";
    ovs_loader(host, &tunnel.split(' ').collect::<Vec<_>>())?;
    let shown = shell(host, "ip -d -o link show vxlan0; bridge fdb show dev vxlan0");
    for word in ["vxlan id 42", "local 192.0.2.1", "master br-ex", "dst 192.0.2.2"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    // Once more is no change.
    assert_eq!(ovs_loader(host, &tunnel.split(' ').collect::<Vec<_>>())?, "nothing to change\n");
    let interval = std::time::Duration::from_millis(10);
    let ping = traffic::ping(lab.container(0), lab.container(1).ipv4(), 56, 3, interval)?;
    assert_eq!(ping.received, 3);

    ovs_loader(host, &["tunnel", "del", "br-ex", "vxlan0"])?;
    assert!(host.try_exec(&["ip", "link", "show", "vxlan0"]).is_err());
    ovs_loader(host, &["port", "del", "br-ex", "v1"])?;
    assert!(!shell(host, "ip -o link show v1").contains("master"));
    ovs_loader(host, &["bridge", "del", "br-ex"])?;
    assert!(host.try_exec(&["ip", "link", "show", "br-ex"]).is_err());
    Ok(())
}

#[test]
fn check_changes_nothing_and_says_what_would_be_accelerated() -> Result<()> {
    let lab = Lab::pair()?;
    let interval = std::time::Duration::from_millis(10);
    traffic::ping(lab.container(0), lab.container(1).ipv4(), 56, 3, interval)?;
    let before = State::of(lab.host(0));
    let checked = ovs_loader(lab.host(0), &["check", "--json"])?;
    let checked: serde_json::Value = serde_json::from_str(&checked).context("JSON")?;
    assert_eq!(checked["bridges"][0]["accelerated"], true, "{checked}");
    assert_eq!(checked["bridges"][0]["tunnels"][0]["remote"], "192.0.2.2");
    assert_eq!(checked["bridges"][0]["tunnels"][0]["accelerated"], true, "{checked}");
    before.is_unchanged();

    shell(
        lab.host(0),
        "nft add table bridge t; nft 'add chain bridge t c { type filter hook forward priority 0; }'; nft add rule bridge t c accept",
    );
    let checked = ovs_loader(lab.host(0), &["check"])?;
    assert!(checked.contains("nftables has a ruleset in the bridge family"), "{checked}");
    Ok(())
}

#[test]
fn a_bridge_gets_its_port_when_that_appears() -> Result<()> {
    let lab = Lab::pair()?;
    let configuration = "[[bridge]]\nname = \"br-new\"\nports = [\"later\", \"now\"]\n";
    lab.host(0).ip("link add now type veth peer name p0\n")?;
    let loader = Loader::start_with(lab.host(0), configuration)?;
    let ports = || shell(lab.host(0), "ip -o link show master br-new");
    assert!(ports().contains("now@") && !ports().contains("later"), "{}", ports());
    assert!(loader.log().contains("there is no interface later yet"), "{}", loader.log());
    lab.host(0).ip("link add later type veth peer name p1\n")?;
    wait_until(2 * FOLLOWED, "the second port", || ports().contains("later@").then_some(()));
    Ok(())
}

#[test]
fn check_with_a_configuration_makes_nothing_of_it() -> Result<()> {
    let lab = Lab::pair()?;
    fs::create_dir_all(lab.host(0).files())?;
    let file = lab.host(0).files().join("check.toml");
    fs::write(
        &file,
        "[[bridge]]\nname = \"br-new\"\ntunnel = \"vxlan\"\nkey = 7\nremotes = [\"192.0.2.2\"]\n",
    )?;
    let before = State::of(lab.host(0));
    ovs_loader(lab.host(0), &["check", "--config", &file.to_string_lossy()])?;
    before.is_unchanged();
    Ok(())
}

#[test]
fn bpftool_prints_the_fields_of_the_fdb_by_name() -> Result<()> {
    let lab = Lab::pair()?;
    let loader = Loader::start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    let map = loader.bpffs().join(format!("v{}/fdb", ovs_ebpf_common::abi::VERSION));
    let map = map.to_string_lossy().into_owned();
    let dump = lab.host(0).exec(&["bpftool", "-j", "map", "dump", "pinned", &map]);
    let entries: serde_json::Value = serde_json::from_str(&dump).context("bpftool's JSON")?;
    let stations: Vec<_> = elements(&entries).map(|entry| &entry["formatted"]).collect();
    assert!(stations.len() >= 2, "{dump}");
    for station in stations {
        for field in ["bridge", "vlan", "mac"] {
            assert!(!station["key"][field].is_null(), "key.{field} in {station}");
        }
        for field in ["target", "flags", "revalidate_seconds", "next_revalidation"] {
            assert!(!station["value"][field].is_null(), "value.{field} in {station}");
        }
    }
    traffic.arrived_whole()
}
