//! The daemon comes, goes and changes under running traffic, of which nothing may be lost.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, PerCpuArray};
use ovs_ebpf_common::{
    Reason,
    abi::{Program, ProgramCounters, VERSION},
};
use ovs_ebpf_tests::lab::{Lab, Loader, patience, traffic, wait_until};

use crate::support::BothWays;

const FAST: Duration = Duration::from_secs(5);
/// Bytes of one TCP connection; as many follow one another as there is time for.
const TRANSFER: u64 = 4_000_000;

/// Runs `transition` on host 1's daemon while streams run both ways, 1000 packets per second each, and
/// TCP connections one after the other. Gives the lab and the daemon for further tests of it.
///
/// # Errors
/// When a packet is lost or comes twice, or a TCP connection fails.
fn loses_nothing(
    configuration: &str,
    transition: impl FnOnce(&Lab, Loader, &BothWays) -> Result<Option<Loader>>,
) -> Result<()> {
    let lab = Lab::pair()?;
    let _other = Loader::start(lab.host(1))?;
    let loader = Loader::start_with(lab.host(0), configuration)?;
    let (here, there) = (lab.container(0), lab.container(1));
    let streams = BothWays::start(here, there)?;
    streams.is_fast(&loader, FAST);

    let (stop, connections) = (AtomicBool::new(false), AtomicU64::new(0));
    let after = thread::scope(|scope| -> Result<Option<Loader>> {
        // However this ends: the scope waits for its thread.
        let stop_at_end = SetOnDrop(&stop);
        let tcp = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                traffic::transfer(here, (there, there.ipv4().into()), TRANSFER)?;
                connections.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let changed = transition(&lab, loader, &streams).inspect(|_| streams.goes_on(300));
        let in_all = connections.load(Ordering::Relaxed);
        wait_until(FAST, "TCP after the change", || {
            (tcp.is_finished() || connections.load(Ordering::Relaxed) > in_all + 1).then_some(())
        });
        drop(stop_at_end);
        tcp.join().expect("no panic").context("a TCP connection")?;
        changed
    })?;
    streams.arrived_whole()?;
    drop(after);
    Ok(())
}

/// Sets a flag when it is dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What `port_ingress` and `uplink_ingress` have done by the pinned counters, which outlive a daemon:
/// packets on the fast path, and packets left to the bridge because the lease had run out.
fn pinned_counters(bpffs: &Path) -> Result<(u64, u64)> {
    let path = bpffs.join(format!("v{VERSION}/counters"));
    let map =
        MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let counters = PerCpuArray::<_, ProgramCounters>::try_from(Map::PerCpuArray(map))?;
    let (mut fast, mut expired) = (0, 0);
    for program in Program::FORWARDING {
        for values in counters.get(&(program as u32), 0)?.iter() {
            fast += values.packets;
            expired += values.reasons[Reason::LeaseExpired as usize];
        }
    }
    Ok((fast, expired))
}

#[test]
fn kill_9_and_a_new_start_lose_nothing_and_stay_fast() -> Result<()> {
    // An emulated machine, busy with all that traffic, verifies the next one's programs for a minute.
    let lease = patience(Duration::from_secs(30)).as_secs();
    let configuration = format!("[accelerate]\nlease_seconds = {lease}\n");
    loses_nothing(&configuration, |lab, mut loader, streams| {
        let before = pinned_counters(loader.bpffs())?;
        loader.kill_9()?;
        streams.goes_on(300);
        let without = pinned_counters(loader.bpffs())?;
        assert!(without.0 > before.0 + 500, "the programs forward without the daemon");
        let next = Loader::start(lab.host(0))?;
        streams.is_fast(&next, FAST);
        assert_eq!(pinned_counters(next.bpffs())?.1, before.1, "the lease never ran out");
        Ok(Some(next))
    })
}

#[test]
fn a_takeover_loses_nothing_and_stays_fast() -> Result<()> {
    loses_nothing("", |lab, mut loader, streams| {
        let before = pinned_counters(loader.bpffs())?;
        let mut next = Loader::spawn(lab.host(0), None, &["--takeover"])?;
        ensure!(loader.wait_exit(FAST)?.success(), "the first daemon: {}", loader.log());
        next.ready()?;
        assert_eq!(next.status()?["pid"], next.pid());
        streams.is_fast(&next, FAST);
        let after = pinned_counters(next.bpffs())?;
        assert!(after.0 > before.0 && after.1 == before.1, "{before:?} {after:?}");
        Ok(Some(next))
    })
}

#[test]
fn switching_off_and_on_loses_nothing() -> Result<()> {
    loses_nothing("", |_, loader, streams| {
        for _ in 0..3 {
            loader.accelerate("br-ex", false)?;
            streams.goes_on(100);
            loader.accelerate("br-ex", true)?;
            streams.is_fast(&loader, FAST);
        }
        Ok(Some(loader))
    })
}

#[test]
fn down_loses_nothing() -> Result<()> {
    loses_nothing("", |lab, mut loader, streams| {
        loader.down()?;
        ensure!(loader.wait_exit(FAST)?.success(), "the daemon: {}", loader.log());
        assert!(!lab.host(0).bpffs().exists());
        streams.goes_on(300);
        Ok(None)
    })
}

#[test]
fn sigterm_and_a_new_start_lose_nothing() -> Result<()> {
    loses_nothing("", |lab, mut loader, streams| {
        ensure!(loader.sigterm()?.success(), "the daemon: {}", loader.log());
        streams.goes_on(300);
        let next = Loader::start(lab.host(0))?;
        streams.is_fast(&next, FAST);
        Ok(Some(next))
    })
}

#[test]
fn a_lease_that_runs_out_loses_nothing_and_leaves_all_to_the_bridge() -> Result<()> {
    loses_nothing("[accelerate]\nlease_seconds = 3\n", |lab, mut loader, streams| {
        let bpffs = lab.host(0).bpffs();
        loader.kill_9()?;
        wait_until(Duration::from_secs(5), "the lease to run out", || {
            pinned_counters(&bpffs).is_ok_and(|(_, expired)| expired > 100).then_some(())
        });
        let before = pinned_counters(&bpffs)?;
        streams.goes_on(300);
        let after = pinned_counters(&bpffs)?;
        assert_eq!(after.0, before.0, "nothing is forwarded without a lease");
        assert!(after.1 > before.1 + 500, "{before:?} {after:?}");
        let next = Loader::start(lab.host(0))?;
        streams.is_fast(&next, FAST);
        Ok(Some(next))
    })
}
