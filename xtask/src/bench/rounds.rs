//! Measuring, round by round: every path once in each measure, so that what this machine does besides
//! hits all paths alike.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    details,
    machine::HostInfo,
    measure::{Measure, Sample},
    path::DataPath,
    perf::Perf,
    report::{Details, Figure, Figures, Latency, Ratio, Report},
    testbed::Testbed,
};
use crate::progress::Step;

/// Measures on these paths in so many rounds.
///
/// # Errors
/// When a path can't be set up or measured, which it names.
pub(super) fn run(paths: &[DataPath], rounds: usize, loader: &Path) -> Result<Report> {
    let testbeds = build(paths, loader)?;
    let perf = Perf::probe();
    let mut samples: BTreeMap<(Measure, DataPath), Vec<Sample>> = BTreeMap::new();
    let mut step = Step::start(format!("measuring {} paths in {rounds} rounds", paths.len()));
    let (start, mut done) = (Instant::now(), 0);
    let all = rounds * Measure::ALL.len() * testbeds.len();
    for round in 1..=rounds {
        for measure in Measure::ALL {
            for testbed in in_turn(&testbeds, round) {
                let path = testbed.path();
                let sample = measure
                    .run(testbed, &perf)
                    .with_context(|| format!("cannot measure {} on {path}", measure.name()))?;
                samples.entry((measure, path)).or_default().push(sample);
                done += 1;
                step.line(&format!(
                    "round {round} of {rounds}, {} on {path}: {:.1} {}; {} left",
                    measure.name(),
                    sample.value,
                    measure.unit(),
                    left(start.elapsed(), done, all),
                ));
            }
        }
    }
    step.done();
    let mut details = details::measure(&testbeds, rounds.min(3))?;
    details.notes.extend(perf.why_not().map(|why| {
        format!("{why}: no instructions and cycles; `cargo xtask bench --instructions` counts them")
    }));
    Ok(summarize(HostInfo::ask(rounds), &samples, details))
}

/// All, each round from another one on: what comes first after another measure is not always the same.
fn in_turn<T>(all: &[T], round: usize) -> impl Iterator<Item = &T> {
    let (before, from) = all.split_at(round % all.len());
    from.iter().chain(before)
}

fn build(paths: &[DataPath], loader: &Path) -> Result<Vec<Testbed>> {
    let mut step = Step::start(format!("setting up {} paths", paths.len()));
    let mut testbeds = Vec::new();
    for path in paths {
        step.line(&path.to_string());
        let testbed = Testbed::build(*path, loader);
        testbeds.push(testbed.with_context(|| format!("cannot set up {path}"))?);
    }
    step.done();
    Ok(testbeds)
}

/// About how much time is left, when so many of all measurements took so long.
fn left(elapsed: Duration, done: usize, all: usize) -> String {
    let per_measurement = elapsed / u32::try_from(done).unwrap_or(u32::MAX).max(1);
    let left = per_measurement * u32::try_from(all - done).unwrap_or(u32::MAX);
    match left.as_secs() {
        seconds @ ..100 => format!("about {seconds} s"),
        seconds => format!("about {} min", seconds.div_ceil(60)),
    }
}

fn summarize(
    host: HostInfo,
    all: &BTreeMap<(Measure, DataPath), Vec<Sample>>,
    mut details: Details,
) -> Report {
    let mut measures: BTreeMap<Measure, Figures> = BTreeMap::new();
    for ((measure, path), samples) in all {
        let figures = measures.entry(*measure).or_default();
        measure.unit().clone_into(&mut figures.unit);
        figures.paths.insert(*path, Figure::of(samples));
        for rival in path.rivals() {
            if let Some(others) = all.get(&(*measure, *rival)) {
                let of_path = details.ratios.entry(*measure).or_default().entry(*path).or_default();
                of_path.insert(*rival, Ratio::of(samples, others));
            }
        }
        if let Some(latency) = Latency::of(samples) {
            details.latency_us.entry(*measure).or_default().insert(*path, latency);
        }
    }
    Report { host, measures, details }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_all_in_another_order() {
        let order = |round| in_turn(&[1, 2, 3], round).copied().collect::<Vec<_>>();
        assert_eq!([order(1), order(3), order(5)], [[2, 3, 1], [1, 2, 3], [3, 1, 2]]);
    }

    #[test]
    fn what_is_left_is_told_from_what_is_done() {
        assert_eq!(left(Duration::from_secs(10), 1, 3), "about 20 s");
        assert_eq!(left(Duration::from_secs(60), 10, 41), "about 4 min");
    }
}
