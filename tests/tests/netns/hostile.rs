//! A hostile underlay: a million packets that nobody should have sent, beside traffic that must not
//! notice.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use ovs_ebpf_common::abi::{GuardKey, GuardKind, Program, UplinkValue};
use ovs_ebpf_tests::accelerated::Accelerated;
use ovs_ebpf_tests::generate::{
    Random,
    hostile::{self, Attack, Victim},
};
use ovs_ebpf_tests::lab::{Encap, KEY, Lab, Loader, counters, traffic};
use ovs_ebpf_tests::model::{Model, Received, Tables};

use crate::support::{BothWays, shell};

/// How many packets are sent.
const PACKETS: usize = 1_000_000;
/// How many of them are different.
const FRAMES: usize = 4_000;
/// As many as the machine's one or two processors can send and receive beside all the rest.
const PER_SECOND: u32 = 150_000;

fn victim(pair: &Accelerated) -> Victim {
    let mac = |text: &str| {
        let bytes: Vec<u8> =
            text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
        bytes.try_into().expect("a MAC")
    };
    let host = pair.lab.host(0);
    Victim {
        mac: mac(&shell(host, "ip -br link show u0 | awk '{ print $3 }'")),
        local: host.underlay(),
        remote: pair.lab.host(1).underlay(),
        vni: KEY,
        station: mac(pair.lab.container(0).mac()),
    }
}

/// Frames of every kind in turn.
fn noise(victim: &Victim) -> Vec<Vec<u8>> {
    let mut random = Random::new(0x5eed);
    let kinds = Attack::ALL.into_iter().cycle().take(FRAMES);
    kinds.map(|attack| hostile::frame(&mut random, victim, attack)).collect()
}

/// How many of the packets the filter should discard, by reason.
fn expected(victim: &Victim, frames: &[Vec<u8>]) -> BTreeMap<String, u64> {
    let mut tables = Tables::default();
    tables.control.lease_deadline = u64::MAX;
    tables.uplinks.insert(1, UplinkValue { mac: victim.mac, ..UplinkValue::default() });
    for (address, kind, key) in [
        (victim.local, GuardKind::Endpoint, 0),
        (victim.remote, GuardKind::Remote, 0),
        (victim.remote, GuardKind::Way, victim.vni),
    ] {
        let key = GuardKey {
            address: address.to_ipv6_mapped().octets(),
            key: key.to_be_bytes(),
            dst_port: 4789u16.to_be_bytes(),
            protocol: 17,
            kind: kind as u8,
        };
        tables.guards.insert(key, 1);
    }
    let mut model = Model::new(tables);
    let mut counts = BTreeMap::new();
    for (at, frame) in frames.iter().enumerate() {
        let packet = Received { device: 1, for_host: true, tag: None, gso: None, frame };
        if let Err(reason) = model.run(Program::UplinkXdp, 0, &packet) {
            // As often as the frame is sent.
            let times = (PACKETS - at).div_ceil(FRAMES) as u64;
            *counts.entry(reason.name().to_owned()).or_insert(0) += times;
        }
    }
    counts
}

/// The daemon's memory in KiB.
fn memory(loader: &Loader) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", loader.pid()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

/// What the filter has discarded, by reason.
fn discarded(loader: &Loader) -> Result<BTreeMap<String, u64>> {
    let stats = loader.stats()?;
    let counts = stats["discarded"].as_object().context("what was discarded")?;
    Ok(counts.iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect())
}

/// Sends the noise while streams run, and asserts what holds with the filter and without. Gives what
/// the filter discarded, and what it should have.
fn withstands(configuration: &str) -> Result<[BTreeMap<String, u64>; 2]> {
    let lab = Lab::build(Encap::Vxlan, &[1, 1])?;
    let loader = Loader::start_with(lab.host(0), configuration)?;
    let pair = Accelerated { loaders: vec![loader], lab };
    let (one, other) = (pair.lab.container(0), pair.lab.container(1));
    pair.meet(one, other)?;
    let (loader, attacker) = (&pair.loaders[0], pair.lab.host(1));
    let victim = victim(&pair);
    let frames = noise(&victim);
    // What there is to learn is learned before memory is looked at.
    traffic::send_frames(attacker, "u0", &frames, PACKETS / 10, PER_SECOND)?;
    let before = discarded(loader)?;
    let memory_before = memory(loader)?;
    let fast = loader.fast_packets()?.received;
    let sent = counters::link(other, "eth0")?.tx_packets;

    let streams = BothWays::start(one, other)?;
    let started = Instant::now();
    traffic::send_frames(attacker, "u0", &frames, PACKETS, PER_SECOND)?;
    let took = started.elapsed();
    for report in streams.stop()? {
        assert_eq!((report.lost, report.duplicated), (0, 0), "{report:?}");
        assert!(report.sent > 1_000, "{report:?}");
    }

    let grown = memory(loader)?.saturating_sub(memory_before);
    assert!(grown < 1024, "the daemon has {grown} KiB more");
    let fast = loader.fast_packets()?.received - fast;
    let sent = counters::link(other, "eth0")?.tx_packets - sent;
    assert!(fast <= sent, "{fast} packets on the fast path, of {sent} that were sent");
    assert!(fast > sent / 2, "{fast} packets on the fast path, of {sent} that were sent");
    let mut counted = discarded(loader)?;
    for (name, count) in before {
        *counted.entry(name).or_default() -= count;
    }
    println!("{PACKETS} in {took:.1?}; {fast} of {sent} fast; {grown} KiB; {counted:?}");
    Ok([counted, expected(&victim, &frames)])
}

#[test]
fn a_million_hostile_packets_change_nothing_for_those_that_belong_here() -> Result<()> {
    let [counted, _] = withstands("")?;
    assert_eq!(counted, BTreeMap::new());
    Ok(())
}

#[test]
fn the_filter_discards_a_million_hostile_packets_and_nothing_else() -> Result<()> {
    let [counted, expected] = withstands("[accelerate]\nxdp = \"filter\"\n")?;
    assert_eq!(counted, expected);
    Ok(())
}
