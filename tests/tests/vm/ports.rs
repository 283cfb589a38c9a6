//! Tunnels and ports that are left to Open vSwitch, at both ends: `status` names what stands in the way
//! of a tunnel, and all traffic is right beside accelerated ports.

use std::{net::IpAddr, time::Instant};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, count, share},
    lab::{CONTAINER_MTU, Container, Encap, Lab, traffic},
    why::{At, detail},
};

use crate::support::{
    INTERVAL, at_once, echo, exchange, fact, peer, say, took, until_fast, until_reached,
};

/// A tunnel's options that the fast path lacks, and the commands of Open vSwitch that bring and take
/// them away: PORT is the tunnel's port, REMOTE the other host.
struct Lacking {
    reason: &'static str,
    words: &'static str,
    appear: &'static [&'static str],
    vanish: &'static [&'static str],
}

/// With GRE on Linux nothing arrives then: the kernel's device that Open vSwitch's tunnels share expects
/// no checksum (`ip_tunnel_rcv`), and counts an error for each packet.
const CHECKSUM: Lacking = Lacking {
    reason: "tunnel_checksum",
    words: "options:csum=true",
    appear: &["ovs-vsctl set interface PORT options:csum=true"],
    vanish: &["ovs-vsctl remove interface PORT options csum"],
};

const FLOW: [Lacking; 2] = [
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
fn tunnel(encap: Encap, host: usize) -> &'static str {
    match encap {
        Encap::Gre => ["gre-2", "gre-1"][host],
        Encap::Vxlan => ["vxlan-2", "vxlan-1"][host],
    }
}

/// Runs commands of Open vSwitch on both hosts.
fn run(lab: &Lab, encap: Encap, commands: &[&str]) -> Result<()> {
    for (host, other) in [(0, 1), (1, 0)] {
        let ovs = lab.host(host).ovs().context("a host with Open vSwitch")?;
        let remote = lab.host(other).underlay().to_string();
        for command in commands {
            let command = command.replace("PORT", tunnel(encap, host)).replace("REMOTE", &remote);
            let mut words = command.split_whitespace();
            let program = words.next().context("no command")?;
            ovs.run(program, &words.collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// Whether the tunnels carry packets: content of every size then.
fn carries(lab: &Lab, what: &str) -> Result<bool> {
    let (one, other) = (lab.container(0), lab.container(1));
    let start = Instant::now();
    let carries = (0..3).any(|_| echo(one, other));
    if carries {
        took(&format!("{what}: an echo"), start.elapsed());
        exchange(peer(one), peer(other))?;
    } else {
        say(&format!("   {what}: nothing arrives"));
    }
    Ok(carries)
}

/// What each takes away from tunnels, live, is named, and for the rest they are as without the daemons.
fn are_left_to_open_vswitch(encap: Encap, all: &[&Lacking]) -> Result<()> {
    let lab = Lab::build_ovs(encap, "options:key=42", &[1, 1])?;
    until_reached(lab.container(0), lab.container(1));
    let mut alone = Vec::new();
    for Lacking { words, appear, vanish, .. } in all {
        fact(&format!("Open vSwitch alone: {words}"), || {
            run(&lab, encap, appear)?;
            alone.push(carries(&lab, &format!("alone, {words}"))?);
            run(&lab, encap, vanish)?;
            until_reached(lab.container(0), lab.container(1));
            Ok(())
        })?;
    }

    let pair = Accelerated::start_on(lab, &[0, 1])?;
    for (Lacking { reason, words, appear, vanish }, alone) in all.iter().zip(alone) {
        fact(words, || {
            pair.meet(pair.lab.container(0), pair.lab.container(1))?;
            run(&pair.lab, encap, appear)?;
            for (host, daemon) in pair.loaders.iter().enumerate() {
                at_once(&format!("{words} is named"), || {
                    let at = At::Tunnel(tunnel(encap, host));
                    detail(daemon, at, reason)?.contains(words).then_some(())
                });
            }
            let counted = pair.counted(|| {
                ensure!(carries(&pair.lab, words)? == alone, "alone it is {alone}");
                Ok(())
            })?;
            ensure!(count(&counted, "sent") + count(&counted, "received") == 0, "{counted:?}");

            run(&pair.lab, encap, vanish)?;
            pair.meet(pair.lab.container(0), pair.lab.container(1))?;
            let counted = pair.counted(|| {
                ensure!(carries(&pair.lab, &format!("without {words}"))?, "nothing arrives");
                Ok(())
            })?;
            ensure!(share(&counted) >= 0.9, "{counted:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_gre_tunnels_flow_and_checksum_options_are_left_to_open_vswitch() -> Result<()> {
    are_left_to_open_vswitch(Encap::Gre, &[&CHECKSUM, &FLOW[0], &FLOW[1]])
}

#[test]
fn a_vxlan_tunnels_checksum_is_left_to_open_vswitch() -> Result<()> {
    are_left_to_open_vswitch(Encap::Vxlan, &[&CHECKSUM])
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
