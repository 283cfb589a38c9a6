//! `[[port]]` beside Open vSwitch: what a container may not send reaches nobody, on the fast path and off
//! it, and what it may is as without limits.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, share},
    lab::{Capture, Container, Encap, Lab, Loader, patience, traffic},
    vectors::{self, Security},
};

use crate::support::{exchange, fact, peer, say, until_reached};

/// The sender of the frames in `tests/vectors/security.json`, to whom they are, and a MAC that nobody has.
const SENDER: &str = "02:00:00:00:0a:01";
const PEER: &str = "02:00:00:00:0b:02";
const NOBODY: &str = "02:00:00:00:0d:ee";
const BROADCAST: &str = "ff:ff:ff:ff:ff:ff";

/// How long nothing has to come until nothing is on its way any more.
const QUIET: Duration = Duration::from_millis(100);

/// Who hears the frames: a container beside the sender's, and one on the other host.
const RECEIVERS: [&str; 2] = ["near", "far"];

/// Who gets which frames, by their names.
type Heard = BTreeSet<(&'static str, String)>;

/// The vectors but those with a tag: that is the second one there, and would be the first here.
fn frames() -> Vec<Security> {
    let mut frames = vectors::security();
    frames.retain(|vector| {
        ![[0x81, 0x00], [0x88, 0xa8]].contains(&[vector.frame[12], vector.frame[13]])
    });
    frames
}

fn receivers(lab: &Lab) -> [&Container; 2] {
    [lab.host(0).container(1), lab.container(1)]
}

/// Sends every frame from the first container.
fn heard(lab: &Lab) -> Result<Heard> {
    let mut captures = Vec::new();
    for container in receivers(lab) {
        captures.push(Capture::start(container, "eth0")?);
    }
    let mut sender = Capture::start(lab.container(0), "eth0")?;
    let vectors = frames();
    for vector in &vectors {
        sender.send(&vector.frame)?;
    }
    let mut heard = Heard::new();
    for (name, capture) in RECEIVERS.into_iter().zip(&mut captures) {
        let mut last = Instant::now();
        while last.elapsed() < patience(QUIET) {
            let Some(frame) = capture.read() else { continue };
            let mut named = vectors.iter().filter(|vector| vector.frame == frame);
            if let Some(vector) = named.next() {
                heard.insert((name, vector.name.clone()));
                last = Instant::now();
            }
        }
    }
    Ok(heard)
}

/// Those of the frames that a port with limits may send.
fn allowed(mut heard: Heard) -> Heard {
    let vectors = frames();
    heard.retain(|(_, name)| {
        vectors.iter().any(|vector| vector.name == *name && vector.reason.is_none())
    });
    heard
}

/// How many packets of secured ports were discarded so far, by reason.
fn discarded(loader: &Loader, reason: &str) -> Result<u64> {
    Ok(loader.stats()?["discarded"][reason].as_u64().unwrap_or(0))
}

fn ensure_heard(expected: &Heard, heard: &Heard) -> Result<()> {
    let (more, less): (Vec<_>, Vec<_>) =
        (heard.difference(expected).collect(), expected.difference(heard).collect());
    ensure!(more.is_empty() && less.is_empty(), "heard too: {more:?}; not heard: {less:?}");
    Ok(())
}

fn configuration(lab: &Lab, more: &str) -> String {
    let one = lab.container(0);
    format!(
        "[[port]]\nname = \"{}\"\nallowed = [\"{SENDER}\", \"10.0.0.1\", \"fd00::1\", \"{}\", \"{}\"]\n\
         {more}\n",
        one.port(),
        one.ipv4(),
        one.ipv6()
    )
}

/// The sender and the far receiver have the MACs of the vectors.
fn lab() -> Result<Lab> {
    let lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[2, 1])?;
    for (container, mac) in [(lab.container(0), SENDER), (lab.container(1), PEER)] {
        // Down and up, for a link-local address of that MAC; the others go with it.
        let ipv6 = container.ipv6();
        container.ip(&format!(
            "link set eth0 down\nlink set eth0 address {mac} up\naddr add {ipv6}/64 dev eth0 nodad\n"
        ))?;
    }
    until_reached(lab.container(0), lab.container(1));
    until_reached(lab.container(0), lab.host(0).container(1));
    Ok(lab)
}

#[test]
fn a_container_speaks_for_itself_alone_on_open_vswitch() -> Result<()> {
    let lab = lab()?;
    let mut alone = Heard::new();
    fact("without limits", || {
        // What is the first of its kind passes ovs-vswitchd.
        heard(&lab)?;
        alone = heard(&lab)?;
        let mine = allowed(alone.clone());
        say(&format!(
            "   {} frames are heard, {} of them the sender's own",
            alone.len(),
            mine.len()
        ));
        ensure!(mine.len() >= 35 && alone.len() >= mine.len() + 40, "{alone:?}");
        Ok(())
    })?;
    let expected = allowed(alone.clone());

    let loader = Loader::start_with(lab.host(0), &configuration(&lab, ""))?;
    let mut hosts = Accelerated { loaders: vec![loader], lab };
    for accelerated in [true, false] {
        fact(&format!("with limits, accelerated: {accelerated}"), || {
            let loader = &hosts.loaders[0];
            loader.accelerate("br-ex", accelerated)?;
            if accelerated {
                hosts.until_fast(&[SENDER, PEER, receivers(&hosts.lab)[0].mac()])?;
            }
            for container in receivers(&hosts.lab) {
                let one = peer(hosts.lab.container(0));
                let counted = hosts.counted(|| exchange(one, peer(container)))?;
                let least = if accelerated { 0.9 } else { 0.0 };
                ensure!(share(&counted) >= least, "{counted:?}");
            }
            let reasons = ["spoofed_mac", "spoofed_ip", "sender_hidden"];
            let counts = || reasons.iter().map(|reason| discarded(loader, reason));
            let before = counts().collect::<Result<Vec<_>>>()?;
            ensure_heard(&expected, &heard(&hosts.lab)?)?;
            for ((reason, before), after) in reasons.iter().zip(before).zip(counts()) {
                let vectors = frames();
                let wanted =
                    vectors.iter().filter(|vector| vector.reason.as_deref() == Some(reason));
                assert_eq!(after? - before, wanted.count() as u64, "{reason}");
            }
            Ok(())
        })?;
    }
    fact("with limits, the daemon ended", || {
        ensure!(hosts.loaders[0].sigterm()?.success(), "the daemon");
        ensure_heard(&expected, &heard(&hosts.lab)?)
    })?;
    fact("taken down", || {
        hosts.loaders[0] = Loader::start_with(hosts.lab.host(0), &configuration(&hosts.lab, ""))?;
        ensure_heard(&expected, &heard(&hosts.lab)?)?;
        hosts.loaders[0].down()?;
        ensure_heard(&alone, &heard(&hosts.lab)?)
    })
}

/// A frame of the container's own, to this MAC.
fn frame(destination: &str) -> Vec<u8> {
    let mac = |text: &str| -> Vec<u8> {
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect()
    };
    let mut frame = [mac(destination), mac(SENDER)].concat();
    // An EtherType for experiments (IEEE 802).
    frame.extend([0x88, 0xb5]);
    frame.resize(100, 0x5a);
    frame
}

/// How many of so many frames reach the container beside, and what the sending took.
fn flood(lab: &Lab, destination: &str, count: usize) -> Result<(u64, Duration)> {
    const PER_SECOND: u32 = 1000;
    let frames = [frame(destination)];
    let mut capture = Capture::start(receivers(lab)[0], "eth0")?;
    let started = Instant::now();
    traffic::send_frames(lab.container(0), "eth0", &frames, count, PER_SECOND)?;
    let took = started.elapsed();
    let (mut arrived, mut last) = (0, Instant::now());
    while last.elapsed() < patience(QUIET) {
        if capture.read().is_some_and(|seen| seen == frames[0]) {
            (arrived, last) = (arrived + 1, Instant::now());
        }
    }
    Ok((arrived, took))
}

#[test]
fn floods_pass_open_vswitch_at_their_limit_and_what_goes_to_one_station_as_it_comes() -> Result<()>
{
    const PER_SECOND: f64 = 200.0;
    const SENT: u64 = 800;
    let lab = lab()?;
    let loader = Loader::start_with(lab.host(0), &configuration(&lab, "flood_limit = 200"))?;
    let near = receivers(&lab)[0].mac().to_owned();
    let hosts = Accelerated { loaders: vec![loader], lab };
    for accelerated in [true, false] {
        let loader = &hosts.loaders[0];
        loader.accelerate("br-ex", accelerated)?;
        if accelerated {
            hosts.until_fast(&[SENDER, &near])?;
        }
        for destination in [BROADCAST, "33:33:00:00:12:34", NOBODY] {
            fact(&format!("to {destination}, accelerated: {accelerated}"), || {
                let before = discarded(loader, "flood_limited")?;
                let (arrived, took) = flood(&hosts.lab, destination, SENT as usize)?;
                let limited = discarded(loader, "flood_limited")? - before;
                // What the bucket holds, a tenth of a second's worth, and a tick's.
                let expected = PER_SECOND * (took.as_secs_f64() + 0.1);
                say(&format!("   {arrived} of {SENT} arrived, {limited} limited, {took:.1?}"));
                // What else it sends to all is limited with them.
                ensure!((arrived + limited).abs_diff(SENT) < 20, "{arrived} + {limited}");
                ensure!((arrived as f64 - expected).abs() < 20.0, "{arrived}, not {expected}");
                Ok(())
            })?;
        }
        fact(&format!("to one station, accelerated: {accelerated}"), || {
            let before = discarded(loader, "flood_limited")?;
            let (arrived, _) = flood(&hosts.lab, &near, SENT as usize)?;
            ensure!(arrived == SENT, "{arrived} of {SENT}");
            ensure!(discarded(loader, "flood_limited")? == before, "limited");
            Ok(())
        })?;
    }
    Ok(())
}
