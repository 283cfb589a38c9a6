//! Every kind of traffic through Open vSwitch's tunnels: with the fast path on one end and plain Open
//! vSwitch on the other, and with it on both.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, Ends, assert_all_fast, count, share},
    lab::{
        Container, Encap, Lab, Loader, counters,
        traffic::{self, Datagrams},
    },
};

use crate::support::{datagrams, echoes, fact, until_reached};

/// The largest payload of an echo whose packet fits the containers' MTU of 1450.
const WHOLE_PING: u32 = 1450 - 20 - 8;
/// A segment of TCP as long as the container made it, whole across the uplink.
const WHOLE_SEGMENTS: u64 = 20_000;

/// Builds the lab and has it carry everything: without the fast path, with it on the first host, on
/// both, and on the second.
fn interoperates(encap: Encap, options: &str) -> Result<()> {
    let lab = Lab::build_ovs(encap, options, &[1, 1])?;
    until_reached(lab.container(0), lab.container(1));
    fact("Open vSwitch alone: if this fails, the lab is wrong", || operators_sequence(&lab))?;

    let mut pair = Accelerated::start(lab, Ends::First)?;
    fact("the first end is accelerated", || works(&pair))?;

    pair.loaders.push(Loader::start(pair.lab.host(1))?);
    pair.meet(pair.lab.container(0), pair.lab.container(1))?;
    fact("both ends are accelerated", || works(&pair))?;
    fact("both ends are accelerated, an operator's sequence", || {
        let counted = pair.counted(|| operators_sequence(&pair.lab))?;
        assert!(share(&counted) >= 0.99, "{counted:?}");
        Ok(())
    })?;

    ensure!(pair.loaders.remove(0).sigterm()?.success(), "the first daemon");
    fact("the second end is accelerated", || works(&pair))
}

/// What an operator tries on a new tunnel, from the underlay up.
fn operators_sequence(lab: &Lab) -> Result<()> {
    let (one, other) = (lab.container(0), lab.container(1));
    echoes(lab.host(0), lab.host(1).underlay(), 56)?;
    for size in [56, 1600, 3200] {
        echoes(one, other.ipv4(), size)?;
    }
    let second = Duration::from_secs(1);
    let before = counters::link(lab.host(0), "u0")?;
    let tcp = traffic::tcp(one, (other, other.ipv4().into()), 1, second)?;
    let carried = counters::link(lab.host(0), "u0")?.since(before);
    assert!(tcp.bytes > 1_000_000 && carried.tx_bytes > tcp.bytes, "{tcp:?} {carried:?}");
    assert!(carried.tx_bytes / carried.tx_packets > WHOLE_SEGMENTS, "{carried:?}");
    let udp = traffic::udp(other, (one, one.ipv4().into()), 64, second)?;
    assert!(udp.received_per_second > 100.0, "{udp:?}");
    Ok(())
}

/// Everything that ought to work, both ways, and all of it fast that can be.
fn works(pair: &Accelerated) -> Result<()> {
    for (from, to) in pair.ways() {
        from.exec(&["ip", "-6", "neigh", "flush", "dev", "eth0"]);
        let counted = pair.counted(|| {
            for size in [WHOLE_PING, WHOLE_PING + 1, 20_000] {
                echoes(from, to.ipv4(), size)?;
            }
            echoes(from, to.ipv6(), 3200)?;
            contents(from, to)?;
            for group in [[239, 1, 2, 3], [255, 255, 255, 255]].map(Ipv4Addr::from) {
                assert!(traffic::reaches(from, to, group)?, "{group}");
            }
            Ok(())
        })?;
        assert_all_fast(&counted);
        assert!(share(&counted) >= 0.95, "{counted:?}");
        // Two groups, and the neighbour solicitation.
        assert!(count(&counted, "multicast") >= 3 * pair.loaders.len() as u64, "{counted:?}");
    }
    for host in pair.lab.hosts() {
        assert_eq!(counters::checksum_errors(host)?, 0);
        assert_eq!(counters::checksum_errors(host.container(0))?, 0);
    }
    Ok(())
}

/// Sends content of every size, datagrams and TCP, which has to arrive as it was sent.
fn contents(from: &Container, to: &Container) -> Result<()> {
    for (address, bytes) in [(IpAddr::from(to.ipv4()), 2_000_000), (to.ipv6().into(), 500_000)] {
        let flow = Datagrams::open(from, (to, address))?;
        for size in [1, 1402, 1423, 8000] {
            datagrams(&flow, size).with_context(|| format!("to {address}"))?;
        }
        traffic::transfer(from, (to, address), bytes)?;
    }
    Ok(())
}

#[test]
fn gre_with_a_key() -> Result<()> {
    interoperates(Encap::Gre, "options:key=42")
}

#[test]
fn gre_without_a_key() -> Result<()> {
    interoperates(Encap::Gre, "")
}

#[test]
fn vxlan_with_a_key() -> Result<()> {
    interoperates(Encap::Vxlan, "options:key=42")
}

#[test]
fn vxlan_to_another_port() -> Result<()> {
    interoperates(Encap::Vxlan, "options:key=7 options:dst_port=8472")
}
