//! Who reaches whom.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::lab::{Engine, Lab, patience};
use serde_json::json;

use super::life::CREATE;
use super::{docker, inside, run, serve};
use crate::support::shell;

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 5, 0, 11), Ipv4Addr::new(10, 5, 0, 12)];

/// Whether a datagram to a group or to everyone, from one engine's container `web`, reaches the
/// other's.
fn reaches(from: &Engine, to: &Engine, group: Ipv4Addr) -> Result<bool> {
    let [sender, receiver] = ADDRESSES;
    let receiver = inside(to, "web", || -> Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(patience(Duration::from_secs(2))))?;
        if group.is_multicast() {
            socket.join_multicast_v4(&group, &receiver)?;
        }
        Ok(socket)
    })??;
    let port = receiver.local_addr()?.port();
    inside(from, "web", || -> Result<()> {
        let socket = UdpSocket::bind((sender, 0))?;
        socket.set_broadcast(true)?;
        socket.send_to(b"all", SocketAddr::from((group, port))).context("cannot send").map(drop)
    })??;
    Ok(receiver.recv_from(&mut [0; 8]).is_ok_and(|(length, _)| length == 3))
}

#[test]
fn multicast_and_broadcast_and_the_fast_path_are_between_two_hosts() -> Result<()> {
    let lab = Lab::pair()?;
    let loaders = [serve(lab.host(0))?, serve(lab.host(1))?];
    let engines = [Engine::start(lab.host(0))?, Engine::start(lab.host(1))?];
    for (engine, address) in engines.iter().zip(ADDRESSES) {
        docker(engine, &format!("{CREATE} web"))?;
        run(engine, "web", &format!("--network web --ip {address}"))?;
    }
    let [one, other] = &engines;
    one.exec("web", &["ping", "-c5", "-W5", "10.5.0.12"])?;
    for group in [Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::new(10, 5, 0, 255), Ipv4Addr::BROADCAST] {
        // Twice at most: the receiver's membership may be a moment on its way.
        let arrived = reaches(one, other, group)? || reaches(one, other, group)?;
        assert!(arrived, "{group}");
    }
    let before = loaders[0].fast_packets()?;
    let stats = loaders[0].stats()?;
    one.exec("web", &["ping", "-c10", "-W5", "10.5.0.12"])?;
    let taken = loaders[0].fast_packets()? - before;
    assert!(
        taken.sent >= 5 && taken.received >= 5,
        "{taken:?} {stats} {} {} {}",
        loaders[0].stats()?,
        loaders[0].fdb()?,
        loaders[0].status()?
    );
    // As of the containers' MTU, which the driver has set.
    let status = loaders[0].status()?;
    assert_eq!(status["warnings"], json!([]));
    Ok(())
}

#[test]
fn two_networks_of_one_subnet_are_apart_and_a_container_can_be_in_three() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let _loader = serve(host)?;
    let engine = Engine::start(host)?;
    // Docker's own address management refuses a subnet twice: another engine has the second one.
    let _other_loader = serve(lab.host(1))?;
    let other = Engine::start(lab.host(1))?;
    docker(&engine, &format!("{CREATE} red"))?;
    docker(&other, &format!("{CREATE} blue"))?;
    docker(&other, &format!("{} red", CREATE.replace("10.5.0.0/24", "10.5.1.0/24")))?;
    run(&engine, "web", "--network red --ip 10.5.0.11")?;
    run(&other, "blue", "--network blue --ip 10.5.0.12")?;
    let said = engine.exec("web", &["ping", "-c2", "-W1", "10.5.0.12"]);
    assert!(said.is_err(), "red and blue are two networks: {said:?}");

    for (name, subnet) in [("green", "10.6.0.0/24"), ("grey", "10.7.0.0/24")] {
        docker(
            &engine,
            &format!("network create -d ovs-ebpf --internal --subnet {subnet} {name}"),
        )?;
        docker(&engine, &format!("network connect {name} web"))?;
    }
    let shown = engine.exec("web", &["ip", "addr"])?;
    for address in ["10.5.0.11/24", "10.6.0.2/24", "10.7.0.2/24"] {
        assert!(shown.contains(address), "{address}: {shown}");
    }
    run(&engine, "db", "--network grey --ip 10.7.0.9")?;
    engine.exec("web", &["ping", "-c2", "-W5", "10.7.0.9"])?;
    assert!(engine.exec("db", &["ping", "-c1", "-W1", "10.6.0.2"]).is_err());
    docker(&engine, "rm -f web")?;
    assert_eq!(shell(host, "ip -o link | grep -c _p@").trim(), "1");
    Ok(())
}

#[test]
fn ipv6_and_the_way_out_are_as_docker_has_them() -> Result<()> {
    let lab = Lab::pair()?;
    let _loaders = [serve(lab.host(0))?, serve(lab.host(1))?];
    let engines = [Engine::start(lab.host(0))?, Engine::start(lab.host(1))?];
    let create = "network create -d ovs-ebpf --ipv6 --subnet 10.5.0.0/24 --subnet fd00:5::/64 \
                  -o remotes=192.0.2.1,192.0.2.2 six";
    for (engine, number) in engines.iter().zip([11, 12]) {
        docker(engine, create)?;
        let options = format!("--network six --ip 10.5.0.{number} --ip6 fd00:5::{number}");
        run(engine, "web", &options)?;
    }
    engines[0].exec("web", &["ping", "-c3", "-W5", "fd00:5::12"])?;
    // Through this host: docker_gwbridge, as with any driver that has no gateway of its own.
    let routes = engines[0].exec("web", &["ip", "route"])?;
    assert!(
        routes.contains("default via")
            && shell(lab.host(0), "ip -o link").contains("docker_gwbridge"),
        "{routes}"
    );
    engines[0].exec("web", &["ping", "-c2", "-W5", "192.0.2.1"])?;
    // By a router of the network, or not at all.
    let routed = "network create -d ovs-ebpf --subnet 10.6.0.0/24 --gateway 10.6.0.254 \
                  -o gateway=network routed";
    docker(&engines[0], routed)?;
    run(&engines[0], "routed", "--network routed")?;
    let routes = engines[0].exec("routed", &["ip", "route"])?;
    assert!(routes.contains("default via 10.6.0.254 dev eth0"), "{routes}");
    docker(&engines[0], "network create -d ovs-ebpf --internal --subnet 10.7.0.0/24 alone")?;
    run(&engines[0], "alone", "--network alone")?;
    let routes = engines[0].exec("alone", &["ip", "route"])?;
    assert!(!routes.contains("default"), "{routes}");
    Ok(())
}
