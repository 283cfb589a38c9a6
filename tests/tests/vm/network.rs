//! Docker's networks on Open vSwitch's kernel datapath, by GRE, beside a bridge that was there.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::lab::{
    Encap, Engine, Engines, Lab, Namespace, binary,
    traffic::{self, Station},
    wait_until,
};

use crate::support::{INTERVAL, LIMIT, at_once, fact};

/// The first container of each host, by the halves of the subnet that they give out.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 5, 0, 2), Ipv4Addr::new(10, 5, 0, 129)];
const ECHOES: u32 = 20;

fn docker(engine: &Engine, words: &str) -> Result<String> {
    engine.docker(&words.split_whitespace().collect::<Vec<_>>())
}

fn echoes(from: &Namespace, to: Ipv4Addr, count: u32) -> u32 {
    traffic::ping(from, to, 1300, count, INTERVAL).map_or(0, |ping| ping.received)
}

#[test]
fn containers_of_two_engines_share_a_network_beside_a_bridge_that_was_there() -> Result<()> {
    let lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[1, 1])?;
    let two = Engines::start_on(lab, &binary()?)?;
    let rows = |host: usize| two.lab.host(host).vsctl(&["show"]);
    let before = [rows(0)?, rows(1)?];

    let containers = fact("a network and a container on each host", || {
        two.create_network("net", Encap::Gre, "")?;
        for (engine, address) in two.engines.iter().zip(ADDRESSES) {
            docker(engine, "run -d --name web --network net box sleep 100000")?;
            let format = "{{.NetworkSettings.Networks.net.IPAddress}}";
            let given = engine.docker(&["inspect", "--format", format, "web"])?;
            assert_eq!(given.trim(), address.to_string());
        }
        two.engines.iter().map(|engine| engine.namespace("web")).collect::<Result<Vec<_>>>()
    })?;
    let [one, other] = &containers[..] else { unreachable!("two engines") };
    for host in two.lab.hosts() {
        let ports = host.vsctl(&["--columns=type,options", "find", "interface", "type=gre"])?;
        assert_eq!(ports.matches("key=").count(), 2, "the lab's tunnel and the network's: {ports}");
    }

    fact("they reach each other, by multicast and broadcast too", || {
        wait_until(LIMIT, "an echo", || (echoes(one, ADDRESSES[1], 1) == 1).then_some(()));
        one.try_exec(&["ip", "route", "replace", "224.0.0.0/4", "dev", "eth0"])?;
        let [from, to] = [(one, 0), (other, 1)]
            .map(|(namespace, host)| Station { namespace, ipv4: ADDRESSES[host] });
        for group in [[239, 1, 2, 3], [10, 5, 0, 255]] {
            assert!(traffic::reaches(from, to, group.into())?, "{group:?}");
        }
        Ok(())
    })?;
    fact("and all of it is fast, TCP too", || {
        let packets = |host: usize| two.loaders[host].fast_packets();
        at_once("every echo on the fast path of both hosts", || {
            let before = [packets(0).ok()?, packets(1).ok()?];
            let received = echoes(one, ADDRESSES[1], ECHOES);
            let after = [packets(0).ok()?, packets(1).ok()?];
            let all = |host: usize| {
                let count = u64::from(ECHOES);
                after[host].sent - before[host].sent == count
                    && after[host].received - before[host].received == count
            };
            (received == ECHOES && all(0) && all(1)).then_some(())
        });
        let second = Duration::from_secs(1);
        let tcp = traffic::tcp(one, (other, IpAddr::from(ADDRESSES[1])), 1, second)?;
        assert!(tcp.bytes > 1_000_000, "{tcp:?}");
        Ok(())
    })?;
    fact("the lab's own containers go on as before", || {
        let [one, other] = [two.lab.container(0), two.lab.container(1)];
        let ping = traffic::ping(one, other.ipv4(), 1300, ECHOES, INTERVAL)?;
        assert_eq!(ping.received, ECHOES, "{ping:?}");
        Ok(())
    })?;
    fact("all of it goes without a trace", || {
        for (host, engine) in two.engines.iter().enumerate() {
            docker(engine, "rm -f web")?;
            docker(engine, "network rm net")?;
            let gone = || (rows(host).ok()? == before[host]).then_some(());
            wait_until(LIMIT, "the rows that were there and no others", gone);
        }
        Ok(())
    })
    .context("Docker's networks on Open vSwitch")
}
