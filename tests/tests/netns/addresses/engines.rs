//! Two real engines with one network.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::lab::{Encap, Engine, Engines, traffic, traffic::Station, wait_until};

use crate::support::shell;

/// `docker …` with the words of a line.
fn docker(engine: &Engine, words: &str) -> Result<String> {
    engine.docker(&words.split_whitespace().collect::<Vec<_>>())
}

/// Starts a container that does nothing, and gives its address in a network.
fn run(engine: &Engine, name: &str, network: &str, options: &str) -> Result<Ipv4Addr> {
    docker(engine, &format!("run -d --name {name} --network {network} {options} box sleep 1000"))?;
    address(engine, name, network)
}

fn address(engine: &Engine, name: &str, network: &str) -> Result<Ipv4Addr> {
    let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
    let shown = engine.docker(&["inspect", "--format", &format, name])?;
    shown.trim().parse().with_context(|| format!("no address: {shown}"))
}

#[test]
fn containers_of_two_engines_share_a_network_with_groups_and_broadcasts() -> Result<()> {
    let two = Engines::start()?;
    two.create_network("net", Encap::Vxlan, "")?;
    let mut stations = Vec::new();
    for (engine, first) in two.engines.iter().zip([2, 129]) {
        let address = run(engine, "web", "net", "")?;
        // The gateway's is the first of each host's half.
        assert_eq!(address, Ipv4Addr::new(10, 5, 0, first));
        stations.push((engine.namespace("web")?, address));
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let ((from, from_ip), (to, to_ip)) = (&stations[from], &stations[to]);
        let ping = traffic::ping(from, *to_ip, 56, 20, Duration::from_millis(10))?;
        assert_eq!(ping.received, 20);
        let tcp = traffic::tcp(from, (to, (*to_ip).into()), 1, Duration::from_secs(1))?;
        assert!(tcp.bytes > 1_000_000, "{tcp:?}");
        let from = Station { namespace: from, ipv4: *from_ip };
        let to = Station { namespace: to, ipv4: *to_ip };
        shell(from.namespace, "ip route replace 224.0.0.0/4 dev eth0");
        for group in [[239, 1, 2, 3], [10, 5, 0, 255]] {
            assert!(traffic::reaches(from, to, group.into())?, "{group:?}");
        }
    }
    Ok(())
}

#[test]
fn an_address_asked_for_on_two_hosts_is_an_error_that_names_the_other() -> Result<()> {
    let two = Engines::start()?;
    two.create_network("net", Encap::Vxlan, "--ipv6 --subnet fd05::/64")?;
    let [one, other] = &two.engines[..] else { unreachable!("two engines") };
    run(one, "web", "net", "--ip 10.5.0.77 --ip6 fd05::77")?;
    let format = "{{.NetworkSettings.Networks.net.MacAddress}}";
    let mac = one.docker(&["inspect", "--format", format, "web"])?;
    for asked in ["--ip 10.5.0.77", "--ip6 fd05::77"] {
        let refused = run(other, "late", "net", asked).expect_err("it is taken");
        let said = format!("{refused:#}");
        let address = asked.rsplit(' ').next().expect("a word");
        let expected =
            format!("{address} is in use already: it belongs to {}, on host 192.0.2.1", mac.trim());
        assert!(said.contains(&expected), "{said}");
        docker(other, "rm -f late")?;
    }
    // And on one host.
    let refused = run(one, "late", "net", "--ip 10.5.0.77").expect_err("it is taken");
    let said = format!("{refused:#}");
    assert!(said.contains("10.5.0.77 of 10.5.0.0/24 is taken already on this host"), "{said}");
    docker(one, "rm -f late web")?;
    // It is free again, here and there.
    run(other, "late", "net", "--ip 10.5.0.77 --ip6 fd05::77")?;
    Ok(())
}

#[test]
fn fifty_containers_at_once_on_each_of_two_hosts_get_different_addresses() -> Result<()> {
    const COUNT: usize = 50;
    let two = Engines::start()?;
    two.create_network("net", Encap::Vxlan, "")?;
    let start = Instant::now();
    let started: Vec<Result<Vec<Ipv4Addr>>> = thread::scope(|scope| {
        let each = two.engines.iter().map(|engine| scope.spawn(move || start_many(engine, COUNT)));
        let each: Vec<_> = each.collect();
        each.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let mut all = BTreeSet::new();
    for addresses in started {
        all.extend(addresses?);
    }
    println!("{} containers in {:.1} s", all.len(), start.elapsed().as_secs_f64());
    assert_eq!(all.len(), 2 * COUNT, "{all:?}");

    // The first of one host reaches them all.
    let from = two.engines[0].namespace("c0")?;
    for address in &all {
        let ping = || traffic::ping(&from, *address, 56, 1, Duration::from_millis(10));
        wait_until(Duration::from_secs(5), &format!("an echo of {address}"), || {
            ping().is_ok_and(|ping| ping.received == 1).then_some(())
        });
    }
    for (engine, host) in two.engines.iter().zip(two.lab.hosts()) {
        let ids = docker(engine, "ps -aq")?;
        docker(engine, &format!("rm -f {}", ids.replace('\n', " ")))?;
        docker(engine, "network rm net")?;
        let left = shell(host, "ip -o link | grep -v -e ': lo:' -e ': u0@' || true");
        assert_eq!(left, "", "nothing is left");
        for what in ["endpoints", "networks", "pools"] {
            let files = shell(host, &format!("ls {}/{what}", host.state().display()));
            assert_eq!(files, "", "{what}");
        }
    }
    Ok(())
}

/// Starts containers all at once. Where a host that has other work says that it is too busy, it is asked
/// once more, as its user would.
fn start_many(engine: &Engine, count: usize) -> Result<Vec<Ipv4Addr>> {
    let start = |name: &str| match run(engine, name, "net", "") {
        Err(error) if error.to_string().contains("this host is too busy") => {
            println!("{error}");
            docker(engine, &format!("rm -f {name}"))?;
            run(engine, name, "net", "")
        }
        started => started,
    };
    thread::scope(|scope| {
        let each = (0..count).map(|number| scope.spawn(move || start(&format!("c{number}"))));
        let each: Vec<_> = each.collect();
        each.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}
