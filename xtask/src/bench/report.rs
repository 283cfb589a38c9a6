//! The results as one JSON object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    machine::HostInfo,
    measure::{Measure, Sample},
    path::DataPath,
};

/// The results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Where they were measured.
    pub(super) host: HostInfo,
    pub(super) measures: BTreeMap<Measure, Figures>,
    pub(super) details: Details,
}

/// One measure on all paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) unit: String,
    pub(super) paths: BTreeMap<DataPath, Figure>,
}

/// One measure on one path: medians of all rounds, and the quartiles of its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) p25: f64,
    pub(super) p75: f64,
    /// Of the whole system, for each packet, KB of TCP, transaction or connection; `null` where the
    /// processor's counters can't be had.
    pub(super) instructions_per_unit: Option<f64>,
    /// See `instructions_per_unit`.
    pub(super) cycles_per_unit: Option<f64>,
}

/// How much more there is of a measure on one path than on another: of each round, where both were measured
/// one soon after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ratio {
    pub(super) median: f64,
    pub(super) p25: f64,
    pub(super) p75: f64,
}

/// What stands beside the measures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Details {
    /// What a reader has to know.
    pub(super) notes: Vec<String>,
    /// Of each path with ovs-loader to those that it is compared with.
    pub(super) ratios: BTreeMap<Measure, BTreeMap<DataPath, BTreeMap<DataPath, Ratio>>>,
    /// From request to answer in µs, medians of all rounds.
    pub(super) latency_us: BTreeMap<Measure, BTreeMap<DataPath, Latency>>,
    /// TCP over one flow in Gbit/s where the uplink does not segment (TSO off) and its receiver
    /// aggregates (GRO on).
    pub(super) segmented_uplink: Figures,
    /// Bytes of a packet that enters the uplink, on average, under one TCP flow.
    pub(super) uplink_packet_bytes: BTreeMap<DataPath, f64>,
    /// Nanoseconds for each run of a program, under datagrams of 64 bytes.
    pub(super) program_ns: BTreeMap<DataPath, BTreeMap<String, f64>>,
    /// The share of packets that took the fast path, 0 to 1.
    pub(super) fast_share: BTreeMap<DataPath, f64>,
}

/// Percentiles in µs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Figure {
    /// Of at least one sample.
    pub(super) fn of(samples: &[Sample]) -> Self {
        let values = || samples.iter().map(|sample| sample.value).collect();
        let per_unit = || samples.iter().filter_map(|sample| sample.per_unit);
        let middle = |figures: Vec<f64>| (!figures.is_empty()).then(|| quantile(figures, 0.5));
        Self {
            median: quantile(values(), 0.5),
            p25: quantile(values(), 0.25),
            p75: quantile(values(), 0.75),
            instructions_per_unit: middle(per_unit().map(|unit| unit.instructions).collect()),
            cycles_per_unit: middle(per_unit().map(|unit| unit.cycles).collect()),
        }
    }
}

impl Ratio {
    /// Of at least one round's samples to another path's of the same rounds.
    pub(super) fn of(samples: &[Sample], others: &[Sample]) -> Self {
        let ratios = || {
            let rounds = samples.iter().zip(others);
            rounds.map(|(sample, other)| sample.value / other.value).collect()
        };
        Self {
            median: quantile(ratios(), 0.5),
            p25: quantile(ratios(), 0.25),
            p75: quantile(ratios(), 0.75),
        }
    }
}

impl Latency {
    /// Of the samples that have one.
    pub(super) fn of(samples: &[Sample]) -> Option<Self> {
        let (p50, p99): (Vec<f64>, Vec<f64>) =
            samples.iter().filter_map(|sample| sample.latency).unzip();
        (!p50.is_empty()).then(|| Self { p50: quantile(p50, 0.5), p99: quantile(p99, 0.5) })
    }
}

/// The value that this share of all lies below, between two of them where it falls between.
// An index is far below 2^53.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = share * (values.len() - 1) as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::perf::Counters;

    fn samples() -> Vec<Sample> {
        let sample = |value, instructions| Sample {
            value,
            per_unit: Some(Counters { instructions, cycles: 2.0 * instructions }),
            latency: Some((value, 10.0 * value)),
        };
        vec![sample(4.0, 10.0), sample(1.0, 30.0), sample(2.0, 20.0), sample(3.0, 20.0)]
    }

    #[test]
    fn quartiles_lie_between_the_samples() {
        let figure = Figure::of(&samples());
        assert_eq!((figure.p25, figure.median, figure.p75), (1.75, 2.5, 3.25));
        assert_eq!(figure.instructions_per_unit, Some(20.0));
        assert_eq!(figure.cycles_per_unit, Some(40.0));
        assert_eq!(Latency::of(&samples()), Some(Latency { p50: 2.5, p99: 25.0 }));
    }

    #[test]
    fn a_ratio_is_that_of_the_rounds_not_of_their_medians() {
        let samples = |values: [f64; 3]| values.map(|value| Sample { value, ..Sample::default() });
        let ratio = Ratio::of(&samples([10.0, 30.0, 60.0]), &samples([10.0, 10.0, 40.0]));
        assert_eq!(ratio, Ratio { median: 1.5, p25: 1.25, p75: 2.25 });
    }

    #[test]
    fn the_json_object_has_the_documented_fields() {
        let sample = Sample { value: 2.0, ..Sample::default() };
        let figure = Figure::of(&[sample]);
        let paths = BTreeMap::from([(DataPath::KernelVxlan, figure)]);
        let figures = Figures { unit: "packets/s".into(), paths };
        let measures = BTreeMap::from([(Measure::Udp1400, figures)]);
        assert_eq!(
            serde_json::to_string(&measures).unwrap(),
            r#"{"udp_1400":{"unit":"packets/s","paths":{"kernel-vxlan":{"median":2.0,"p25":2.0,"p75":2.0,"instructions_per_unit":null,"cycles_per_unit":null}}}}"#
        );
    }
}
