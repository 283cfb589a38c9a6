//! The benchmark in a virtual machine.

use std::{env, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{cilium, path::DataPath, report::Report};
use crate::{
    ebpf,
    vm::{Clock, Job, Machine, Series},
};

/// Boots a kernel and measures there.
///
/// # Errors
/// When the machine does not come up, and when measuring fails in there.
pub(super) fn run(
    series: Series,
    paths: &[DataPath],
    quick: bool,
    loader: &Path,
) -> Result<Report> {
    if paths.contains(&DataPath::CiliumModel) {
        // There, nothing can be built.
        cilium::build()?;
    }
    let mut options = vec!["--inside"];
    options.extend(quick.then_some("--quick"));
    let mut machine = Machine::boot(series, Clock::Host, &[job(&options, paths, loader)?])?;
    let mut output = Vec::new();
    let status = machine.next_status(|bytes| {
        output.extend_from_slice(bytes);
        Ok(())
    })?;
    machine.finish()?;
    ensure!(status == 0, "the benchmark in the virtual machine failed");
    serde_json::from_slice(&output)
        .with_context(|| format!("not what was measured: {}", String::from_utf8_lossy(&output)))
}

/// This program with these options, as a job for the machine.
pub(super) fn job(options: &[&str], paths: &[DataPath], loader: &Path) -> Result<Job> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let (program, loader) = (program.to_string_lossy(), loader.to_string_lossy());
    let only: Vec<String> = paths.iter().map(ToString::to_string).collect();
    let only = only.join(",");
    let words = [&[&*program, "bench"], options, &["--loader", &loader, "--only", &only]].concat();
    let words = words.into_iter().map(str::to_owned).collect();
    Ok(Job { directory: ebpf::workspace().to_owned(), words, ..Job::default() })
}
