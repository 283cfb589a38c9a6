//! What was counted, for people.

use std::fmt::Write as _;

use super::Counts;
use crate::vm::Series;

/// A table of medians, each with how far apart the counts are.
pub(super) fn table(series: Series, counts: &[Counts]) -> String {
    let mut table = format!(
        "{:<24}{:>24}{:>24}\n",
        format!("instructions, Linux {series}"),
        "each 64-byte datagram",
        "each KB of TCP"
    );
    for Counts { path, udp_64, tcp_kb } in counts {
        let [udp, tcp] = [udp_64, tcp_kb].map(|counts| cell(counts));
        writeln!(table, "{path:<24}{udp:>24}{tcp:>24}").expect("writing to a String can't fail");
    }
    table
}

fn cell(counts: &[f64]) -> String {
    let mut sorted = counts.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, median, high) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    format!("{median:.1} (±{:.1} %)", (high - low) / median * 50.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::path::DataPath;

    #[test]
    fn the_table_shows_medians_and_how_far_counts_are_apart() {
        let counts = Counts {
            path: DataPath::KernelVxlan,
            udp_64: vec![102.0, 98.0, 100.0],
            tcp_kb: vec![7.0],
        };
        let table = table(Series::V6_12, &[counts]);
        let row = table.lines().nth(1).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["kernel-vxlan", "100.0", "(±2.0", "%)", "7.0", "(±0.0", "%)"]);
    }
}
