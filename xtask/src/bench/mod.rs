//! `cargo xtask bench`: what a packet costs on every path.

mod instructions;
mod path;
mod testbed;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use self::path::DataPath;
use crate::{
    daemons,
    setup::{self, Purpose},
    vm::Series,
};

/// Arguments of `cargo xtask bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Count instructions for each datagram and each KB of TCP, in an emulated machine whose clock is
    /// its instructions: no noise, whatever else this machine does
    #[arg(long)]
    instructions: bool,
    /// The kernel of the virtual machine
    #[arg(long, value_name = "KERNEL", num_args = 0..=1, default_missing_value = "6.12")]
    vm: Option<Series>,
    /// These paths only
    #[arg(long, value_enum, value_name = "PATH", value_delimiter = ',')]
    only: Vec<DataPath>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run this ovs-loader, without set-up and build
    #[arg(long, value_name = "FILE")]
    loader: Option<PathBuf>,
    /// Be what is measured: how the benchmark calls itself in the virtual machine
    #[arg(long, hide = true)]
    inside: bool,
}

/// Runs the benchmark. The results go to stdout, progress to stderr.
///
/// # Errors
/// When set-up, building, a measurement or the daemon fails; what was set up in the kernel is removed
/// before.
pub fn run(args: &BenchArgs) -> Result<()> {
    let loader = match &args.loader {
        Some(loader) => loader.clone(),
        None => {
            setup::ensure(Purpose::Vm)?;
            daemons::build()?
        }
    };
    if args.inside {
        return instructions::inside::run(&args.only, &loader);
    }
    let series = args.vm.unwrap_or(Series::V6_12);
    instructions::run(series, &args.only, &loader, args.json.as_deref())
}
