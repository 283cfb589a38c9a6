//! The demo in a virtual machine: between hosts with Open vSwitch, which this machine may lack.

use std::{
    env,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

use super::Encap;
use crate::{
    ebpf,
    vm::{Clock, Job, Machine, Series},
};

/// Boots a kernel and runs the demo there, on this machine's stdout and stderr.
pub(super) fn run(series: Series, encap: Encap, json: bool, loader: &Path) -> Result<()> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let (program, loader) = (program.to_string_lossy(), loader.to_string_lossy());
    let mut words = vec![&*program, "demo", "--ovs", "--encap", encap.name(), "--loader", &loader];
    if json {
        words.push("--json");
    }
    let words = words.into_iter().map(str::to_owned).collect();
    let job = Job { directory: ebpf::workspace().to_owned(), words, ..Job::default() };
    let mut machine = Machine::boot(series, Clock::Host, &[job])?;
    let status = machine.next_status(|bytes| io::stdout().write_all(bytes))?;
    machine.finish()?;
    ensure!(status == 0, "the demo in the virtual machine failed");
    Ok(())
}
