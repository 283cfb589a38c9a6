//! `[[port]]`: what a container may not send, it does not, whichever way the bridge's frames go, and
//! whether there is a daemon or not.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::accelerated::{Accelerated, INTERVAL, LIMIT};
use ovs_ebpf_tests::lab::{Capture, Container, Encap, Lab, Loader, counters, traffic, wait_until};
use ovs_ebpf_tests::why::elements;
use serde_json::Value;

use crate::support::{BothWays, shell};

/// Packets per second to all.
const FLOOD_LIMIT: u32 = 200;

/// Two containers on the first host, of which the first is limited, and one on another host.
fn secured(more: &str) -> Result<Accelerated> {
    let lab = Lab::build(Encap::Vxlan, &[2, 1])?;
    let loader = Loader::start_with(lab.host(0), &configuration(&lab, more))?;
    let hosts = Accelerated { loaders: vec![loader], lab };
    let [one, near] = containers(&hosts);
    hosts.meet_all(&[one, near, hosts.lab.container(1)])?;
    Ok(hosts)
}

fn configuration(lab: &Lab, more: &str) -> String {
    let one = lab.container(0);
    let (port, mac, ipv4, ipv6) = (one.port(), one.mac(), one.ipv4(), one.ipv6());
    let mut text = String::from("[accelerate]\nlease_seconds = 3\n[[port]]\n");
    let allowed = format!("allowed = [\"{mac}\", \"{ipv4}\", \"{ipv6}\"]");
    let _ = writeln!(text, "name = \"{port}\"\n{allowed}\n{more}");
    text
}

fn containers(hosts: &Accelerated) -> [&Container; 2] {
    [hosts.lab.container(0), hosts.lab.host(0).container(1)]
}

/// How many packets of the secured ports were discarded so far, by reason.
fn discarded(loader: &Loader, reason: &str) -> Result<u64> {
    Ok(loader.stats()?["discarded"][reason].as_u64().unwrap_or(0))
}

/// What `status` says of a port's security.
fn security(loader: &Loader, port: &str) -> Result<Value> {
    let status = loader.status()?;
    let ports = elements(&status["bridges"]).flat_map(|bridge| elements(&bridge["ports"]));
    let mut ports = ports.filter(|found| found["name"] == port);
    Ok(ports.next().context("the port")?["security"].clone())
}

/// Whether echoes with the container's second address as their source are answered.
fn spoofs(one: &Container, other: &Container) -> bool {
    let ping = format!("ping -n -c 3 -i 0.05 -W 1 -I 10.0.0.99 {} || true", other.ipv4());
    !shell(one, &ping).contains(" 0 received")
}

/// Gives the container an address that is not its own, which the others think to be at its MAC.
fn prepare_to_spoof(hosts: &Accelerated) {
    let one = hosts.lab.container(0);
    shell(one, "ip addr add 10.0.0.99/24 dev eth0");
    for other in [hosts.lab.host(0).container(1), hosts.lab.container(1)] {
        shell(other, &format!("ip neigh replace 10.0.0.99 lladdr {} dev eth0", one.mac()));
    }
}

#[test]
fn a_container_speaks_for_itself_alone_on_the_fast_path_and_off_it() -> Result<()> {
    let hosts = secured("")?;
    let (loader, [one, near]) = (&hosts.loaders[0], containers(&hosts));
    let far = hosts.lab.container(1);
    prepare_to_spoof(&hosts);
    for accelerated in [true, false] {
        loader.accelerate("br-ex", accelerated)?;
        let status = security(loader, one.port())?;
        assert_eq!((&status["enforced"], &status["why"]), (&true.into(), &Value::Array(vec![])));
        if accelerated {
            hosts.until_fast(&[one.mac(), near.mac(), far.mac()])?;
        }
        // In its own name: everything, from the first question on.
        shell(one, "ip neigh flush dev eth0; ip -6 neigh flush dev eth0");
        for other in [near, far] {
            let streams = BothWays::start(one, other)?;
            streams.goes_on(300);
            streams.arrived_whole()?;
            shell(one, &format!("ping -6 -n -c 3 -i 0.05 -W 2 {}", other.ipv6()));
        }
        for reason in ["spoofed_mac", "spoofed_ip", "sender_hidden"] {
            let expected = if accelerated { 0 } else { 6 };
            let expected = if reason == "spoofed_ip" { expected } else { 0 };
            assert_eq!(discarded(loader, reason)?, expected, "{reason}, {accelerated}");
        }
        // In another's: of six echoes there is no answer, for none was asked.
        for other in [near, far] {
            assert!(!spoofs(one, other), "accelerated {accelerated}");
        }
        let expected = if accelerated { 6 } else { 12 };
        assert_eq!(discarded(loader, "spoofed_ip")?, expected, "{accelerated}");
    }
    let status = security(loader, one.port())?;
    assert_eq!(status["discarded"], 12, "{status}");
    // Another, that is not limited, may.
    shell(near, "ip addr add 10.0.0.98/24 dev eth0");
    let ping = format!("ping -n -c 1 -W 2 -I 10.0.0.98 {}", far.ipv4());
    shell(near, &ping);

    // ARP for another, in its own frame; and everything with another MAC.
    let before = shell(near, &format!("ip neigh show {}", far.ipv4()));
    shell(one, &format!("arping -q -U -c 2 -w 1 -s {} -I eth0 {} || true", far.ipv4(), far.ipv4()));
    assert_eq!(before, shell(near, &format!("ip neigh show {}", far.ipv4())));
    let macs = discarded(loader, "spoofed_mac")?;
    shell(one, "ip link set eth0 down; ip link set eth0 address 02:00:00:00:0e:0e up");
    shell(one, &format!("ping -n -c 2 -i 0.05 -W 1 {} && exit 1 || true", near.ipv4()));
    assert!(discarded(loader, "spoofed_mac")? > macs);
    let fdb = shell(hosts.lab.host(0), "bridge fdb show br br-ex");
    assert!(!fdb.contains("02:00:00:00:0e:0e"), "{fdb}");
    Ok(())
}

#[test]
fn security_outlives_the_daemon_until_it_is_taken_down() -> Result<()> {
    let mut hosts = secured("")?;
    prepare_to_spoof(&hosts);
    let stopped = |hosts: &Accelerated| {
        let (one, far) = (hosts.lab.container(0), hosts.lab.container(1));
        let ping = traffic::ping(one, far.ipv4(), 56, 3, INTERVAL).expect("ping");
        assert_eq!(ping.received, 3);
        !spoofs(one, far)
    };
    assert!(stopped(&hosts));
    hosts.loaders[0].kill_9()?;
    assert!(stopped(&hosts), "killed");
    std::thread::sleep(Duration::from_millis(3_500));
    assert!(stopped(&hosts), "the lease has run out");
    let configuration = configuration(&hosts.lab, "");
    hosts.loaders[0] = Loader::start_with(hosts.lab.host(0), &configuration)?;
    assert!(stopped(&hosts), "adopted");
    assert!(hosts.loaders[0].sigterm()?.success());
    assert!(hosts.loaders[0].log().contains("1 ports stay secured"), "{}", hosts.loaders[0].log());
    assert!(stopped(&hosts), "ended");
    hosts.loaders[0] = Loader::start_with(hosts.lab.host(0), &configuration)?;
    assert!(stopped(&hosts), "started again");
    hosts.loaders[0].down()?;
    assert!(!stopped(&hosts), "taken down");
    // Left secured, and started without: the configuration is what counts.
    hosts.loaders[0] = Loader::start_with(hosts.lab.host(0), &configuration)?;
    assert!(hosts.loaders[0].sigterm()?.success());
    hosts.loaders[0] = Loader::start(hosts.lab.host(0))?;
    assert!(!stopped(&hosts), "not asked for any more");
    Ok(())
}

/// A broadcast frame of the container's own, or with another destination.
fn frame(one: &Container, destination: &str) -> Vec<u8> {
    let mac = |text: &str| -> Vec<u8> {
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect()
    };
    let mut frame = [mac(destination), mac(one.mac())].concat();
    // An EtherType for experiments (IEEE 802).
    frame.extend([0x88, 0xb5]);
    frame.resize(100, 0x5a);
    frame
}

#[test]
fn floods_pass_at_their_limit_and_what_goes_to_one_station_as_it_comes() -> Result<()> {
    const SENT: u32 = 6_000;
    const PER_SECOND: u32 = 3_000;
    let hosts = secured(&format!("flood_limit = {FLOOD_LIMIT}"))?;
    let (loader, [one, near]) = (&hosts.loaders[0], containers(&hosts));
    let received = || counters::link(near, "eth0").map(|link| link.rx_packets);
    let (broadcast, unknown) = ("ff:ff:ff:ff:ff:ff", "02:00:00:00:0d:ee");
    for accelerated in [true, false] {
        loader.accelerate("br-ex", accelerated)?;
        for destination in [broadcast, "33:33:00:00:12:34", unknown] {
            let limited = discarded(loader, "flood_limited")?;
            let mut capture = Capture::start(near, "eth0")?;
            let started = Instant::now();
            let frames = [frame(one, destination)];
            traffic::send_frames(one, "eth0", &frames, SENT as usize, PER_SECOND)?;
            let took = started.elapsed().as_secs_f64();
            let limited = discarded(loader, "flood_limited")? - limited;
            let passed = u64::from(SENT) - limited;
            // What the bucket holds, a tick's worth, and what else the container sends to all.
            let expected = f64::from(FLOOD_LIMIT) * (took + 0.1);
            let deviation = (passed as f64 - expected).abs();
            println!("{destination}, {accelerated}: {passed} of {SENT} in {took:.2} s");
            assert!(deviation < 20.0, "{passed} of {SENT} to {destination}, not {expected}");
            let mut arrived = 0;
            while let Some(seen) = capture.read() {
                arrived += u64::from(seen == frames[0]);
            }
            // What else it sends to all is limited with them.
            assert!(arrived.abs_diff(passed) < 20, "{arrived} of {passed} arrived");
        }
        // To one station that the bridge knows: all of them.
        let (before, limited) = (received()?, discarded(loader, "flood_limited")?);
        let frames = [frame(one, near.mac())];
        traffic::send_frames(one, "eth0", &frames, SENT as usize, PER_SECOND)?;
        wait_until(LIMIT, "all frames", || {
            (received().ok()? - before >= u64::from(SENT)).then_some(())
        });
        assert_eq!(discarded(loader, "flood_limited")?, limited);
    }
    // A station that has just come is known at once.
    let mac = unknown;
    shell(near, &format!("ip link add link eth0 address {mac} up type macvlan mode bridge"));
    shell(
        near,
        "ip addr add 10.0.0.97/24 dev macvlan0 && arping -q -U -c 1 -I macvlan0 10.0.0.97 || true",
    );
    wait_until(LIMIT, "the station", || loader.fdb().ok()?.to_string().contains(mac).then_some(()));
    let (before, limited) = (received()?, discarded(loader, "flood_limited")?);
    traffic::send_frames(one, "eth0", &[frame(one, mac)], SENT as usize, PER_SECOND)?;
    assert_eq!(discarded(loader, "flood_limited")?, limited);
    assert!(received()? - before >= u64::from(SENT));
    Ok(())
}

#[test]
fn what_can_not_be_secured_is_named() -> Result<()> {
    let lab = Lab::build(Encap::Vxlan, &[1, 1])?;
    let loader = Loader::start_with(
        lab.host(0),
        "[[port]]\nname = \"v1\"\nallowed = [\"own\"]\n[[port]]\nname = \"v7\"\nflood_limit = 9\n",
    )?;
    let status = loader.status()?;
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("no bridge has the port v7"), "{warnings}");
    let security = security(&loader, "v1")?;
    assert_eq!(security["enforced"], false, "{security}");
    assert_eq!(security["why"][0]["reason"], "port_unsecured", "{security}");
    let shown = loader.cli(&["status"])?;
    assert!(shown.contains("secured") && shown.contains("did not attach a container"), "{shown}");
    Ok(())
}
