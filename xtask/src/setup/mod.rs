//! `cargo xtask setup`: finds what is missing, says what and why, and installs it.

pub(crate) mod apt;
mod bpf;
mod fuzz;
mod tools;

use anyhow::{Result, bail};
use clap::Args;

use crate::ebpf::{self, Found};

/// Arguments of `cargo xtask setup`.
#[derive(Args)]
pub struct SetupArgs {
    /// Report what is there and what is missing; install nothing
    #[arg(long)]
    check: bool,
}

/// What a machine is to be set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `cargo xtask demo`: the toolchain and what the demo runs.
    Demo,
    /// `cargo xtask test`: the toolchain and what the tests run.
    Test,
    /// Tests and demo in virtual machines: what makes the machine, and what runs in there besides.
    Vm,
    /// `cargo xtask demo --docker`: what makes and runs containers.
    Docker,
    /// `cargo xtask bench`: the toolchain, load generators and what the benchmark asks the kernel with.
    Bench,
    /// `cargo xtask fuzz`: the toolchain and the fuzzer.
    Fuzz,
}

/// Sets the machine up for everything but the fuzzer, which a run of it installs, or with `--check`
/// reports what there is.
///
/// # Errors
/// When something is missing that can't be installed, or is missing at all with `--check`.
pub fn run(args: &SetupArgs) -> Result<()> {
    if args.check {
        return report();
    }
    ensure(Purpose::Demo)?;
    ensure(Purpose::Test)?;
    ensure(Purpose::Vm)?;
    ensure(Purpose::Bench)?;
    println!("everything is there; see `cargo xtask setup --check`");
    Ok(())
}

/// Installs what `purpose` needs and is missing. Quick and silent when nothing is.
///
/// # Errors
/// Naming what is missing, when it can't be installed.
pub fn ensure(purpose: Purpose) -> Result<()> {
    bpf::ensure()?;
    tools::ensure(purpose)?;
    if purpose == Purpose::Fuzz {
        fuzz::ensure()?;
    }
    Ok(())
}

fn report() -> Result<()> {
    let mut complete = true;
    match ebpf::find() {
        Found::Ready(toolchain) => println!("BPF toolchain: {toolchain}"),
        Found::Missing(missing) => {
            complete = false;
            println!("BPF toolchain: {missing}");
        }
    }
    for tool in tools::TOOLS.iter().filter(|tool| tool.purposes != [Purpose::Fuzz]) {
        let state = match tool.find() {
            Some(path) => path.display().to_string(),
            None => {
                complete = false;
                format!("MISSING, Debian package {}", tool.package)
            }
        };
        println!("{}: {state} ({})", tool.program, tool.why);
    }
    if !complete {
        bail!("something is missing: `cargo xtask setup` installs it");
    }
    Ok(())
}
