//! The daemon keeps ports in line with their containers.

use anyhow::Result;
use ovs_ebpf_tests::lab::{Engine, Host, Lab, Loader, wait_until};

use super::engine::beside;
use super::{SOON, docker, list};
use crate::support::{BothWays, State, shell};

const ALL: &str = "add-port br-ex eth1 web --ipaddress=10.0.0.50/24 --ipaddress=fd00::50/64 \
    --gateway=10.0.0.11 --macaddress=02:00:00:00:00:50 --mtu=1400";

/// Waits until the one attachment is there, or waits for its container.
#[track_caller]
fn is_attached(host: &Host, attached: bool) {
    wait_until(SOON, &format!("attached: {attached}"), || {
        let listed = list(host).ok()?;
        (listed.len() == 1 && listed[0]["attached"] == attached).then_some(())
    });
}

/// Waits until nothing is attached.
#[track_caller]
fn is_forgotten(host: &Host) {
    wait_until(SOON, "no attachment", || list(host).ok()?.is_empty().then_some(()));
}

/// The container has all that [`ALL`] asks for.
#[track_caller]
fn has_all(engine: &Engine) -> Result<()> {
    wait_until(SOON, "the default route, which is set last", || {
        let routes = engine.exec("web", &["ip", "route"]).ok()?;
        routes.contains("default via 10.0.0.11 dev eth1").then_some(())
    });
    let shown = engine.exec("web", &["ip", "addr", "show", "eth1"])?;
    for word in ["10.0.0.50/24", "fd00::50/64", "02:00:00:00:00:50", "mtu 1400"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    Ok(())
}

#[test]
fn ports_come_back_with_their_container_and_go_with_it() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.run("web")?;
    let _loader = Loader::start(host)?;
    let before = State::of(host);
    beside(&engine, host, ALL)?;
    let port = list(host)?[0]["port"].clone();

    engine.docker(&["restart", "-t", "0", "web"])?;
    has_all(&engine)?;
    is_attached(host, true);
    assert_eq!(list(host)?[0]["port"], port);
    engine.exec("web", &["ping", "-c2", "-W5", "10.0.0.11"])?;

    engine.docker(&["stop", "-t", "0", "web"])?;
    is_attached(host, false);
    engine.docker(&["start", "web"])?;
    has_all(&engine)?;

    engine.docker(&["rm", "-f", "web"])?;
    is_forgotten(host);
    wait_until(SOON, "the host as before", || {
        (shell(host, "ip -o link | grep -c _l@ || true") == "0\n").then_some(())
    });
    before.is_unchanged();
    Ok(())
}

#[test]
fn what_happened_while_no_daemon_ran_is_made_up_for() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let mut engine = Engine::start(host)?;
    engine.run("web")?;
    engine.run("db")?;
    beside(&engine, host, ALL)?;
    beside(&engine, host, "add-port br-ex eth1 db")?;
    engine.docker(&["restart", "-t", "0", "web"])?;
    engine.docker(&["rm", "-f", "db"])?;
    let loader = Loader::start(host)?;
    has_all(&engine)?;
    is_attached(host, true);

    // Docker itself may restart, too: the daemon follows it again.
    engine.stop()?;
    engine.start_again()?;
    engine.docker(&["start", "web"])?;
    has_all(&engine)?;
    drop(loader);
    Ok(())
}

#[test]
fn without_an_engine_nothing_is_taken_away_and_the_fast_path_goes_on() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let mut engine = Engine::start(host)?;
    engine.run("web")?;
    let loader = Loader::start(host)?;
    beside(&engine, host, ALL)?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, SOON);
    engine.stop()?;
    wait_until(SOON, "that the daemon noticed", || {
        loader.log().contains("docker/sock has gone").then_some(())
    });
    assert_eq!(list(host)?.len(), 1, "kept for when Docker is back");
    traffic.arrived_whole()?;
    Ok(())
}

#[test]
fn a_port_that_somebody_deletes_is_not_made_again() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.run("web")?;
    let _loader = Loader::start(host)?;
    beside(&engine, host, ALL)?;
    let port = list(host)?[0]["port"].as_str().expect("a port").to_owned();
    shell(host, &format!("ip link del {port}"));
    is_forgotten(host);
    let shown = engine.exec("web", &["ip", "addr"])?;
    assert!(!shown.contains("eth1"), "{shown}");
    Ok(())
}

#[test]
fn a_namespace_that_ends_takes_its_attachment_with_it() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let _loader = Loader::start(host)?;
    let web = host.add_namespace("web")?;
    docker(host, "add-port br-ex eth1 web", Some(&web))?;
    is_attached(host, true);
    shell(host, &format!("ip netns del {}", web.name()));
    is_forgotten(host);
    Ok(())
}

#[test]
fn a_container_that_cannot_be_attached_again_is_tried_until_it_can() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.run("web")?;
    shell(host, "ip link add br-int up type bridge");
    let loader = Loader::start(host)?;
    beside(&engine, host, &ALL.replace("br-ex", "br-int"))?;
    engine.docker(&["stop", "-t", "0", "web"])?;
    is_attached(host, false);
    shell(host, "ip link del br-int");
    engine.docker(&["start", "web"])?;
    wait_until(SOON, "the complaint", || {
        loader.log().contains("eth1 of web: there is no bridge br-int").then_some(())
    });
    let shown = engine.exec("web", &["ip", "addr"])?;
    assert!(!shown.contains("eth1"), "nothing half done: {shown}");
    shell(host, "ip link add br-int up type bridge");
    has_all(&engine)
}
