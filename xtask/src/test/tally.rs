//! Adds up what libtest programs report.

use std::fmt;

/// Takes a test's place among the failures where a run crashed, or never got as far as a report.
pub(super) const NO_REPORT: &str = "ended without a full report";

/// How many tests passed and failed, and which failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
    pub(super) failures: Vec<String>,
    /// Those that failed and passed in a second try.
    pub(super) second_tries: Vec<String>,
}

impl Tally {
    /// Reads the report of a run named `name`. One that failed without a failing test (it crashed,
    /// or never got as far as a report) counts as one failure.
    pub(super) fn of(name: &str, output: &str, success: bool) -> Self {
        let mut tally = Self::default();
        let mut finished = false;
        for line in output.lines() {
            if let Some(result) = line.strip_prefix("test result: ") {
                finished = true;
                tally.passed += count(result, "passed");
                tally.failed += count(result, "failed");
                tally.ignored += count(result, "ignored");
            } else if let Some(header) = line.strip_prefix("---- ")
                && let Some(test) = header.strip_suffix(" stdout ----")
            {
                tally.failures.push(format!("{name}: {test}"));
            }
        }
        if tally.failed == 0 && !(success && finished) {
            tally.failed = 1;
            tally.failures.push(format!("{name}: {NO_REPORT}"));
        }
        tally
    }

    /// Of one test that is no libtest program's.
    pub(super) fn one(name: &str, passed: bool) -> Self {
        let failures = if passed { Vec::new() } else { vec![name.to_owned()] };
        Self { passed: passed.into(), failed: (!passed).into(), failures, ..Self::default() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
        self.second_tries.extend(other.second_tries);
    }

    /// The failing tests of a run; none where it ended without a report.
    pub(super) fn failing<'a>(&'a self, run: &'a str) -> impl Iterator<Item = &'a str> {
        let of_run = move |failure: &'a String| failure.strip_prefix(run)?.strip_prefix(": ");
        self.failures.iter().filter_map(of_run).filter(|test| *test != NO_REPORT)
    }

    /// What it comes to when all that failed has run once more.
    pub(super) fn after_second_try(self, second: Self) -> Self {
        let Self { failures, .. } = self;
        let mended = failures.into_iter().filter(|test| !second.failures.contains(test)).collect();
        let mut tally = Self { failed: 0, failures: Vec::new(), second_tries: mended, ..self };
        tally.add(second);
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The number before `what` in `ok. 9 passed; 0 failed; …`.
fn count(result: &str, what: &str) -> u64 {
    let words: Vec<&str> = result.split([' ', ';']).collect();
    words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILING: &str = "
running 3 tests
test a ... ok
test b ... FAILED
test c ... ignored

failures:

---- b stdout ----
thread 'b' panicked

failures:
    b

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s
";

    #[test]
    fn a_report_tells_its_counts_and_the_failing_tests() {
        let tally = Tally::of("unit", FAILING, false);
        assert_eq!((tally.passed, tally.failed, tally.ignored), (1, 1, 1));
        assert_eq!(tally.failures, ["unit: b"]);
    }

    #[test]
    fn reports_add_up() {
        let passing = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let mut tally = Tally::of("a", FAILING, false);
        tally.add(Tally::of("b", &format!("{passing}\n{passing}\n"), true));
        assert_eq!(tally.to_string(), "25 passed, 1 failed");
    }

    #[test]
    fn a_second_try_counts_and_is_named() {
        let first = || Tally::of("unit", FAILING, false);
        assert_eq!(first().failing("unit").collect::<Vec<_>>(), ["b"]);
        assert_eq!(Tally::of("unit", "", false).failing("unit").count(), 0);
        let passing = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let mended = first().after_second_try(Tally::of("unit", passing, true));
        assert_eq!((mended.passed, mended.failed, &*mended.failures), (2, 0, &[][..]));
        assert_eq!(mended.second_tries, ["unit: b"]);
        let again = "---- b stdout ----\ntest result: FAILED. 0 passed; 1 failed; 0 ignored";
        let failed = first().after_second_try(Tally::of("unit", again, false));
        assert_eq!((failed.passed, failed.failed), (1, 1));
        assert_eq!((failed.failures, failed.second_tries), (vec!["unit: b".to_owned()], vec![]));
    }

    #[test]
    fn a_crash_is_a_failure() {
        assert_eq!(Tally::of("a", "running 3 tests\ntest x ... ", false).failed, 1);
        assert_eq!(Tally::of("a", "", true).failed, 1);
        let passing = "test result: ok. 12 passed; 0 failed; 0 ignored";
        assert_eq!(Tally::of("a", passing, false).failed, 1);
    }
}
