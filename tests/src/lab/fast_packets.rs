//! What `ovs-loader stats` counts.

use std::ops::{Add, Sub};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The packets of one host, or of several together, by the path they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastPackets {
    /// From containers by the fast path: program `port_ingress`.
    pub sent: u64,
    /// To containers by the fast path: program `uplink_ingress`.
    pub received: u64,
    /// Left to the bridge by either program. What is no tunnel traffic doesn't count.
    pub punted: u64,
}

impl FastPackets {
    /// Reads the output of `ovs-loader stats --json`.
    ///
    /// # Errors
    /// Where a counter is missing.
    pub fn read(stats: &Value) -> Result<Self> {
        let fast = |program: &str| {
            (stats["fast"][program]["packets"].as_u64())
                .with_context(|| format!("no fast.{program}.packets in {stats}"))
        };
        let reasons = stats["reasons"].as_object();
        let reasons = reasons.with_context(|| format!("no reasons in {stats}"))?;
        let punted = reasons.iter().filter(|(name, _)| *name != "not_tunnel");
        Ok(Self {
            sent: fast("port_ingress")?,
            received: fast("uplink_ingress")?,
            punted: punted.filter_map(|(_, count)| count.as_u64()).sum(),
        })
    }

    /// The fast path's share of the packets, 0 to 1; 0 without packets.
    // Rounding above 2^53 packets does no harm to a share.
    #[allow(clippy::cast_precision_loss)]
    pub fn share(self) -> f64 {
        let fast = self.sent + self.received;
        fast as f64 / (fast + self.punted).max(1) as f64
    }
}

impl Add for FastPackets {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            punted: self.punted + other.punted,
        }
    }
}

/// What was counted since an earlier reading.
impl Sub for FastPackets {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            received: self.received - earlier.received,
            punted: self.punted - earlier.punted,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_share_is_of_tunnel_traffic_alone() {
        let stats = json!({
            "fast": {"port_ingress": {"packets": 5}, "uplink_ingress": {"packets": 1}},
            "reasons": {"not_tunnel": 1000, "multicast": 1, "not_ip": 1},
        });
        assert!((FastPackets::read(&stats).unwrap().share() - 0.75).abs() < 1e-9);
        assert!(FastPackets::read(&json!({"fast": {}})).is_err());
    }
}
