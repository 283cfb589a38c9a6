//! A packet's cost by the size of the tables: `tests/tests/prog_run/scale.rs`, here and where the clock
//! counts instructions.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    progress::{self, Step},
    test::prog_run,
    vm::{Clock, Job, Machine, Series},
};

/// What a run of the programs takes with tables of one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Costs {
    pub(super) stations: u32,
    pub(super) tunnels: u32,
    pub(super) port_ingress: Cost,
    pub(super) uplink_ingress: Cost,
}

/// Medians over stations in no order.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Cost {
    /// Where the flow is in the flow cache.
    pub(super) known_flow: u64,
    /// Where it is looked up in the FDB.
    pub(super) new_flow: u64,
}

const TEST: &str = "scale::";
const SIZES: &str = "OVS_EBPF_SCALE_SIZES";

/// Nanoseconds on this machine.
pub(super) fn here(sizes: &[(u32, u32)]) -> Result<Vec<Costs>> {
    let binary = prog_run::build()?;
    let mut command = Command::new(binary);
    command.args([TEST, "--nocapture"]).env(SIZES, text(sizes));
    parse(&progress::run("measuring the programs", command)?)
}

/// Instructions, in a virtual machine.
pub(super) fn in_machine(series: Series, sizes: &[(u32, u32)]) -> Result<Vec<Costs>> {
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
