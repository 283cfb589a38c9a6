//! What it costs to discard: the filter on the uplink, and the same rules in nftables, on frames that
//! the kernel receives as if a driver had (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18).

use std::process::{Command, Stdio};
use std::{env, io::Write as _};

use ovs_ebpf_common::{Reason, abi::Program};
use ovs_ebpf_tests::vectors::Tunnel;

use crate::filter::{filtering, guard_receiving_end, unwanted};
use crate::host::{Host, UPLINK, ip};
use crate::run::Live;

/// Frames of a run; `cargo xtask bench --xdp` asks for more.
const FRAMES: u32 = 200_000;
/// How often each way is measured, one after the other.
const ROUNDS: usize = 5;

/// The filter's rules in nftables, on a hook that sees the skb: VXLAN's VNI is at bit 96 from the UDP
/// header on.
fn ruleset(hook: &str, tunnel: &Tunnel) -> String {
    let endpoint = format!("ip daddr {} udp dport 4789", tunnel.remote);
    let key = tunnel.key.expect("a VNI");
    format!(
        "table {hook}
           set remotes {{ type ipv4_addr; elements = {{ {} }} }}
           chain discard {{
             {}
             {endpoint} ip saddr != @remotes counter drop
             {endpoint} @th,96,24 != {key} counter drop
           }}
         }}",
        tunnel.local,
        match hook {
            "netdev t {" => format!(
                "type filter hook ingress device dev{UPLINK} priority filter; policy accept;"
            ),
            _ => "type filter hook prerouting priority raw; policy accept;".to_owned(),
        }
    )
}

fn nft(ruleset: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nft (Debian: nftables) can be run");
    child.stdin.take().expect("piped").write_all(ruleset.as_bytes()).expect("nft reads");
    assert!(child.wait().expect("nft ends").success(), "{ruleset}");
}

/// Packets that the rules have dropped.
fn dropped() -> u64 {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let counts = words.windows(3).filter(|words| words[..2] == ["counter", "packets"]);
    counts.map(|words| words[2].parse::<u64>().expect("a count")).sum()
}

/// Has the uplink receive at least so many copies of a frame, all of which must be discarded. Gives
/// the nanoseconds for each, without what it takes to set a test run up.
fn cost(
    host: &mut Host,
    frame: &[u8],
    frames: u32,
    discarded: impl FnOnce(&mut Host) -> u64,
) -> f64 {
    let Live { most, took } = host.filter_live(UPLINK, frame, frames);
    let count = discarded(host);
    assert!((frames.into()..=most).contains(&count), "{count} of {frames} to {most} discarded");
    took.as_secs_f64() * 1e9 / f64::from(frames)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

#[test]
fn the_filter_and_the_same_rules_of_nftables_discard_every_packet() {
    let frames = env::var("OVS_EBPF_LIVE_FRAMES").ok().and_then(|text| text.parse().ok());
    let frames = frames.unwrap_or(FRAMES);
    let (tunnel, frame) = unwanted();
    let mut host = filtering();
    ip(&format!("link set dev{UPLINK} up"));
    let ways = ["uplink_xdp", "nftables netdev ingress", "nftables inet prerouting, raw"];
    let mut samples = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, samples) in samples.iter_mut().enumerate() {
            let hook = ["", "netdev t {", "inet t {"][way];
            if way == 0 {
                guard_receiving_end(&mut host, &tunnel);
                samples.push(cost(&mut host, &frame, frames, |host| {
                    let moved = host.moved(Program::UplinkXdp);
                    let [(at, count)] = moved[..] else { panic!("{moved:?}") };
                    assert_eq!(at, 2 + Reason::UnknownRemote as usize);
                    count
                }));
            } else {
                // The filter lets all pass that it has not been told of.
                host.forget_guards();
                nft(&ruleset(hook, &tunnel));
                samples.push(cost(&mut host, &frame, frames, |_| dropped()));
                nft("flush ruleset");
            }
        }
    }
    for (way, nanoseconds) in ways.iter().zip(samples.into_iter().map(median)) {
        let millions = 1e3 / nanoseconds;
        println!("{way:<30} {nanoseconds:>7.0} ns  {millions:>6.2} million a second");
    }
}
