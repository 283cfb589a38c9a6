//! `cargo xtask COMMAND`: see `cargo xtask --help`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Set-up, builds, demo, tests and lints of ovs-ebpf.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building, the demo and the tests need and this machine lacks
    Setup(xtask::setup::SetupArgs),
    /// Build the BPF object and show what is in it
    BuildEbpf(xtask::build::BuildArgs),
    /// Two hosts' containers on real packets: the bridge alone, then with the fast path
    Demo(xtask::demo::DemoArgs),
    /// Make the directory for `docker plugin create`
    DockerPlugin(xtask::docker_plugin::PluginArgs),
    /// What a packet costs on every path, with and without the fast path
    Bench(xtask::bench::BenchArgs),
    /// Set up, then run the tests; ends with `N passed, N failed`
    Test(xtask::test::TestArgs),
    /// The model against the loaded programs, on other frames every time
    Differential(xtask::test::differential::DifferentialArgs),
    /// Feed every parser of outside bytes what a fuzzer comes up with
    Fuzz(xtask::fuzz::FuzzArgs),
    /// Check formatting, clippy's lints and the documentation
    Lint,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup(args) => xtask::setup::run(&args),
        Command::BuildEbpf(args) => xtask::build::run(&args),
        Command::Demo(args) => xtask::demo::run(&args),
        Command::DockerPlugin(args) => xtask::docker_plugin::run(&args),
        Command::Bench(args) => xtask::bench::run(&args),
        Command::Test(args) => xtask::test::run(&args),
        Command::Differential(args) => xtask::test::differential::run(&args),
        Command::Fuzz(args) => xtask::fuzz::run(&args),
        Command::Lint => xtask::lint::run(),
    }
}
