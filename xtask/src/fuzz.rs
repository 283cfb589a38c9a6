//! `cargo xtask fuzz`: every target in `fuzz/`, one after the other, each for a while.
//!
//! Begins with the committed corpus. What a run finds worth keeping goes into `target/fuzz`, where
//! the next run takes it up; an input that fails goes into `fuzz/artifacts`.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    ebpf, progress,
    setup::{self, Purpose},
};

/// Arguments of `cargo xtask fuzz`.
#[derive(Args)]
pub struct FuzzArgs {
    /// Run this target only
    target: Option<Target>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
}

/// What is fuzzed: a file each in `fuzz/fuzz_targets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Wire formats and the model of the programs
    Frames,
    /// The configuration file
    Configuration,
    /// Requests on the control socket
    Control,
    /// What ovsdb-server sends
    Ovsdb,
    /// What ovs-vswitchd prints
    Unixctl,
    /// What a bridge's OpenFlow socket sends
    #[value(name = "openflow")]
    OpenFlow,
}

/// Runs the targets. Stops at the first that fails.
///
/// # Errors
/// When set-up or building fails, or a target does: the fuzzer has printed the input then.
pub fn run(args: &FuzzArgs) -> Result<()> {
    setup::ensure(Purpose::Fuzz)?;
    let mut build = cargo_fuzz("build");
    let targets = match &args.target {
        Some(target) => {
            build.arg(name(*target));
            std::slice::from_ref(target)
        }
        None => Target::value_variants(),
    };
    progress::run("building the fuzz targets (minutes, the first time)", build)?;
    for target in targets {
        run_target(&name(*target), args.seconds)?;
    }
    Ok(())
}

fn run_target(name: &str, seconds: u64) -> Result<()> {
    let found = ebpf::workspace().join("target/fuzz").join(name);
    fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
    let corpus = ebpf::workspace().join("fuzz/corpus").join(name);
    let mut run = cargo_fuzz("run");
    run.arg(name).arg(&found).arg(&corpus).arg("--").args([
        &format!("-max_total_time={seconds}"),
        "-timeout=30",
        "-max_len=4096",
        "-print_final_stats=1",
        // What it finds new on its way is for those who tune it.
        "-print_funcs=0",
        "-verbosity=0",
    ]);
    let output = progress::run(format!("fuzzing {name} for {seconds} s"), run).with_context(|| {
        format!(
            "{name} failed: the input is in fuzz/artifacts/{name}; add it to {} with the correction",
            corpus.display()
        )
    })?;
    let inputs =
        output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let Some(inputs) = inputs else { bail!("{name} did not say what it did:\n{output}") };
    println!("{name}: {} inputs, nothing found", inputs.trim());
    Ok(())
}

/// `cargo fuzz SUBCOMMAND`. Coverage and sanitizers are options that a stable compiler has too, if
/// told to.
fn cargo_fuzz(subcommand: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(ebpf::workspace()).env("RUSTC_BOOTSTRAP", "1").args([
        "fuzz",
        subcommand,
        "--fuzz-dir",
        "fuzz",
    ]);
    cargo
}

fn name(target: Target) -> String {
    let value = target.to_possible_value().expect("no target is hidden");
    value.get_name().to_owned()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn every_target_has_a_program_and_a_corpus() {
        let fuzz = ebpf::workspace().join("fuzz");
        let mut programs: Vec<_> = fs::read_dir(fuzz.join("fuzz_targets"))
            .expect("fuzz_targets")
            .map(|file| file.expect("a file").path().file_stem().expect("a name").to_owned())
            .collect();
        programs.sort();
        let mut targets: Vec<_> =
            Target::value_variants().iter().map(|target| OsString::from(name(*target))).collect();
        targets.sort();
        assert_eq!(programs, targets);
        for target in targets {
            let seeds = fs::read_dir(fuzz.join("corpus").join(&target)).expect("a corpus").count();
            assert!(seeds > 0, "fuzz/corpus/{} is empty", target.display());
        }
    }
}
