//! UDP through nuttcp, which sends faster than iperf3 does.

use std::{
    net::IpAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::lab::{Namespace, wait::try_until};

/// How long the server may take to listen.
const START: Duration = Duration::from_secs(5);
/// nuttcp's port for control.
const PORT: u16 = 5000;

/// A UDP measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flood {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that did not arrive.
    pub lost: u64,
    /// How long they were sent.
    pub seconds: f64,
}

impl Flood {
    /// The share that did not arrive, 0 to 1.
    // Counts of packets are far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    pub fn loss(self) -> f64 {
        self.lost as f64 / self.sent.max(1) as f64
    }

    /// Datagrams received per second.
    #[allow(clippy::cast_precision_loss)]
    pub fn received_per_second(self) -> f64 {
        self.sent.saturating_sub(self.lost) as f64 / self.seconds
    }
}

/// Sends datagrams with `size` bytes of payload for so many seconds, so many per second or as fast as it
/// can.
///
/// # Errors
/// With what nuttcp says.
pub fn flood(
    from: &Namespace,
    to: (&Namespace, IpAddr),
    size: u32,
    per_second: Option<u64>,
    seconds: u32,
) -> Result<Flood> {
    let (server, address) = to;
    let _server = Server::start(server)?;
    let rate = per_second.map_or("-Ru".to_owned(), |rate| format!("-R{rate}p"));
    let mut command = from.command("nuttcp");
    command.args(["-u", "-fparse", &rate, &format!("-l{size}"), &format!("-T{seconds}"), "-w1m"]);
    let output = command.arg(address.to_string()).output().context("cannot start nuttcp")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("nuttcp failed: {stdout}{}", String::from_utf8_lossy(&output.stderr));
    }
    parse(&stdout)
}

/// Reads `megabytes=5.8278 real_seconds=2.00 … drop=32534 pkt=128016 data_loss=25.41`.
fn parse(output: &str) -> Result<Flood> {
    let field = |name: &str| {
        let mut words = output.split_whitespace().filter_map(|word| word.split_once('='));
        let (_, value) = words.find(|(key, _)| *key == name)?;
        Some(value)
    };
    let flood = (|| {
        Some(Flood {
            sent: field("pkt")?.parse().ok()?,
            lost: field("drop")?.parse().ok()?,
            seconds: field("real_seconds")?.parse().ok()?,
        })
    })();
    let flood = flood.with_context(|| format!("not what nuttcp prints: {output}"))?;
    ensure!(flood.sent > 0 && flood.seconds > 0.0, "nuttcp sent nothing: {output}");
    Ok(flood)
}

/// A nuttcp server for one measurement.
struct Server(Child);

impl Server {
    fn start(namespace: &Namespace) -> Result<Self> {
        let mut command = namespace.command("nuttcp");
        command.args(["-S", "--nofork"]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().context("cannot start nuttcp")?);
        let listening = format!(":{PORT} ");
        try_until(START, || {
            let sockets = namespace.try_exec(&["ss", "--no-header", "-ltn"])?;
            Ok(sockets.contains(&listening).then_some(()))
        })
        .with_context(|| format!("the nuttcp server in {} does not listen", namespace.name()))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_read() {
        let output = "megabytes=5.8278 real_seconds=2.00 rate_Mbps=24.4825 tx_cpu=44 rx_cpu=16 \
                      drop=32534 pkt=128016 data_loss=25.41\n";
        let flood = parse(output).unwrap();
        assert_eq!((flood.sent, flood.lost), (128_016, 32_534));
        assert!((flood.received_per_second() - 47_741.0).abs() < 0.1);
        assert!((flood.loss() - 0.25414).abs() < 1e-4);
        assert!(parse("Error: connect\n").is_err());
    }
}
