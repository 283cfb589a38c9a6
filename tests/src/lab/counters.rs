//! The kernel's own counters.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Namespace;

/// What a device has carried so far, as `ip -s link` tells it. A segment that is to be cut by
/// hardware counts as one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl Link {
    /// What was carried since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            rx_packets: self.rx_packets - earlier.rx_packets,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            tx_packets: self.tx_packets - earlier.tx_packets,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
        }
    }
}

/// Reads the counters of a device.
///
/// # Errors
/// When there is no such device.
pub fn link(namespace: &Namespace, device: &str) -> Result<Link> {
    let output = namespace.try_exec(&["ip", "-s", "-j", "link", "show", "dev", device])?;
    let links: Value = serde_json::from_str(&output).context("ip did not print JSON")?;
    let count = |direction: &str, what: &str| {
        links[0]["stats64"][direction][what]
            .as_u64()
            .with_context(|| format!("no counter {direction}.{what} in {output}"))
    };
    Ok(Link {
        rx_packets: count("rx", "packets")?,
        rx_bytes: count("rx", "bytes")?,
        tx_packets: count("tx", "packets")?,
        tx_bytes: count("tx", "bytes")?,
    })
}

/// Packets that a namespace has thrown away for a wrong checksum so far: `InCsumErrors` of every
/// protocol, IPv4 and IPv6.
///
/// # Errors
/// When the kernel's tables can't be read.
pub fn checksum_errors(namespace: &Namespace) -> Result<u64> {
    let ipv4 = namespace.try_exec(&["cat", "/proc/net/snmp"])?;
    let ipv6 = namespace.try_exec(&["cat", "/proc/net/snmp6"])?;
    Ok(snmp(&ipv4, "InCsumErrors") + snmp6(&ipv6, "InCsumErrors"))
}

/// Adds up a counter of /proc/net/snmp: pairs of lines, names over values.
fn snmp(table: &str, counter: &str) -> u64 {
    let lines: Vec<&str> = table.lines().collect();
    (lines.chunks_exact(2))
        .flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()))
        .filter(|(name, _)| *name == counter)
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

/// Adds up the counters of /proc/net/snmp6 whose names end so: a name and a value on each line.
fn snmp6(table: &str, counter: &str) -> u64 {
    (table.lines().filter_map(|line| line.split_once(char::is_whitespace)))
        .filter(|(name, _)| name.ends_with(counter))
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_adds_up_over_protocols() {
        let table = "Ip: Forwarding TTL\nIp: 2 64\nTcp: InErrs InCsumErrors\nTcp: 7 3\n\
                     Udp: InCsumErrors MemErrors\nUdp: 2 9\n";
        assert_eq!(snmp(table, "InCsumErrors"), 5);
        assert_eq!(snmp6("Udp6InCsumErrors   \t4\nUdp6InErrors\t9\n", "InCsumErrors"), 4);
    }
}
