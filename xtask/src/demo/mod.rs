//! `cargo xtask demo`: the main job on real packets, between two hosts in network namespaces.

mod docker;
mod measure;
mod report;
mod vm;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use ovs_ebpf_common::abi;
use ovs_ebpf_tests::lab::{self, FastPackets, Lab, Loader};

use self::{
    measure::{Sample, median},
    report::Report,
};
use crate::{
    daemons,
    progress::Step,
    setup::{self, Purpose},
    sudo,
    vm::Series,
};

/// How often each path is measured, in turns: a machine's speed changes from second to second.
const ROUNDS: usize = 3;
/// The same in the emulated machine, which swings more.
const ROUNDS_WITH_OVS: usize = 5;

/// Arguments of `cargo xtask demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// The tunnel between the hosts' bridges
    #[arg(long, value_enum, default_value_t = Encap::Vxlan)]
    encap: Encap,
    /// Two hosts with Open vSwitch, in a virtual machine with this kernel
    #[arg(long, value_name = "KERNEL", num_args = 0..=1, default_missing_value = "6.12")]
    vm: Option<Series>,
    /// Two Docker engines with one network, against Docker's own network of one host
    #[arg(long, conflicts_with_all = ["vm", "keep", "encap"])]
    docker: bool,
    /// Leave the hosts and their daemons up, and print how to enter them
    #[arg(long)]
    keep: bool,
    /// Print one JSON object and nothing else on stdout
    #[arg(long)]
    json: bool,
    /// Remove what --keep has left up; do nothing else
    #[arg(long, exclusive = true)]
    remove: bool,
    /// Run this ovs-loader, without set-up and build: how the demo calls itself through sudo
    #[arg(long, hide = true, value_name = "FILE")]
    loader: Option<PathBuf>,
    /// Open vSwitch's bridges: how the demo calls itself in the virtual machine
    #[arg(long, hide = true)]
    ovs: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Encap {
    Vxlan,
    Gre,
}

impl Encap {
    fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Gre => "gre",
        }
    }
}

impl From<Encap> for lab::Encap {
    fn from(encap: Encap) -> Self {
        match encap {
            Encap::Vxlan => Self::Vxlan,
            Encap::Gre => Self::Gre,
        }
    }
}

/// Runs the demo. The result goes to stdout, progress to stderr.
///
/// # Errors
/// When set-up, building, a measurement or the daemon fails; what was set up in the kernel is removed
/// before.
pub fn run(args: &DemoArgs) -> Result<()> {
    if args.remove {
        sudo::reexec_as_root(&[])?;
        let removed = lab::remove_kept()?;
        eprintln!(
            "removed {}",
            if removed.is_empty() { "nothing".into() } else { removed.join(", ") }
        );
        return Ok(());
    }
    if args.vm.is_some() && args.keep {
        bail!("--keep can't keep anything with --vm: the machine ends with the demo");
    }
    let loader = match &args.loader {
        Some(loader) => loader.clone(),
        None => {
            setup::ensure(Purpose::Demo)?;
            if args.vm.is_some() {
                setup::ensure(Purpose::Vm)?;
            }
            if args.docker {
                setup::ensure(Purpose::Docker)?;
            }
            daemons::build()?
        }
    };
    if let Some(series) = args.vm {
        return vm::run(series, args.encap, args.json, &loader);
    }
    sudo::reexec_as_root(&["--loader".as_ref(), loader.as_os_str()])?;
    if args.docker {
        return docker::show(args.json, &loader);
    }
    show(args, &loader)
}

fn show(args: &DemoArgs, binary: &Path) -> Result<()> {
    let step = Step::start("making two hosts with a container each");
    let lab = if args.ovs {
        Lab::build_ovs(args.encap.into(), &format!("options:key={}", lab::KEY), &[1, 1])?
    } else {
        Lab::build(args.encap.into(), &[1, 1])?
    };
    daemons::wait_until_reachable(&lab)?;
    step.done();

    let rounds = if args.ovs { ROUNDS_WITH_OVS } else { ROUNDS };
    let measured = |path, round| measured(path, (round, rounds), &lab);
    let mut slow = vec![measured("slow path", 1)?];
    let mut fast = Vec::new();
    let mut packets = FastPackets::default();
    let step = Step::start("starting `ovs-loader run` on both hosts");
    let mut loaders = daemons::start(&lab, binary)?;
    step.done();
    for round in 1..=rounds {
        if round > 1 {
            switch(&lab, &loaders, false)?;
            slow.push(measured("slow path", round)?);
            switch(&lab, &loaders, true)?;
        }
        daemons::wait_until_fast(&loaders, lab.container(0), lab.container(1).ipv4().into())?;
        let before = daemons::packets(&loaders)?;
        fast.push(measured("fast path", round)?);
        packets = packets + (daemons::packets(&loaders)? - before);
    }
    let report = Report::new(args.encap.name(), median(&slow), median(&fast), packets.share());

    let stdout = io::stdout();
    if args.json {
        writeln!(&stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(&stdout, "\n{report}")?;
        write!(&stdout, "{}", tables(&lab, &loaders[0])?)?;
    }
    if args.keep {
        eprint!("{}", report::entering(&lab, &loaders, binary));
        for loader in loaders.drain(..) {
            loader.keep();
        }
        lab.keep()?;
    }
    Ok(())
}

fn measured(path: &str, (round, rounds): (usize, usize), lab: &Lab) -> Result<Sample> {
    let step = Step::start(format!("measuring the {path} ({round} of {rounds})"));
    let sample = measure::sample(lab)?;
    step.done();
    Ok(sample)
}

fn switch(lab: &Lab, loaders: &[Loader], on: bool) -> Result<()> {
    for (host, loader) in lab.hosts().iter().zip(loaders) {
        loader.accelerate(host.bridge(), on)?;
    }
    Ok(())
}

/// The first host's FDB, as the daemon and as bpftool show it.
fn tables(lab: &Lab, loader: &Loader) -> Result<String> {
    let map = loader.bpffs().join(format!("v{}/fdb", abi::VERSION));
    let map = map.to_string_lossy();
    let shown = loader.cli(&["fdb", "show"])?;
    let dumped = lab.host(0).try_exec(&["bpftool", "map", "dump", "pinned", &map])?;
    Ok(format!(
        "On host 1, `ovs-loader fdb show`:\n{}\n\n`bpftool map dump pinned {map}`:\n{}\n",
        shown.trim_end(),
        dumped.trim_end()
    ))
}
