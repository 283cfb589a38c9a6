//! What the tests beside Open vSwitch share.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::{
    accelerated::is_fast,
    lab::{Container, Lab, Loader, Namespace, traffic, wait_until},
};

/// How long anything may take that is to be so at once; in the emulated machine as many seconds as it
/// is slower, so what it took is printed.
const SECOND: Duration = Duration::from_secs(1);
/// How long anything may take that nothing else depends on.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// How often echoes are sent.
pub(crate) const INTERVAL: Duration = Duration::from_millis(10);
/// Packets per second of a stream: the emulated machine has time for them beside everything else.
pub(crate) const RATE: u32 = 200;

/// Packets that are lost more than with Open vSwitch alone: a measure of chance, since the times at
/// which its daemon does its work vary by as much.
pub(crate) const CHANCE: u64 = RATE as u64 / 20;

/// Names what is looked at, in the output and in the error if it fails.
pub(crate) fn fact<T>(name: &str, check: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("-- {name}"));
    let start = Instant::now();
    let result = check().with_context(|| name.to_owned());
    say(&format!("   {:.1} s", start.elapsed().as_secs_f64()));
    result
}

/// Prints a line at once, of a test that passes too: a test is long here.
pub(crate) fn say(line: &str) {
    // Not by a macro: libtest would keep it for a failure. Nor does anything depend on it.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Waits for what has to be so within a second, and prints how long it took.
#[track_caller]
pub(crate) fn at_once<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let answer = wait_until(SECOND, what, condition);
    took(what, start.elapsed());
    answer
}

/// Prints how long something took.
pub(crate) fn took(what: &str, time: Duration) {
    say(&format!("   {:.2} s: {what}", time.as_secs_f64()));
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

/// Whoever has addresses: an IPv4 and an IPv6 one.
pub(crate) type Peer<'a> = (&'a Namespace, [IpAddr; 2]);

pub(crate) fn peer(container: &Container) -> Peer<'_> {
    (container, [container.ipv4().into(), container.ipv6().into()])
}

/// Has two exchange echoes and content, IPv4 and IPv6, both ways.
pub(crate) fn exchange(one: Peer<'_>, other: Peer<'_>) -> Result<()> {
    for ((from, _), (to, addresses)) in [(one, other), (other, one)] {
        for address in addresses {
            for size in [56, 3200] {
                let ping = traffic::ping(from, address, size, 3, INTERVAL)?;
                ensure!(ping.received == 3, "{size} bytes to {address}: {ping:?}");
            }
            traffic::transfer(from, (to, address), 300_000)
                .with_context(|| format!("to {address}"))?;
        }
    }
    Ok(())
}

/// Whether Open vSwitch itself has a station on a host's `br-ex`.
pub(crate) fn learned(lab: &Lab, host: usize, mac: &str) -> Result<bool> {
    let ovs = lab.host(host).ovs().context("a host with Open vSwitch")?;
    Ok(ovs.appctl(&["fdb/show", "br-ex"])?.contains(mac))
}

/// Waits until a daemon has no such station, neither fast nor slow.
#[track_caller]
pub(crate) fn until_forgotten(loader: &Loader, mac: &str) {
    at_once(&format!("{mac} is forgotten"), || {
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
