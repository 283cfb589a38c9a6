//! `cargo xtask COMMAND`: see `cargo xtask --help`.

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
    /// Build the BPF object and show what is in it
    BuildEbpf(xtask::build::BuildArgs),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::BuildEbpf(args) => xtask::build::run(&args),
    }
}
