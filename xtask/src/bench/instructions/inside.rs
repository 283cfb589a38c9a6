//! Counting, in the machine whose clock counts.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::lab::traffic::{LockstepTcp, LockstepUdp};

use super::{Counts, Line};
use crate::bench::{details, machine::HostInfo, path::DataPath, testbed::Testbed};

/// How often each figure is counted.
const SAMPLES: usize = 5;
/// What /proc/stat counts idle time in.
const IDLE_TICK: Duration = Duration::from_millis(10);
/// Bytes of a datagram's payload.
const SIZE: usize = 64;
/// Datagrams for each count.
const DATAGRAMS: u32 = 4_000;
/// KB over TCP for each count.
const KB: u32 = 64 * 1024;

/// Counts on these paths, and prints a line of JSON after each.
///
/// # Errors
/// When this machine's clock is another, and when a path can't be set up or loses a packet.
pub(in crate::bench) fn run(paths: &[DataPath], loader: &Path) -> Result<()> {
    check_clock()?;
    println!("{}", serde_json::to_string(&Line::Host(HostInfo::ask(SAMPLES)))?);
    for path in paths {
        let counts = count(*path, loader).with_context(|| format!("cannot count on {path}"))?;
        println!("{}", serde_json::to_string(&Line::Counts(counts))?);
    }
    Ok(())
}

fn count(path: DataPath, loader: &Path) -> Result<Counts> {
    let testbed = Testbed::build(path, loader)?;
    let udp = LockstepUdp::open(testbed.from(), testbed.to())?;
    let udp_64 = samples(DATAGRAMS, || udp.send(SIZE, DATAGRAMS))?;
    let mut tcp = LockstepTcp::open(testbed.from(), testbed.to())?;
    let tcp_1 = samples(KB, || tcp.send(u64::from(KB) * 1024))?;
    let programs = match testbed.programs() {
        [] => BTreeMap::new(),
        programs => details::program_ns(programs, || udp.send(SIZE, DATAGRAMS))?,
    };
    Ok(Counts { path, udp_64, tcp_1, programs })
}

/// Instructions for each of so many units, several times after once to warm up.
fn samples(units: u32, mut body: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    body()?;
    let mut samples = Vec::new();
    let (idle, begun) = (idle()?, Instant::now());
    for _ in 0..SAMPLES {
        let start = Instant::now();
        body()?;
        samples.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(units));
    }
    let (idle, elapsed) = (self::idle()? - idle, begun.elapsed());
    // A tick of the kernel's own count may be the end of one that began before.
    ensure!(
        idle <= elapsed / 50 + IDLE_TICK,
        "the processor was idle for {idle:?} of {elapsed:?}, which would count as instructions: run it again"
    );
    Ok(samples)
}

/// How long the processor has had nothing to do since boot: proc(5), /proc/stat.
fn idle() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let mut fields = stat.split_whitespace().skip(4);
    let ticks = |field: Option<&str>| field.and_then(|ticks| ticks.parse::<u64>().ok());
    let idle = ticks(fields.next()).zip(ticks(fields.next()));
    let (idle, waiting_for_disks) = idle.context("/proc/stat has no idle time")?;
    Ok(IDLE_TICK * u32::try_from(idle + waiting_for_disks).context("/proc/stat")?)
}

/// Runs a known number of instructions.
///
/// # Errors
/// When that does not take a nanosecond each.
fn check_clock() -> Result<()> {
    const ROUNDS: u64 = 50_000_000;
    let start = Instant::now();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: counts a register down to 0 and touches nothing else.
    unsafe {
        std::arch::asm!(
            "2: sub {rounds}, 1",
            "jnz 2b",
            rounds = inout(reg) ROUNDS => _,
            options(nomem, nostack)
        );
    }
    let ratio = start.elapsed().as_secs_f64() * 1e9 / (2 * ROUNDS) as f64;
    ensure!(
        (0.99..1.01).contains(&ratio),
        "this machine's clock does not count instructions: {ratio:.3} ns for each"
    );
    Ok(())
}
