//! What Open vSwitch carries alone: if one of these fails, the lab is wrong, not the fast path.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use ovs_ebpf_tests::lab::{Encap, Lab, counters, traffic, wait_until};

const LIMIT: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(20);

/// What an operator tries first on a new tunnel, from the underlay up.
fn carries(encap: Encap, options: &str) -> Result<()> {
    let lab = Lab::build_ovs(encap, options, &[1, 1])?;
    let (one, other) = (lab.container(0), lab.container(1));
    let echoes = |from, to: Ipv4Addr, size| -> Result<()> {
        let ping = traffic::ping(from, to, size, 3, INTERVAL)?;
        assert_eq!(ping.received, 3, "{encap:?} {options}: {size} bytes to {to}");
        Ok(())
    };
    echoes(lab.host(0), lab.host(1).underlay(), 56)?;
    // Before, Open vSwitch may still be setting the tunnel up.
    wait_until(LIMIT, "the first echo", || {
        let ping = traffic::ping(one, other.ipv4(), 56, 1, INTERVAL);
        ping.is_ok_and(|ping| ping.received == 1).then_some(())
    });
    for size in [56, 1600, 3200] {
        echoes(one, other.ipv4(), size)?;
    }
    let before = counters::link(lab.host(0), "u0")?;
    let second = Duration::from_secs(1);
    let tcp = traffic::tcp(one, (other, other.ipv4().into()), 1, second)?;
    let carried = counters::link(lab.host(0), "u0")?.since(before);
    assert!(tcp.bytes > 1_000_000 && carried.tx_bytes > tcp.bytes, "{tcp:?} {carried:?}");
    let udp = traffic::udp(other, (one, one.ipv4().into()), 64, second)?;
    assert!(udp.received_per_second > 100.0, "{udp:?}");
    for container in [one, other] {
        assert_eq!(counters::checksum_errors(container)?, 0);
    }
    Ok(())
}

#[test]
fn gre_with_a_key() -> Result<()> {
    carries(Encap::Gre, "options:key=42")
}

#[test]
fn gre_without_a_key() -> Result<()> {
    carries(Encap::Gre, "")
}

#[test]
fn vxlan_with_a_key() -> Result<()> {
    carries(Encap::Vxlan, "options:key=42")
}

#[test]
fn vxlan_to_another_port() -> Result<()> {
    carries(Encap::Vxlan, "options:key=7 options:dst_port=8472")
}
