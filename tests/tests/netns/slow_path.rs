//! What the kernel carries alone: if one of these fails, the lab is wrong, not the fast path.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use ovs_ebpf_tests::lab::{
    Lab, counters,
    traffic::{self, Stream},
    wait_until,
};

const INTERVAL: Duration = Duration::from_millis(10);

#[test]
fn echoes_of_every_size_come_back() -> Result<()> {
    let lab = Lab::pair()?;
    let (one, other) = (lab.container(0), lab.container(1));
    for size in [56, 1422, 1423, 8000, 65_507] {
        assert_eq!(traffic::ping(one, other.ipv4(), size, 3, INTERVAL)?.loss(), 0.0, "{size}");
        assert_eq!(traffic::ping(other, one.ipv6(), size, 3, INTERVAL)?.loss(), 0.0, "{size}");
    }
    Ok(())
}

#[test]
fn tcp_content_arrives_as_it_was_sent() -> Result<()> {
    let lab = Lab::pair()?;
    let (one, other) = (lab.container(0), lab.container(1));
    traffic::transfer(one, (other, other.ipv4().into()), 10_000_001)?;
    traffic::transfer(other, (one, one.ipv6().into()), 10_000_001)?;
    for container in [one, other] {
        assert_eq!(counters::checksum_errors(container)?, 0);
    }
    Ok(())
}

#[test]
fn bulk_tcp_and_udp_are_measured() -> Result<()> {
    let lab = Lab::pair()?;
    let (one, other) = (lab.container(0), lab.container(1));
    let before = counters::link(lab.host(0), "u0")?;
    let second = Duration::from_secs(1);
    let tcp = traffic::tcp(one, (other, other.ipv4().into()), 2, second)?;
    let carried = counters::link(lab.host(0), "u0")?.since(before);
    assert!(carried.tx_bytes > tcp.bytes, "{tcp:?} {carried:?}");
    let udp = traffic::udp(one, (other, other.ipv4().into()), 64, second)?;
    assert!(udp.received_per_second > 1000.0 && udp.sent > udp.lost, "{udp:?}");
    Ok(())
}

#[test]
fn a_stream_accounts_for_its_packets() -> Result<()> {
    let lab = Lab::pair()?;
    let (one, other) = (lab.container(0), lab.container(1));
    let stream = Stream::start(one, (other, other.ipv6().into()))?;
    wait_until(Duration::from_secs(5), "500 packets", || (stream.arrived() >= 500).then_some(()));
    let report = stream.stop()?;
    assert_eq!((report.lost, report.duplicated, report.reordered), (0, 0, 0), "{report:?}");

    let stream = Stream::start(one, (other, other.ipv4().into()))?;
    wait_until(Duration::from_secs(5), "100 packets", || (stream.arrived() >= 100).then_some(()));
    lab.host(1).exec(&["ip", "link", "set", "vxlan0", "down"]);
    let gone = stream.arrived();
    std::thread::sleep(Duration::from_millis(100));
    lab.host(1).exec(&["ip", "link", "set", "vxlan0", "up"]);
    wait_until(Duration::from_secs(5), "the stream again", || {
        (stream.arrived() > gone + 100).then_some(())
    });
    let report = stream.stop()?;
    assert!(report.lost >= 50 && report.longest_gap >= Duration::from_millis(50), "{report:?}");
    Ok(())
}

#[test]
fn multicast_and_broadcast_reach_the_other_host() -> Result<()> {
    let lab = Lab::pair()?;
    let (one, other) = (lab.container(0), lab.container(1));
    for group in [[239, 1, 2, 3], [10, 0, 0, 255], [255, 255, 255, 255]].map(Ipv4Addr::from) {
        assert!(traffic::reaches(one, other, group)?, "{group}");
        assert!(traffic::reaches(other, one, group)?, "{group}");
    }
    lab.host(0).exec(&["ip", "link", "set", "vxlan0", "down"]);
    assert!(!traffic::reaches(one, other, Ipv4Addr::new(10, 0, 0, 255))?);
    Ok(())
}

#[test]
fn three_hosts_reach_one_another() -> Result<()> {
    let mut lab = Lab::build(Default::default(), &[1, 1, 1])?;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let address = lab.container(to).ipv4();
        assert_eq!(traffic::ping(lab.container(from), address, 56, 3, INTERVAL)?.loss(), 0.0);
    }
    lab.move_container(0, 0, 2)?;
    assert!(lab.host(0).containers().is_empty());
    let moved = lab.host(2).container(1);
    assert_eq!(moved.mac(), "02:00:00:00:01:01");
    assert_eq!(traffic::ping(moved, lab.container(1).ipv4(), 56, 3, INTERVAL)?.loss(), 0.0);
    Ok(())
}
