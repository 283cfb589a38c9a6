//! Tunnels over IPv6 that this repository's usual test host has not: ip6gretap, and Open vSwitch's
//! `ip6gre` and `vxlan`.

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, Ends, LIMIT, is_fast, share},
    lab::{
        Capture, Encap, Lab,
        traffic::{self, Datagrams},
        wait_until,
    },
};

use crate::support::{datagrams, echoes, until_reached};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// GRE with a key.
const GRE: usize = 8;
/// What VXLAN, which needs most, leaves of the underlay's 1500 bytes.
const MTU: u32 = 1430;

/// Gives both hosts addresses, and containers that leave room for the longer headers.
fn address(lab: &Lab) -> Result<()> {
    for (at, host) in lab.hosts().iter().enumerate() {
        let container = host.container(0);
        host.ip(&format!(
            "addr add 2001:db8::{}/64 dev u0 nodad\nlink set {} mtu {MTU}\n",
            at + 1,
            container.port()
        ))?;
        container.ip(&format!("link set eth0 mtu {MTU}\n"))?;
    }
    Ok(())
}

/// Two hosts with ip6gretap ports of these options.
fn ip6gretap(options: &str) -> Result<Lab> {
    let lab = Lab::build(Encap::Gre, &[1, 1])?;
    address(&lab)?;
    for (host, other) in [(1, 2), (2, 1)] {
        let device = format!("gre-{other}");
        lab.host(host - 1).ip(&format!(
            "link del {device}\n\
             link add {device} type ip6gretap local 2001:db8::{host} remote 2001:db8::{other} {options}\n\
             link set {device} master br-ex up\n"
        ))?;
    }
    Ok(lab)
}

/// Two hosts with tunnels of Open vSwitch's of this type and options.
fn ovs(kind: &str, options: &str) -> Result<Lab> {
    let lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[1, 1])?;
    address(&lab)?;
    for (host, other) in [(1, 2), (2, 1)] {
        let commands = format!(
            "del-port gre-{other} -- add-port br-ex t6 -- set interface t6 type={kind} \
             options:remote_ip=2001:db8::{other} {options}"
        );
        let host = lab.host(host - 1);
        host.vsctl(&commands.split_whitespace().collect::<Vec<_>>())?;
        let errors = host.vsctl(&["--columns=name,error", "find", "interface", "error!=[]"])?;
        ensure!(errors.is_empty(), "{kind}: {errors}");
    }
    until_reached(lab.container(0), lab.container(1));
    Ok(lab)
}

/// Everything that containers send one another arrives, both ways, and nearly all of it fast.
fn works(lab: Lab, ends: Ends, options: &str) -> Result<()> {
    let what = format!("{options}, {ends:?}");
    let pair = Accelerated::start(lab, ends)?;
    for (from, to) in pair.ways() {
        let counted = pair.counted(|| {
            for size in [56, MTU - 28, MTU - 27, 9000] {
                echoes(from, to.ipv4(), size).context(what.clone())?;
            }
            traffic::transfer(from, (to, to.ipv4().into()), 5_000_000)?;
            traffic::transfer(from, (to, to.ipv6().into()), 2_000_000)?;
            let flow = Datagrams::open(from, (to, to.ipv4().into()))?;
            for size in [1, 64, 1402, 4000] {
                datagrams(&flow, size).context(what.clone())?;
            }
            Ok(())
        })?;
        assert!(share(&counted) >= 0.9, "{what}: {counted:?}");
    }
    Ok(())
}

#[test]
fn ip6gretap_is_fast_on_both_ends() -> Result<()> {
    works(ip6gretap("key 42 encaplimit none")?, Ends::Both, "key 42")
}

#[test]
fn a_plain_kernel_s_ip6gretap_is_an_ordinary_peer() -> Result<()> {
    let options = "ikey 7 okey 7 encaplimit none hoplimit 9 tclass inherit";
    works(ip6gretap(options)?, Ends::First, options)
}

#[test]
fn open_vswitch_s_gre_over_ipv6_is_fast() -> Result<()> {
    works(ovs("ip6gre", "options:key=42")?, Ends::Both, "ip6gre")
}

#[test]
fn open_vswitch_s_vxlan_over_ipv6_is_fast_and_plain_open_vswitch_an_ordinary_peer() -> Result<()> {
    let options = "options:key=42 options:csum=false";
    works(ovs("vxlan", options)?, Ends::First, "vxlan")
}

/// The frame without its inner IPv4 header's identification and checksum, and without its flow label:
/// the kernel's device has the tunnel's hash where a packet has none of its own.
fn comparable(mut frame: Vec<u8>) -> Vec<u8> {
    for field in [4, 10] {
        frame[ETHERNET + IPV6 + GRE + ETHERNET + field..][..2].fill(0);
    }
    frame[ETHERNET + 1] &= 0xf0;
    frame[ETHERNET + 2..ETHERNET + 4].fill(0);
    frame
}

#[test]
fn outer_headers_over_ipv6_are_the_kernels() -> Result<()> {
    const PAYLOAD: usize = 301;
    let length = ETHERNET + IPV6 + GRE + ETHERNET + IPV4 + 8 + PAYLOAD;
    let lab = ip6gretap("key 42 encaplimit none hoplimit 9 tclass 0x40")?;
    let pair = Accelerated::start(lab, Ends::Both)?;
    let (from, to) = pair.ways()[0];
    let flow = Datagrams::open(from, (to, to.ipv4().into()))?;
    let mut capture = Capture::start(pair.lab.host(0), "u0")?;
    let mut on_the_wire = || -> Result<Vec<u8>> {
        assert_eq!(flow.send(PAYLOAD, 1)?, 1);
        capture.next(|frame| frame.len() == length && frame[12..14] == [0x86, 0xdd])
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
    let labels = [0, 1].map(|at: usize| {
        let frame = &frames[at];
        u32::from_be_bytes([
            0,
            frame[ETHERNET + 1] & 0x0f,
            frame[ETHERNET + 2],
            frame[ETHERNET + 3],
        ])
    });
    assert!(labels.iter().all(|label| *label != 0), "{labels:05x?}");
    let [slow, fast] = [0, 1].map(|at: usize| comparable(frames[at].clone()));
    assert_eq!(slow, fast);
    assert_eq!(fast[ETHERNET..ETHERNET + 2], [0x64, 0x00]);
    assert_eq!((fast[ETHERNET + 6], fast[ETHERNET + 7]), (47, 9));
    assert_eq!(fast[ETHERNET + IPV6..][..GRE], [0x20, 0, 0x65, 0x58, 0, 0, 0, 42]);
    Ok(())
}
