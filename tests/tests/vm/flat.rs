//! Flat networks: the host's NIC is a port of `br-ex`, and containers are on the host's LAN.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, assert_fast, share},
    lab::{
        CONTAINER_MTU, Container, Encap, Lab, Loader,
        traffic::{self, Datagrams},
        wait_until,
    },
};

use crate::support::{INTERVAL, LIMIT, Peer, exchange, fact, peer, say, until_reached};

/// Two hosts whose NIC is a port of `br-ex`. The host's own addresses are on the bridge: that of the
/// underlay, and the LAN's 10.0.0.N and fd00::N.
fn flat(containers: &[u8]) -> Result<Lab> {
    let lab = Lab::build_ovs(Encap::Gre, "options:key=42", containers)?;
    for (host, other) in [(0, 2), (1, 1)] {
        let (underlay, number) = (lab.host(host).underlay(), host + 1);
        lab.host(host).ip("addr flush dev u0\n")?;
        let tunnel = format!("gre-{other}");
        // Else the bridge's own port has the containers' MTU, and no room for a tunnel. To containers it
        // may send no more than they take.
        let mtu = ["set", "interface", "br-ex", "mtu_request=1500"];
        let ports = ["del-port", &tunnel, "--", "add-port", "br-ex", "u0", "--"];
        lab.host(host).vsctl(&[&ports[..], &mtu].concat())?;
        lab.host(host).ip(&format!(
            "addr add {underlay}/24 dev br-ex\naddr add 10.0.0.{number}/24 dev br-ex\n\
             addr add fd00::{number}/64 dev br-ex nodad\nlink set br-ex up\n\
             route replace 10.0.0.0/24 dev br-ex src 10.0.0.{number} mtu {CONTAINER_MTU}\n\
             route replace fd00::/64 dev br-ex metric 256 mtu {CONTAINER_MTU}\n"
        ))?;
    }
    Ok(lab)
}

fn host(lab: &Lab, host: usize) -> Result<Peer<'_>> {
    let addresses =
        [format!("10.0.0.{}", host + 1).parse()?, format!("fd00::{}", host + 1).parse()?];
    Ok((lab.host(host), addresses))
}

/// Datagrams between two containers, of which every one is fast.
fn every_datagram_is_fast(pair: &Accelerated, from: &Container, to: &Container) -> Result<()> {
    const DATAGRAMS: u32 = 64;
    for address in [IpAddr::from(to.ipv4()), to.ipv6().into()] {
        let flow = Datagrams::open(from, (to, address))?;
        assert_eq!(flow.send(64, 1)?, 1, "the first, after neighbour discovery");
        let counted = pair.counted(|| {
            assert_eq!(flow.send(1000, DATAGRAMS)?, DATAGRAMS);
            Ok(())
        })?;
        assert_fast(&counted, u64::from(DATAGRAMS));
    }
    Ok(())
}

#[test]
fn a_nic_on_the_bridge_is_a_port_like_any_other() -> Result<()> {
    let pair = Accelerated::start_on(flat(&[2, 1])?, &[0])?;
    let (one, two) = (pair.lab.host(0).container(0), pair.lab.host(0).container(1));
    let lan = pair.lab.container(1);
    pair.meet_all(&[one, two, lan])?;
    for (what, from, to) in
        [("to the LAN", one, lan), ("from the LAN", lan, two), ("container to container", two, one)]
    {
        fact(what, || {
            let counted = pair.counted(|| exchange(peer(from), peer(to)))?;
            ensure!(share(&counted) >= 0.9, "{counted:?}");
            every_datagram_is_fast(&pair, from, to)
        })?;
    }
    fact("the host's own address", || {
        let own = host(&pair.lab, 0)?;
        for other in [peer(one), peer(lan), host(&pair.lab, 1)?] {
            // The two have never met: what waits for a neighbour's answer may be dropped.
            for address in other.1 {
                wait_until(LIMIT, &format!("an echo of {address}"), || {
                    let ping = traffic::ping(own.0, address, 56, 1, INTERVAL);
                    ping.is_ok_and(|ping| ping.received == 1).then_some(())
                });
            }
            exchange(own, other)?;
        }
        Ok(())
    })
}

/// A second bridge on each host, for its second container, with a tunnel whose underlay is on `br-ex`.
fn add_overlay(lab: &Lab) -> Result<()> {
    for (host, other) in [(0, 1), (1, 0)] {
        let (remote, port) = (lab.host(other).underlay(), lab.host(host).container(1).port());
        let commands = format!(
            "add-br br-int -- add-port br-int gre0 -- set interface gre0 type=gre \
             options:remote_ip={remote} options:key=42 -- \
             del-port br-ex {port} -- add-port br-int {port}"
        );
        lab.host(host).vsctl(&commands.split_whitespace().collect::<Vec<_>>())?;
    }
    Ok(())
}

#[test]
fn a_tunnel_may_run_over_the_bridge_that_has_the_nic() -> Result<()> {
    let lab = flat(&[2, 2])?;
    add_overlay(&lab)?;
    let inside = [0, 1].map(|host| lab.host(host).container(1));
    until_reached(inside[0], inside[1]);
    until_reached(lab.container(0), lab.container(1));
    fact("Open vSwitch alone: if this fails, the lab is wrong", || {
        exchange(peer(inside[0]), peer(inside[1]))
    })?;
    let mut pair = Accelerated { loaders: Vec::new(), lab };
    for (host, what) in [(0, "one end is accelerated"), (1, "both ends are accelerated")] {
        pair.loaders.push(Loader::start(pair.lab.host(host))?);
        pair.meet(pair.lab.container(0), pair.lab.container(1))?;
        fact(what, || {
            let inside = [0, 1].map(|host| peer(pair.lab.host(host).container(1)));
            let outside = [0, 1].map(|host| peer(pair.lab.container(host)));
            let counted = pair.counted(|| exchange(inside[0], inside[1]))?;
            say(&format!("   over the tunnel: {counted:?}"));
            let counted = pair.counted(|| exchange(outside[0], outside[1]))?;
            ensure!(share(&counted) >= 0.9, "{counted:?}");
            exchange(self::host(&pair.lab, 0)?, self::host(&pair.lab, 1)?)?;
            exchange(self::host(&pair.lab, 0)?, outside[0])?;
            exchange(self::host(&pair.lab, 0)?, outside[1])
        })?;
    }
    wait_until(LIMIT, "the tunnel is accelerated, or the reason why not is known", || {
        let tunnels = pair.loaders[0].tunnels().ok()?["tunnels"].clone();
        let tunnel = tunnels.as_array()?.first()?.clone();
        (tunnel["accelerated"] == true || !tunnel["why"].as_array()?.is_empty()).then_some(())
    });
    Ok(())
}
