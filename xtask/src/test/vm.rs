//! The tests that run in virtual machines, with kernels that this machine may not have.

use std::{
    io::{self, Write as _},
    process::Command,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use super::{
    binaries::{Binary, Tier},
    tally::{NO_REPORT, Tally},
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
/// Of those, what a kernel without TCX can't do: packets are lost when the clsact qdisc goes.
const WITH_TCX: &[&str] = &["daemon::life::sigterm_leaves_nothing_behind"];
/// Those by the target that they are in.
const BORROWED: [(&str, &[&str]); 2] = [("prog_run", PROGRAMS), ("netns", LINUX_BRIDGE)];

/// What a whole run has of all these, by how the tests' names begin, and on which kernels. The rest takes the
/// better part of an hour on each, or waits for what is a matter of a second, for which a machine
/// beside another can be late.
const CORE: [(&str, &[Series]); 13] = [
    ("encap::", BOTH),
    ("decap::", BOTH),
    ("events::", BOTH),
    ("slow_path::", BOTH),
    ("docker::", BOTH),
    ("interop::gre_with_a_key", BOTH),
    ("interop::vxlan_with_a_key", &[Series::V6_12]),
    ("gate::", &[Series::V6_12]),
    ("flat::a_nic_on_the_bridge", &[Series::V6_12]),
    ("over_ipv6::open_vswitch_s_gre", &[Series::V6_12]),
    ("network::", &[Series::V6_12]),
    ("interop::gre_without_a_key", &[Series::V6_1]),
    ("gretap::", &[Series::V6_1]),
];
const BOTH: &[Series] = &[Series::V6_12, Series::V6_1];

/// How much of the tests each kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The whole.
    All,
    /// Its own of [`CORE`].
    Core,
}

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
            Self::All => BOTH,
        }
    }
}

/// The tests of a program that run on one kernel.
struct Tests<'a> {
    /// The program's, with the kernel's.
    name: String,
    binary: &'a Binary,
    tests: Vec<String>,
}

/// A kernel's tests, at work in its machine.
struct Run {
    series: Series,
    started: Instant,
    /// The programs, in the order in which they run.
    names: Vec<String>,
    /// Or why there is none.
    machine: Result<Machine>,
}

/// Boots the kernels and runs every test there that is meant for them and whose name contains the
/// filter. Machines of several kernels run at once, each on a processor of its own. What fails of a
/// whole run's [`Extent::Core`] gets a second try in a machine that runs alone, and the tally says so.
///
/// # Errors
/// When the tests can't be listed. What goes wrong in a machine is a failure in the tally.
pub(super) fn run(
    kernels: Kernels,
    extent: Extent,
    binaries: &[Binary],
    filter: Option<&str>,
) -> Result<Tally> {
    let mut plans = Vec::new();
    for &series in kernels.series() {
        let mut plan = Vec::new();
        for binary in binaries {
            let mut tests = chosen(binary, filter)?;
            tests.retain(|test| series != Series::V6_1 || !WITH_TCX.contains(&&**test));
            tests.retain(|test| extent == Extent::All || is_core(series, test));
            if !tests.is_empty() {
                let name = format!("Linux {series}, {}", binary.name);
                plan.push(Tests { name, binary, tests });
            }
        }
        if !plan.is_empty() {
            plans.push((series, plan));
        }
    }
    let alone = plans.len() == 1;
    let runs: Vec<_> = plans.iter().map(|(series, plan)| Run::start(*series, plan)).collect();
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let follow = |run: Run| scope.spawn(move || run.follow(alone));
        let followed: Vec<_> = runs.into_iter().map(follow).collect();
        followed.into_iter().map(|run| run.join().expect("no panic")).collect()
    });
    let mut total = Tally::default();
    for ((series, mut plan), mut tally) in plans.into_iter().zip(tallies) {
        if extent == Extent::Core && tally.failed > 0 {
            println!("\n-- a second try, alone, of what failed on Linux {series}");
            plan.retain_mut(|one| keep_failed(&one.name, &mut one.tests, &tally));
            tally = tally.after_second_try(Run::start(series, &plan).follow(true));
        }
        total.add(tally);
    }
    Ok(total)
}

/// Keeps the tests of a program that failed, or all where the machine ended before; gives whether any.
fn keep_failed(name: &str, tests: &mut Vec<String>, tally: &Tally) -> bool {
    let failed = |what: &str| tally.failures.contains(&format!("{name}: {what}"));
    if !failed(NO_REPORT) {
        tests.retain(|test| failed(test));
    }
    !tests.is_empty()
}

impl Run {
    fn start(series: Series, plan: &[Tests<'_>]) -> Self {
        let started = Instant::now();
        let jobs: Vec<Job> = plan.iter().map(|one| job(one.binary, &one.tests)).collect();
        let names = plan.iter().map(|tests| tests.name.clone()).collect();
        Self { series, started, names, machine: Machine::boot(series, Clock::HostInTurn, &jobs) }
    }

    /// Shows what the tests say, and adds up what they have come to. Lines say which kernel they are of,
    /// unless it is `alone`.
    fn follow(self, alone: bool) -> Tally {
        let Self { series, started, names, mut machine } = self;
        let mut shown = if alone { Shown::AsTheyCome } else { Shown::Lines(series, Vec::new()) };
        let mut tally = Tally::default();
        for name in names {
            shown.line(&format!("-- {name}"));
            let mut output = Vec::new();
            let status = match &mut machine {
                Ok(machine) => machine.next_status(|bytes| {
                    output.extend_from_slice(bytes);
                    shown.show(bytes)
                }),
                Err(_) => Ok(-1),
            };
            if let Err(error) = machine.as_ref().map(|_| ()).and(status.as_ref().map(|_| ())) {
                shown.line(&format!("the virtual machine: {error:#}"));
            }
            let output = String::from_utf8_lossy(&output);
            tally.add(Tally::of(&name, &output, matches!(status, Ok(0))));
            if let Err(error) = status {
                machine = Err(error.context("it ended in an earlier test"));
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        shown.line(&format!("== Linux {series}: {tally} in {seconds:.1} s"));
        tally
    }
}

/// How a machine's output is shown.
enum Shown {
    AsTheyCome,
    /// Line by line, each with its kernel, and what there is of the next one.
    Lines(Series, Vec<u8>),
}

impl Shown {
    fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        match self {
            Self::AsTheyCome => stdout.write_all(bytes)?,
            Self::Lines(series, begun) => {
                begun.extend_from_slice(bytes);
                for line in whole_lines(begun) {
                    write!(stdout, "{series:<4} | ")?;
                    stdout.write_all(&line)?;
                }
            }
        }
        stdout.flush()
    }

    /// A line of our own, after what has come.
    fn line(&mut self, line: &str) {
        let begun = matches!(self, Self::Lines(_, begun) if !begun.is_empty());
        let separator = if begun || matches!(self, Self::AsTheyCome) { "\n" } else { "" };
        // Nobody may be there to read it.
        let _ = self.show(format!("{separator}{line}\n").as_bytes());
    }
}

/// Takes the whole lines from what has come, with their ends.
fn whole_lines(begun: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let end = begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let rest = begun.split_off(end);
    let lines = std::mem::replace(begun, rest);
    lines.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
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

/// Whether a whole run has a test on this kernel.
fn is_core(series: Series, test: &str) -> bool {
    CORE.iter().any(|(name, kernels)| test.starts_with(name) && kernels.contains(&series))
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

fn job(binary: &Binary, tests: &[String]) -> Job {
    let mut words = vec![binary.executable.to_string_lossy().into_owned()];
    let options = ["--test-threads=1", "--include-ignored", "--exact"];
    words.extend(options.map(str::to_owned));
    words.extend(tests.iter().cloned());
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

    #[test]
    fn a_whole_run_has_the_core_where_it_belongs() {
        let kernels = |test| BOTH.iter().filter(|one| is_core(**one, test)).count();
        assert_eq!(kernels("docker::a_container"), 2);
        assert_eq!((kernels("gate::what"), kernels("gretap::a_tunnel")), (1, 1));
        assert_eq!(kernels("moves::a_station"), 0);
    }

    #[test]
    fn what_failed_is_tried_again_and_all_of_a_machine_that_ended() {
        let all = || ["a", "b"].map(str::to_owned).to_vec();
        let kept = |name: &str, failure: &str| {
            let tally = Tally { failures: vec![failure.to_owned()], ..Tally::default() };
            let mut tests = all();
            keep_failed(name, &mut tests, &tally).then_some(tests)
        };
        assert_eq!(kept("6.1, vm", "6.1, vm: b"), Some(vec!["b".to_owned()]));
        assert_eq!(kept("6.1, vm", "6.1, netns: b"), None);
        assert_eq!(kept("6.1, vm", &format!("6.1, vm: {NO_REPORT}")), Some(all()));
    }

    #[test]
    fn a_line_is_shown_when_it_is_whole() {
        let mut begun = b"test a ... ".to_vec();
        assert!(whole_lines(&mut begun).is_empty());
        begun.extend_from_slice(b"ok\ntest b ... ok\ntest");
        assert_eq!(whole_lines(&mut begun), [&b"test a ... ok\n"[..], b"test b ... ok\n"]);
        assert_eq!(begun, b"test");
    }
}
