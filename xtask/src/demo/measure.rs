//! One measurement from container to container.

use std::time::Duration;

use anyhow::Result;
use ovs_ebpf_tests::lab::{Lab, traffic};
use serde::Serialize;

/// How long each of TCP and UDP is measured.
const DURATION: Duration = Duration::from_secs(2);
/// Payload of a UDP datagram, in bytes.
const UDP_SIZE: u32 = 64;
const PINGS: u32 = 50;
const PING_INTERVAL: Duration = Duration::from_millis(10);

/// What one path carries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Content over one TCP connection, in Gbit/s.
    pub(super) tcp_gbps: f64,
    /// Datagrams with 64 bytes of payload that arrive, in thousands per second.
    pub(super) udp_kpps: f64,
    /// The share of echoes that don't come back, 0 to 1.
    pub(super) ping_loss: f64,
}

/// Measures from the first host's container to the second's.
pub(super) fn sample(lab: &Lab) -> Result<Sample> {
    let (from, to) = (lab.container(0), lab.container(1));
    let address = to.ipv4().into();
    let ping = traffic::ping(from, to.ipv4(), 56, PINGS, PING_INTERVAL)?;
    let tcp = traffic::tcp(from, (to, address), 1, DURATION)?;
    let udp = traffic::udp(from, (to, address), UDP_SIZE, DURATION)?;
    Ok(Sample {
        tcp_gbps: tcp.bits_per_second / 1e9,
        udp_kpps: udp.received_per_second / 1e3,
        ping_loss: ping.loss(),
    })
}

/// The median of each figure; of `ping_loss` the worst, for which a median would hide losses.
pub(super) fn median(samples: &[Sample]) -> Sample {
    let middle = |figure: fn(&Sample) -> f64| {
        let mut figures: Vec<f64> = samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Sample {
        tcp_gbps: middle(|sample| sample.tcp_gbps),
        udp_kpps: middle(|sample| sample.udp_kpps),
        ping_loss: samples.iter().map(|sample| sample.ping_loss).fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_hides_outliers_but_no_loss() {
        let sample = |figure, ping_loss| Sample { tcp_gbps: figure, udp_kpps: -figure, ping_loss };
        let median = median(&[sample(9.0, 0.0), sample(1.0, 0.5), sample(2.0, 0.0)]);
        assert_eq!(median, Sample { tcp_gbps: 2.0, udp_kpps: -2.0, ping_loss: 0.5 });
    }
}
