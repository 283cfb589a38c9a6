//! Every kind of traffic between containers, accelerated on both ends and on one with a plain kernel
//! on the other, both ways.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use ovs_ebpf_tests::lab::{
    counters, patience,
    traffic::{self, Datagrams},
};

use crate::accelerated::{Accelerated, Ends, INTERVAL, assert_fast, count, share};

/// The largest payload of an echo whose packet fits the containers' MTU of 1450.
const WHOLE_PING: u32 = 1450 - 20 - 8;

/// Adds up what every host and container has thrown away for a wrong checksum.
fn checksum_errors(pair: &Accelerated) -> Result<u64> {
    let mut errors = 0;
    for host in pair.lab.hosts() {
        errors += counters::checksum_errors(host)?;
        for container in host.containers() {
            errors += counters::checksum_errors(container)?;
        }
    }
    Ok(errors)
}

#[test]
fn echoes_of_every_size_come_back() -> Result<()> {
    const ECHOES: u32 = 5;
    for ends in Ends::ALL {
        let pair = Accelerated::pair(ends)?;
        let daemons = pair.loaders.len() as u64;
        for (from, to) in pair.ways() {
            for size in [0, 56, 1000, WHOLE_PING, WHOLE_PING + 1, 4000, 20_000, 65_507] {
                let counted = pair.counted(|| {
                    let ping = traffic::ping(from, to.ipv4(), size, ECHOES, INTERVAL)?;
                    assert_eq!(ping.received, ECHOES, "{ends:?}, {size} bytes");
                    Ok(())
                })?;
                // A fragment's payload is a multiple of 8 bytes: 1424.
                let packets =
                    if size <= WHOLE_PING { 1 } else { u64::from(size + 8).div_ceil(1424) };
                // Each packet of request and reply passes one program on each host.
                assert_fast(&counted, 2 * packets * u64::from(ECHOES) * daemons);
            }
        }
        assert_eq!(checksum_errors(&pair)?, 0, "{ends:?}");
    }
    Ok(())
}

#[test]
fn ipv6_finds_its_neighbours_and_is_fast() -> Result<()> {
    for ends in Ends::ALL {
        let pair = Accelerated::pair(ends)?;
        for (from, to) in pair.ways() {
            from.exec(&["ip", "-6", "neigh", "flush", "dev", "eth0"]);
            let counted = pair.counted(|| {
                for size in [56, 1402, 1403, 65_000] {
                    let ping = traffic::ping(from, to.ipv6(), size, 3, INTERVAL)?;
                    assert_eq!(ping.received, 3, "{ends:?}, {size} bytes");
                }
                traffic::transfer(from, (to, to.ipv6().into()), 10_000_000)
            })?;
            // The solicitation goes to a group.
            assert!(count(&counted, "multicast") > 0, "{ends:?}: {counted:?}");
            assert!(share(&counted) >= 0.95, "{ends:?}: {counted:?}");
        }
        assert_eq!(checksum_errors(&pair)?, 0, "{ends:?}");
    }
    Ok(())
}

/// One send of many datagrams that the kernel or the NIC cuts, as QUIC's libraries do it. A veth leaves them
/// whole: the receiver's end gets what is still to be cut.
#[test]
fn datagrams_that_are_cut_late_all_arrive() -> Result<()> {
    const SIZE: usize = 1000;
    const DATAGRAMS: usize = 10;
    for ends in Ends::ALL {
        let pair = Accelerated::pair(ends)?;
        for (from, to) in pair.ways() {
            for address in [IpAddr::from(to.ipv4()), to.ipv6().into()] {
                assert_eq!(traffic::ping(from, address, 56, 3, INTERVAL)?.received, 3);
                let any: SocketAddr = match address {
                    IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let receiver = to.run_in(|| UdpSocket::bind(any))?;
                receiver.set_read_timeout(Some(patience(Duration::from_secs(2))))?;
                let sender = from.run_in(|| UdpSocket::bind(any))?;
                setsockopt(&sender, sockopt::UdpGsoSegment, &i32::try_from(SIZE)?)?;
                let content: Vec<u8> = (0..SIZE * DATAGRAMS).map(|at| (at / 7) as u8).collect();
                sender.send_to(&content, (address, receiver.local_addr()?.port()))?;
                let mut received = Vec::new();
                for at in 0..DATAGRAMS {
                    let mut datagram = [0; 2 * SIZE];
                    let (len, _) = receiver
                        .recv_from(&mut datagram)
                        .with_context(|| format!("{ends:?}, {address}: only {at} datagrams"))?;
                    assert_eq!(len, SIZE, "{ends:?}, {address}");
                    received.extend_from_slice(&datagram[..len]);
                }
                assert!(received == content, "{ends:?}, {address}");
            }
        }
        assert_eq!(checksum_errors(&pair)?, 0, "{ends:?}");
    }
    Ok(())
}

#[test]
fn bulk_tcp_is_fast_and_crosses_the_uplink_in_whole_segments() -> Result<()> {
    let second = Duration::from_secs(1);
    for ends in Ends::ALL {
        let pair = Accelerated::pair(ends)?;
        for (at, (from, to)) in pair.ways().into_iter().enumerate() {
            for flows in [1, 8] {
                let uplink = pair.lab.host(at);
                let before = counters::link(uplink, "u0")?;
                let counted = pair.counted(|| {
                    let tcp = traffic::tcp(from, (to, to.ipv4().into()), flows, second)?;
                    assert!(tcp.bytes > 10_000_000, "{ends:?}, {flows} flows: {tcp:?}");
                    Ok(())
                })?;
                assert!(share(&counted) >= 0.99, "{ends:?}, {flows} flows: {counted:?}");
                let sent = counters::link(uplink, "u0")?.since(before);
                let average = sent.tx_bytes / sent.tx_packets;
                assert!(average > 30_000, "{ends:?}, {flows} flows: {average} bytes, {sent:?}");
            }
        }
        assert_eq!(checksum_errors(&pair)?, 0, "{ends:?}");
    }
    Ok(())
}

#[test]
fn a_hundred_megabytes_arrive_as_they_were_sent() -> Result<()> {
    for ends in Ends::ALL {
        let pair = Accelerated::pair(ends)?;
        for (from, to) in pair.ways() {
            let counted =
                pair.counted(|| traffic::transfer(from, (to, to.ipv4().into()), 100_000_000))?;
            assert!(share(&counted) >= 0.99, "{ends:?}: {counted:?}");
        }
        assert_eq!(checksum_errors(&pair)?, 0, "{ends:?}");
    }
    Ok(())
}

#[test]
fn datagrams_of_every_size_arrive_as_they_were_sent() -> Result<()> {
    const DATAGRAMS: u32 = 200;
    for ends in Ends::ALL {
        let pair = Accelerated::pair(ends)?;
        for (from, to) in pair.ways() {
            let ipv4 = Datagrams::open(from, (to, to.ipv4().into()))?;
            let ipv6 = Datagrams::open(from, (to, to.ipv6().into()))?;
            assert_eq!(ipv6.send(64, 1)?, 1, "{ends:?}: the first, after neighbour discovery");
            for size in [1, 64, 65, 512, 1400, 1422, 1423, 4000, 8000] {
                let counted = pair.counted(|| {
                    assert_eq!(ipv4.send(size, DATAGRAMS)?, DATAGRAMS, "{ends:?}, {size} bytes");
                    assert_eq!(ipv6.send(size, DATAGRAMS)?, DATAGRAMS, "{ends:?}, {size} bytes");
                    Ok(())
                })?;
                assert!(share(&counted) >= 0.99, "{ends:?}, {size} bytes: {counted:?}");
            }
        }
        assert_eq!(checksum_errors(&pair)?, 0, "{ends:?}");
    }
    Ok(())
}

#[test]
fn multicast_and_broadcast_pass_the_bridge() -> Result<()> {
    for ends in Ends::ALL {
        let pair = Accelerated::pair(ends)?;
        for (from, to) in pair.ways() {
            for group in [[239, 1, 2, 3], [10, 0, 0, 255], [255, 255, 255, 255]] {
                let group = Ipv4Addr::from(group);
                let counted = pair.counted(|| {
                    assert!(traffic::reaches(from, to, group)?, "{ends:?}: {group}");
                    Ok(())
                })?;
                assert!(
                    count(&counted, "multicast") >= pair.loaders.len() as u64,
                    "{ends:?}: {group} {counted:?}"
                );
                assert_eq!(count(&counted, "sent") + count(&counted, "received"), 0);
            }
        }
    }
    Ok(())
}
