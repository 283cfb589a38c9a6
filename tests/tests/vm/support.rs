//! What the tests beside Open vSwitch share.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::{
    accelerated::is_fast,
    lab::{Container, Lab, Loader, traffic, wait_until},
};

/// How long anything may take that is to be so at once; in the emulated machine as many seconds as it
/// is slower.
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// How long anything may take that nothing else depends on.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// How often echoes are sent.
pub(crate) const INTERVAL: Duration = Duration::from_millis(10);
/// Packets per second of a stream: the emulated machine has time for them beside everything else.
pub(crate) const RATE: u32 = 200;

/// Names what is looked at, in the output of a test that fails here and in its error.
pub(crate) fn fact<T>(name: &str, check: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("-- {name}");
    let start = Instant::now();
    let result = check().with_context(|| name.to_owned());
    eprintln!("   {:.1} s", start.elapsed().as_secs_f64());
    result
}

/// Whether one echo comes back.
pub(crate) fn echo(from: &Container, to: &Container) -> bool {
    traffic::ping(from, to.ipv4(), 56, 1, INTERVAL).is_ok_and(|ping| ping.received == 1)
}

/// Waits until echoes between two containers come back: Open vSwitch may still be setting up.
#[track_caller]
pub(crate) fn until_reached(from: &Container, to: &Container) {
    wait_until(LIMIT, &format!("an echo of {}", to.name()), || echo(from, to).then_some(()));
}

/// Whether Open vSwitch itself has a station on a host's `br-ex`.
pub(crate) fn learned(lab: &Lab, host: usize, mac: &str) -> Result<bool> {
    let ovs = lab.host(host).ovs().context("a host with Open vSwitch")?;
    Ok(ovs.appctl(&["fdb/show", "br-ex"])?.contains(mac))
}

/// Waits until a daemon has no such station, neither fast nor slow.
#[track_caller]
pub(crate) fn until_forgotten(loader: &Loader, mac: &str) {
    wait_until(SECOND, &format!("{mac} gone"), || {
        let fdb = loader.fdb().ok()?;
        (!fdb.to_string().contains(mac)).then_some(())
    });
}

/// Waits until a daemon has stations in its maps.
#[track_caller]
pub(crate) fn until_fast(loader: &Loader, macs: &[&str]) {
    wait_until(LIMIT, &format!("{macs:?} fast"), || {
        macs.iter().all(|mac| is_fast(loader, mac)).then_some(())
    });
}
