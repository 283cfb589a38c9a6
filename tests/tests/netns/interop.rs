//! Tunnels with options of their own, and the bytes on the wire: the fast path's are the kernel's.

use std::{net::IpAddr, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use ovs_ebpf_tests::lab::{
    Capture, Lab, counters,
    traffic::{self, Datagrams},
    wait_until,
};

pub(crate) use ovs_ebpf_tests::wire::{ETHERNET, OUTER, on_the_wire};
use ovs_ebpf_tests::wire::{IPV4, comparable};

use crate::accelerated::{Accelerated, Ends, INTERVAL, LIMIT, count, is_fast, share};

const DONT_FRAGMENT: u8 = 0x40;
const TCP: u8 = 6;
/// A full frame on the underlay.
const FULL: usize = ETHERNET + 1500;

/// Replaces the vxlan port of both hosts: `first` and `second` are options for `ip link add … type
/// vxlan`, without the addresses.
pub(crate) fn tunnels(first: &str, second: &str) -> Result<Lab> {
    let lab = Lab::pair()?;
    for (host, other, options) in [(0, 1, first), (1, 0, second)] {
        let (local, remote) = (lab.host(host).underlay(), lab.host(other).underlay());
        lab.host(host).ip(&format!(
            "link del vxlan0\nlink add vxlan0 type vxlan local {local} remote {remote} {options}\n\
             link set vxlan0 master br-ex up\n"
        ))?;
    }
    Ok(lab)
}

/// Everything that ought to work over a tunnel, both ways, and nearly all of it fast.
pub(crate) fn works(pair: &Accelerated, what: &str) -> Result<()> {
    // Over IPv6 what reaches a host before its tunnel is made counts as one.
    let before = checksum_errors(pair)?;
    for (from, to) in pair.ways() {
        let counted = pair.counted(|| {
            for size in [56, 1422, 9000] {
                let ping = traffic::ping(from, to.ipv4(), size, 3, INTERVAL)?;
                assert_eq!(ping.received, 3, "{what}: {size} bytes");
            }
            traffic::transfer(from, (to, to.ipv4().into()), 20_000_000).context(what.to_owned())?;
            traffic::transfer(from, (to, to.ipv6().into()), 5_000_000).context(what.to_owned())
        })?;
        assert!(share(&counted) >= 0.95, "{what}: {counted:?}");
    }
    assert_eq!(checksum_errors(pair)?, before, "{what}");
    Ok(())
}

/// What hosts and containers have thrown away for a wrong checksum, each.
fn checksum_errors(pair: &Accelerated) -> Result<Vec<u64>> {
    let hosts = pair.lab.hosts().iter();
    hosts
        .flat_map(|host| {
            [counters::checksum_errors(host), counters::checksum_errors(host.container(0))]
        })
        .collect()
}

/// One's complement sum over a header with a right checksum is all ones.
fn header_sum(header: &[u8]) -> u16 {
    let words =
        header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

/// Switches both hosts' bridges and waits until the stations are fast, or not.
pub(crate) fn accelerate(pair: &Accelerated, on: bool) -> Result<()> {
    for loader in &pair.loaders {
        loader.accelerate("br-ex", on)?;
        wait_until(LIMIT, "the switch", || {
            let fast = [0, 1].map(|host| is_fast(loader, pair.lab.container(host).mac()));
            (fast == [on; 2]).then_some(())
        });
    }
    Ok(())
}

/// The same datagram of one socket, over IPv4 and over IPv6.
struct Both {
    slow: Vec<u8>,
    fast: Vec<u8>,
}

/// Asserts that the fast path's bytes are the slow path's, and gives them.
fn compare(options: &str, tos: i32, size: usize) -> Result<Vec<Vec<u8>>> {
    let equal = |Both { slow, fast }| {
        assert_eq!(comparable(&slow), comparable(&fast), "{options}, TOS {tos}");
        fast
    };
    Ok(capture(options, tos, size)?.into_iter().map(equal).collect())
}

/// Captures datagrams on the slow path and on the fast path.
fn capture(options: &str, tos: i32, size: usize) -> Result<Vec<Both>> {
    let pair = Accelerated::start(tunnels(options, options)?, Ends::Both)?;
    let (from, to) = (pair.lab.container(0), pair.lab.container(1));
    let mut captured = Vec::new();
    for address in [IpAddr::from(to.ipv4()), IpAddr::from(to.ipv6())] {
        let flow = Datagrams::open(from, (to, address))?;
        match address {
            IpAddr::V4(_) => setsockopt(&flow.sender().as_fd(), sockopt::Ipv4Tos, &tos)?,
            IpAddr::V6(_) => setsockopt(&flow.sender().as_fd(), sockopt::Ipv6TClass, &tos)?,
        }
        assert_eq!(flow.send(size, 1)?, 1);
        let mut capture = Capture::start(pair.lab.host(1), "u0")?;
        accelerate(&pair, false)?;
        let slow = on_the_wire(&mut capture, &flow, size)?;
        accelerate(&pair, true)?;
        // The first may pass the bridge to prove the station.
        on_the_wire(&mut capture, &flow, size)?;
        let mut fast = Vec::new();
        let counted = pair.counted(|| {
            fast = on_the_wire(&mut capture, &flow, size)?;
            Ok(())
        })?;
        assert_eq!((count(&counted, "sent"), count(&counted, "received")), (1, 1), "{counted:?}");

        for frame in [&slow, &fast] {
            assert_eq!(header_sum(&frame[ETHERNET..ETHERNET + IPV4]), 0xffff, "{options}");
        }
        captured.push(Both { slow, fast });
    }
    Ok(captured)
}

#[test]
fn outer_headers_are_the_kernels() -> Result<()> {
    for frame in compare("id 42 dstport 4789", 0, 100)? {
        assert_eq!(frame[ETHERNET + 1], 0);
        assert_eq!(frame[ETHERNET + 8], 64);
        assert_eq!(frame[ETHERNET + 6] & DONT_FRAGMENT, 0);
        assert_eq!(frame[ETHERNET + IPV4 + 2..][..2], 4789_u16.to_be_bytes());
        assert_eq!(frame[OUTER - 8..OUTER], [8, 0, 0, 0, 0, 0, 42, 0]);
    }
    Ok(())
}

#[test]
fn outer_headers_follow_the_tunnels_options() -> Result<()> {
    let options = "id 16777215 dstport 8472 ttl 9 tos inherit df set srcport 20000 20008";
    // DSCP EF with ECT(0).
    for frame in compare(options, 0xb8 | 2, 1000)? {
        assert_eq!(frame[ETHERNET + 1], 0xb8 | 2);
        assert_eq!(frame[ETHERNET + 8], 9);
        assert_eq!(frame[ETHERNET + 6] & DONT_FRAGMENT, DONT_FRAGMENT);
        let port = u16::from_be_bytes([frame[ETHERNET + IPV4], frame[ETHERNET + IPV4 + 1]]);
        assert!((20_000..20_008).contains(&port), "{port}");
        assert_eq!(frame[ETHERNET + IPV4 + 2..][..2], 8472_u16.to_be_bytes());
        assert_eq!(frame[OUTER - 8..OUTER], [8, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
    }
    // Without `tos inherit` the inner ECN alone goes outside.
    for ecn in [1, 2] {
        for frame in compare("id 7 dstport 4789 tos 0x40 ttl inherit", 0x20 | ecn, 1)? {
            assert_eq!(i32::from(frame[ETHERNET + 1]), 0x40 | ecn);
            assert_eq!(frame[ETHERNET + 8], 64);
        }
    }
    Ok(())
}

/// The one byte in which the fast path differs: it sends CE as CE (RFC 6040, section 4.1), the kernel
/// as ECT(0) (RFC 3168, section 9.1.1). Inside it is CE behind either.
#[test]
fn congestion_marked_inside_is_marked_outside() -> Result<()> {
    for Both { mut slow, fast } in capture("id 7 dstport 4789 tos 0x40", 3, 1)? {
        assert_eq!((slow[ETHERNET + 1], fast[ETHERNET + 1]), (0x40 | 2, 0x40 | 3));
        slow[ETHERNET + 1] = fast[ETHERNET + 1];
        assert_eq!(comparable(&slow), comparable(&fast));
    }
    Ok(())
}

#[test]
fn every_tunnel_option_works_on_both_ends_and_against_a_kernel() -> Result<()> {
    for options in [
        "id 1 dstport 8472 df set",
        "id 16777215 dstport 4789 ttl 9 tos inherit",
        "id 5 dstport 4790 ttl inherit",
    ] {
        for ends in Ends::ALL {
            let pair = Accelerated::start(tunnels(options, options)?, ends)?;
            works(&pair, &format!("{ends:?}: {options}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_peer_with_or_without_outer_checksums_is_understood() -> Result<()> {
    let (with, without) = ("id 42 dstport 4789 udpcsum", "id 42 dstport 4789 noudpcsum");
    for (first, second) in [(without, with), (with, without), (with, with)] {
        for ends in [Ends::Both, Ends::First] {
            let pair = Accelerated::start(tunnels(first, second)?, ends)?;
            works(&pair, &format!("{ends:?}: {first}, {second}"))?;
        }
    }
    Ok(())
}

/// On a veth checksums are neither made nor looked at: offloads off, the kernel cuts every segment
/// behind our headers, fills in what is left, and verifies it at the other end. With GRO there, it
/// notes what is verified, which the fast path has to hand on.
#[test]
fn checksums_are_right_where_no_device_makes_them() -> Result<()> {
    for (options, gro) in [("noudpcsum", "off"), ("noudpcsum", "on"), ("udpcsum", "on")] {
        let tunnel = format!("id 42 dstport 4789 {options}");
        for ends in Ends::ALL {
            let lab = tunnels(&tunnel, &tunnel)?;
            for host in lab.hosts() {
                let off = ["tx", "off", "tso", "off", "gso", "off", "gro", gro];
                host.exec(&[&["ethtool", "-K", "u0"], &off[..]].concat());
            }
            let pair = Accelerated::start(lab, ends)?;
            let what = format!("{ends:?}, {options}, GRO {gro}");
            let mut capture = Capture::start(pair.lab.host(0), "u0")?;
            works(&pair, &what)?;
            // The segments are as long as the sender wanted them.
            let large = |frame: &[u8]| {
                frame[OUTER + ETHERNET + 9] == TCP && (1400..=FULL).contains(&frame.len())
            };
            for _ in 0..100 {
                assert_eq!(
                    capture.next(|frame| frame.len() > OUTER + 64 && large(frame))?.len(),
                    FULL
                );
            }
            for host in pair.lab.hosts() {
                let carried = counters::link(host, "u0")?;
                assert!(carried.tx_bytes / carried.tx_packets < 1515, "{what}: {carried:?}");
            }
        }
    }
    Ok(())
}
