//! Bulk TCP and UDP through iperf3.

use std::{
    io::{BufRead as _, BufReader},
    net::IpAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::lab::{Namespace, patience};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Linux's own congestion control, whatever this machine's default is: one that paces (`bbr`) measures its own
/// estimates of the path besides.
const CONGESTION_CONTROL: &str = "cubic";

/// A TCP measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tcp {
    /// Content received per second, in bits.
    pub bits_per_second: f64,
    /// Content received, in bytes.
    pub bytes: u64,
    /// Segments sent again.
    pub retransmits: u64,
}

/// A UDP measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Udp {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that did not arrive.
    pub lost: u64,
    /// Datagrams received per second.
    pub received_per_second: f64,
}

/// Sends over so many TCP connections at once for so long.
///
/// # Errors
/// With what iperf3 says.
pub fn tcp(
    from: &Namespace,
    to: (&Namespace, IpAddr),
    flows: u32,
    duration: Duration,
) -> Result<Tcp> {
    let report = run(from, to, duration, &["-P", &flows.to_string(), "-C", CONGESTION_CONTROL])?;
    let end = &report["end"];
    Ok(Tcp {
        bits_per_second: number(&end["sum_received"], "bits_per_second")?,
        bytes: count(&end["sum_received"], "bytes")?,
        retransmits: count(&end["sum_sent"], "retransmits")?,
    })
}

/// Sends datagrams with `size` bytes of payload as fast as it can for so long.
///
/// # Errors
/// With what iperf3 says.
pub fn udp(
    from: &Namespace,
    to: (&Namespace, IpAddr),
    size: u32,
    duration: Duration,
) -> Result<Udp> {
    let report = run(from, to, duration, &["-u", "-b", "0", "-l", &size.to_string()])?;
    let sum = &report["end"]["sum"];
    let (sent, lost) = (count(sum, "packets")?, count(sum, "lost_packets")?);
    let seconds = number(sum, "seconds")?;
    // Counts of packets are far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let received_per_second = sent.saturating_sub(lost) as f64 / seconds;
    Ok(Udp { sent, lost, received_per_second })
}

fn run(
    from: &Namespace,
    (server, address): (&Namespace, IpAddr),
    duration: Duration,
    arguments: &[&str],
) -> Result<Value> {
    let _server = Server::start(server)?;
    let limit = patience(CONNECT).as_millis().to_string();
    let mut command = from.command("iperf3");
    command.args(["--json", "-c", &address.to_string(), "--connect-timeout", &limit]);
    command.args(["-t", &duration.as_secs_f64().ceil().to_string()]).args(arguments);
    let output = command.output().context("cannot start iperf3")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&stdout).with_context(|| {
        format!("iperf3 failed: {stdout}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    match report["error"].as_str() {
        Some(error) => bail!("iperf3 to {address}: {error}"),
        None => Ok(report),
    }
}

fn number(object: &Value, field: &str) -> Result<f64> {
    object[field].as_f64().with_context(|| format!("iperf3 reports no {field}: {object}"))
}

fn count(object: &Value, field: &str) -> Result<u64> {
    object[field].as_u64().with_context(|| format!("iperf3 reports no {field}: {object}"))
}

/// An iperf3 server for one measurement.
struct Server(Child);

impl Server {
    fn start(namespace: &Namespace) -> Result<Self> {
        let mut command = namespace.command("iperf3");
        command.args(["-s", "-1", "--forceflush"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start iperf3")?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let server = Self(child);
        for line in BufReader::new(stdout).lines() {
            if line.context("cannot read iperf3's output")?.contains("Server listening") {
                return Ok(server);
            }
        }
        bail!("the iperf3 server in {} ended before it listened", namespace.name())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After its one measurement it ends by itself, but not after a failed one.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
