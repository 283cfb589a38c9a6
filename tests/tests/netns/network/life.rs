//! Networks and containers come and go.

use anyhow::Result;
use ovs_ebpf_tests::lab::{Engine, Host, Lab, Loader, wait_until};

use super::{SOON, docker, list, refused, run, serve};
use crate::support::{State, elements, shell};

/// A network over both hosts of a pair, as it is typed on each.
pub(super) const CREATE: &str =
    "network create -d ovs-ebpf --internal --subnet 10.5.0.0/24 -o remotes=192.0.2.1,192.0.2.2";

/// The containers behind a bridge's ports, as `ovs-loader status` has them.
fn named(loader: &Loader) -> Vec<String> {
    let Ok(status) = loader.status() else { return Vec::new() };
    let ports = elements(&status["bridges"]).flat_map(|bridge| elements(&bridge["ports"]));
    let mut names: Vec<_> =
        ports.filter_map(|port| port["container"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

/// How many ports of containers there are on the host.
fn ports(host: &Host) -> usize {
    shell(host, "ip -o link | grep -c _p@ || true").trim().parse().expect("a number")
}

#[test]
fn containers_come_and_go_in_any_order_and_are_called_by_name() -> Result<()> {
    let lab = Lab::pair()?;
    let engines = [Engine::start(lab.host(0))?, Engine::start(lab.host(1))?];
    let before: Vec<_> = lab.hosts().iter().map(State::of).collect();
    let loaders = [serve(lab.host(0))?, serve(lab.host(1))?];
    for (engine, address) in engines.iter().zip(["10.5.0.11", "10.5.0.12"]) {
        docker(engine, &format!("{CREATE} web"))?;
        run(engine, "web", &format!("--network web --ip {address}"))?;
    }
    let (engine, host, loader) = (&engines[0], lab.host(0), &loaders[0]);
    let reaches =
        |container: &str| engine.exec(container, &["ping", "-c2", "-W5", "10.5.0.12"]).map(drop);
    reaches("web")?;
    // Both hosts made the same key of the name, and say so.
    let keys: Vec<_> = lab
        .hosts()
        .iter()
        .map(|host| list(host).map(|all| all[0]["tunnel"]["key"].clone()))
        .collect::<Result<_>>()?;
    assert!(keys[0] == keys[1] && keys[0].as_u64() >= Some(1 << 23), "{keys:?}");
    wait_until(SOON, "the name in status", || (named(loader) == ["web"]).then_some(()));
    let fdb = loader.fdb()?;
    let entry = elements(&fdb["entries"]).find(|entry| entry["mac"] == "02:42:0a:05:00:0b");
    assert_eq!(entry.map(|entry| &entry["container"]), Some(&"web".into()), "{fdb}");

    for words in ["restart -t 0 web", "stop -t 0 web", "start web", "kill web", "start web"] {
        docker(engine, words)?;
    }
    reaches("web")?;
    assert_eq!(ports(host), 1);
    docker(engine, "rename web front")?;
    wait_until(SOON, "the new name", || (named(loader) == ["front"]).then_some(()));

    // A running container, connected and disconnected.
    run(engine, "db", "--network none")?;
    let said = refused(engine, "network connect web db");
    assert!(said.contains("none"), "Docker's own rule: {said}");
    docker(engine, "network disconnect none db")?;
    docker(engine, "network connect --ip 10.5.0.21 web db")?;
    reaches("db")?;
    wait_until(SOON, "both names", || (named(loader) == ["db", "front"]).then_some(()));
    docker(engine, "network disconnect web db")?;
    assert_eq!(ports(host), 1);
    docker(engine, "network connect --ip 10.5.0.21 web db")?;
    reaches("db")?;
    docker(engine, "network disconnect --force web db")?;
    assert_eq!(ports(host), 1);

    let said = refused(engine, "network rm web");
    assert!(said.contains("active endpoints"), "{said}");
    docker(engine, "rm -f front db")?;
    docker(engine, "network rm web")?;
    docker(&engines[1], "rm -f web")?;
    docker(&engines[1], "network rm web")?;
    assert!(list(host)?.is_empty());
    drop(loaders);
    before.iter().for_each(State::is_unchanged);
    Ok(())
}

#[test]
fn a_bridge_that_was_there_stays_and_one_that_was_made_goes() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    let before = State::of(host);
    let loader = serve(host)?;
    // The lab's own, with its tunnel: containers join what is there.
    docker(
        &engine,
        "network create -d ovs-ebpf --internal --subnet 10.0.0.0/24 -o bridge=br-ex ex",
    )?;
    assert_eq!(list(host)?[0]["mtu"], 1450, "what fits the bridge's own tunnel");
    run(&engine, "web", "--network ex --ip 10.0.0.77")?;
    engine.exec("web", &["ping", "-c2", "-W5", "10.0.0.21"])?;
    // Two networks on one bridge that the first of them has made.
    for (name, subnet) in [("one", "10.8.0.0/24"), ("two", "10.9.0.0/24")] {
        let options = format!("--internal --subnet {subnet} -o bridge=br-new {name}");
        docker(&engine, &format!("network create -d ovs-ebpf {options}"))?;
    }
    docker(&engine, "network rm one")?;
    assert!(shell(host, "ip link show br-new").contains("br-new"), "the other one's now");
    docker(&engine, "rm -f web")?;
    docker(&engine, "network rm two ex")?;
    drop(loader);
    before.is_unchanged();
    Ok(())
}

#[test]
fn a_nic_is_taken_into_a_bridge_and_given_back() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    // The LAN: a router behind the NIC.
    let router = host.add_namespace("router")?;
    let peer = router.name();
    shell(host, &format!("ip link add nic0 type veth peer name lan0 netns {peer}"));
    shell(&router, "ip addr add 198.51.100.1/24 dev lan0; ip link set lan0 up");
    shell(&router, "ip addr add 203.0.113.1/32 dev lo");
    shell(host, "ip link set nic0 up");
    wait_until(SOON, "the NIC's carrier", || {
        shell(host, "ip -o link show nic0").contains("state UP").then_some(())
    });
    let before = State::of(host);
    let loader = serve(host)?;
    let create = "network create -d ovs-ebpf --subnet 198.51.100.0/24 --gateway 198.51.100.1";
    docker(&engine, &format!("{create} -o flat=nic0 lan"))?;
    run(&engine, "web", "--network lan --ip 198.51.100.7")?;
    // By the LAN's router, and nothing of Docker's own beside.
    engine.exec("web", &["ping", "-c2", "-W5", "203.0.113.1"])?;
    let routes = engine.exec("web", &["ip", "route"])?;
    assert!(routes.contains("default via 198.51.100.1 dev eth0"), "{routes}");
    assert!(!shell(host, "ip -o link").contains("docker_gwbridge"));
    docker(&engine, "rm -f web")?;
    docker(&engine, "network rm lan")?;
    drop(loader);
    before.is_unchanged();
    Ok(())
}
