//! A host: a network namespace, and a thread within it on which the test runs.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use ovs_loader::bridge::linux::LinuxBridges;
use ovs_loader::bridge::model::{
    Bridge, Bridges, Changes, Device, FdbEntry, FdbKey, IfIndex, Mac, Port, Tunnel,
};

/// How long anything may take that the kernel does at once.
const DEADLINE: Duration = Duration::from_secs(10);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, removed when dropped.
pub(crate) struct Host {
    name: String,
}

impl Host {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("brt-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        Self { name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace and returns what it prints.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.tool("ip", arguments)
    }

    /// Runs `bridge` in the namespace and returns what it prints.
    pub(crate) fn bridge(&self, arguments: &str) -> String {
        self.tool("bridge", arguments)
    }

    fn tool(&self, tool: &str, arguments: &str) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        run(tool, &all)
    }

    /// A setting below `/proc/sys`.
    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/{path}"), value.to_owned());
        let name = self.name.clone();
        std::thread::spawn(move || {
            enter(&name);
            std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        })
        .join()
        .expect("the setting");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(tool: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(tool).args(arguments).output().unwrap_or_else(|e| panic!("{tool}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {}: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn enter(name: &str) {
    let namespace = File::open(format!("/run/netns/{name}")).expect("the namespace");
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace (as root)");
}

/// Runs a test on a thread within a new namespace.
pub(crate) fn on_host(test: impl AsyncFnOnce(&Host) + Send + 'static) {
    let host = Host::new();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(&host.name);
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(test(&host));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub(crate) async fn open() -> LinuxBridges {
    LinuxBridges::open().await.expect("open")
}

/// Follows the changes until `done` says so, and returns them.
pub(crate) async fn until(
    bridges: &mut LinuxBridges,
    what: &str,
    done: impl Fn(&Bridges) -> bool,
) -> Vec<Changes> {
    let mut seen = Vec::new();
    let followed = tokio::time::timeout(DEADLINE, async {
        while !done(bridges.bridges()) {
            seen.push(bridges.changed().await.expect("changes"));
        }
    })
    .await;
    assert!(followed.is_ok(), "never saw: {what}; have {:#?}", bridges.bridges());
    seen
}

pub(crate) fn bridge<'a>(bridges: &'a Bridges, name: &str) -> Option<&'a Bridge> {
    bridges.values().find(|bridge| bridge.name == name)
}

pub(crate) fn port<'a>(bridges: &'a Bridges, name: &str) -> Option<&'a Port> {
    bridges.values().flat_map(|bridge| bridge.ports.values()).find(|port| port.name == name)
}

pub(crate) fn tunnel<'a>(bridges: &'a Bridges, name: &str) -> Option<&'a Tunnel> {
    match &port(bridges, name)?.device {
        Device::Tunnel(tunnel) => Some(tunnel),
        _ => None,
    }
}

pub(crate) fn mac(text: &str) -> Mac {
    let bytes: Vec<_> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
    Mac(bytes.try_into().expect("six bytes"))
}

/// Where the bridge of that name has a station, as (port name's index, kind).
pub(crate) fn station(bridges: &Bridges, name: &str, station: &str) -> Option<FdbEntry> {
    bridge(bridges, name)?.fdb.get(&FdbKey { vlan: 0, mac: mac(station) }).copied()
}

pub(crate) fn index(bridges: &Bridges, name: &str) -> IfIndex {
    port(bridges, name).unwrap_or_else(|| panic!("no port {name}")).ifindex
}
