//! `cargo xtask bench`: what a packet costs on every path.

mod chart;
mod cilium;
mod described;
mod details;
mod inside;
mod instructions;
mod machine;
mod measure;
mod path;
mod perf;
mod report;
mod rounds;
mod scale;
mod table;
mod testbed;
mod xdp;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use self::{chart::Chart, path::DataPath, report::Report};
use crate::{
    daemons, ebpf,
    setup::{self, Purpose},
    sudo,
    vm::Series,
};

/// Rounds, and with --quick.
const ROUNDS: [usize; 2] = [10, 3];
/// The same in an emulated machine, where all takes longer and there are more paths.
const EMULATED_ROUNDS: [usize; 2] = [5, 2];

/// Arguments of `cargo xtask bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Three rounds instead of ten, in a virtual machine two instead of five
    #[arg(long)]
    quick: bool,
    /// In a virtual machine with this kernel, where Open vSwitch's datapath and GRE are; emulated, so
    /// that only ratios count
    #[arg(long, value_name = "KERNEL", num_args = 0..=1, default_missing_value = "6.12")]
    vm: Option<Series>,
    /// Count instructions for each datagram and each KB of TCP, in a virtual machine whose clock is its
    /// instructions: no noise, whatever else this machine does
    #[arg(long)]
    instructions: bool,
    /// Time what it costs to discard a packet: the filter on the uplink (accelerate.xdp) against the
    /// same rules in nftables
    #[arg(long, exclusive = true)]
    xdp: bool,
    /// Measure what grows with the tables and what does not: packets, loading a million stations,
    /// following 10,000 changes a second, memory
    #[arg(long, conflicts_with_all = ["quick", "instructions", "xdp", "only", "chart"])]
    scale: bool,
    /// These paths only
    #[arg(long, value_enum, value_name = "PATH", value_delimiter = ',')]
    only: Vec<DataPath>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the results into this SVG file [default: one in docs/benchmarks, but with --quick and --only
    /// none]
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Compare with an earlier --instructions --json, and fail where a path takes 2 % more
    #[arg(long, value_name = "FILE", requires = "instructions")]
    against: Option<PathBuf>,
    /// Measure this ovs-loader, without set-up and build
    #[arg(long, value_name = "FILE")]
    loader: Option<PathBuf>,
    /// Print JSON only: how the benchmark calls itself in the virtual machine
    #[arg(long, hide = true)]
    inside: bool,
}

/// Runs the benchmark. The results go to stdout, progress to stderr.
///
/// # Errors
/// When set-up, building, a measurement or the daemon fails; what was set up in the kernel is removed
/// before.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.xdp {
        return xdp::run();
    }
    let in_machine = args.vm.is_some() || args.instructions || args.scale;
    let loader = match &args.loader {
        Some(loader) => loader.clone(),
        None => {
            setup::ensure(Purpose::Bench)?;
            if in_machine {
                setup::ensure(Purpose::Vm)?;
            }
            daemons::build()?
        }
    };
    let rounds = if args.inside { EMULATED_ROUNDS } else { ROUNDS };
    let rounds = rounds[usize::from(args.quick)];
    let json = args.json.as_deref();
    if args.inside {
        return if args.instructions {
            instructions::inside::run(&args.only, &loader)
        } else {
            println!("{}", serde_json::to_string(&rounds::run(&args.only, rounds, &loader)?)?);
            Ok(())
        };
    }
    let series = args.vm.unwrap_or(Series::V6_12);
    if args.scale {
        sudo::reexec_as_root(&["--loader".as_ref(), loader.as_os_str()])?;
        return scale::run(&loader, series, json);
    }
    if args.instructions {
        let counted = instructions::run(series, &args.only, &loader)?;
        return counted.show(json, chart(args).as_deref(), args.against.as_deref());
    }
    let report = if in_machine {
        inside::run(series, &chosen(args, DataPath::IN_MACHINE), args.quick, &loader)?
    } else {
        let paths = chosen(args, DataPath::IN_NAMESPACES);
        if args.loader.is_none() && paths.contains(&DataPath::OvsEbpfGre) {
            described::build()?;
        }
        sudo::reexec_as_root(&["--loader".as_ref(), loader.as_os_str()])?;
        rounds::run(&paths, rounds, &loader)?
    };
    show(&report, json, chart(args).as_deref())
}

/// Where to draw: results that are whole replace those of the documentation.
fn chart(args: &BenchArgs) -> Option<PathBuf> {
    let whole = !args.quick && args.only.is_empty();
    let name = match args.vm {
        _ if args.instructions => "instructions",
        Some(_) => "virtual-machine",
        None => "namespaces",
    };
    let default = || ebpf::workspace().join(format!("docs/benchmarks/{name}.svg"));
    args.chart.clone().or_else(|| whole.then(default))
}

fn chosen(args: &BenchArgs, default: &[DataPath]) -> Vec<DataPath> {
    if args.only.is_empty() { default.to_vec() } else { args.only.clone() }
}

fn show(report: &Report, json: Option<&Path>, chart: Option<&Path>) -> Result<()> {
    if let Some(json) = json {
        write(json, report)?;
    }
    if let Some(chart) = chart {
        Chart::of(report).draw(chart)?;
    }
    print!("{}", table::table(report)?);
    Ok(())
}

fn write(file: &Path, results: &impl Serialize) -> Result<()> {
    fs::write(file, serde_json::to_string_pretty(results)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))
}
