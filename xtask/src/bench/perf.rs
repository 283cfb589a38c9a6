//! Instructions and cycles of the whole system, by perf-stat(1), where the processor's counters can be
//! had.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What is counted.
const EVENTS: [&str; 4] = ["stat", "-a", "-x,", "-einstructions,cycles"];
/// How long perf needs until it counts.
const START: Duration = Duration::from_millis(50);

/// Instructions and cycles, together or for each unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counters {
    pub(super) instructions: f64,
    pub(super) cycles: f64,
}

impl Counters {
    /// For each of so many units.
    pub(super) fn per(self, units: f64) -> Self {
        Self { instructions: self.instructions / units, cycles: self.cycles / units }
    }
}

/// Whether there are counters.
#[derive(Debug)]
pub(super) struct Perf {
    why_not: Option<String>,
}

impl Perf {
    /// Asks perf.
    pub(super) fn probe() -> Self {
        let output = Command::new("perf").args(EVENTS).args(["--", "true"]).output();
        let why_not = match output {
            Err(error) => Some(format!("perf can't be started: {error}")),
            Ok(output) => match parse(&String::from_utf8_lossy(&output.stderr)) {
                Some(_) => None,
                None => Some("this machine has no hardware counters that perf could read".into()),
            },
        };
        Self { why_not }
    }

    /// Why nothing is counted.
    pub(super) fn why_not(&self) -> Option<&str> {
        self.why_not.as_deref()
    }

    /// Runs a load and counts meanwhile, if it can.
    ///
    /// # Errors
    /// The load's own, and when perf fails though it did not before.
    pub(super) fn during<T>(
        &self,
        load: impl FnOnce() -> Result<T>,
    ) -> Result<(Option<Counters>, T)> {
        if self.why_not.is_some() {
            return Ok((None, load()?));
        }
        let mut perf = Command::new("perf");
        perf.args(EVENTS).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let running = Running(Some(perf.spawn().context("cannot start perf")?));
        thread::sleep(START);
        let result = load()?;
        Ok((Some(running.stop()?), result))
    }
}

/// perf, until it is asked for its counts.
struct Running(Option<Child>);

impl Running {
    fn stop(mut self) -> Result<Counters> {
        if let Some(child) = &self.0 {
            let pid = Pid::from_raw(child.id().cast_signed());
            kill(pid, Signal::SIGINT).context("cannot end perf")?;
        }
        let child = self.0.take().context("perf has been ended")?;
        let output = child.wait_with_output().context("cannot wait for perf")?;
        let said = String::from_utf8_lossy(&output.stderr);
        parse(&said).with_context(|| format!("perf counted nothing: {said}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads lines like `123456,,instructions,1000000,100.00,,`.
fn parse(output: &str) -> Option<Counters> {
    let count = |event: &str| {
        let mut lines = output.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let fields = lines.find(|fields| {
            fields.get(2).is_some_and(|name| name.split(':').next() == Some(event))
        })?;
        fields[0].parse::<f64>().ok()
    };
    Some(Counters { instructions: count("instructions")?, cycles: count("cycles")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_their_absence_is_seen() {
        let counted =
            "200,,instructions,1000,100.00,0.5,insn per cycle\n400,,cycles,1000,100.00,,\n";
        assert_eq!(parse(counted), Some(Counters { instructions: 200.0, cycles: 400.0 }));
        let without =
            "<not supported>,,instructions,0,100.00,,\n<not supported>,,cycles,0,100.00,,\n";
        assert_eq!(parse(without), None);
        assert_eq!(Counters { instructions: 8.0, cycles: 4.0 }.per(2.0).instructions, 4.0);
    }
}
