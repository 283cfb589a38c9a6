//! What explains the figures: how large packets are, how long programs run, what the uplink's own
//! segmentation changes.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::sys::{Stats, enable_stats};
use ovs_ebpf_tests::lab::traffic;
use serde_json::Value;

use super::{
    measure::{Measure, Sample},
    path::DataPath,
    perf::Perf,
    report::{Details, Figure, Figures},
    testbed::Testbed,
};
use crate::progress::Step;

/// How long each measurement takes.
const DURATION: Duration = Duration::from_secs(1);

/// Measures on all paths, segmentation in so many rounds.
///
/// # Errors
/// With what a load generator says, and when the kernel can't be asked.
pub(super) fn measure(testbeds: &[Testbed], rounds: usize) -> Result<Details> {
    let step = Step::start("measuring packets on the uplink and programs");
    let mut details = Details::default();
    for testbed in testbeds {
        let path = testbed.path();
        details.uplink_packet_bytes.insert(path, packet_bytes(testbed)?);
        let programs = testbed.programs();
        if !programs.is_empty() {
            let load = || traffic::flood(testbed.from(), testbed.to(), 64, None, 1);
            details.program_ns.insert(path, program_ns(programs, load)?);
        }
        if let Some(share) = testbed.fast_share()? {
            details.fast_share.insert(path, share);
        }
        details.notes.extend(testbed.note().map(|note| format!("{path}: {note}")));
    }
    step.done();
    details.segmented_uplink = segmented_uplink(testbeds, rounds)?;
    Ok(details)
}

/// The average packet that enters the uplink under one TCP flow, in bytes.
// Counts are far below 2^53, here and below.
#[allow(clippy::cast_precision_loss)]
fn packet_bytes(testbed: &Testbed) -> Result<f64> {
    let (packets, bytes) = testbed.uplink_sent()?;
    traffic::tcp(testbed.from(), testbed.to(), 1, DURATION)?;
    let (packets_after, bytes_after) = testbed.uplink_sent()?;
    let packets = packets_after.saturating_sub(packets).max(1);
    Ok(bytes_after.saturating_sub(bytes) as f64 / packets as f64)
}

/// Nanoseconds for each run of the programs with these names under a load.
///
/// # Errors
/// The load's own, and when the kernel can't be asked.
pub(super) fn program_ns<T>(
    programs: &[&str],
    load: impl FnOnce() -> Result<T>,
) -> Result<BTreeMap<String, f64>> {
    // Until this is closed, whatever becomes of this process, the kernel measures each run, which slows all down.
    let measured = enable_stats(Stats::RunTime).context("the kernel measures no programs")?;
    let before = run_times(programs)?;
    load()?;
    let after = run_times(programs)?;
    drop(measured);
    let per_run = |(name, (runs, ns)): (String, (u64, u64))| {
        let (runs_before, ns_before) = before.get(&name).copied().unwrap_or_default();
        let runs = runs.saturating_sub(runs_before);
        #[allow(clippy::cast_precision_loss)]
        (runs > 0).then(|| (name, ns.saturating_sub(ns_before) as f64 / runs as f64))
    };
    Ok(after.into_iter().filter_map(per_run).collect())
}

/// Runs and their nanoseconds, of all loaded programs with each of these names.
fn run_times(programs: &[&str]) -> Result<BTreeMap<String, (u64, u64)>> {
    let mut command = std::process::Command::new("bpftool");
    let output = command.args(["--json", "prog", "show"]).output();
    let output = output.context("cannot start bpftool")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "bpftool failed ({}): {said}", output.status);
    let shown: Value = serde_json::from_slice(&output.stdout).context("not what bpftool prints")?;
    let mut times: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for program in shown.as_array().into_iter().flatten() {
        let name = program["name"].as_str().unwrap_or_default();
        if programs.contains(&name) {
            let (runs, ns) = times.entry(name.to_owned()).or_default();
            *runs += program["run_cnt"].as_u64().unwrap_or(0);
            *ns += program["run_time_ns"].as_u64().unwrap_or(0);
        }
    }
    Ok(times)
}

/// TCP over one flow, where the uplink does not segment and its receiver aggregates.
fn segmented_uplink(testbeds: &[Testbed], rounds: usize) -> Result<Figures> {
    let step = Step::start("measuring TCP over uplinks that don't segment");
    for testbed in testbeds {
        testbed.segment_in_software(true)?;
    }
    let perf = Perf::probe();
    let mut samples: BTreeMap<DataPath, Vec<Sample>> = BTreeMap::new();
    for _ in 0..rounds {
        for testbed in testbeds {
            let sample = Measure::Tcp1.run(testbed, &perf);
            let path = testbed.path();
            let sample = sample.with_context(|| format!("cannot measure segments on {path}"))?;
            samples.entry(path).or_default().push(sample);
        }
    }
    for testbed in testbeds {
        testbed.segment_in_software(false)?;
    }
    step.done();
    let paths = samples.iter().map(|(path, samples)| (*path, Figure::of(samples))).collect();
    Ok(Figures { unit: Measure::Tcp1.unit().to_owned(), paths })
}
