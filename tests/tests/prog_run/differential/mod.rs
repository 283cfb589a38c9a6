//! The model and the loaded programs get the same tables and the same frames: verdict, reason, the
//! whole frame that leaves, what is counted, what is told and what is written to the maps have to be
//! the same.
//!
//! `cargo xtask differential --seed N --frames N` runs it on any seed and for any length; so do the
//! environment's `OVS_EBPF_SEED` and `OVS_EBPF_FRAMES`. A frame that makes a difference is printed,
//! and kept in `tests/vectors/differential/`, from where it is tried again first.
//!
//! What a test run can't show, and where it is seen instead:
//! - the device that a frame is redirected to, and its link-layer header: in `netns`;
//! - segments of TCP and UDP: in `netns`. A test run knows a segment's size, but no GSO type: what
//!   fits is refused by the kernel (`encap_refused`, `decap_refused`) where with a type it is
//!   forwarded;
//! - a VLAN tag in metadata, a frame that ends before its IP header does, and one beyond a page, so
//!   that an outer length may exceed 65,535: in `wire.rs`;
//! - a lease that ends between two frames: in `netns`, where a daemon is killed;
//! - how long a port is silent after an event: in `events.rs`;
//! - programs that race on several CPUs: nowhere yet.

mod compare;
mod decode;
mod outcomes;
mod record;
mod vectors;

use std::time::Instant;

use ovs_ebpf_common::abi::Program;
use ovs_ebpf_tests::{
    generate::{Arrival, Random, Traffic},
    model::Model,
};

use self::compare::{Both, Case, received};
use self::outcomes::Outcomes;
use crate::clock::now;
use crate::host::{DEVICES, Host};
use crate::run::too_short;

/// Frames between two scenes: enough for a scene's stations to meet in many ways.
const SCENE_FRAMES: usize = 1_000;
/// From this many frames on every reason has to turn up.
const MANY: usize = 200_000;

#[test]
fn frames_that_once_made_a_difference_make_none() {
    let records = record::load_all();
    assert!(!records.is_empty(), "tests/vectors/differential has no vectors");
    for mut host in [Host::new(), Host::on_old_kernel()] {
        for (name, case) in &records {
            if let Some(difference) = case.try_on(&mut host) {
                panic!("{name}: {difference}\n{}", case.describe());
            }
        }
    }
}

#[test]
fn the_programs_do_what_the_model_says() {
    let seed = setting("OVS_EBPF_SEED", 0x6f76_732d_6562_7066);
    let frames = setting("OVS_EBPF_FRAMES", 1_000_000) as usize;
    let started = Instant::now();
    // In turn: the programs treat the kernel as what it is, and as an old one.
    let mut hosts = [Host::new(), Host::on_old_kernel()];
    let mut seeds = Random::new(seed);
    let mut outcomes = Outcomes::default();
    let mut done = 0;
    while done < frames {
        let count = SCENE_FRAMES.min(frames - done);
        let scene_seed = seeds.number();
        hosts.rotate_left(1);
        let host = &mut hosts[0];
        if scene(host, scene_seed, count, &mut outcomes).is_err() {
            let (at, text) = first_difference(host, scene_seed, count);
            let case = Case::nth(scene_seed, at);
            panic!(
                "frame {} of seed {seed:#x} ({at} of scene {scene_seed:#x}): {text}\n{}{}",
                done + at,
                case.describe(),
                keep(&case, host, &text),
            );
        }
        done += count;
    }
    println!("{done} frames of seed {seed:#x} in {:.1?}:\n{outcomes}", started.elapsed());
    if frames >= MANY {
        outcomes.assert_all_are_common(frames);
    }
}

/// Sends `count` frames through both, on the tables of a scene. The error says how they differ.
fn scene(host: &mut Host, seed: u64, count: usize, outcomes: &mut Outcomes) -> Result<(), String> {
    let mut traffic = Traffic::new(seed, &DEVICES);
    let mut both = Both::start(host, &traffic.scene.tables);
    let mut arrival = Arrival::default();
    for _ in 0..count {
        let program = next(&mut traffic, &mut arrival);
        let outcome = both.run(program, &arrival)?;
        outcomes.count(program, outcome);
    }
    outcomes.told += both.told;
    both.settle()
}

/// The first frame of a scene that makes a difference, and which. Some show in the maps only, when
/// the scene is over.
fn first_difference(host: &mut Host, seed: u64, count: usize) -> (usize, String) {
    let mut differs = |count| scene(host, seed, count, &mut Outcomes::default()).err();
    let (mut fine, mut wrong) = (0, count);
    while wrong - fine > 1 {
        let middle = fine.midpoint(wrong);
        if differs(middle).is_some() { wrong = middle } else { fine = middle }
    }
    let text = differs(wrong).unwrap_or_else(|| "not a second time".to_owned());
    (wrong - 1, text)
}

/// Writes a case without what makes no difference, and says where.
fn keep(case: &Case, host: &mut Host, found: &str) -> String {
    if case.try_on(host).is_none() {
        return "not kept: it takes the frames before it too".to_owned();
    }
    record::keep(&case.with_less(host), found)
}

/// The next arrival that the kernel runs a program on.
fn next(traffic: &mut Traffic, arrival: &mut Arrival) -> Program {
    loop {
        let program = traffic.next(arrival);
        if !too_short(&arrival.frame) {
            return program;
        }
    }
}

impl Case {
    /// The frame after `at` others of a scene, with the tables as those left them.
    fn nth(seed: u64, at: usize) -> Self {
        let mut traffic = Traffic::new(seed, &DEVICES);
        let mut model = Model::new(traffic.scene.tables.clone());
        let mut arrival = Arrival::default();
        let mut program = next(&mut traffic, &mut arrival);
        for _ in 0..at {
            // The outcome does not matter here, what it leaves in the tables does.
            let _outcome = model.run(program, now(), &received(&arrival));
            if !std::mem::take(&mut model.events).is_empty() {
                // As between the frames of a scene.
                model.tables.ports.clone_from(&traffic.scene.tables.ports);
                model.tables.tunnel_index.clone_from(&traffic.scene.tables.tunnel_index);
                model.tables.tunnel_index6.clone_from(&traffic.scene.tables.tunnel_index6);
            }
            program = next(&mut traffic, &mut arrival);
        }
        Self { tables: model.tables, program, arrival }
    }
}

/// A number from the environment, decimal or with 0x.
fn setting(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.unwrap_or_else(|error| panic!("{name}={text}: {error}"))
}
