//! What the tests beside Open vSwitch share.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, Counts, assert_all_fast, count, is_fast},
    lab::{
        Container, Lab, Loader, Namespace,
        traffic::{self, Datagrams},
        try_until, wait_until,
    },
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

/// Tries until it succeeds: what follows a change takes its time. Gives the last error after 10 s.
pub(crate) fn eventually(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let mut last = None;
    let done = try_until(LIMIT, || Ok(attempt().map_err(|error| last = Some(error)).ok()));
    done.map_err(|late| last.unwrap_or(late))
}

/// Asserts that so many packets were fast but for proofs of stations. Neighbours may have asked for one
/// another meanwhile, which is fast too over IPv6: the machine is slow.
#[track_caller]
pub(crate) fn are_fast(counts: &Counts, packets: u64) {
    let all: u64 =
        ["sent", "received", "revalidation"].map(|name| count(counts, name)).iter().sum();
    assert!(all >= packets && count(counts, "revalidation") <= 4, "{packets} wanted: {counts:?}");
    assert_all_fast(counts);
}

/// Datagrams from one container to an address of another's, which are fast in `programs` runs each. Packets
/// that count as `but` are somebody else's.
pub(crate) fn datagrams_are_fast(
    pair: &Accelerated,
    from: &Namespace,
    to: (&Namespace, IpAddr),
    programs: usize,
    but: &str,
) -> Result<()> {
    const DATAGRAMS: u32 = 32;
    let flow = Datagrams::open(from, to)?;
    ensure!(flow.send(64, 1)? == 1, "the first, after neighbour discovery");
    let mut counted = pair.counted(|| {
        ensure!(flow.send(1000, DATAGRAMS)? == DATAGRAMS, "{}", to.1);
        Ok(())
    })?;
    counted.remove(but);
    are_fast(&counted, u64::from(DATAGRAMS) * programs as u64);
    Ok(())
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

/// Has echoes come back, all of them.
pub(crate) fn echoes(from: &Namespace, to: impl Into<IpAddr>, size: u32) -> Result<()> {
    const ECHOES: u32 = 3;
    let to = to.into();
    all_arrive(size, ECHOES, || Ok(traffic::ping(from, to, size, ECHOES, INTERVAL)?.received))
        .with_context(|| format!("echoes of {to}"))
}

/// Has datagrams arrive, all of them.
pub(crate) fn datagrams(flow: &Datagrams, size: usize) -> Result<()> {
    const DATAGRAMS: u32 = 32;
    all_arrive(size as u32, DATAGRAMS, || flow.send(size, DATAGRAMS)).context("datagrams")
}

/// Sends so many of so many bytes, and sees all arrive. Of those that may travel in fragments one may be
/// lost, once: the emulated 6.1 loses about one in 10,000 packets that it has put together, Open vSwitch
/// alone or not, and no counter has it (`ReasmOKs` counts it still, `InDelivers` does not).
fn all_arrive(size: u32, count: u32, mut send: impl FnMut() -> Result<u32>) -> Result<()> {
    const NEVER_IN_FRAGMENTS: u32 = 1300;
    let mut arrived = send()?;
    if size > NEVER_IN_FRAGMENTS && arrived + 1 == count {
        say(&format!("   one of {count} with {size} bytes was lost: once more"));
        arrived = send()?;
    }
    ensure!(arrived == count, "{arrived} of {count} with {size} bytes arrived");
    Ok(())
}

/// Has two exchange echoes and content, IPv4 and IPv6, both ways.
pub(crate) fn exchange(one: Peer<'_>, other: Peer<'_>) -> Result<()> {
    for ((from, _), (to, addresses)) in [(one, other), (other, one)] {
        for address in addresses {
            for size in [56, 3200] {
                echoes(from, address, size)?;
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
