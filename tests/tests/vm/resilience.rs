//! Open vSwitch's daemons, ports and tables come and go under traffic: nothing is lost that Open
//! vSwitch alone would not lose, and nothing stays that is gone there.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use ovs_ebpf_tests::lab::{
    Encap, Lab, Loader, Ovs,
    traffic::{BothWays, StreamReport},
};

use crate::support::{
    CHANCE, LIMIT, RATE, at_once, fact, say, until_fast, until_forgotten, until_reached,
};

/// Something that happens to the first host's Open vSwitch, given the streams that it happens under.
struct Event {
    name: &'static str,
    happens: fn(&mut Lab, &BothWays) -> Result<()>,
}

const EVENTS: [Event; 5] = [
    Event {
        name: "ovs-vswitchd is killed and restarted",
        happens: |lab, streams| {
            ovs(lab)?.end_vswitchd(Signal::SIGKILL)?;
            streams.goes_on(2 * u64::from(RATE));
            ovs(lab)?.start_vswitchd()
        },
    },
    Event {
        name: "ovs-vswitchd is restarted as an upgrade does",
        happens: |lab, streams| {
            ovs(lab)?.end_vswitchd(Signal::SIGTERM)?;
            streams.goes_on(u64::from(RATE) / 2);
            ovs(lab)?.start_vswitchd()
        },
    },
    Event {
        name: "ovsdb-server is restarted",
        happens: |lab, streams| {
            ovs(lab)?.end_ovsdb_server(Signal::SIGTERM)?;
            streams.goes_on(u64::from(RATE));
            ovs(lab)?.start_ovsdb_server()
        },
    },
    Event {
        name: "the FDB is flushed",
        happens: |lab, streams| {
            ovs(lab)?.appctl(&["fdb/flush", "br-ex"])?;
            streams.goes_on(u64::from(RATE) / 2);
            ovs(lab)?.appctl(&["fdb/flush"]).map(|_| ())
        },
    },
    Event {
        name: "another container's port is deleted and comes back",
        happens: |lab, streams| {
            let port = lab.host(0).container(1).port().to_owned();
            ovs(lab)?.vsctl(&["del-port", "br-ex", &port])?;
            streams.goes_on(u64::from(RATE) / 2);
            ovs(lab)?.vsctl(&["add-port", "br-ex", &port]).map(|_| ())
        },
    },
];

fn ovs(lab: &mut Lab) -> Result<&mut Ovs> {
    lab.host_mut(0).ovs_mut().context("a host with Open vSwitch")
}

/// What streams both ways between the first containers lose, there and back.
fn losses(lab: &mut Lab, event: &Event, daemon: Option<&Loader>) -> Result<[u64; 2]> {
    let streams = BothWays::paced(lab.container(0), lab.container(1), RATE)?;
    streams.goes_on(u64::from(RATE) / 4);
    if let Some(daemon) = daemon {
        streams.is_fast(daemon, LIMIT);
    }
    (event.happens)(lab, &streams)?;
    streams.goes_on(u64::from(RATE));
    if let Some(daemon) = daemon {
        streams.is_fast(daemon, LIMIT);
    }
    let reports = streams.stop()?;
    say(&format!("   {reports:?}"));
    Ok(reports.map(|StreamReport { lost, .. }| lost))
}

#[test]
fn what_happens_to_open_vswitch_costs_no_packet_more_than_without_the_fast_path() -> Result<()> {
    let mut lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[2, 1])?;
    until_reached(lab.container(0), lab.container(1));
    let alone = EVENTS
        .iter()
        .map(|event| fact(&format!("alone: {}", event.name), || losses(&mut lab, event, None)))
        .collect::<Result<Vec<_>>>()?;

    let daemons = [Loader::start(lab.host(0))?, Loader::start(lab.host(1))?];
    for (event, alone) in EVENTS.iter().zip(alone) {
        fact(event.name, || {
            let lost = losses(&mut lab, event, Some(&daemons[0]))?;
            let more = lost.iter().zip(alone).any(|(lost, alone)| *lost > alone + CHANCE);
            ensure!(!more, "lost {lost:?}, alone {alone:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The stations of a daemon's `br-ex`.
fn stations(daemon: &Loader) -> Result<usize> {
    Ok(daemon.fdb()?["entries"].as_array().context("no entries")?.len())
}

/// Whether a daemon knows a bridge `br-ex` at all.
fn has_bridge(daemon: &Loader) -> Result<bool> {
    let status = daemon.status()?;
    Ok(status["bridges"].as_array().into_iter().flatten().any(|bridge| bridge["name"] == "br-ex"))
}

/// Makes the first host's bridge anew, as it was.
fn add_bridge(lab: &Lab) -> Result<()> {
    let add = "add-br br-ex -- add-port br-ex gre-2 -- set interface gre-2 type=gre \
               options:remote_ip=192.0.2.2 options:key=42";
    let mut words: Vec<&str> = add.split_whitespace().collect();
    for container in lab.host(0).containers() {
        words.extend(["--", "add-port", "br-ex", container.port()]);
    }
    lab.host(0).vsctl(&words).map(|_| ())
}

#[test]
fn what_is_gone_is_gone_within_a_second_and_what_comes_is_fast() -> Result<()> {
    let mut lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[2, 1])?;
    until_reached(lab.container(0), lab.container(1));
    let macs = [0, 1].map(|host| lab.container(host).mac().to_owned());
    let [near, far] = macs.each_ref().map(String::as_str);
    let silent = lab.host(0).container(1).mac().to_owned();
    let daemon = Loader::start(lab.host(0))?;

    // It says nothing by itself from then on.
    let meets_silent = |lab: &Lab| {
        until_reached(lab.container(1), lab.host(0).container(1));
        until_fast(&daemon, &[&silent]);
    };
    lab.host(0).container(1).exec(&["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"]);

    fact("flushed", || {
        meets_silent(&lab);
        ovs(&mut lab)?.appctl(&["fdb/flush", "br-ex"])?;
        until_forgotten(&daemon, &silent);
        Ok(())
    })?;
    fact("its port is deleted", || {
        meets_silent(&lab);
        let port = lab.host(0).container(1).port().to_owned();
        ovs(&mut lab)?.vsctl(&["del-port", "br-ex", &port])?;
        until_forgotten(&daemon, &silent);
        let status = daemon.status()?.to_string();
        ensure!(!status.contains(&format!("\"{port}\"")), "{port} is still a port: {status}");
        ovs(&mut lab)?.vsctl(&["add-port", "br-ex", &port])?;
        meets_silent(&lab);
        Ok(())
    })?;
    fact("ovs-vswitchd has forgotten all", || {
        ovs(&mut lab)?.end_vswitchd(Signal::SIGKILL)?;
        ovs(&mut lab)?.start_vswitchd()?;
        until_forgotten(&daemon, &silent);
        Ok(())
    })?;
    fact("the bridge is deleted", || {
        ovs(&mut lab)?.vsctl(&["del-br", "br-ex"])?;
        at_once("nothing of the bridge is left", || {
            (!has_bridge(&daemon).ok()? && stations(&daemon).ok()? == 0).then_some(())
        });
        Ok(())
    })?;
    fact("a bridge comes after the daemon", || {
        add_bridge(&lab)?;
        until_reached(lab.container(0), lab.container(1));
        until_fast(&daemon, &[near, far]);
        Ok(())
    })?;

    fact("Open vSwitch comes after the daemon", || {
        ovs(&mut lab)?.end_vswitchd(Signal::SIGTERM)?;
        ovs(&mut lab)?.end_ovsdb_server(Signal::SIGTERM)?;
        drop(daemon);
        let daemon = Loader::start(lab.host(0))?;
        ovs(&mut lab)?.start_ovsdb_server()?;
        ovs(&mut lab)?.start_vswitchd()?;
        until_reached(lab.container(0), lab.container(1));
        until_fast(&daemon, &[near, far]);
        let streams = BothWays::paced(lab.container(0), lab.container(1), RATE)?;
        streams.is_fast(&daemon, LIMIT);
        streams.stop().map(|_| ())
    })
}
