//! The daemon on a host with many stations: how long it takes to load them, to follow them, and what
//! it keeps of them.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_common::abi::VERSION;
use ovs_ebpf_tests::lab::{FdbWriter, Host, Lab, Loader};
use serde::{Deserialize, Serialize};

use super::{
    churn::{self, Lag},
    memory,
};
use crate::progress::Step;

/// How long the daemon may take to start. The kernel's dump of a long table is most of it.
const LIMIT: Duration = Duration::from_secs(300);
/// How long a changed size may take to settle.
const SETTLE: Duration = Duration::from_secs(2);

/// So many stations, each behind one of the tunnels of one of the bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    pub(super) stations: u32,
    pub(super) bridges: u32,
    pub(super) tunnels: u32,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Daemon {
    #[serde(flatten)]
    pub(super) layout: Layout,
    /// To tell the kernel of the stations.
    pub(super) kernel_fill_seconds: f64,
    /// To have the kernel dump its tables to who only counts.
    pub(super) kernel_dump_seconds: f64,
    /// The daemon's dump of the same.
    pub(super) read_seconds: f64,
    /// From there to maps that say it all.
    pub(super) write_seconds: f64,
    /// From the start of the process until it forwards.
    pub(super) ready_seconds: f64,
    /// The processor's time that it has had of it, the kernel's for it included: on a machine that does
    /// other things too, the figure to trust.
    pub(super) ready_processor_seconds: f64,
    /// What of the daemon is in memory, without stations, with them, and at most.
    pub(super) resident_bytes: [u64; 3],
    /// What the kernel says the map takes, without stations and with them.
    pub(super) map_bytes: [u64; 2],
    pub(super) lag: Lag,
    /// How often the kernel had to drop notifications meanwhile.
    pub(super) overruns: usize,
}

impl Daemon {
    /// Bytes of the daemon's for each station: now and at most.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn bytes_per_station(&self) -> [f64; 2] {
        let [empty, full, most] = self.resident_bytes;
        [full, most]
            .map(|bytes| bytes.saturating_sub(empty) as f64 / f64::from(self.layout.stations))
    }

    /// The kernel's bytes for each entry of the map.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn map_bytes_per_station(&self) -> f64 {
        let [empty, full] = self.map_bytes;
        full.saturating_sub(empty) as f64 / f64::from(self.layout.stations)
    }
}

/// A remote by its number.
pub(super) fn remote(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + n)
}

pub(super) fn measure(layout: Layout, binary: &Path) -> Result<Daemon> {
    let Layout { stations, bridges, tunnels } = layout;
    let step = Step::start(format!("{stations} stations, {tunnels} tunnels, bridges: {bridges}"));
    let lab = Lab::build_unjoined(&[1, 1])?;
    let host = lab.host(0);
    host.ip(&topology(layout, host.underlay(), lab.host(1).underlay()))?;
    // The neighbour of all remotes.
    host.try_exec(&["ping", "-c1", "-W2", &lab.host(1).underlay().to_string()])?;
    let ports: Vec<u32> = indices(host, "sx", bridges)?;

    let (mut loader, _) = start(host, binary)?;
    let pin = pin(&loader);
    thread::sleep(SETTLE);
    let (empty, _) = memory::resident(loader.pid())?;
    let empty_map = memory::of_map(&pin)?;
    loader.down()?;
    loader.wait_exit(LIMIT)?;
    drop(loader);

    let (filled, dumped) = host.run_in(|| fill(layout, &ports))?;
    let (loader, ready) = start(host, binary)?;
    let ready_processor_seconds = memory::processor_seconds(loader.pid())?;
    let log = loader.log();
    let read_seconds = seconds(&log, "read the forwarding tables")?;
    let write_seconds = seconds(&log, "brought the maps in line")?;
    thread::sleep(SETTLE);
    let (full, most) = memory::resident(loader.pid())?;
    let full_map = memory::of_map(&pin)?;
    let bridge = indices(host, "sb", 1)?[0];
    let lag = host
        .run_in(|| churn::measure(&pin, bridge, ports[0]))
        .with_context(|| format!("the daemon logged:\n{}", loader.log()))?;
    let overruns = loader.log().matches("the kernel dropped bridge notifications").count();
    step.done();
    Ok(Daemon {
        layout,
        kernel_fill_seconds: filled.as_secs_f64(),
        kernel_dump_seconds: dumped.as_secs_f64(),
        read_seconds,
        write_seconds,
        ready_seconds: ready.as_secs_f64(),
        ready_processor_seconds,
        resident_bytes: [empty, full, most],
        map_bytes: [empty_map, full_map],
        lag,
        overruns,
    })
}

/// Bridges `sb0`…, each with a vxlan port `sx0`… of its own.
fn topology(layout: Layout, local: Ipv4Addr, gateway: Ipv4Addr) -> String {
    let mut commands = format!("route add 198.18.0.0/15 via {gateway}\n");
    for n in 0..layout.bridges {
        commands += &format!(
            "link add sb{n} up type bridge\n\
             link add sx{n} up master sb{n} type vxlan id {} dstport 4789 local {local} nolearning\n",
            1_000 + n
        );
    }
    commands
}

fn indices(host: &Host, name: &str, count: u32) -> Result<Vec<u32>> {
    host.run_in(|| {
        (0..count)
            .map(|n| {
                let name = format!("{name}{n}");
                nix::net::if_::if_nametoindex(name.as_str()).with_context(|| format!("no {name}"))
            })
            .collect()
    })
}

/// Tells the kernel of the stations. Gives how long it took, and how long to have it all dumped.
fn fill(layout: Layout, ports: &[u32]) -> Result<(Duration, Duration)> {
    let Layout { stations, bridges, tunnels } = layout;
    let mut writer = FdbWriter::open()?;
    let begun = Instant::now();
    for n in 0..stations {
        let [a, b, c, d] = n.to_be_bytes();
        // A bridge's stations take turns in its share of the tunnels.
        let remotes = (tunnels / bridges).max(1);
        let port = ports[(n % bridges) as usize];
        writer.add(port, [0x06, 0, a, b, c, d], Some(remote(n / bridges % remotes)))?;
    }
    writer.flush()?;
    let filled = begun.elapsed();
    let begun = Instant::now();
    let entries = writer.count()?;
    // Each is in the bridge's table and in the vxlan device's.
    ensure!(entries >= 2 * stations as usize, "the kernel has only {entries} entries");
    Ok((filled, begun.elapsed()))
}

/// Starts the daemon and waits until it forwards.
fn start(host: &Host, binary: &Path) -> Result<(Loader, Duration)> {
    let configuration = "[accelerate]\nfdb_capacity = 1048576\n";
    let begun = Instant::now();
    let mut loader =
        Loader::spawn_binary(binary.to_owned(), host, Some(configuration), &["--verbose"])?;
    while !loader.log().contains("running, control socket") {
        ensure!(begun.elapsed() < LIMIT, "the daemon does not start:\n{}", loader.log());
        thread::sleep(Duration::from_millis(10));
    }
    let ready = begun.elapsed();
    loader.ready()?;
    Ok((loader, ready))
}

fn pin(loader: &Loader) -> PathBuf {
    loader.bpffs().join(format!("v{VERSION}/fdb"))
}

/// The duration in the first line of the log that says this.
fn seconds(log: &str, what: &str) -> Result<f64> {
    let line = log.lines().find(|line| line.contains(what));
    let words = line.into_iter().flat_map(str::split_whitespace);
    let seconds = words.filter_map(|word| word.strip_prefix("seconds=")).next();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    seconds.with_context(|| format!("the daemon did not say how long it took: {what}\n{log}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_from_the_log() {
        let log = "INFO a\nDEBUG b: read the forwarding tables entries=7 seconds=0.25\n";
        assert_eq!(seconds(log, "read the forwarding tables").ok(), Some(0.25));
        assert!(seconds(log, "brought the maps").is_err());
    }
}
