//! Linux bridges with gretap ports, accelerated: against the fast path and against a plain kernel.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, Ends, LIMIT, is_fast, share},
    lab::{
        Capture, Encap, Lab, counters,
        traffic::{self, Datagrams},
        wait_until,
    },
};

use crate::support::{datagrams, echoes};

/// Outer Ethernet and IPv4 headers.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// GRE with a key.
const GRE: usize = 8;
const GRE_PROTOCOL: u8 = 47;

/// Two hosts whose tunnels have these options of `ip link add … type gretap`.
fn tunnels(options: &str) -> Result<Lab> {
    let lab = Lab::build(Encap::Gre, &[1, 1])?;
    for (host, other) in [(0, 1), (1, 0)] {
        let (local, remote) = (lab.host(host).underlay(), lab.host(other).underlay());
        let device = format!("gre-{}", other + 1);
        lab.host(host).ip(&format!(
            "link del {device}\n\
             link add {device} type gretap local {local} remote {remote} {options}\n\
             link set {device} master br-ex up\n"
        ))?;
    }
    Ok(lab)
}

/// Everything that containers send one another arrives, both ways, and nearly all of it fast.
fn works(options: &str, ends: Ends) -> Result<()> {
    let what = format!("{options}, {ends:?}");
    let pair = Accelerated::start(tunnels(options)?, ends)?;
    for (from, to) in pair.ways() {
        let counted = pair.counted(|| {
            for size in [56, 1422, 1423, 9000] {
                echoes(from, to.ipv4(), size).context(what.clone())?;
            }
            traffic::transfer(from, (to, to.ipv4().into()), 5_000_000)?;
            traffic::transfer(from, (to, to.ipv6().into()), 2_000_000)?;
            let flow = Datagrams::open(from, (to, to.ipv4().into()))?;
            for size in [1, 64, 1422, 4000] {
                datagrams(&flow, size).context(what.clone())?;
            }
            Ok(())
        })?;
        assert!(share(&counted) >= 0.9, "{what}: {counted:?}");
        for group in [[239, 1, 2, 3], [10, 0, 0, 255]].map(Ipv4Addr::from) {
            assert!(traffic::reaches(from, to, group)?, "{what}: {group}");
        }
    }
    for host in pair.lab.hosts() {
        assert_eq!(counters::checksum_errors(host)?, 0, "{what}");
        assert_eq!(counters::checksum_errors(host.container(0))?, 0, "{what}");
    }
    Ok(())
}

#[test]
fn traffic_of_every_kind_is_fast_on_both_ends() -> Result<()> {
    works("key 42", Ends::Both)
}

#[test]
fn a_plain_kernel_is_an_ordinary_peer() -> Result<()> {
    works("ikey 7 okey 7 ttl 9 tos inherit", Ends::First)
}

#[test]
fn a_tunnel_needs_no_key() -> Result<()> {
    works("", Ends::Both)
}

#[test]
fn bulk_tcp_crosses_the_uplink_in_whole_segments() -> Result<()> {
    let pair = Accelerated::start(tunnels("key 42")?, Ends::Both)?;
    let (from, to) = pair.ways()[0];
    let before = counters::link(pair.lab.host(0), "u0")?;
    let counted = pair.counted(|| {
        traffic::tcp(from, (to, to.ipv4().into()), 1, Duration::from_secs(1)).map(|_| ())
    })?;
    assert!(share(&counted) >= 0.99, "{counted:?}");
    let sent = counters::link(pair.lab.host(0), "u0")?.since(before);
    assert!(sent.tx_bytes / sent.tx_packets > 10_000, "{sent:?}");
    Ok(())
}

/// What differs from packet to packet set to zero: identification and checksum of each IPv4 header.
fn comparable(mut frame: Vec<u8>) -> Vec<u8> {
    for header in [ETHERNET, ETHERNET + IPV4 + GRE + ETHERNET] {
        for field in [4, 10] {
            frame[header + field..][..2].fill(0);
        }
    }
    frame
}

#[test]
fn outer_headers_are_the_kernels() -> Result<()> {
    const PAYLOAD: usize = 301;
    let length = ETHERNET + IPV4 + GRE + ETHERNET + IPV4 + 8 + PAYLOAD;
    let pair = Accelerated::start(tunnels("key 42 ttl 9 tos 0x40")?, Ends::Both)?;
    let (from, to) = pair.ways()[0];
    let flow = Datagrams::open(from, (to, to.ipv4().into()))?;
    let mut capture = Capture::start(pair.lab.host(0), "u0")?;
    let mut on_the_wire = || -> Result<Vec<u8>> {
        assert_eq!(flow.send(PAYLOAD, 1)?, 1);
        let frame =
            capture.next(|frame| frame.len() == length && frame[ETHERNET + 9] == GRE_PROTOCOL)?;
        Ok(comparable(frame))
    };
    let mut frames = Vec::new();
    for on in [false, true] {
        for loader in &pair.loaders {
            loader.accelerate("br-ex", on)?;
            wait_until(LIMIT, "the switch", || {
                (is_fast(loader, to.mac()) == on && is_fast(loader, from.mac()) == on).then_some(())
            });
        }
        // The first may pass the bridge to prove the station.
        on_the_wire()?;
        let counted = pair.counted(|| {
            frames.push(on_the_wire()?);
            Ok(())
        })?;
        let fast = counted.get("sent").copied().unwrap_or(0);
        assert_eq!(fast, u64::from(on), "{counted:?}");
    }
    assert_eq!(frames[0], frames[1]);
    assert_eq!(frames[1][ETHERNET + IPV4..][..GRE], [0x20, 0, 0x65, 0x58, 0, 0, 0, 42]);
    Ok(())
}
