//! What is measured on every path, by which load generator.

use std::time::Duration;

use anyhow::Result;
use ovs_ebpf_tests::lab::traffic::{self, Flood};
use serde::{Deserialize, Serialize};

use super::{
    perf::{Counters, Perf},
    testbed::Testbed,
};

/// How long each measurement takes, in seconds.
const SECONDS: u32 = 1;
/// The same for requests, of which sockperf does not count those of the first 0.4 seconds.
const EXCHANGE_SECONDS: u32 = 2;
/// How many datagrams may be lost: a rate with more is none that the path carries.
const MAX_LOSS: f64 = 0.01;
/// After a rate with more losses: so much of what arrived.
const SLOWER: f64 = 0.95;
/// Rates that are tried before a measurement fails.
const TRIES: usize = 5;

/// A measure, under the name that the results have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Measure {
    /// iperf3 over one TCP connection.
    #[serde(rename = "tcp_1")]
    Tcp1,
    /// iperf3 over eight TCP connections.
    #[serde(rename = "tcp_8")]
    Tcp8,
    /// sockperf ping-pong over one TCP connection.
    #[serde(rename = "rr_1")]
    Rr1,
    /// 32 of them.
    #[serde(rename = "rr_32")]
    Rr32,
    /// nuttcp with 64 bytes of payload.
    #[serde(rename = "udp_64")]
    Udp64,
    /// nuttcp with 512 bytes of payload.
    #[serde(rename = "udp_512")]
    Udp512,
    /// nuttcp with 1,400 bytes of payload.
    #[serde(rename = "udp_1400")]
    Udp1400,
    /// Connections, one after the other, with one exchange each.
    Connect,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// In the measure's [unit](Measure::unit).
    pub(super) value: f64,
    /// Instructions and cycles of the whole system for each packet, KB, exchange or connection.
    pub(super) per_unit: Option<Counters>,
    /// From request to answer in µs: median and 99th percentile.
    pub(super) latency: Option<(f64, f64)>,
}

impl Measure {
    /// All, in the order in which they are shown.
    pub(super) const ALL: [Self; 8] = [
        Self::Tcp1,
        Self::Tcp8,
        Self::Rr1,
        Self::Rr32,
        Self::Udp64,
        Self::Udp512,
        Self::Udp1400,
        Self::Connect,
    ];

    /// Its name in the results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp1 => "tcp_1",
            Self::Tcp8 => "tcp_8",
            Self::Rr1 => "rr_1",
            Self::Rr32 => "rr_32",
            Self::Udp64 => "udp_64",
            Self::Udp512 => "udp_512",
            Self::Udp1400 => "udp_1400",
            Self::Connect => "connect",
        }
    }

    /// What is measured, for people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP, 1 flow",
            Self::Tcp8 => "TCP, 8 flows",
            Self::Rr1 => "TCP request/response, 1 flow",
            Self::Rr32 => "TCP request/response, 32 flows",
            Self::Udp64 => "UDP, 64 bytes",
            Self::Udp512 => "UDP, 512 bytes",
            Self::Udp1400 => "UDP, 1,400 bytes",
            Self::Connect => "TCP connections",
        }
    }

    /// The unit of values.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp8 => "Gbit/s",
            Self::Rr1 | Self::Rr32 => "transactions/s",
            Self::Udp64 | Self::Udp512 | Self::Udp1400 => "packets/s",
            Self::Connect => "connections/s",
        }
    }

    /// Measures once.
    ///
    /// # Errors
    /// With what the load generator says.
    pub(super) fn run(self, testbed: &Testbed, perf: &Perf) -> Result<Sample> {
        match self {
            Self::Tcp1 => tcp(testbed, perf, 1),
            Self::Tcp8 => tcp(testbed, perf, 8),
            Self::Rr1 => exchanges(testbed, perf, 1),
            Self::Rr32 => exchanges(testbed, perf, 32),
            Self::Udp64 => datagrams(testbed, perf, 64),
            Self::Udp512 => datagrams(testbed, perf, 512),
            Self::Udp1400 => datagrams(testbed, perf, 1400),
            Self::Connect => connections(testbed, perf),
        }
    }
}

// Counts are far below 2^53, here and below.
#[allow(clippy::cast_precision_loss)]
fn tcp(testbed: &Testbed, perf: &Perf, flows: u32) -> Result<Sample> {
    let duration = Duration::from_secs(SECONDS.into());
    let (counters, tcp) =
        perf.during(|| traffic::tcp(testbed.from(), testbed.to(), flows, duration))?;
    Ok(Sample {
        value: tcp.bits_per_second / 1e9,
        per_unit: counters.map(|counters| counters.per(tcp.bytes as f64 / 1024.0)),
        latency: None,
    })
}

#[allow(clippy::cast_precision_loss)]
fn exchanges(testbed: &Testbed, perf: &Perf, flows: u16) -> Result<Sample> {
    let (counters, exchanges) =
        perf.during(|| traffic::exchange(testbed.from(), testbed.to(), flows, EXCHANGE_SECONDS))?;
    Ok(Sample {
        value: exchanges.per_second,
        per_unit: counters.map(|counters| counters.per(exchanges.total as f64)),
        latency: Some((exchanges.p50, exchanges.p99)),
    })
}

/// As fast as the sender can, and where too many are lost, slower until they are not.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn datagrams(testbed: &Testbed, perf: &Perf, size: u32) -> Result<Sample> {
    let mut rate = None;
    let mut losses = Vec::new();
    for _ in 0..TRIES {
        let (counters, flood): (_, Flood) =
            perf.during(|| traffic::flood(testbed.from(), testbed.to(), size, rate, SECONDS))?;
        if flood.loss() <= MAX_LOSS {
            let received = (flood.sent - flood.lost) as f64;
            return Ok(Sample {
                value: flood.received_per_second(),
                per_unit: counters.map(|counters| counters.per(received)),
                latency: None,
            });
        }
        losses.push(format!("{:.1} %", flood.loss() * 100.0));
        rate = Some((flood.received_per_second() * SLOWER) as u64);
    }
    anyhow::bail!("no rate without losses was found: {}", losses.join(", "))
}

#[allow(clippy::cast_precision_loss)]
fn connections(testbed: &Testbed, perf: &Perf) -> Result<Sample> {
    let duration = Duration::from_secs(SECONDS.into());
    let (counters, made) =
        perf.during(|| traffic::connections(testbed.from(), testbed.to(), duration))?;
    Ok(Sample {
        value: made.per_second,
        per_unit: counters.map(|counters| counters.per(made.count as f64)),
        latency: None,
    })
}
