//! What the tests of the daemon share.

use std::{collections::BTreeSet, fs, time::Duration};

use crate::lab::{
    Container, FastPackets, Host, Loader, Namespace, binary,
    traffic::{Stream, StreamReport},
    wait_until,
};
use anyhow::{Result, ensure};
use serde_json::Value;

/// Where a reason is reported.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// At `br-ex`.
    Bridge,
    /// At this port.
    Port(&'a str),
    /// At this tunnel device.
    Tunnel(&'a str),
    /// At the FDB entry of this MAC.
    Station(&'a str),
}

/// Whether the daemon reports the reason there now.
///
/// # Panics
/// When the daemon does not answer.
pub fn has(loader: &Loader, at: At<'_>, reason: &str) -> bool {
    detail(loader, at, reason).is_some()
}

/// What exactly was found, if the daemon reports the reason there now.
///
/// # Panics
/// When the daemon does not answer.
pub fn detail(loader: &Loader, at: At<'_>, reason: &str) -> Option<String> {
    let answer = match at {
        At::Station(_) => loader.fdb(),
        _ => loader.status(),
    };
    let answer = answer.unwrap_or_else(|error| panic!("{error:#}"));
    let bridges = elements(&answer["bridges"]).filter(|bridge| bridge["name"] == "br-ex");
    let objects: Vec<&Value> = match at {
        At::Bridge => bridges.collect(),
        At::Port(name) => named(bridges.flat_map(|bridge| elements(&bridge["ports"])), name),
        At::Tunnel(name) => named(bridges.flat_map(|bridge| elements(&bridge["tunnels"])), name),
        At::Station(mac) => {
            elements(&answer["entries"]).filter(|entry| entry["mac"] == mac).collect()
        }
    };
    let mut all = objects.iter().flat_map(|object| elements(&object["why"]));
    let why = all.find(|why| why["reason"] == reason)?;
    Some(why["detail"].as_str().unwrap_or_default().to_owned())
}

fn named<'a>(objects: impl Iterator<Item = &'a Value>, name: &str) -> Vec<&'a Value> {
    objects.filter(|object| object["name"] == name).collect()
}

/// The elements of an array, none of anything else.
pub fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Runs shell commands in a namespace; the first that fails ends the test.
pub fn shell(namespace: &Namespace, script: &str) -> String {
    namespace.exec(&["sh", "-ec", script])
}

/// Runs `ovs-loader` on a host, by default with what belongs to the host's own daemon, and gives what
/// it printed.
///
/// # Errors
/// With what it said, when it fails.
pub fn ovs_loader(host: &Host, arguments: &[&str]) -> Result<String> {
    let binary = binary()?;
    let bpffs = format!("OVS_EBPF_BPFFS={}", host.bpffs().display());
    let socket = format!("OVS_EBPF_SOCKET={}", host.files().join("control.sock").display());
    host.try_exec(&[&["env", &bpffs, &socket, &*binary.to_string_lossy()], arguments].concat())
}

/// All that a command could have changed on a host, line by line, without what changes by itself.
#[derive(Debug)]
pub struct State<'a> {
    host: &'a Host,
    lines: BTreeSet<String>,
}

impl<'a> State<'a> {
    /// The host's state now.
    pub fn of(host: &'a Host) -> Self {
        let shown = shell(
            host,
            "ip -d -o link | sed -E 's/[a-z_]+_timer +[0-9.]+//g'
             bridge -d -o link
             bridge fdb | grep permanent | grep -v -e ^33:33 -e ^01:00:5e
             ip -4 -o addr; ip rule; ip -4 route show table all; tc qdisc
             for device in u0 v1; do tc filter show dev $device ingress; done
             ip -d neigh | grep managed | cut -d ' ' -f 1-3 || true",
        );
        let mut lines: BTreeSet<_> = shown.lines().map(str::to_owned).collect();
        if let Ok(pins) = fs::read_dir(host.bpffs()) {
            lines.extend(pins.flatten().map(|pin| format!("pin {}", pin.path().display())));
        }
        Self { host, lines }
    }

    /// Asserts that the host is as it was.
    ///
    /// # Panics
    /// With the lines that differ, where the host is not as it was.
    #[track_caller]
    pub fn is_unchanged(&self) {
        let now = Self::of(self.host);
        let changed: Vec<_> = self.lines.symmetric_difference(&now.lines).collect();
        assert!(changed.is_empty(), "{changed:#?}");
    }
}

/// A paced stream in each direction.
#[derive(Debug)]
pub struct BothWays {
    there: Stream,
    back: Stream,
}

impl BothWays {
    /// Starts streams of 1000 packets per second.
    ///
    /// # Errors
    /// When a socket can't be set up.
    pub fn start(one: &Container, other: &Container) -> Result<Self> {
        Self::paced(one, other, 1000)
    }

    /// Starts streams of so many packets per second each.
    ///
    /// # Errors
    /// When a socket can't be set up.
    pub fn paced(one: &Container, other: &Container, per_second: u32) -> Result<Self> {
        Ok(Self {
            there: Stream::paced(one, (other, other.ipv4().into()), per_second)?,
            back: Stream::paced(other, (one, one.ipv4().into()), per_second)?,
        })
    }

    /// Packets that have arrived so far.
    pub fn arrived(&self) -> (u64, u64) {
        (self.there.arrived(), self.back.arrived())
    }

    /// Waits until so many more packets have arrived on each side.
    #[track_caller]
    pub fn goes_on(&self, packets: u64) {
        let before = self.arrived();
        wait_until(Duration::from_secs(3), "packets both ways", || {
            let now = self.arrived();
            (now.0 >= before.0 + packets && now.1 >= before.1 + packets).then_some(())
        });
    }

    /// Waits until this daemon's programs carry both streams.
    #[track_caller]
    pub fn is_fast(&self, loader: &Loader, limit: Duration) {
        let read = || loader.fast_packets().unwrap_or_else(|error| panic!("{error:#}"));
        let before = read();
        wait_until(limit, "the fast path both ways", || {
            let FastPackets { sent, received, .. } = read() - before;
            (sent >= 100 && received >= 100).then_some(())
        });
    }

    /// Ends both streams.
    ///
    /// # Errors
    /// When a socket failed.
    pub fn stop(self) -> Result<[StreamReport; 2]> {
        Ok([self.there.stop()?, self.back.stop()?])
    }

    /// Ends both streams.
    ///
    /// # Errors
    /// When a packet was lost or came twice.
    pub fn arrived_whole(self) -> Result<()> {
        let reports = self.stop()?;
        ensure!(
            reports.iter().all(|report| report.lost == 0 && report.duplicated == 0),
            "{reports:?}"
        );
        Ok(())
    }
}
