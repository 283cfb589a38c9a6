//! The daemon, the engine and the host end and begin again, with containers and without.

use std::{thread, time::Duration};

use anyhow::Result;
use ovs_ebpf_tests::lab::{Engine, Lab, wait_until};

use super::life::CREATE;
use super::{SOON, docker, list, run, serve, settled};
use crate::support::shell;

#[test]
fn traffic_goes_on_without_the_daemon_and_containers_start_when_it_is_back() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let mut loader = serve(host)?;
    let engine = Engine::start(host)?;
    docker(&engine, &format!("{CREATE} web"))?;
    run(&engine, "web", "--network web --ip 10.5.0.11")?;
    run(&engine, "db", "--network web --ip 10.5.0.12")?;
    loader.kill_9()?;
    engine.exec("web", &["ping", "-c2", "-W5", "10.5.0.12"])?;
    // Docker repeats its calls until somebody answers.
    let late = thread::scope(|scope| {
        let late = scope.spawn(|| run(&engine, "late", "--network web --ip 10.5.0.13"));
        thread::sleep(Duration::from_secs(2));
        loader = serve(host)?;
        late.join().expect("no panic")
    });
    late?;
    engine.exec("late", &["ping", "-c2", "-W5", "10.5.0.11"])?;
    // What is deleted while nobody answers goes, too.
    loader.sigterm()?;
    thread::scope(|scope| {
        let removed = scope.spawn(|| docker(&engine, "rm -f web"));
        thread::sleep(Duration::from_secs(1));
        loader = serve(host)?;
        removed.join().expect("no panic")
    })?;
    wait_until(SOON, "two ports", || {
        (shell(host, "ip -o link | grep -c _p@").trim() == "2").then_some(())
    });
    Ok(())
}

#[test]
fn a_host_that_boots_has_its_networks_again() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let mut loader;
    let mut engine = Engine::start(host)?;
    let before = settled(host);
    loader = serve(host)?;
    docker(&engine, &format!("{CREATE} web"))?;
    run(&engine, "web", "--network web --ip 10.5.0.11 --restart=always")?;
    // What a boot leaves: files, and no device.
    loader.kill_9()?;
    engine.kill()?;
    let bridge = list(host)?[0]["bridge"].as_str().expect("a bridge").to_owned();
    shell(
        host,
        &format!(
            "ip link del {bridge}; ip link del type vxlan || true; for port in $(ip -o link | grep -o '[0-9a-f]*_p'); do ip link del $port; done"
        ),
    );
    shell(
        host,
        "for tunnel in $(ip -o link show type vxlan | grep -o 'vx-[0-9a-f-]*'); do ip link del $tunnel; done",
    );
    loader = serve(host)?;
    engine.start_again()?;
    wait_until(SOON, "the container's port", || {
        let shown = shell(host, "bridge link");
        (shown.contains("_p@") && shown.contains(&format!("master {bridge}"))).then_some(())
    });
    let shown = engine.exec("web", &["ip", "addr"])?;
    assert!(shown.contains("10.5.0.11/24"), "{shown}");
    assert!(shell(host, "ip -o link show type vxlan").contains("vx-"));
    wait_until(Duration::from_secs(90), "one endpoint: the old one is forgotten", || {
        (list(host).ok()?[0]["endpoints"].as_array()?.len() == 1).then_some(())
    });
    docker(&engine, "rm -f web")?;
    docker(&engine, "network rm web")?;
    drop(loader);
    shell(host, &format!("rm -rf {}", host.bpffs().display()));
    before.is_unchanged();
    Ok(())
}

#[test]
fn an_engine_that_dies_leaves_nothing_once_it_is_back() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let loader;
    let mut engine = Engine::start(host)?;
    let before = settled(host);
    loader = serve(host)?;
    docker(&engine, &format!("{CREATE} web"))?;
    run(&engine, "web", "--network web --ip 10.5.0.11")?;
    engine.kill()?;
    engine.start_again()?;
    docker(&engine, "start web")?;
    engine.exec("web", &["ping", "-c1", "-W5", "10.5.0.11"])?;
    docker(&engine, "rm -f web")?;
    docker(&engine, "network rm web")?;
    assert!(list(host)?.is_empty());
    drop(loader);
    before.is_unchanged();
    Ok(())
}

#[test]
fn what_docker_has_forgotten_goes() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let mut loader;
    let engine = Engine::start(host)?;
    let before = settled(host);
    loader = serve(host)?;
    docker(&engine, &format!("{CREATE} web"))?;
    wait_until(SOON, "the name", || list(host).ok()?[0]["name"].as_str().map(drop));
    // As if it were deleted while the daemon was away for longer than Docker asks.
    loader.kill_9()?;
    let saved = host.files().join("saved");
    shell(host, &format!("cp -a {} {}", host.state().display(), saved.display()));
    loader = serve(host)?;
    docker(&engine, "network rm web")?;
    loader.kill_9()?;
    shell(host, &format!("rm -rf {0}; mv {1} {0}", host.state().display(), saved.display()));
    loader = serve(host)?;
    wait_until(Duration::from_secs(90), "that it is gone", || {
        list(host).ok()?.is_empty().then_some(())
    });
    drop(loader);
    shell(host, &format!("rm -rf {}", host.bpffs().display()));
    before.is_unchanged();
    Ok(())
}

#[test]
fn a_network_that_somebody_breaks_is_mended() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let loader = serve(host)?;
    let engine = Engine::start(host)?;
    docker(&engine, &format!("{CREATE} web"))?;
    run(&engine, "web", "--network web --ip 10.5.0.11")?;
    run(&engine, "db", "--network web --ip 10.5.0.12")?;
    let bridge = list(host)?[0]["bridge"].as_str().expect("a bridge").to_owned();
    shell(host, &format!("ip link del {bridge}"));
    wait_until(Duration::from_secs(45), "the bridge with all its ports", || {
        let shown = shell(host, "bridge link");
        (shown.matches(&format!("master {bridge} ")).count() == 3).then_some(())
    });
    engine.exec("web", &["ping", "-c2", "-W5", "10.5.0.12"])?;
    drop(loader);
    Ok(())
}
