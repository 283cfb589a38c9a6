//! Tunnels and ports that are left to Open vSwitch, at both ends: `status` names what stands in the way
//! of a tunnel, and all traffic is right beside accelerated ports.

use std::{net::IpAddr, time::Instant};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, count, share},
    lab::{CONTAINER_MTU, Container, Encap, Lab, traffic},
    why::{At, detail},
};

use crate::support::{INTERVAL, at_once, exchange, fact, peer, took, until_fast, until_reached};

/// A tunnel's options that the fast path lacks, and the commands of Open vSwitch that bring and take
/// them away: PORT is the tunnel's port, REMOTE the other host.
struct Lacking {
    reason: &'static str,
    words: &'static str,
    appear: &'static [&'static str],
    vanish: &'static [&'static str],
}

const LACKING: [Lacking; 3] = [
    Lacking {
        reason: "tunnel_checksum",
        words: "options:csum=true",
        appear: &["ovs-vsctl set interface PORT options:csum=true"],
        vanish: &["ovs-vsctl remove interface PORT options csum"],
    },
    Lacking {
        reason: "tunnel_flow",
        words: "options:key=flow",
        appear: &["ovs-vsctl set interface PORT options:key=flow"],
        vanish: &["ovs-vsctl set interface PORT options:key=42"],
    },
    Lacking {
        reason: "tunnel_flow",
        words: "options:remote_ip=flow",
        appear: &[
            "ovs-ofctl add-flow br-ex in_port=v1,actions=set_field:REMOTE->tun_dst,output:PORT",
            "ovs-vsctl set interface PORT options:remote_ip=flow",
        ],
        vanish: &[
            "ovs-vsctl set interface PORT options:remote_ip=REMOTE",
            "ovs-ofctl del-flows br-ex in_port=v1",
        ],
    },
];

/// The port of a host's only tunnel.
fn tunnel(host: usize) -> &'static str {
    ["gre-2", "gre-1"][host]
}

/// Runs commands of Open vSwitch on both hosts.
fn run(lab: &Lab, commands: &[&str]) -> Result<()> {
    for (host, other) in [(0, 1), (1, 0)] {
        let ovs = lab.host(host).ovs().context("a host with Open vSwitch")?;
        let remote = lab.host(other).underlay().to_string();
        for command in commands {
            let command = command.replace("PORT", tunnel(host)).replace("REMOTE", &remote);
            let mut words = command.split_whitespace();
            let program = words.next().context("no command")?;
            ovs.run(program, &words.collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// Changes the tunnels and waits until they carry packets.
fn change(lab: &Lab, commands: &[&str], what: &str) -> Result<()> {
    run(lab, commands)?;
    let start = Instant::now();
    until_reached(lab.container(0), lab.container(1));
    took(&format!("{what}: an echo"), start.elapsed());
    Ok(())
}

fn containers(lab: &Lab) -> Result<()> {
    exchange(peer(lab.container(0)), peer(lab.container(1)))
}

#[test]
fn what_a_tunnel_has_that_the_fast_path_lacks_works_by_open_vswitch() -> Result<()> {
    let lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[1, 1])?;
    until_reached(lab.container(0), lab.container(1));
    for Lacking { words, appear, vanish, .. } in LACKING {
        fact(&format!("Open vSwitch alone: {words}"), || {
            change(&lab, appear, &format!("alone, {words}"))?;
            containers(&lab)?;
            change(&lab, vanish, &format!("alone, without {words}"))
        })?;
    }

    let pair = Accelerated::start_on(lab, &[0, 1])?;
    for Lacking { reason, words, appear, vanish } in LACKING {
        fact(words, || {
            pair.meet(pair.lab.container(0), pair.lab.container(1))?;
            run(&pair.lab, appear)?;
            for (daemon, port) in pair.loaders.iter().zip([0, 1].map(tunnel)) {
                at_once(&format!("{words} is named"), || {
                    detail(daemon, At::Tunnel(port), reason)?.contains(words).then_some(())
                });
            }
            change(&pair.lab, &[], words)?;
            let counted = pair.counted(|| containers(&pair.lab))?;
            ensure!(count(&counted, "sent") + count(&counted, "received") == 0, "{counted:?}");

            change(&pair.lab, vanish, &format!("without {words}"))?;
            pair.meet(pair.lab.container(0), pair.lab.container(1))?;
            let counted = pair.counted(|| containers(&pair.lab))?;
            ensure!(share(&counted) >= 0.9, "{counted:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Both ways, nothing of three echoes comes back.
fn apart(one: &Container, other: &Container) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        let ping = traffic::ping(from, to.ipv4(), 56, 3, INTERVAL)?;
        ensure!(ping.received == 0, "{} reaches {}: {ping:?}", from.name(), to.name());
    }
    Ok(())
}

fn together(one: &Container, other: &Container) -> Result<()> {
    until_reached(one, other);
    exchange(peer(one), peer(other))
}

#[test]
fn ports_of_other_kinds_are_right_beside_fast_ones() -> Result<()> {
    let lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[2, 2])?;
    let pair = Accelerated::start_on(lab, &[0, 1])?;
    let lab = &pair.lab;
    let [near, far] = [0, 1].map(|host| lab.container(host));
    let [near_other, far_other] = [0, 1].map(|host| lab.host(host).container(1));
    // All are known, and fast, before anything happens to their ports.
    pair.meet_all(&[near, near_other, far, far_other])?;

    fact("ports with a tag", || {
        for host in lab.hosts() {
            host.vsctl(&["set", "port", "v2", "tag=5"])?;
        }
        together(near_other, far_other)?;
        together(near, far)?;
        apart(near, near_other)?;
        apart(near, far_other)
    })?;
    fact("a port with another tag than its peer", || {
        lab.host(0).vsctl(&["set", "port", "v2", "tag=6"])?;
        apart(near_other, far_other)?;
        lab.host(0).vsctl(&["clear", "port", "v2", "tag"])?;
        together(near_other, far)?;
        apart(near_other, far_other)?;
        lab.host(1).vsctl(&["clear", "port", "v2", "tag"])?;
        together(near_other, far_other)
    })?;
    fact("an internal port in a container", || {
        let inside = lab.host(0).add_namespace("inside")?;
        let add = ["add-port", "br-ex", "int0", "--", "set", "interface", "int0", "type=internal"];
        lab.host(0).vsctl(&add)?;
        lab.host(0).ip(&format!("link set int0 netns {}\n", inside.name()))?;
        inside.ip(&format!(
            "link set int0 mtu {CONTAINER_MTU} up\naddr add 10.0.0.60/24 dev int0\n\
             addr add fd00::60/64 dev int0 nodad\n"
        ))?;
        let addresses: [IpAddr; 2] = ["10.0.0.60".parse()?, "fd00::60".parse()?];
        for container in [near, far] {
            exchange(peer(container), (&inside, addresses))?;
        }
        lab.host(0).vsctl(&["del-port", "br-ex", "int0"]).map(|_| ())
    })?;
    fact("a container behind a patch port", || {
        let port = near_other.port();
        let add = format!(
            "del-port br-ex {port} -- add-br br-int -- add-port br-int {port} -- \
             add-port br-int p0 -- set interface p0 type=patch options:peer=p1 -- \
             add-port br-ex p1 -- set interface p1 type=patch options:peer=p0"
        );
        lab.host(0).vsctl(&add.split_whitespace().collect::<Vec<_>>())?;
        for container in [near, far, far_other] {
            together(near_other, container)?;
        }
        Ok(())
    })?;
    fact("the others are as fast as before", || {
        for daemon in &pair.loaders {
            until_fast(daemon, &[near.mac(), far.mac()]);
        }
        let counted = pair.counted(|| together(near, far))?;
        ensure!(share(&counted) >= 0.9, "{counted:?}");
        Ok(())
    })
}
