//! The machine that was measured on.

use std::{collections::BTreeMap, fs, process::Command, thread};

use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

use crate::ebpf;

/// A machine, with the versions of what ran on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HostInfo {
    /// `uname -r`.
    pub(super) kernel: String,
    /// `uname -m`.
    pub(super) architecture: String,
    /// The processor's name.
    pub(super) processor: String,
    /// How many of them.
    pub(super) processors: usize,
    /// Whether the processors are emulated: ratios may be compared, figures not.
    pub(super) emulated: bool,
    /// Rounds that the medians are of.
    pub(super) rounds: usize,
    /// By program.
    pub(super) versions: BTreeMap<String, String>,
}

impl HostInfo {
    /// Asks the machine that this runs on.
    pub(super) fn ask(rounds: usize) -> Self {
        let (kernel, architecture) = match uname() {
            Ok(names) => (
                names.release().to_string_lossy().into_owned(),
                names.machine().to_string_lossy().into_owned(),
            ),
            Err(_) => ("unknown".into(), "unknown".into()),
        };
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = field(&cpuinfo, "model name").unwrap_or("unknown").to_owned();
        Self {
            kernel,
            architecture,
            emulated: processor.contains("TCG"),
            processor,
            processors: thread::available_parallelism().map_or(1, Into::into),
            rounds,
            versions: versions(),
        }
    }

    /// Kernel, processors and our version, for people.
    pub(super) fn caption(&self) -> String {
        let version = self.versions.get("ovs-ebpf").map_or("", String::as_str);
        let emulated = if self.emulated { ", emulated" } else { "" };
        format!(
            "Linux {} on {} × {}{emulated}, ovs-ebpf {version}",
            self.kernel, self.processors, self.processor
        )
    }

    /// The load generators with their versions, for people.
    pub(super) fn generators(&self) -> String {
        let generators = ["iperf3", "nuttcp", "sockperf"].map(|name| self.versions.get(name));
        generators.into_iter().flatten().cloned().collect::<Vec<_>>().join(", ")
    }
}

/// `model name\t: Some Processor` of proc(5), /proc/cpuinfo.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// The first line that each program prints of itself; those that are missing are left out.
fn versions() -> BTreeMap<String, String> {
    let workspace = ebpf::workspace().to_string_lossy().into_owned();
    let git = ["-C", &workspace, "-c", "safe.directory=*", "describe", "--always", "--dirty"];
    let asked: [(&str, &str, &[&str]); 5] = [
        ("ovs-ebpf", "git", &git),
        ("iperf3", "iperf3", &["--version"]),
        ("sockperf", "sockperf", &["--version"]),
        ("nuttcp", "nuttcp", &["-V"]),
        ("open-vswitch", "ovs-vswitchd", &["--version"]),
    ];
    let answers = asked.into_iter().filter_map(|(name, program, arguments)| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.chars().any(|c| c.is_ascii_digit()))?;
        Some((name.to_owned(), plain(line)))
    });
    answers.collect()
}

/// Without the colours that sockperf prints.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, escape)) = rest.split_once('\u{1b}') {
        text.push_str(before);
        rest = escape.split_once('m').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_read_by_name() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some Processor @ 2 GHz\n";
        assert_eq!(field(cpuinfo, "model name"), Some("Some Processor @ 2 GHz"));
        assert_eq!(field(cpuinfo, "bogus"), None);
    }

    #[test]
    fn colours_are_left_out() {
        assert_eq!(plain("\u{1b}[2;35m== version 3.7 == \u{1b}[0m"), "== version 3.7 ==");
    }
}
