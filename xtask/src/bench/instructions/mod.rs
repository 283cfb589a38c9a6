//! Instructions for each packet, counted by a machine of one emulated processor whose clock goes on by
//! a nanosecond with each of them.

pub(super) mod inside;
mod report;

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use self::report::Counted;
use super::{cilium, inside::job, machine::HostInfo, path::DataPath};
use crate::{
    progress::Step,
    vm::{Clock, Machine, Series},
};

/// What was counted on one path, each time that it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Counts {
    path: DataPath,
    /// Instructions for each UDP datagram with 64 bytes.
    udp_64: Vec<f64>,
    /// Instructions for each KB over TCP.
    tcp_1: Vec<f64>,
    /// Of those for a datagram, how many each program and the helpers that it calls take.
    programs: BTreeMap<String, f64>,
}

/// A line of what the machine prints.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// First: where is counted.
    Host(HostInfo),
    /// For each path.
    Counts(Counts),
}

/// Boots the kernel and counts on these paths, or on all without any.
///
/// # Errors
/// When the machine does not come up, and when a path can't be counted.
pub(super) fn run(series: Series, only: &[DataPath], loader: &Path) -> Result<Counted> {
    let paths = if only.is_empty() { DataPath::value_variants() } else { only };
    if paths.contains(&DataPath::CiliumModel) {
        // There, nothing can be built.
        cilium::build()?;
    }
    let job = job(&["--instructions", "--inside"], paths, loader)?;
    let mut machine = Machine::boot(series, Clock::Instructions, &[job])?;
    let mut step = Step::start(format!("counting instructions on {} paths", paths.len()));
    let mut output = Vec::new();
    let mut shown = 0;
    let status = machine.next_status(|bytes| {
        output.extend_from_slice(bytes);
        while let Some(length) = output[shown..].iter().position(|byte| *byte == b'\n') {
            step.line(&String::from_utf8_lossy(&output[shown..shown + length]));
            shown += length + 1;
        }
        Ok(())
    })?;
    machine.finish()?;
    ensure!(status == 0, "counting in the virtual machine failed");
    step.done();
    let output = String::from_utf8_lossy(&output);
    let lines = output.lines().map(serde_json::from_str).collect::<Result<Vec<Line>, _>>();
    let lines = lines.with_context(|| format!("not what was counted: {output}"))?;
    Counted::of(lines)
}
