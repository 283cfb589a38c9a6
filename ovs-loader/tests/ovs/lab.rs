//! A host with Open vSwitch: a network namespace without a name, which goes with its thread.

use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use ovs_ebpf_common::Reason;
use ovs_loader::bridge::model::{Bridge, Changes, FdbEntry, FdbKey, IfIndex, Mac, Port};
use ovs_loader::bridge::ovs::OvsBridges;

use crate::switch::{Switch, run};

/// How long a change may take to be seen: a second, and as much again for a machine that is busy.
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// How long what ovs-vswitchd has said last holds without it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The bridge of every test.
pub(crate) const BRIDGE: &str = "br-ex";

/// Runs a test in a network namespace of its own, with the devices `br-ex` and `veth-a`.
pub(crate) fn on_host(test: impl AsyncFnOnce() + Send) {
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root's rights");
            for pair in ["br-ex type veth peer br-ex-x", "veth-a type veth peer veth-a-c"] {
                ip(&format!("link add {pair}"));
            }
            for device in ["br-ex", "br-ex-x", "veth-a", "veth-a-c"] {
                ip(&format!("link set {device} up"));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(test());
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Runs `ip` in the calling thread's namespace.
pub(crate) fn ip(words: &str) -> String {
    run(Command::new("ip").args(words.split_whitespace()))
}

/// Makes `br-ex` with the ports `veth-a` and a tunnel `gre0` with key 7.
pub(crate) fn add_bridge(switch: &Switch) {
    switch.vsctl(
        "add-br br-ex -- add-port br-ex veth-a \
         -- add-port br-ex gre0 -- set interface gre0 type=gre options:remote_ip=192.0.2.2 \
            options:key=7",
    );
}

/// The bridges, with those that have been told so far.
pub(crate) async fn open(switch: &Switch) -> OvsBridges {
    OvsBridges::open(&[switch.rundir().to_owned()], PATIENCE).await.expect("the bridges")
}

/// Waits until `br-ex` is as wanted, and gives all changes on the way.
pub(crate) async fn until(
    bridges: &mut OvsBridges,
    wanted: impl Fn(Option<&Bridge>) -> bool,
) -> Changes {
    let mut all = Changes::default();
    let changed = tokio::time::timeout(SOON, async {
        while !wanted(found(bridges)) {
            let changes = bridges.changed().await.expect("changes");
            assert_ne!(changes, Changes::default());
            all.topology |= changes.topology;
            all.fdb.extend(changes.fdb);
        }
    });
    if changed.await.is_err() {
        panic!("not within {SOON:?}: {:#?}", found(bridges));
    }
    all
}

/// `br-ex`, if it is there.
pub(crate) fn found(bridges: &OvsBridges) -> Option<&Bridge> {
    bridges.bridges().values().find(|bridge| bridge.name == BRIDGE)
}

/// What stands against the bridge.
pub(crate) fn against(bridge: &Bridge) -> Vec<(Reason, &str)> {
    bridge.unsupported.iter().map(|why| (why.reason, why.detail.as_str())).collect()
}

/// A port of the bridge.
pub(crate) fn port<'a>(bridge: &'a Bridge, name: &str) -> &'a Port {
    bridge.ports.values().find(|port| port.name == name).expect("the port")
}

/// What stands against a port of the bridge.
pub(crate) fn against_port<'a>(bridge: &'a Bridge, name: &str) -> Vec<(Reason, &'a str)> {
    port(bridge, name).unsupported.iter().map(|why| (why.reason, why.detail.as_str())).collect()
}

/// Where the bridge has a station: `02:00:00:00:00:NN`.
pub(crate) fn station(bridge: Option<&Bridge>, last: u8) -> Option<FdbEntry> {
    bridge?.fdb.get(&FdbKey { vlan: 0, mac: Mac([2, 0, 0, 0, 0, last]) }).copied()
}

/// The index of a device.
pub(crate) fn ifindex(device: &str) -> IfIndex {
    let path = format!("link show dev {device}");
    ip(&path).split(':').next().and_then(|index| index.parse().ok()).expect("an index")
}
