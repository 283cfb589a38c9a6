//! VXLAN over IPv6 against the kernel's own: traffic, options, sizes, next hops, and the bytes on the
//! wire.

use std::net::IpAddr;
use std::os::fd::AsFd as _;

use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt};
use ovs_ebpf_tests::lab::{Capture, Encap, Lab, traffic::Datagrams, wait_until};

use crate::accelerated::{Accelerated, Ends, LIMIT, count};
use crate::interop::{ETHERNET, accelerate, works};
use crate::support::ovs_loader;

const IPV6: usize = 40;
/// Outer Ethernet, IPv6, UDP and VXLAN.
pub(crate) const OUTER: usize = ETHERNET + IPV6 + 8 + 8;
/// What the underlay's 1500 bytes leave of it for a container's packet.
pub(crate) const MTU: u32 = 1430;
/// Without UDP checksums, as the fast path needs it.
pub(crate) const PLAIN: &str = "id 42 dstport 4789 udp6zerocsumtx udp6zerocsumrx";

/// Gives the first two hosts of a lab addresses, and a tunnel between these instead of what they had.
pub(crate) fn move_to_ipv6(lab: &Lab, options: &str) -> Result<()> {
    let addresses = ["2001:db8::1", "2001:db8::2"];
    for (host, address) in addresses.iter().enumerate() {
        lab.host(host).ip(&format!("addr add {address}/64 dev u0 nodad\n"))?;
    }
    join(lab, addresses, options)
}

/// Makes the tunnel anew between these addresses of the first two hosts.
fn join(lab: &Lab, addresses: [&str; 2], options: &str) -> Result<()> {
    for host in [0, 1] {
        let (local, remote) = (addresses[host], addresses[1 - host]);
        let port = lab.host(host).container(0).port();
        lab.host(host).ip(&format!(
            "link del vxlan0\n\
             link add vxlan0 type vxlan local {local} remote {remote} {options}\n\
             link set vxlan0 master br-ex up\nlink set {port} mtu {MTU}\n"
        ))?;
        lab.host(host).container(0).ip(&format!("link set eth0 mtu {MTU}\n"))?;
    }
    Ok(())
}

fn pair(options: &str, ends: Ends) -> Result<Accelerated> {
    let lab = Lab::build(Encap::Vxlan, &[1, 1])?;
    move_to_ipv6(&lab, options)?;
    Accelerated::start(lab, ends)
}

#[test]
fn every_option_works_over_ipv6_on_both_ends_and_against_a_kernel() -> Result<()> {
    for options in [
        PLAIN.to_owned(),
        format!("{PLAIN} ttl 9 tos inherit flowlabel 0x12345"),
        "id 16777215 dstport 8472 ttl inherit udp6zerocsumtx udp6zerocsumrx".to_owned(),
    ] {
        for ends in Ends::ALL {
            works(&pair(&options, ends)?, &format!("{ends:?}: {options}"))?;
        }
    }
    Ok(())
}

/// The same datagram of one socket on the slow path and on the fast path, for a container's IPv4 and
/// IPv6.
fn captured(options: &str, tos: i32) -> Result<Vec<[Vec<u8>; 2]>> {
    let pair = pair(options, Ends::Both)?;
    let (from, to) = (pair.lab.container(0), pair.lab.container(1));
    let mut captured = Vec::new();
    for address in [IpAddr::from(to.ipv4()), IpAddr::from(to.ipv6())] {
        let flow = Datagrams::open(from, (to, address))?;
        match address {
            IpAddr::V4(_) => setsockopt(&flow.sender().as_fd(), sockopt::Ipv4Tos, &tos)?,
            IpAddr::V6(_) => setsockopt(&flow.sender().as_fd(), sockopt::Ipv6TClass, &tos)?,
        }
        assert_eq!(flow.send(100, 1)?, 1);
        let mut capture = Capture::start(pair.lab.host(1), "u0")?;
        accelerate(&pair, false)?;
        let slow = on_the_wire(&mut capture, &flow)?;
        accelerate(&pair, true)?;
        // The first may pass the bridge to prove the station.
        on_the_wire(&mut capture, &flow)?;
        let mut fast = Vec::new();
        let counted = pair.counted(|| {
            fast = on_the_wire(&mut capture, &flow)?;
            Ok(())
        })?;
        assert_eq!((count(&counted, "sent"), count(&counted, "received")), (1, 1), "{counted:?}");
        captured.push([slow, fast]);
    }
    Ok(captured)
}

/// A datagram as it crosses the underlay, told by its inner destination port.
pub(crate) fn on_the_wire(capture: &mut Capture, flow: &Datagrams) -> Result<Vec<u8>> {
    let peer = flow.sender().peer_addr()?;
    let inner = if peer.is_ipv4() { 20 } else { IPV6 };
    assert_eq!(flow.send(100, 1)?, 1);
    capture.next(|frame| {
        frame[12..14] == [0x86, 0xdd]
            && frame
                .get(OUTER + ETHERNET + inner + 2..)
                .is_some_and(|rest| rest.starts_with(&peer.port().to_be_bytes()))
    })
}

/// The frame without an inner IPv4 header's identification and checksum, which differ from packet to
/// packet.
fn comparable(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame[OUTER + 12..OUTER + 14] == [0x08, 0x00] {
        for at in [4, 10] {
            frame[OUTER + ETHERNET + at..][..2].fill(0);
        }
    }
    frame
}

#[test]
fn outer_headers_over_ipv6_are_the_kernels() -> Result<()> {
    // Options and a sender's TOS; then the first four bytes outside and the hop limit.
    for (options, tos, start, hop_limit) in [
        ("", 0, [0x60, 0, 0, 0], Some(64)),
        // DSCP EF with ECT(0).
        ("tos inherit ttl 9", 0xb8 | 2, [0x6b, 0xa0, 0, 0], Some(9)),
        ("tos 0x40 ttl inherit", 0x20 | 1, [0x64, 0x10, 0, 0], None),
        ("flowlabel 0xfedcb srcport 20000 20008", 0, [0x60, 0x0f, 0xed, 0xcb], Some(64)),
    ] {
        for [slow, fast] in captured(&format!("{PLAIN} {options}"), tos)? {
            assert_eq!(comparable(&slow), comparable(&fast), "{options}, TOS {tos}");
            assert_eq!(fast[ETHERNET..ETHERNET + 4], start, "{options}");
            assert!(hop_limit.is_none_or(|limit| fast[ETHERNET + 7] == limit), "{options}");
            assert_eq!(fast[ETHERNET + IPV6 + 6..][..2], [0, 0], "the UDP checksum");
        }
    }
    Ok(())
}

#[test]
fn the_hop_limit_is_the_routes_or_else_the_uplinks() -> Result<()> {
    let pair = pair(PLAIN, Ends::Both)?;
    let (from, to) = (pair.lab.container(0), pair.lab.container(1));
    let flow = Datagrams::open(from, (to, to.ipv4().into()))?;
    let mut capture = Capture::start(pair.lab.host(1), "u0")?;
    for (change, limit) in [
        ("ip route replace 2001:db8::2/128 dev u0 hoplimit 33", 33),
        ("ip route replace 2001:db8::2/128 dev u0 hoplimit 44", 44),
        ("ip route del 2001:db8::2/128", 64),
    ] {
        pair.lab.host(0).exec(&change.split(' ').collect::<Vec<_>>());
        wait_until(LIMIT, &format!("{limit} hops, after {change}"), || {
            let frame = on_the_wire(&mut capture, &flow).expect("it arrives");
            (frame[ETHERNET + 7] == limit).then_some(())
        });
        let counted = pair.counted(|| on_the_wire(&mut capture, &flow).map(drop))?;
        assert_eq!(count(&counted, "sent"), 1, "{counted:?}");
    }
    Ok(())
}

#[test]
fn the_largest_packet_over_ipv6_is_fast_and_one_byte_more_is_the_bridges() -> Result<()> {
    let pair = pair(PLAIN, Ends::Both)?;
    for host in pair.lab.hosts() {
        let container = host.container(0);
        host.ip(&format!("link set {} mtu 1500\n", container.port()))?;
        container.ip("link set eth0 mtu 1500\n")?;
    }
    pair.meet(pair.lab.container(0), pair.lab.container(1))?;
    // Both ways of saying it, at once.
    let warned = || {
        let status = pair.loaders[0].status().expect("the daemon answers");
        let check = ovs_loader(pair.lab.host(0), &["check"]).expect("check succeeds");
        [status["warnings"].to_string(), check]
            .map(|text| text.contains("set the containers' MTU to 1430"))
    };
    wait_until(LIMIT, "a warning of the containers' MTU", || {
        (warned() == [true, true]).then_some(())
    });
    // What a container can't send is no matter of the port's.
    pair.lab.host(0).container(0).ip("link set eth0 mtu 1430\n")?;
    wait_until(LIMIT, "no warning any more", || (warned() == [false, false]).then_some(()));
    pair.lab.host(0).container(0).ip("link set eth0 mtu 1500\n")?;
    wait_until(LIMIT, "the warning again", || (warned() == [true, true]).then_some(()));
    let (from, to) = pair.ways()[0];
    // An echo without fragments, with so many bytes of IPv4 packet.
    let echo = |packet: u32| {
        let size = (packet - 28).to_string();
        from.try_exec(&["ping", "-c1", "-W1", "-Mdo", "-s", &size, &to.ipv4().to_string()])
    };
    // An entry with a new MTU is proven anew.
    wait_until(LIMIT, "the largest is fast", || {
        let fits = pair.counted(|| echo(MTU).map(drop)).ok()?;
        assert_eq!(count(&fits, "too_big"), 0, "{fits:?}");
        (count(&fits, "sent") == 2).then_some(())
    });
    // The bridge's answer says how much would.
    let mut said = String::new();
    let too_big = pair.counted(|| {
        said = echo(MTU + 1).expect_err("it does not fit").to_string();
        Ok(())
    })?;
    assert_eq!((count(&too_big, "too_big"), count(&too_big, "sent")), (1, 0), "{too_big:?}");
    assert!(said.contains(&format!("mtu = {MTU}")), "{said}");
    Ok(())
}

#[test]
fn link_local_gateways_are_next_hops() -> Result<()> {
    let lab = Lab::build(Encap::Vxlan, &[1, 1])?;
    for (host, other) in [(0, 1), (1, 0)] {
        lab.host(host).ip(&format!(
            "addr add fe80::{host}1/64 dev u0 nodad\naddr add 2001:db8:{host}::1/128 dev lo\n\
             route add 2001:db8:{other}::1/128 via fe80::{other}1 dev u0\n"
        ))?;
    }
    join(&lab, ["2001:db8:0::1", "2001:db8:1::1"], PLAIN)?;
    let pair = Accelerated::start(lab, Ends::Both)?;
    let tunnels = pair.loaders[0].tunnels()?;
    assert_eq!(tunnels["tunnels"][0]["next_hop"], "fe80::11", "{tunnels:#?}");
    works(&pair, "link-local gateways")
}

#[test]
fn link_local_remotes_are_reached_by_the_tunnel_s_device() -> Result<()> {
    let lab = Lab::build(Encap::Vxlan, &[1, 1])?;
    for host in [0, 1] {
        lab.host(host).ip(&format!("addr add fe80::{host}1/64 dev u0 nodad\n"))?;
    }
    join(&lab, ["fe80::01", "fe80::11"], &format!("dev u0 {PLAIN}"))?;
    works(&Accelerated::start(lab, Ends::Both)?, "link-local remotes")
}
