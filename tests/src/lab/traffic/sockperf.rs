//! Requests and responses through sockperf.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::IpAddr,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::NamedTempFile;

use crate::lab::{Namespace, wait::try_until};

/// How long the server may take to listen.
const START: Duration = Duration::from_secs(10);
/// The first flow's port; each has its own.
const PORT: u16 = 11_111;
/// Bytes of a request and of a response.
const SIZE: &str = "64";

/// A measurement of requests that are answered, each flow's next one after its last answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exchanges {
    /// Answers per second, of all flows.
    pub per_second: f64,
    /// Answers in all, with those that don't count for the rate.
    pub total: u64,
    /// From request to answer in µs: the median, and with several flows the middle of theirs.
    pub p50: f64,
    /// The 99th percentile, likewise.
    pub p99: f64,
}

/// Exchanges 64 bytes for 64 bytes over so many TCP connections for so many seconds, of which the first
/// 0.4 don't count.
///
/// # Errors
/// With what sockperf says.
pub fn exchange(
    from: &Namespace,
    to: (&Namespace, IpAddr),
    flows: u16,
    seconds: u32,
) -> Result<Exchanges> {
    let (server, address) = to;
    let _server = Server::start(server, address, flows)?;
    let client = |flow: u16| {
        let mut command = from.command("sockperf");
        command.args(["ping-pong", "--tcp", "--full-rtt", "-m", SIZE, "-i", &address.to_string()]);
        command.args(["-p", &(PORT + flow).to_string(), "-t", &seconds.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("cannot start sockperf")
    };
    let clients = (0..flows).map(client).collect::<Result<Vec<_>>>()?;
    let finish = |client: Child| {
        let output = client.wait_with_output().context("cannot wait for sockperf")?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        parse(&stdout).with_context(|| {
            format!("sockperf: {stdout}{}", String::from_utf8_lossy(&output.stderr))
        })
    };
    // All are waited for, whatever the first ones say.
    let finished: Vec<Result<Exchanges>> = clients.into_iter().map(finish).collect();
    Ok(together(&finished.into_iter().collect::<Result<Vec<_>>>()?))
}

/// Several flows as one measurement.
fn together(flows: &[Exchanges]) -> Exchanges {
    let middle = |figure: fn(&Exchanges) -> f64| {
        let mut figures: Vec<f64> = flows.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Exchanges {
        per_second: flows.iter().map(|flow| flow.per_second).sum(),
        total: flows.iter().map(|flow| flow.total).sum(),
        p50: middle(|flow| flow.p50),
        p99: middle(|flow| flow.p99),
    }
}

/// Reads what a client says of its flow.
fn parse(output: &str) -> Result<Exchanges> {
    let after = |line: &str, name: &str| {
        let line = output.lines().find(|text| text.contains(line))?;
        let (_, rest) = line.split_once(name)?;
        let end = rest.find(|c: char| c != '.' && c != ' ' && !c.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].trim().parse::<f64>().ok()
    };
    let exchanges = (|| {
        let seconds = after("[Valid Duration]", "RunTime=")?;
        Some(Exchanges {
            per_second: after("[Valid Duration]", "ReceivedMessages=")? / seconds,
            total: output
                .lines()
                .find(|line| line.contains("[Total Run]"))?
                .rsplit_once("ReceivedMessages=")?
                .1
                .trim()
                .parse()
                .ok()?,
            p50: after("percentile 50.000", "=")?,
            p99: after("percentile 99.000", "=")?,
        })
    })();
    let exchanges = exchanges.context("no measurement")?;
    ensure!(exchanges.per_second.is_finite() && exchanges.total > 0, "nothing was answered");
    Ok(exchanges)
}

/// A server with a port for each flow.
struct Server {
    child: Child,
    // Read when it starts.
    _ports: NamedTempFile,
}

impl Server {
    fn start(namespace: &Namespace, address: IpAddr, flows: u16) -> Result<Self> {
        let mut ports = NamedTempFile::new().context("a file of ports")?;
        let mut list = String::new();
        for port in PORT..PORT + flows {
            writeln!(list, "T:{address}:{port}").expect("writing to a String can't fail");
        }
        ports.write_all(list.as_bytes()).context("a file of ports")?;
        let mut command = namespace.command("sockperf");
        command.arg("server").arg("-f").arg(ports.path()).args(["-F", "epoll"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("cannot start sockperf")?;
        let server = Self { child, _ports: ports };
        let last = format!(":{} ", PORT + flows - 1);
        try_until(START, || {
            let sockets = namespace.try_exec(&["ss", "--no-header", "-ltn"])?;
            Ok(sockets.contains(&last).then_some(()))
        })
        .with_context(|| format!("the sockperf server in {} does not listen", namespace.name()))?;
        // It listens before it takes connections up.
        thread::sleep(Duration::from_millis(50));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
sockperf: [Total Run] RunTime=1.000 sec; Warm up time=400 msec; SentMessages=6442; ReceivedMessages=6441
sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=2664; ReceivedMessages=2664
sockperf: ---> percentile 99.900 = 5597.472
sockperf: ---> percentile 99.000 = 2409.635
sockperf: ---> percentile 50.000 =   23.909
";

    #[test]
    fn rate_and_percentiles_are_read() {
        let exchanges = parse(OUTPUT).unwrap();
        assert!((exchanges.per_second - 2664.0 / 0.55).abs() < 1e-9);
        assert_eq!(exchanges.total, 6441);
        assert_eq!((exchanges.p50, exchanges.p99), (23.909, 2409.635));
        assert!(parse("sockperf: ERROR").is_err());
    }

    #[test]
    fn rates_of_flows_add_up_and_times_do_not() {
        let flow = |p50| Exchanges { per_second: 10.0, total: 5, p50, p99: 2.0 * p50 };
        let all = together(&[flow(3.0), flow(1.0), flow(2.0)]);
        assert_eq!(all, Exchanges { per_second: 30.0, total: 15, p50: 2.0, p99: 4.0 });
    }
}
