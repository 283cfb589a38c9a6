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

use self::{chart::Chart, path::DataPath};
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
    /// Write the results to this file [default: one in docs/benchmarks, but none of a run with --quick, --only,
    /// --loader or another kernel than 6.12]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the results into this SVG file [default: beside that of --json]
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Compare with an earlier --instructions --json, and fail where a path takes 2 % more
    #[arg(long, value_name = "FILE", requires = "instructions")]
    against: Option<PathBuf>,
    /// Measure this ovs-loader, without set-up and build; ovs-ebpf-gre by the fixture has this workspace's
    /// programs all the same
    #[arg(long, value_name = "FILE")]
    loader: Option<PathBuf>,
    /// The ovs-loader that was built: how the benchmark calls itself as root
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
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
    let loader = match args.loader.as_ref().or(args.built.as_ref()) {
        Some(loader) => loader.clone(),
        None => {
            setup::ensure(Purpose::Bench)?;
            if in_machine {
                setup::ensure(Purpose::Vm)?;
            }
            daemons::build()?
        }
    };
    let files = args.files();
    let rounds = if args.inside { EMULATED_ROUNDS } else { ROUNDS };
    let rounds = rounds[usize::from(args.quick)];
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
        sudo::reexec_as_root(&["--built".as_ref(), loader.as_os_str()])?;
        return scale::run(&loader, series, files.json.as_deref());
    }
    if args.instructions {
        let counted = instructions::run(series, &args.only, &loader)?;
        return counted.show(&files, args.against.as_deref());
    }
    let report = if in_machine {
        inside::run(series, &chosen(args, DataPath::IN_MACHINE), args.quick, &loader)?
    } else {
        let paths = chosen(args, DataPath::IN_NAMESPACES);
        // Before this is root, for whose files are built here.
        if paths.contains(&DataPath::OvsEbpfGre) {
            described::build()?;
        }
        if paths.contains(&DataPath::CiliumModel) {
            cilium::build()?;
        }
        sudo::reexec_as_root(&["--built".as_ref(), loader.as_os_str()])?;
        rounds::run(&paths, rounds, &loader)?
    };
    print!("{}", table::table(&report)?);
    files.write(&report, || Chart::of(&report))
}

/// Where results go, beside the table.
struct Files {
    json: Option<PathBuf>,
    chart: Option<PathBuf>,
}

impl BenchArgs {
    /// Results that are whole replace those of the documentation, both the figures and their chart.
    fn files(&self) -> Files {
        let usual = self.vm.is_none_or(|series| series == Series::V6_12);
        let whole = usual && !self.quick && self.only.is_empty() && self.loader.is_none();
        let name = match self.vm {
            _ if self.scale => "scale",
            _ if self.instructions => "instructions",
            Some(_) => "virtual-machine",
            None => "namespaces",
        };
        let default = || ebpf::workspace().join(format!("docs/benchmarks/{name}.json"));
        let json = self.json.clone().or_else(|| whole.then(default));
        let beside = || json.as_ref().map(|json| json.with_extension("svg"));
        Files { chart: self.chart.clone().or_else(beside), json }
    }
}

impl Files {
    fn write<'a>(&self, results: &impl Serialize, chart: impl FnOnce() -> Chart<'a>) -> Result<()> {
        if let Some(json) = &self.json {
            write(json, results)?;
        }
        if let Some(file) = &self.chart {
            chart().draw(file)?;
            eprintln!("drawn: {}", file.display());
        }
        Ok(())
    }
}

fn chosen(args: &BenchArgs, default: &[DataPath]) -> Vec<DataPath> {
    if args.only.is_empty() { default.to_vec() } else { args.only.clone() }
}

/// Writes a file of results.
fn write(file: &Path, results: &impl Serialize) -> Result<()> {
    fs::write(file, serde_json::to_string_pretty(results)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("written: {}", file.display());
    Ok(())
}
