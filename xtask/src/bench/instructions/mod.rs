//! Instructions for each packet, counted by a machine of one emulated processor whose clock goes on by
//! a nanosecond with each of them.

pub(super) mod inside;
mod report;

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use super::path::DataPath;
use crate::{
    ebpf,
    progress::Step,
    vm::{Clock, Job, Machine, Series},
};

/// What was counted on one path, each time that it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Counts {
    path: DataPath,
    /// Instructions for each UDP datagram with 64 bytes.
    udp_64: Vec<f64>,
    /// Instructions for each KB over TCP.
    tcp_kb: Vec<f64>,
}

/// Boots the kernel and counts on these paths, or on all without any.
///
/// # Errors
/// When the machine does not come up, and when a path can't be counted.
pub(super) fn run(
    series: Series,
    only: &[DataPath],
    loader: &Path,
    json: Option<&Path>,
) -> Result<()> {
    let paths = if only.is_empty() { DataPath::value_variants() } else { only };
    let program = env::current_exe().context("cannot find this program's own file")?;
    let (program, loader) = (program.to_string_lossy(), loader.to_string_lossy());
    let list: Vec<String> = paths.iter().map(ToString::to_string).collect();
    let only = list.join(",");
    let words =
        [&*program, "bench", "--instructions", "--inside", "--loader", &loader, "--only", &only];
    let words = words.map(str::to_owned).into();
    let job = Job { directory: ebpf::workspace().to_owned(), words, ..Job::default() };
    let mut machine = Machine::boot(series, Clock::Instructions, &[job])?;
    let mut step = Step::start(format!("counting instructions on {} paths", paths.len()));
    let mut output = Vec::new();
    let mut counted = 0;
    let status = machine.next_status(|bytes| {
        output.extend_from_slice(bytes);
        for line in output[counted..].split_inclusive(|byte| *byte == b'\n') {
            if line.ends_with(b"\n") {
                counted += line.len();
                step.line(&String::from_utf8_lossy(line));
            }
        }
        Ok(())
    })?;
    machine.finish()?;
    ensure!(status == 0, "counting in the virtual machine failed");
    step.done();
    let output = String::from_utf8_lossy(&output);
    let counts: Vec<Counts> = output
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("not what was counted: {output}"))?;
    if let Some(json) = json {
        fs::write(json, serde_json::to_string_pretty(&counts)?)
            .with_context(|| format!("cannot write {}", json.display()))?;
    }
    print!("{}", report::table(series, &counts));
    Ok(())
}
