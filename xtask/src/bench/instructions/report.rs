//! What was counted: as JSON, for people and as a chart.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Counts, Line};
use crate::bench::{
    Files,
    chart::{self, Chart},
    machine::HostInfo,
    measure::{Measure, Sample},
    path::DataPath,
    report::{Figure, Figures},
};

/// More instructions than before by so large a share are a regression: Open vSwitch's daemons make
/// that much of a difference between two counts.
const SLACK: f64 = 0.02;

/// All that was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::bench) struct Counted {
    host: HostInfo,
    /// `udp_64` for each datagram and `tcp_1` for each KB: median and quartiles of the counts.
    instructions: BTreeMap<Measure, Figures>,
    /// Of those for a datagram, how many each program and the helpers that it calls take.
    programs: BTreeMap<DataPath, BTreeMap<String, f64>>,
}

impl Counted {
    pub(super) fn of(lines: Vec<Line>) -> Result<Self> {
        let mut lines = lines.into_iter();
        let Some(Line::Host(host)) = lines.next() else {
            bail!("the machine did not say what it is")
        };
        let mut counted = Self { host, instructions: BTreeMap::new(), programs: BTreeMap::new() };
        for line in lines {
            let Line::Counts(counts) = line else { bail!("the machine said twice what it is") };
            counted.add(counts);
        }
        Ok(counted)
    }

    fn add(&mut self, counts: Counts) {
        for (measure, unit, counted) in [
            (Measure::Udp64, "instructions/packet", counts.udp_64),
            (Measure::Tcp1, "instructions/KB", counts.tcp_1),
        ] {
            let sample = |value| Sample { value, ..Sample::default() };
            let samples: Vec<Sample> = counted.into_iter().map(sample).collect();
            let figures = self.instructions.entry(measure).or_default();
            unit.clone_into(&mut figures.unit);
            figures.paths.insert(counts.path, Figure::of(&samples));
        }
        if !counts.programs.is_empty() {
            self.programs.insert(counts.path, counts.programs);
        }
    }

    /// Prints a table, and writes what is asked for.
    ///
    /// # Errors
    /// When a file can't be read or written, and where a path takes more instructions than in
    /// `against`.
    pub(in crate::bench) fn show(&self, files: &Files, against: Option<&Path>) -> Result<()> {
        let earlier = against.map(read).transpose()?;
        print!("{}", self.table(earlier.as_ref()));
        files.write(self, || self.chart())?;
        let more = earlier.map(|earlier| self.regressions(&earlier)).unwrap_or_default();
        ensure!(more.is_empty(), "more instructions than before: {}", more.join(", "));
        Ok(())
    }

    fn figure(&self, measure: Measure, path: DataPath) -> Option<Figure> {
        self.instructions.get(&measure)?.paths.get(&path).copied()
    }

    /// The change of a figure since an earlier count: 0.02 is 2 % more.
    fn change(&self, earlier: &Self, measure: Measure, path: DataPath) -> Option<f64> {
        let before = earlier.figure(measure, path)?.median;
        Some(self.figure(measure, path)?.median / before - 1.0)
    }

    fn regressions(&self, earlier: &Self) -> Vec<String> {
        let mut regressions = Vec::new();
        for (measure, figures) in &self.instructions {
            for path in figures.paths.keys() {
                let change = self.change(earlier, *measure, *path);
                if let Some(change) = change.filter(|change| *change > SLACK) {
                    let name = measure.name();
                    regressions.push(format!("{name} on {path} by {:.1} %", change * 100.0));
                }
            }
        }
        regressions
    }

    /// A table of medians, each with half the distance of the quartiles, or with the change since an
    /// earlier count.
    fn table(&self, earlier: Option<&Self>) -> String {
        let kernel = format!("instructions, Linux {}", self.host.kernel);
        let mut table =
            format!("{kernel:<36}{:>24}{:>24}\n", "each 64-byte datagram", "each KB of TCP");
        let paths = self.instructions.get(&Measure::Udp64).map(|figures| figures.paths.keys());
        for path in paths.into_iter().flatten() {
            let [udp, tcp] = [Measure::Udp64, Measure::Tcp1].map(|measure| {
                let Some(figure) = self.figure(measure, *path) else { return "-".to_owned() };
                let Figure { median, p25, p75, .. } = figure;
                match earlier.and_then(|earlier| self.change(earlier, measure, *path)) {
                    Some(change) => format!("{median:.1} ({:+.1} %)", change * 100.0),
                    None => format!("{median:.1} (±{:.1} %)", (p75 - p25) / median * 50.0),
                }
            });
            table += &format!("{path:<36}{udp:>24}{tcp:>24}\n");
            for (program, instructions) in self.programs.get(path).into_iter().flatten() {
                table += &format!("  {program:<34}{instructions:>15.1}\n");
            }
        }
        table
    }

    fn chart(&self) -> Chart<'_> {
        let rounds = format!("medians of {} counts, {}", self.host.rounds, chart::QUARTILES);
        let machine = format!("{}, counting its own instructions", self.host.caption());
        Chart {
            title: "Instructions of the whole system: shorter is better".to_owned(),
            small_print: vec![machine, rounds],
            panels: chart::panels(&self.instructions),
        }
    }
}

fn read(file: &Path) -> Result<Counted> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not of --instructions --json", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(udp_64: &[f64]) -> Counted {
        let counts = Counts {
            path: DataPath::OvsEbpfVxlan,
            udp_64: udp_64.to_vec(),
            tcp_1: vec![7.0],
            programs: BTreeMap::from([("port_ingress".to_owned(), 55.5)]),
        };
        Counted::of(vec![Line::Host(HostInfo::ask(1)), Line::Counts(counts)]).unwrap()
    }

    fn words(table: &str) -> Vec<Vec<&str>> {
        table.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn the_table_shows_medians_and_how_far_counts_are_apart() {
        let table = counted(&[104.0, 96.0, 100.0]).table(None);
        let words = words(&table);
        assert_eq!(words[1], ["ovs-ebpf-vxlan", "100.0", "(±2.0", "%)", "7.0", "(±0.0", "%)"]);
        assert_eq!(words[2], ["port_ingress", "55.5"]);
    }

    #[test]
    fn what_takes_more_than_before_is_named() {
        let (before, after) = (counted(&[100.0]), counted(&[103.0]));
        assert_eq!(after.regressions(&before), ["udp_64 on ovs-ebpf-vxlan by 3.0 %"]);
        assert_eq!(before.regressions(&after), <Vec<String>>::new());
        let table = after.table(Some(&before));
        assert_eq!(words(&table)[1][1..4], ["103.0", "(+3.0", "%)"]);
    }
}
