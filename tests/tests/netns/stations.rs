//! Stations that come, move and go, and who reaches whom.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::lab::{
    Capture, Container, Encap, Lab, Loader, counters,
    traffic::{self, Datagrams},
    wait_until,
};

use crate::accelerated::{Accelerated, Ends, INTERVAL, LIMIT, assert_fast, count, is_fast, share};
use crate::support::{in_map, mac};

/// How long a station may take to be reachable, or fast.
const SECOND: Duration = Duration::from_secs(1);

fn echo(from: &Container, to: Ipv4Addr) -> bool {
    traffic::ping(from, to, 56, 1, INTERVAL).is_ok_and(|ping| ping.received == 1)
}

/// Waits until a container's link is up.
fn until_up(container: &Container) {
    wait_until(LIMIT, "the link", || {
        container.exec(&["ip", "link", "show", "dev", "eth0"]).contains("state UP").then_some(())
    });
}

/// Asserts that echoes, sent for 200 ms from now on, come back but for the first few.
fn reaches(from: &Container, to: Ipv4Addr) -> Result<()> {
    let ping = traffic::ping(from, to, 56, 20, INTERVAL)?;
    assert!(ping.received >= 15, "{to} from {}: {ping:?}", from.name());
    Ok(())
}

/// Whether the pinned map itself has the station, whatever the daemon says of it.
fn is_in_map(loader: &Loader, mac: &str) -> Result<bool> {
    Ok(in_map(loader, mac)?.is_some())
}

#[test]
fn a_new_container_is_fast_within_a_second_of_its_first_reply() -> Result<()> {
    for ends in Ends::ALL {
        let mut pair = Accelerated::pair(ends)?;
        for host in [0, 1] {
            pair.lab.host_mut(host).add_container()?;
            let (new, old) = (pair.lab.host(host).container(1), pair.lab.container(1 - host));
            // Not yet reached while its devices come up.
            wait_until(LIMIT, "the first reply", || echo(old, new.ipv4()).then_some(()));
            for loader in &pair.loaders {
                wait_until(SECOND, "fast", || is_fast(loader, new.mac()).then_some(()));
                assert!(is_in_map(loader, new.mac())?);
            }
            let counted = pair.counted(|| {
                let ping = traffic::ping(old, new.ipv4(), 56, 20, INTERVAL)?;
                assert_eq!(ping.received, 20);
                Ok(())
            })?;
            assert_fast(&counted, 40 * pair.loaders.len() as u64);
        }
    }
    Ok(())
}

#[test]
fn a_removed_container_leaves_the_maps() -> Result<()> {
    let mut pair = Accelerated::pair(Ends::Both)?;
    pair.lab.host_mut(1).add_container()?;
    pair.meet(pair.lab.container(0), pair.lab.host(1).container(1))?;
    let gone = pair.lab.host(1).container(1).mac().to_owned();
    pair.lab.host_mut(1).remove_container(1)?;
    let on_its_host = &pair.loaders[1];
    wait_until(SECOND, "gone", || {
        (!is_fast(on_its_host, &gone) && !is_in_map(on_its_host, &gone).ok()?).then_some(())
    });
    let fdb = on_its_host.fdb()?.to_string();
    assert!(!fdb.contains(&gone), "{fdb}");
    // The other host's bridge forgets it as it ages, or when it is told to.
    pair.lab.host(0).exec(&["bridge", "fdb", "del", &gone, "dev", "vxlan0", "master"]);
    wait_until(SECOND, "gone from the other host", || {
        (!is_in_map(&pair.loaders[0], &gone).ok()?).then_some(())
    });
    // Its neighbour is none the worse.
    let (one, other) = (pair.lab.container(0), pair.lab.container(1));
    let counted = pair.counted(|| {
        assert_eq!(traffic::ping(one, other.ipv4(), 56, 10, INTERVAL)?.received, 10);
        Ok(())
    });
    assert_fast(&counted?, 40);
    Ok(())
}

#[test]
fn a_container_that_moves_is_reached_within_a_second_of_its_first_frame() -> Result<()> {
    for ends in Ends::ALL {
        let lab = Lab::build(Encap::Vxlan, &[2, 1])?;
        let mut pair = Accelerated::start(lab, ends)?;
        pair.meet(pair.lab.host(0).container(1), pair.lab.container(1))?;
        pair.meet(pair.lab.host(0).container(1), pair.lab.container(0))?;
        // Away from the first host, and back: the other two keep talking to it.
        for (from, index, to) in [(0, 1, 1), (1, 1, 0)] {
            pair.lab.move_container(from, index, to)?;
            let moved = pair.lab.host(to).containers().last().expect("it moved here");
            let (near, far) = (pair.lab.container(to), pair.lab.container(from));
            until_up(moved);
            reaches(moved, far.ipv4())?;
            reaches(far, moved.ipv4())?;
            reaches(near, moved.ipv4())?;
            pair.until_fast(&[moved.mac()])?;
            let counted = pair.counted(|| {
                assert_eq!(traffic::ping(far, moved.ipv4(), 56, 20, INTERVAL)?.received, 20);
                assert_eq!(traffic::ping(near, moved.ipv4(), 56, 20, INTERVAL)?.received, 20);
                Ok(())
            })?;
            // Between hosts on both, on one host on its own daemon alone.
            let local =
                if ends == Ends::Both || (ends == Ends::First) == (to == 0) { 40 } else { 0 };
            assert_fast(&counted, 40 * pair.loaders.len() as u64 + local);
            traffic::transfer(far, (moved, moved.ipv4().into()), 5_000_000)?;
        }
    }
    Ok(())
}

#[test]
fn three_hosts_are_a_full_mesh() -> Result<()> {
    let mut mesh = Accelerated::start_on(Lab::build(Encap::Vxlan, &[1, 1, 1])?, &[0, 1, 2])?;
    mesh.meet_all(&[0, 1, 2].map(|host| mesh.lab.container(host)))?;
    for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
        let (from, to) = (mesh.lab.container(from), mesh.lab.container(to));
        let counted = mesh.counted(|| {
            assert_eq!(traffic::ping(from, to.ipv4(), 56, 10, INTERVAL)?.received, 10);
            Ok(())
        })?;
        assert_fast(&counted, 40);
        let counted =
            mesh.counted(|| traffic::transfer(from, (to, to.ipv4().into()), 5_000_000))?;
        assert!(share(&counted) >= 0.95, "{counted:?}");
    }

    // One moves: the third learns of it from the second instead of the first.
    mesh.lab.move_container(0, 0, 1)?;
    let moved = mesh.lab.host(1).container(1);
    until_up(moved);
    let third = mesh.lab.container(2);
    reaches(moved, third.ipv4())?;
    reaches(third, moved.ipv4())?;
    wait_until(LIMIT, "fast again", || {
        (is_fast(&mesh.loaders[1], moved.mac()) && is_fast(&mesh.loaders[2], moved.mac()))
            .then_some(())
    });
    let counted = mesh.counted(|| {
        assert_eq!(traffic::ping(third, moved.ipv4(), 56, 10, INTERVAL)?.received, 10);
        Ok(())
    })?;
    assert_fast(&counted, 40);
    Ok(())
}

/// An echo reply that nobody asked for, to which nobody replies.
fn frame(to: &Container, from: &Container) -> Result<Vec<u8>> {
    let mut ip = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0].to_vec();
    ip.extend([from.ipv4().octets(), to.ipv4().octets()].concat());
    // Bridge netfilter drops what has a wrong one.
    let words = ip.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).context("folded once")?;
    ip[10..12].copy_from_slice(&(!folded).to_be_bytes());
    let icmp = [0, 0, 0xff, 0xff, 0, 0, 0, 0];
    Ok([&mac(to.mac())?[..], &mac(from.mac())?, &[8, 0], &ip, &icmp].concat())
}

/// Without any word to all: the bridges learn it from a unicast frame that the fast path leaves alone.
#[test]
fn a_mac_that_speaks_from_elsewhere_is_learned_there() -> Result<()> {
    let mesh = Accelerated::start_on(Lab::build(Encap::Vxlan, &[1, 1, 1])?, &[0, 1, 2])?;
    let [one, two, three] = [0, 1, 2].map(|host| mesh.lab.container(host));
    // Whose multicasts would tell all where it really is.
    one.exec(&["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"]);
    mesh.meet_all(&[one, two, three])?;
    // It moves on the new host's port and on the third's uplink; the old host hears nothing, so that
    // on the way back its port finds all as it was.
    for (speaker, host, moved, sent) in [(two, 1, 2, 0), (one, 0, 1, 1)] {
        let mut socket = Capture::start(speaker, "eth0")?;
        let counted = mesh.counted(|| socket.send(&frame(three, one)?))?;
        let remote = mesh.lab.host(host).underlay().to_string();
        let third = &mesh.loaders[2];
        wait_until(SECOND, &format!("{} behind {remote}", one.mac()), || {
            let fdb = third.fdb().ok()?;
            let entry =
                fdb["entries"].as_array()?.iter().find(|entry| entry["mac"] == one.mac())?;
            (entry["remote"] == remote && entry["accelerated"] == true).then_some(())
        });
        let fast = (count(&counted, "sent"), count(&counted, "received"));
        assert_eq!((count(&counted, "source_moved"), fast), (moved, (sent, 0)), "{counted:?}");
        mesh.until_fast(&[one.mac()])?;
    }
    assert!(echo(three, one.ipv4()), "it is back");
    Ok(())
}

#[test]
fn containers_on_one_host_are_switched_fast() -> Result<()> {
    let local = Accelerated::start_on(Lab::build(Encap::Vxlan, &[2, 1])?, &[0])?;
    let (one, other) = (local.lab.host(0).container(0), local.lab.host(0).container(1));
    local.meet(one, other)?;
    let before = counters::link(local.lab.host(0), "u0")?;
    let ipv4 = Datagrams::open(one, (other, other.ipv4().into()))?;
    let ipv6 = Datagrams::open(one, (other, other.ipv6().into()))?;
    assert_eq!(ipv6.send(64, 1)?, 1);
    let counted = local.counted(|| {
        for size in [1, 1422, 1423, 8000] {
            assert_eq!((ipv4.send(size, 100)?, ipv6.send(size, 100)?), (100, 100), "{size} bytes");
        }
        traffic::transfer(one, (other, other.ipv4().into()), 50_000_000)?;
        traffic::transfer(other, (one, one.ipv6().into()), 50_000_000)
    })?;
    assert!(share(&counted) >= 0.99, "{counted:?}");
    assert_eq!(count(&counted, "received"), 0, "nothing came by the uplink: {counted:?}");
    // 64 KB segments stay whole: 100 MB are fewer packets than segments of the MTU would be.
    assert!(count(&counted, "sent") < 100_000_000 / 1450, "{counted:?}");
    let leaked = counters::link(local.lab.host(0), "u0")?.since(before);
    assert!(leaked.tx_bytes < 100_000, "{leaked:?}");
    for container in [one, other] {
        assert_eq!(counters::checksum_errors(container)?, 0);
    }
    Ok(())
}

/// As the kernel's bridge has it (`is_skb_forwardable`).
#[test]
fn a_smaller_port_on_the_same_host_gets_nothing_larger() -> Result<()> {
    const DATAGRAMS: u32 = 8;
    let local = Accelerated::start_on(Lab::build(Encap::Vxlan, &[2, 1])?, &[0])?;
    let (one, other) = (local.lab.host(0).container(0), local.lab.host(0).container(1));
    local.meet(one, other)?;
    local.lab.host(0).ip(&format!("link set {} mtu 1300\n", other.port()))?;
    let datagrams = Datagrams::open(one, (other, other.ipv4().into()))?;
    wait_until(LIMIT, "the new MTU", || {
        let counted = local.counted(|| datagrams.send(1300 - 27, 1).map(|_| ())).ok()?;
        (count(&counted, "too_big") == 1).then_some(())
    });
    let fits = local.counted(|| {
        assert_eq!(datagrams.send(1300 - 28, DATAGRAMS)?, DATAGRAMS);
        Ok(())
    })?;
    assert_fast(&fits, u64::from(DATAGRAMS));
    let too_big = local.counted(|| {
        assert_eq!(datagrams.send(1300 - 27, DATAGRAMS)?, 0);
        Ok(())
    })?;
    assert_eq!(count(&too_big, "too_big"), u64::from(DATAGRAMS), "{too_big:?}");
    Ok(())
}

/// Moves the second container of a host to a bridge and tunnel of its own, with the first one's MAC
/// and addresses.
fn double(lab: &Lab, host: usize) -> Result<()> {
    let (host, other) = (lab.host(host), lab.host(1 - host));
    let (first, second) = (host.container(0), host.container(1));
    let (local, remote, port) = (host.underlay(), other.underlay(), second.port());
    host.ip(&format!(
        "link add br-two up type bridge\n\
         link add vxlan1 type vxlan id 43 local {local} remote {remote} dstport 4789\n\
         link set vxlan1 master br-two up\nlink set {port} nomaster\nlink set {port} master br-two\n"
    ))?;
    second.ip("link set eth0 down\n")?;
    second.ip(&format!(
        "addr flush dev eth0\nlink set eth0 address {}\naddr add {}/24 brd + dev eth0\n\
         addr add {}/64 dev eth0 nodad\nlink set eth0 up\n",
        first.mac(),
        first.ipv4(),
        first.ipv6()
    ))
}

#[test]
fn bridges_with_the_same_stations_stay_apart() -> Result<()> {
    const DATAGRAMS: u32 = 300;
    let lab = Lab::build(Encap::Vxlan, &[2, 2])?;
    double(&lab, 0)?;
    double(&lab, 1)?;
    let pair = Accelerated::start_on(lab, &[0, 1])?;
    let stations = |container: usize| [0, 1].map(|host| pair.lab.host(host).container(container));
    let address = pair.lab.container(1).ipv4();
    for container in [0, 1] {
        wait_until(LIMIT, "the first echo", || echo(stations(container)[0], address).then_some(()));
    }
    let macs = [0, 1].map(|host| pair.lab.container(host).mac());
    for loader in &pair.loaders {
        wait_until(LIMIT, "both bridges are fast", || {
            let fdb = loader.fdb().ok()?;
            let entries = fdb["entries"].as_array()?;
            let fast = |bridge: &str, mac: &str| {
                entries.iter().any(|entry| {
                    entry["bridge"] == bridge && entry["mac"] == mac && entry["accelerated"] == true
                })
            };
            let all =
                ["br-ex", "br-two"].iter().all(|bridge| macs.iter().all(|mac| fast(bridge, mac)));
            all.then_some(())
        });
    }
    // What one of them gets, the other does not.
    for container in [0, 1] {
        let ([from, to], [_, twin]) = (stations(container), stations(1 - container));
        let before = counters::link(twin, "eth0")?;
        let datagrams = Datagrams::open(from, (to, address.into()))?;
        let counted = pair.counted(|| {
            assert_eq!(datagrams.send(1000, DATAGRAMS)?, DATAGRAMS);
            Ok(())
        })?;
        assert!(share(&counted) >= 0.98, "{counted:?}");
        assert!(count(&counted, "received") >= u64::from(DATAGRAMS) - 2, "{counted:?}");
        let strayed = counters::link(twin, "eth0")?.since(before);
        assert!(strayed.rx_bytes < 5_000, "{strayed:?}");
        traffic::transfer(to, (from, pair.lab.container(0).ipv4().into()), 5_000_000)?;
    }
    Ok(())
}
