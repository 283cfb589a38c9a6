//! The demo on real Docker engines: two hosts, one network, against Docker's own network of one host.

use std::{
    fmt,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use ovs_ebpf_tests::lab::{Encap, Engine, Engines, FastPackets, Host, Lab, Namespace, traffic};
use serde::Serialize;

use super::ROUNDS;
use crate::{daemons, progress::Step};

/// How long each TCP connection is measured.
const DURATION: Duration = Duration::from_secs(2);
const PINGS: u32 = 50;
const PING_INTERVAL: Duration = Duration::from_millis(10);
/// Docker's own network, on the first host.
const LOCAL: &str = "network create -d bridge --internal --subnet 10.6.0.0/24 local";

/// The result; as JSON, one stable object.
#[derive(Debug, Serialize)]
struct Report {
    encap: &'static str,
    ping_loss: f64,
    tcp_gbps: f64,
    docker_bridge_tcp_gbps: f64,
    fast_share: f64,
}

/// A running container.
struct Container {
    namespace: Namespace,
    address: std::net::IpAddr,
}

pub(super) fn show(json: bool, binary: &Path) -> Result<()> {
    let step =
        Step::start("starting two hosts with a Docker engine and `ovs-loader run --docker` each");
    let two = Engines::start_on(Lab::bare()?, binary)?;
    step.done();
    let encap = if has_gretap(two.lab.host(0)) { Encap::Gre } else { Encap::Vxlan };
    let step = Step::start("creating the networks and their containers");
    two.create_network("net", encap, "")?;
    docker(&two.engines[0], LOCAL)?;
    let [from, to] =
        [(0, "web"), (1, "db")].map(|(host, name)| start(&two.engines[host], name, "net"));
    let (from, to) = (from?, to?);
    let [local_from, local_to] =
        ["client", "server"].map(|name| start(&two.engines[0], name, "local"));
    let (local_from, local_to) = (local_from?, local_to?);
    step.done();

    let mut packets = FastPackets::default();
    let (mut fast, mut local, mut lost) = (Vec::new(), Vec::new(), 0.0_f64);
    for round in 1..=ROUNDS {
        daemons::wait_until_fast(&two.loaders, &from.namespace, to.address)?;
        let step = Step::start(format!("measuring from engine to engine ({round} of {ROUNDS})"));
        let before = daemons::packets(&two.loaders)?;
        let ping = traffic::ping(&from.namespace, to.address, 56, PINGS, PING_INTERVAL)?;
        lost = lost.max(ping.loss());
        fast.push(speed(&from, &to)?);
        packets = packets + (daemons::packets(&two.loaders)? - before);
        step.done();
        let step = Step::start(format!("measuring Docker's own bridge ({round} of {ROUNDS})"));
        local.push(speed(&local_from, &local_to)?);
        step.done();
    }
    let report = Report {
        encap: match encap {
            Encap::Vxlan => "vxlan",
            Encap::Gre => "gre",
        },
        ping_loss: lost,
        tcp_gbps: median(fast),
        docker_bridge_tcp_gbps: median(local),
        fast_share: packets.share(),
    };
    let stdout = io::stdout();
    if json {
        writeln!(&stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        let listed = docker(&two.engines[0], "network ls")?;
        writeln!(&stdout, "\n{report}\nOn host 1, `docker network ls`:\n{}", listed.trim_end())?;
        let status = two.loaders[0].cli(&["status"])?;
        writeln!(&stdout, "\n`ovs-loader status`:\n{}", status.trim_end())?;
    }
    let step = Step::start("removing the containers, the networks and the hosts");
    for engine in &two.engines {
        docker(engine, &format!("rm -f {}", docker(engine, "ps -aq")?.replace('\n', " ")))?;
        docker(engine, "network rm net")?;
    }
    docker(&two.engines[0], "network rm local")?;
    drop(two);
    step.done();
    Ok(())
}

/// Whether this kernel makes GRE devices.
fn has_gretap(host: &Host) -> bool {
    let made = host.ip("link add probe type gretap key 1 local 192.0.2.1 remote 192.0.2.2\n");
    made.is_ok() && host.ip("link del probe\n").is_ok()
}

/// Starts a container that does nothing.
fn start(engine: &Engine, name: &str, network: &str) -> Result<Container> {
    docker(engine, &format!("run -d --name {name} --network {network} box sleep 100000"))?;
    let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
    let address = engine.docker(&["inspect", "--format", &format, name])?.trim().parse()?;
    Ok(Container { namespace: engine.namespace(name)?, address })
}

/// `docker …` with the words of a line.
fn docker(engine: &Engine, words: &str) -> Result<String> {
    engine.docker(&words.split_whitespace().collect::<Vec<_>>())
}

/// One TCP connection's content in Gbit/s.
fn speed(from: &Container, to: &Container) -> Result<f64> {
    let tcp = traffic::tcp(&from.namespace, (&to.namespace, to.address), 1, DURATION)?;
    Ok(tcp.bits_per_second / 1e9)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { encap, ping_loss, tcp_gbps, docker_bridge_tcp_gbps, fast_share } = self;
        // Rounded down: only all packets are 100 %.
        let share = (fast_share * 1e4).floor() / 1e2;
        writeln!(f, "two engines, one network over {encap}")?;
        writeln!(f, "ping, lost                          {:>6.1} %", ping_loss * 100.0)?;
        writeln!(f, "TCP, from engine to engine          {tcp_gbps:>6.2} Gbit/s")?;
        writeln!(f, "TCP, Docker's bridge on one host    {docker_bridge_tcp_gbps:>6.2} Gbit/s")?;
        writeln!(f, "packets on the fast path            {share:>6.2} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            encap: "gre",
            ping_loss: 0.0,
            tcp_gbps: 12.5,
            docker_bridge_tcp_gbps: 10.0,
            fast_share: 0.99999,
        }
    }

    #[test]
    fn the_json_object_has_the_documented_fields() {
        let expected = r#"{"encap":"gre","ping_loss":0.0,"tcp_gbps":12.5,"docker_bridge_tcp_gbps":10.0,"fast_share":0.99999}"#;
        assert_eq!(serde_json::to_string(&report()).unwrap(), expected);
    }

    #[test]
    fn the_table_names_both_speeds() {
        let expected = "\
two engines, one network over gre
ping, lost                             0.0 %
TCP, from engine to engine           12.50 Gbit/s
TCP, Docker's bridge on one host     10.00 Gbit/s
packets on the fast path             99.99 %
";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn a_median_hides_outliers() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
    }
}
