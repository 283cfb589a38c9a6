//! Some of the tests on the loaded programs, on more than they take by themselves.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::binaries::{self, Binary};
use crate::{
    setup::{self, Purpose},
    sudo,
};

/// Sets up, builds and runs the tests of a module with this environment. Gives whether they passed.
///
/// # Errors
/// When set-up or building fails.
pub(crate) fn run(module: &str, environment: &[(&str, String)]) -> Result<bool> {
    setup::ensure(Purpose::Test)?;
    let binary = find()?;
    sudo::authenticate("for BPF programs")?;
    let mut command = sudo::command(&binary.executable);
    command.args([module, "--nocapture", "--test-threads=1"]).current_dir(&binary.package_dir);
    for (name, value) in environment {
        command.env(name, value);
    }
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", binary.executable.display()))?;
    Ok(status.success())
}

/// Builds the tests and gives their program.
///
/// # Errors
/// When building fails.
pub(crate) fn build() -> Result<PathBuf> {
    find().map(|binary| binary.executable)
}

fn find() -> Result<Binary> {
    let mut binaries = binaries::build(&["--package", "ovs-ebpf-tests", "--test", "prog_run"])?;
    match (binaries.pop(), binaries.len()) {
        (Some(binary), 0) => Ok(binary),
        (_, others) => bail!("cargo built {others} test programs beside prog_run"),
    }
}
