//! ICMP and `ICMPv6` echoes.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};

use crate::lab::{Namespace, patience};

/// How long the last reply may take.
const LIMIT: Duration = Duration::from_secs(1);

/// What became of echo requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
}

impl Ping {
    /// The share of requests without a reply, 0 to 1.
    pub fn loss(self) -> f64 {
        1.0 - f64::from(self.received) / f64::from(self.sent.max(1))
    }
}

/// Sends `count` echo requests with `size` bytes of payload each, one per `interval`.
///
/// # Errors
/// When `ping` can't run, or can't send: lost packets are no error.
pub fn ping(
    from: &Namespace,
    to: impl Into<IpAddr>,
    size: u32,
    count: u32,
    interval: Duration,
) -> Result<Ping> {
    let (to, count, size) = (to.into().to_string(), count.to_string(), size.to_string());
    let interval = interval.as_secs_f64().to_string();
    let limit = patience(LIMIT).as_secs().to_string();
    let mut command = from.command("ping");
    command.args(["-n", "-q", "-W", &limit, "-c", &count, "-s", &size, "-i", &interval, &to]);
    let output = command.env("LC_ALL", "C").output().context("cannot start ping")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    // ping's status is 1 when replies are missing, and 2 for every other trouble.
    parse(&stdout).filter(|_| output.status.code().is_some_and(|code| code < 2)).with_context(
        || format!("ping {to} failed: {stdout}{}", String::from_utf8_lossy(&output.stderr)),
    )
}

/// Reads `5 packets transmitted, 4 received, …`.
fn parse(output: &str) -> Option<Ping> {
    let line = output.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers = line.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok());
    Some(Ping { sent: numbers.next()?, received: numbers.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_the_share_without_a_reply() {
        let ping = parse("\n8 packets transmitted, 6 received, 25% packet loss, time 3ms").unwrap();
        assert_eq!(ping, Ping { sent: 8, received: 6 });
        assert!((ping.loss() - 0.25).abs() < 1e-9);
        assert_eq!(parse("ping: connect: Network is unreachable"), None);
    }
}
