//! Containers of a real Docker engine, by name and by id.

use anyhow::Result;
use ovs_ebpf_tests::lab::{Engine, Host, Lab};

use super::{docker, list, refused};
use crate::support::{State, shell};

/// `ovs-loader docker …` beside an engine.
pub(super) fn beside(engine: &Engine, host: &Host, words: &str) -> Result<String> {
    docker(host, &format!("{words} --docker-socket={}", engine.socket().display()), None)
}

#[track_caller]
fn refused_beside(engine: &Engine, host: &Host, words: &str) -> String {
    refused(host, &format!("{words} --docker-socket={}", engine.socket().display()), None)
}

#[test]
fn a_container_is_the_same_by_name_by_id_and_by_short_id() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    let id = engine.run("web")?;
    let short = &id[..12];
    let words = "add-port br-ex eth1 web --ipaddress=10.0.0.50/24 --ipaddress=fd00::50/64";
    beside(&engine, host, words)?;
    for name in [&*id, short, "web"] {
        let said = beside(&engine, host, &words.replace("web", name))?;
        assert!(said.starts_with(&format!("eth1 of {name} is already attached")), "{said}");
    }
    let listed = list(host)?;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["id"], *id);
    let inside = engine.exec("web", &["ip", "addr", "show", "eth1"])?;
    assert!(inside.contains("10.0.0.50/24") && inside.contains("fd00::50/64"), "{inside}");
    engine.exec("web", &["ping", "-c2", "-W5", "10.0.0.11"])?;

    // Also under a new name, and when nobody knows it any more.
    engine.docker(&["rename", "web", "front"])?;
    let said = beside(&engine, host, &words.replace("web", "front"))?;
    assert!(said.contains("already attached"), "{said}");
    engine.docker(&["rm", "-f", "front"])?;
    beside(&engine, host, &format!("del-port br-ex eth1 {short}"))?;
    assert!(list(host)?.is_empty());
    Ok(())
}

#[test]
fn a_container_that_does_not_run_is_refused_and_nothing_is_left() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.run("web")?;
    engine.docker(&["stop", "-t", "0", "web"])?;
    let before = State::of(host);
    let said = refused_beside(&engine, host, "add-port br-ex eth1 web --ipaddress=10.0.0.50/24");
    assert!(said.contains("container web is not running (it is exited)"), "{said}");
    assert!(said.contains("docker start web"), "{said}");
    let said = refused_beside(&engine, host, "add-port br-ex eth1 no-such");
    assert!(said.contains("Docker has no container no-such"), "{said}");
    before.is_unchanged();
    assert!(list(host)?.is_empty());
    Ok(())
}

#[test]
fn a_container_on_the_hosts_own_network_is_refused() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.docker(&["run", "-d", "--name", "web", "--network", "host", "box", "sleep", "1000"])?;
    let before = State::of(host);
    let said = refused_beside(&engine, host, "add-port br-ex eth1 web");
    assert!(said.contains("this host's own network namespace"), "{said}");
    before.is_unchanged();
    Ok(())
}

#[test]
fn a_deleted_containers_port_goes_when_another_takes_its_name() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.run("web")?;
    beside(&engine, host, "add-port br-ex eth1 web --ipaddress=10.0.0.50/24")?;
    engine.docker(&["rm", "-f", "web"])?;
    let id = engine.run("web")?;
    beside(&engine, host, "add-port br-ex eth1 web --ipaddress=10.0.0.51/24")?;
    let listed = list(host)?;
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &id.into()), "{listed:?}");
    assert_eq!(listed[0]["addresses"][0], "10.0.0.51/24");
    Ok(())
}

#[test]
fn a_restarted_container_is_attached_again_by_the_same_command() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    engine.run("web")?;
    let words = "add-port br-ex eth1 web --ipaddress=10.0.0.50/24 --gateway=10.0.0.11";
    beside(&engine, host, words)?;
    let port = list(host)?[0]["port"].clone();
    engine.docker(&["restart", "-t", "0", "web"])?;
    let said = beside(&engine, host, words)?;
    assert!(said.starts_with("attached eth1 of web"), "{said}");
    let inside = engine.exec("web", &["ip", "route"])?;
    assert!(inside.contains("default via 10.0.0.11 dev eth1"), "{inside}");
    assert_eq!(list(host)?[0]["port"], port);
    assert_eq!(shell(host, "bridge link | grep -c _l@").trim(), "1");
    Ok(())
}
