//! `cargo xtask test`: sets the machine up, then runs every tier of tests and adds them up.

mod binaries;
pub mod differential;
pub(crate) mod prog_run;
pub(crate) mod run_costs;
mod tally;
mod vm;

use std::{
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    binaries::{Binary, Tier},
    tally::Tally,
    vm::{Extent, Kernels},
};
use crate::{
    ebpf, progress,
    setup::{self, Purpose},
    sudo,
    vm::Series,
};

/// Arguments of `cargo xtask test`.
#[derive(Args)]
pub struct TestArgs {
    /// Leave out the tests on hosts in network namespaces and in virtual machines, which take minutes
    #[arg(long, conflicts_with = "vm")]
    quick: bool,
    /// Run the tests in virtual machines alone, with this kernel
    #[arg(long, value_name = "KERNEL", num_args = 0..=1, default_missing_value = "all")]
    vm: Option<Kernels>,
    /// Run only tests whose name contains this, and in virtual machines only with --vm
    filter: Option<String>,
}

impl TestArgs {
    /// The kernels of the virtual machines to run: who names a test knows where it is.
    fn machines(&self) -> Option<Kernels> {
        let all = !self.quick && self.filter.is_none();
        self.vm.or(all.then_some(Kernels::All))
    }
}

/// Runs the tests. The last line on stdout is `N passed, N failed`.
///
/// # Errors
/// When set-up or building fails, a test fails, or no test matches the filter.
pub fn run(args: &TestArgs) -> Result<()> {
    let machines = args.machines();
    setup::ensure(Purpose::Test)?;
    if machines.is_some() {
        setup::ensure(Purpose::Vm)?;
    }
    build()?;
    let binaries = binaries::build(&[])?;

    let mut total = Tally::default();
    if args.vm.is_none() {
        sudo::authenticate("for network namespaces and BPF programs")?;
        total.add(run_here(&binaries, args)?);
    }
    match machines {
        Some(kernels) => {
            let rest = if args.vm.is_some() { "" } else { ": the core of the tests, --vm has all" };
            println!("\n== {}{rest}", Tier::Vm);
            let extent = if args.vm.is_some() { Extent::All } else { Extent::Core };
            let filter = args.filter.as_deref();
            total.add(vm::run(kernels, extent, &binaries, filter)?);
            let counted = filter.is_none_or(|filter| run_costs::NAME.contains(filter));
            if counted && kernels.series().contains(&Series::V6_12) {
                println!("\n-- instructions of a run");
                total.add(run_costs::check()?);
            }
        }
        None if args.quick => println!("\n== {}: left out by --quick", Tier::Vm),
        None => println!("\n== {}: left out, add --vm to run it", Tier::Vm),
    }
    conclude(&total)
}

/// Runs the tiers that run on this machine.
fn run_here(binaries: &[Binary], args: &TestArgs) -> Result<Tally> {
    let mut total = Tally::default();
    for tier in Tier::LOCAL {
        let started = Instant::now();
        let mut sum = Tally::default();
        println!("\n== {tier}");
        for binary in binaries.iter().filter(|binary| binary.tier() == tier) {
            if args.quick && binary.is_long() {
                println!("-- {}: left out by --quick", binary.name);
                continue;
            }
            sum.add(run_binary(binary, args)?);
        }
        if tier == Tier::Host {
            sum.add(run_doctests(args)?);
        }
        println!("== {tier}: {sum} in {:.1} s", started.elapsed().as_secs_f64());
        total.add(sum);
    }
    Ok(total)
}

/// Prints what the tests have come to.
fn conclude(total: &Tally) -> Result<()> {
    println!();
    for name in &total.failures {
        println!("FAILED {name}");
    }
    for name in &total.second_tries {
        println!("passed in a second try only: {name}");
    }
    if total.ignored > 0 {
        println!("left out: {} tests marked #[ignore]", total.ignored);
    }
    println!("{total}");
    if total.failed > 0 {
        std::process::exit(1);
    }
    if total.passed == 0 {
        bail!("no test ran: does any name contain the filter?");
    }
    Ok(())
}

/// Builds the daemon that the tests start.
fn build() -> Result<()> {
    let mut cargo = cargo();
    // Of the whole workspace, so that it is built with the same features as for the tests.
    cargo.args(["build", "--bin", "ovs-loader"]);
    progress::run("building ovs-loader", cargo)?;
    Ok(())
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(ebpf::workspace());
    cargo
}

/// Runs a program's tests. In a whole run a few that fail on hosts in network namespaces get a second try, and
/// the last lines name them: such a host may stand still for as long as a test waits, where others use the
/// machine too.
fn run_binary(binary: &Binary, args: &TestArgs) -> Result<Tally> {
    const FEW: usize = 2;
    let tally = run_tests(&binary.name, command(binary), args.filter.as_slice())?;
    let again: Vec<String> = tally.failing(&binary.name).map(str::to_owned).collect();
    if binary.tier() != Tier::Kernel || args.filter.is_some() || !(1..=FEW).contains(&again.len()) {
        return Ok(tally);
    }
    println!("a second try of what failed");
    let mut command = command(binary);
    command.arg("--exact");
    Ok(tally.after_second_try(run_tests(&binary.name, command, &again)?))
}

fn command(binary: &Binary) -> Command {
    let mut command = match binary.tier() {
        Tier::Host => Command::new(&binary.executable),
        Tier::Loader | Tier::Kernel | Tier::Vm => sudo::command(&binary.executable),
    };
    if binary.tier() == Tier::Kernel {
        // They share names of the machine: namespaces, bpffs directories, counters.
        command.arg("--test-threads=1");
    }
    command.arg("--include-ignored");
    // As `cargo test` does: tests find their files from their package's directory.
    command.current_dir(&binary.package_dir);
    command
}

fn run_doctests(args: &TestArgs) -> Result<Tally> {
    let mut command = cargo();
    command.args(["test", "--doc", "--quiet", "--no-fail-fast", "--"]);
    run_tests("documentation", command, args.filter.as_slice())
}

/// Runs one libtest program, passing its output on byte by byte, so that the name of a long test
/// shows while it runs.
fn run_tests(name: &str, mut command: Command, tests: &[String]) -> Result<Tally> {
    println!("-- {name}");
    command.args(tests).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start the tests of {name}"))?;

    let mut output = Vec::new();
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut chunk = [0; 4096];
    loop {
        let read = stdout.read(&mut chunk).context("cannot read a test's output")?;
        if read == 0 {
            break;
        }
        io::stdout().write_all(&chunk[..read])?;
        io::stdout().flush()?;
        output.extend_from_slice(&chunk[..read]);
    }
    let status = child.wait().context("cannot wait for a test")?;
    Ok(Tally::of(name, &String::from_utf8_lossy(&output), status.success()))
}
