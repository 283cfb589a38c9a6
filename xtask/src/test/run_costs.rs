//! What a run of the programs costs, by the size of the tables: `tests/tests/prog_run/scale.rs`, here and where
//! the clock counts instructions. One size has bounds, so that no change makes a packet dearer unseen.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{prog_run, tally::Tally};
use crate::{
    ebpf,
    progress::{self, Step},
    vm::{Clock, Job, Machine, Series},
};

/// What a run of the programs takes with tables of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Costs {
    pub(crate) stations: u32,
    pub(crate) tunnels: u32,
    pub(crate) port_ingress: Cost,
    pub(crate) uplink_ingress: Cost,
}

/// Medians over stations in no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Where the flow is in the flow cache.
    pub(crate) known_flow: u64,
    /// Where it is looked up in the FDB.
    pub(crate) new_flow: u64,
}

const TEST: &str = "scale::";
const SIZES: &str = "OVS_EBPF_SCALE_SIZES";

/// What has bounds: so many stations behind so many tunnels, on a kernel with all that the programs use.
const BOUND: (Series, (u32, u32)) = (Series::V6_12, (1_000, 100));
/// More than the bound by so many percent is a regression. The kernel's own part differs by less.
const SLACK: u64 = 3;
/// In the environment: write what is counted as the new bounds.
const WRITE: &str = "OVS_EBPF_WRITE_BOUNDS";
/// The check's name among the tests.
pub(super) const NAME: &str = "runs::no_run_takes_more_instructions_than_its_bound";

/// Counts the instructions of the programs' runs, and compares them with `runs.json`.
///
/// # Errors
/// When the machine does not come up, or there are no bounds.
pub(super) fn check() -> Result<Tally> {
    let file = ebpf::workspace().join("tests/tests/prog_run/runs.json");
    let (series, size) = BOUND;
    let counted = in_machine(series, &[size])?.swap_remove(0);
    if env::var_os(WRITE).is_some() {
        let text = serde_json::to_string_pretty(&counted)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let over = counted.over(&read(&file)?);
    for line in &over {
        println!(
            "{line}; where that is meant, `{WRITE}=1 cargo xtask test --vm {series} {NAME}` makes it the bound"
        );
    }
    let outcome = if over.is_empty() { "ok" } else { "FAILED" };
    println!("test {NAME} ... {outcome}");
    Ok(Tally::one(NAME, over.is_empty()))
}

fn read(file: &PathBuf) -> Result<Costs> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} has no bounds", file.display()))
}

impl Costs {
    /// What takes more than a bound allows, in words.
    fn over(&self, bound: &Self) -> Vec<String> {
        let figures = |costs: &Self| {
            let (port, uplink) = (costs.port_ingress, costs.uplink_ingress);
            [port.known_flow, port.new_flow, uplink.known_flow, uplink.new_flow]
        };
        let names = ["port_ingress, known flow", "port_ingress, new flow"]
            .into_iter()
            .chain(["uplink_ingress, known flow", "uplink_ingress, new flow"]);
        names
            .zip(figures(self).into_iter().zip(figures(bound)))
            .filter(|(_, (is, bound))| *is > bound + bound * SLACK / 100)
            .map(|(name, (is, bound))| {
                format!("{name}: {is} instructions a run, the bound is {bound} and {SLACK} %")
            })
            .collect()
    }
}

/// Nanoseconds on this machine.
pub(crate) fn here(sizes: &[(u32, u32)]) -> Result<Vec<Costs>> {
    let binary = prog_run::build()?;
    let mut command = Command::new(binary);
    command.args([TEST, "--nocapture"]).env(SIZES, text(sizes));
    parse(&progress::run("measuring the programs", command)?)
}

/// Instructions, in a virtual machine.
pub(crate) fn in_machine(series: Series, sizes: &[(u32, u32)]) -> Result<Vec<Costs>> {
    let binary = prog_run::build()?;
    let job = Job {
        directory: "/".into(),
        environment: vec![(SIZES.into(), text(sizes))],
        words: vec![binary.to_string_lossy().into_owned(), TEST.into(), "--nocapture".into()],
    };
    let mut machine = Machine::boot(series, Clock::Instructions, &[job])?;
    let mut step = Step::start("counting the programs' instructions");
    let mut output = Vec::new();
    let status = machine.next_status(|bytes| {
        output.extend_from_slice(bytes);
        step.line(&String::from_utf8_lossy(bytes));
        Ok(())
    })?;
    machine.finish()?;
    let output = String::from_utf8_lossy(&output);
    ensure!(status == 0, "counting in the virtual machine failed:\n{output}");
    step.done();
    parse(&output)
}

fn text(sizes: &[(u32, u32)]) -> String {
    let sizes = sizes.iter().map(|(stations, tunnels)| format!("{stations}:{tunnels}"));
    sizes.collect::<Vec<_>>().join(",")
}

/// The objects among what the test has printed.
fn parse(output: &str) -> Result<Vec<Costs>> {
    let objects = output.lines().filter_map(|line| line.find('{').map(|at| &line[at..]));
    let costs: Vec<Costs> = objects
        .map(|object| serde_json::from_str(object).with_context(|| format!("no figures: {object}")))
        .collect::<Result<_>>()?;
    ensure!(!costs.is_empty(), "the test has printed no figures:\n{output}");
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_more_than_its_bound_is_named() {
        let cost = |known_flow| Cost { known_flow, new_flow: 900 };
        let costs = |known| Costs {
            stations: 10,
            tunnels: 1,
            port_ingress: cost(500),
            uplink_ingress: cost(known),
        };
        assert_eq!(costs(618).over(&costs(600)), <Vec<String>>::new());
        let over = costs(619).over(&costs(600));
        assert_eq!(over.len(), 1);
        assert!(over[0].starts_with("uplink_ingress, known flow: 619"), "{over:?}");
    }

    #[test]
    fn figures_are_told_from_the_test_s_own_words() {
        let cost = r#"{"known_flow":1,"new_flow":2}"#;
        let object = format!(
            r#"{{"stations":10,"tunnels":1,"port_ingress":{cost},"uplink_ingress":{cost}}}"#
        );
        let output = format!("running 1 test\ntest scale::a ... {object}\n{object}\nok\n");
        let costs = parse(&output).expect("figures");
        assert_eq!(costs.len(), 2);
        assert_eq!(costs[1].uplink_ingress.new_flow, 2);
        assert!(parse("ok\n").is_err());
    }
}
