//! Containers on Open vSwitch's bridges, beside `ovs-docker`: a real engine, the real script and the
//! real daemons, on a datapath that forwards nothing.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use ovs_ebpf_tests::lab::{Engine, Host, Lab, Loader, Ovs, wait_until};

use super::engine::beside;
use super::{SOON, docker, list, refused};
use crate::support::{State, shell};

/// A lab whose first host has an Open vSwitch with bridge `br-ovs`.
fn lab() -> Result<Lab> {
    let mut lab = Lab::pair()?;
    lab.host_mut(0).add_dummy_ovs()?;
    lab.host(0).vsctl(&["add-br", "br-ovs"])?;
    Ok(lab)
}

/// Runs the script as an operator would: it finds `docker` on PATH and containers' namespaces in
/// /run/netns.
fn script(host: &Host, engine: &Engine, words: &str) -> Result<String> {
    let socket = format!("DOCKER_HOST=unix://{}", engine.socket().display());
    let mut arguments = vec![&*socket, "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "ovs-docker"];
    arguments.extend(words.split_whitespace());
    ovs(host).run("env", &arguments)
}

fn ovs(host: &Host) -> &Ovs {
    host.ovs().expect("a host with Open vSwitch")
}

/// The value of a column of the only port with external_ids of a container, as ovs-vsctl finds it.
fn found(host: &Host, column: &str, container: &str) -> Result<String> {
    let (column, id) =
        (format!("--columns={column}"), format!("external_ids:container_id={container}"));
    let shown = host.vsctl(&["--data=bare", "--no-heading", &column, "find", "interface", &id])?;
    Ok(shown.trim().to_owned())
}

#[test]
fn the_rows_are_ovs_dockers_and_go_with_the_port() -> Result<()> {
    let lab = lab()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    let before = (State::of(host), host.vsctl(&["show"])?);
    docker(host, "add-port br-ovs eth1 web --ipaddress=10.0.0.50/24", Some(&web))?;
    let port = found(host, "name", "web")?;
    assert_eq!(found(host, "external_ids", "web")?, "container_id=web container_iface=eth1");
    assert_eq!(host.vsctl(&["port-to-br", &port])?, "br-ovs\n");
    assert!(host.vsctl(&["get", "interface", &port, "ofport"])?.trim().parse::<u16>()? > 0);
    assert!(shell(host, &format!("ip -o link show {port}")).contains(",UP"));
    assert!(shell(&web, "ip -o addr show eth1").contains("10.0.0.50/24"));

    docker(host, "set-vlan br-ovs eth1 web 5", None)?;
    assert_eq!(host.vsctl(&["get", "port", &port, "tag"])?, "5\n");
    assert_eq!(list(host)?[0]["vlan"], 5);
    // A row that ovs-vsctl has changed is shown as it is.
    host.vsctl(&["set", "port", &port, "tag=6"])?;
    assert_eq!(list(host)?[0]["vlan"], 6);

    docker(host, "del-port br-ovs eth1 web", None)?;
    assert_eq!(host.vsctl(&["show"])?, before.1);
    before.0.is_unchanged();
    Ok(())
}

#[test]
fn ports_of_ovs_docker_are_listed_changed_and_deleted_by_any_name() -> Result<()> {
    let lab = lab()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    let id = engine.run("web")?;
    let before = (State::of(host), host.vsctl(&["show"])?);
    let short = &id[..12];
    for (theirs, ours) in [("web", short), (short, "web"), (&*id, "web")] {
        script(host, &engine, &format!("add-port br-ovs eth1 {theirs} --ipaddress=10.0.0.5/24"))?;
        let listed = list(host)?;
        assert_eq!((listed.len(), &listed[0]["by_ovs_docker"]), (1, &true.into()), "{listed:?}");
        let add = format!("add-port br-ovs eth1 {ours}");
        let error = beside(&engine, host, &add).expect_err("the same container").to_string();
        assert!(error.contains("`ovs-docker` made port"), "{error}");
        let wrong = format!("del-port br-ex eth1 {ours}");
        let error = beside(&engine, host, &wrong).expect_err("another bridge").to_string();
        assert!(error.contains("attached to br-ovs, not to br-ex"), "{error}");
        beside(&engine, host, &format!("set-vlan br-ovs eth1 {ours} 9"))?;
        assert_eq!(list(host)?[0]["vlan"], 9);
        beside(&engine, host, &format!("del-port br-ovs eth1 {ours}"))?;
        assert_eq!(host.vsctl(&["show"])?, before.1);
        before.0.is_unchanged();
    }
    Ok(())
}

#[test]
fn a_row_that_ovs_docker_left_of_a_dead_container_is_in_nobodys_way() -> Result<()> {
    let lab = lab()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.run("web")?;
    script(host, &engine, "add-port br-ovs eth1 web")?;
    let left = found(host, "name", "web")?;
    engine.docker(&["rm", "-f", "web"])?;
    engine.run("web")?;
    wait_until(SOON, "the end of the device", || {
        host.try_exec(&["ip", "link", "show", &left]).is_err().then_some(())
    });
    beside(&engine, host, "add-port br-ovs eth1 web")?;
    let now = found(host, "name", "web")?;
    assert!(now != left && !now.contains('\n'), "{left} {now}");
    Ok(())
}

#[test]
fn without_ovs_vswitchd_nothing_is_left_unless_it_is_not_waited_for() -> Result<()> {
    let mut lab = lab()?;
    lab.host_mut(0).ovs_mut().context("Open vSwitch")?.end_vswitchd(Signal::SIGTERM)?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    let show = ["--no-wait", "show"];
    let before = (State::of(host), host.vsctl(&show)?);
    let said = refused(host, "add-port br-new eth1 web", Some(&web));
    assert!(said.contains("ovs-vswitchd did not take up the change"), "{said}");
    assert_eq!(host.vsctl(&show)?, before.1);
    before.0.is_unchanged();
    assert!(web.try_exec(&["ip", "link", "show", "eth1"]).is_err());

    docker(host, "add-port br-new eth1 web --no-wait", Some(&web))?;
    assert!(host.vsctl(&show)?.contains("br-new"));
    docker(host, "del-port br-new eth1 web", None)?;
    assert!(list(host)?.is_empty());
    Ok(())
}

#[test]
fn ovs_docker_finds_and_deletes_ports_of_ours() -> Result<()> {
    let lab = lab()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.run("web")?;
    let before = host.vsctl(&["show"])?;
    beside(&engine, host, "add-port br-ovs eth1 web")?;
    let error = script(host, &engine, "add-port br-ovs eth1 web").expect_err("attached already");
    assert!(format!("{error:#}").contains("Port already attached"), "{error:#}");
    script(host, &engine, "set-vlan br-ovs eth1 web 7")?;
    assert_eq!(list(host)?[0]["vlan"], 7);
    script(host, &engine, "del-port br-ovs eth1 web")?;
    assert_eq!(host.vsctl(&["show"])?, before);
    let listed = list(host)?;
    assert_eq!(listed[0]["attached"], false, "{listed:?}");
    // The daemon forgets what somebody else has deleted.
    let _loader = Loader::start(host)?;
    wait_until(SOON, "no attachment", || list(host).ok()?.is_empty().then_some(()));
    Ok(())
}

#[test]
fn rows_go_when_the_container_stops_and_come_back_with_it_in_their_vlan() -> Result<()> {
    let lab = lab()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.run("web")?;
    let _loader = Loader::start(host)?;
    let without = host.vsctl(&["show"])?;
    beside(&engine, host, "add-port br-ovs eth1 web --ipaddress=10.0.0.5/24")?;
    let port = found(host, "name", "web")?;
    host.vsctl(&["set", "port", &port, "tag=8"])?;
    engine.docker(&["stop", "-t", "0", "web"])?;
    wait_until(SOON, "the end of the row", || {
        (host.vsctl(&["show"]).ok()? == without).then_some(())
    });
    engine.docker(&["start", "web"])?;
    wait_until(SOON, "the row", || {
        (host.vsctl(&["get", "port", &port, "tag"]).ok()? == "8\n").then_some(())
    });
    wait_until(SOON, "the container's address", || {
        let shown = engine.exec("web", &["ip", "addr", "show", "eth1"]).ok()?;
        shown.contains("10.0.0.5/24").then_some(())
    });
    engine.docker(&["rm", "-f", "web"])?;
    wait_until(SOON, "the end of all", || {
        (host.vsctl(&["show"]).ok()? == without && list(host).ok()?.is_empty()).then_some(())
    });
    Ok(())
}
