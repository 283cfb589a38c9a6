//! The tests that run in virtual machines, with kernels that this machine may not have.

use std::{
    io::{self, Write as _},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use super::{
    binaries::{Binary, Tier},
    tally::Tally,
};
use crate::vm::{Clock, Job, Machine, Series};

/// Tests of the Linux bridge that run there too, with GRE in place of VXLAN. They are few: the
/// machine is emulated.
const LINUX_BRIDGE: &[&str] = &[
    "slow_path::echoes_of_every_size_come_back",
    "daemon::life::sigterm_leaves_nothing_behind",
    "transitions::kill_9_and_a_new_start_lose_nothing_and_stay_fast",
    "docker::vlan::containers_of_one_vlan_reach_each_other_and_no_other",
    "docker::vlan::a_vlan_that_can_no_longer_be_had_leaves_the_container_detached_not_in_another",
];
/// Tests of the programs that run there too: other kernels verify them, and lack some flags.
const PROGRAMS: &[&str] = &[
    "encap::every_frame_is_encapsulated_as_scapy_does",
    "encap::a_frame_between_two_ports_stays_as_it_is",
    "decap::every_frame_from_scapy_is_taken_apart",
    "decap::what_is_out_of_the_ordinary_is_left_to_the_kernel",
    "events::the_daemon_s_reader_gives_what_is_there_and_what_comes",
];
/// Those by the target that they are in.
const BORROWED: [(&str, &[&str]); 2] = [("prog_run", PROGRAMS), ("netns", LINUX_BRIDGE)];

/// Kernels to test on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kernels {
    /// Linux 6.1
    #[value(name = "6.1")]
    V6_1,
    /// Linux 6.12
    #[value(name = "6.12")]
    V6_12,
    /// Both
    All,
}

impl Kernels {
    pub(super) fn series(self) -> &'static [Series] {
        match self {
            Self::V6_1 => &[Series::V6_1],
            Self::V6_12 => &[Series::V6_12],
            Self::All => &[Series::V6_12, Series::V6_1],
        }
    }
}

/// Boots a kernel and runs every test there that is meant for it and whose name contains the filter.
///
/// # Errors
/// When the tests can't be listed. What goes wrong in the machine is a failure in the tally.
pub(super) fn run(series: Series, binaries: &[Binary], filter: Option<&str>) -> Result<Tally> {
    let mut names = Vec::new();
    let mut jobs = Vec::new();
    for binary in binaries {
        let tests = chosen(binary, filter)?;
        if !tests.is_empty() {
            names.push(format!("Linux {series}, {}", binary.name));
            jobs.push(job(binary, tests));
        }
    }
    let mut tally = Tally::default();
    if jobs.is_empty() {
        return Ok(tally);
    }
    let mut machine = Machine::boot(series, Clock::HostInTurn, &jobs);
    for name in names {
        println!("-- {name}");
        let mut output = Vec::new();
        let status = match &mut machine {
            Ok(machine) => machine.next_status(|bytes| {
                output.extend_from_slice(bytes);
                io::stdout().write_all(bytes)?;
                io::stdout().flush()
            }),
            Err(_) => Ok(-1),
        };
        if let Err(error) = machine.as_ref().map(|_| ()).and(status.as_ref().map(|_| ())) {
            println!("\nthe virtual machine: {error:#}");
        }
        let output = String::from_utf8_lossy(&output);
        tally.add(Tally::of(&name, &output, matches!(status, Ok(0))));
        if let Err(error) = status {
            machine = Err(error.context("it ended in an earlier test"));
        }
    }
    Ok(tally)
}

/// The tests of a program that run in the machine.
fn chosen(binary: &Binary, filter: Option<&str>) -> Result<Vec<String>> {
    let borrowed = BORROWED.iter().find(|(target, _)| *target == binary.target);
    let mut tests = match borrowed {
        _ if binary.tier() == Tier::Vm => list(binary)?,
        Some((_, names)) => {
            let all = list(binary)?;
            for name in *names {
                ensure!(all.iter().any(|test| test == name), "{} has no test {name}", binary.name);
            }
            names.iter().map(|name| (*name).to_owned()).collect()
        }
        None => Vec::new(),
    };
    tests.retain(|test| filter.is_none_or(|filter| test.contains(filter)));
    Ok(tests)
}

/// The names of a program's tests.
fn list(binary: &Binary) -> Result<Vec<String>> {
    let output = Command::new(&binary.executable).args(["--list", "--format", "terse"]).output();
    let output = output.with_context(|| format!("cannot start the tests of {}", binary.name))?;
    if !output.status.success() {
        bail!("cannot list the tests of {}: {}", binary.name, output.status);
    }
    Ok(parse_list(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads lines like `module::name: test`.
fn parse_list(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

fn job(binary: &Binary, tests: Vec<String>) -> Job {
    let mut words = vec![binary.executable.to_string_lossy().into_owned()];
    let options = ["--test-threads=1", "--include-ignored", "--exact"];
    words.extend(options.map(str::to_owned));
    words.extend(tests);
    Job {
        directory: binary.package_dir.clone(),
        environment: vec![("LAB_ENCAP".into(), "gre".into())],
        words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_from_the_rest_of_a_list() {
        assert_eq!(parse_list("a::b: test\nc: benchmark\n\n1 test, 1 benchmark\n"), ["a::b"]);
    }
}
