//! How long after the kernel's bridge the map says the same, while stations come and go.

use std::{
    collections::VecDeque,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use ovs_ebpf_common::abi::{FdbKey, FdbValue};
use ovs_ebpf_tests::lab::FdbWriter;
use serde::{Deserialize, Serialize};

use super::daemon::remote;
use crate::bench::report::quantile;

/// Changes a second.
const RATE: u32 = 10_000;
/// How often some of them are made at once; the last of them is looked for in the map.
const TICK: Duration = Duration::from_millis(1);
/// How long it goes on.
const DURATION: Duration = Duration::from_secs(10);
/// Stations that come, before the first of them goes.
const STATIONS: u32 = 40_000;
/// What has not arrived by then is lost.
const LIMIT: Duration = Duration::from_secs(60);

/// How far the map is behind the bridge.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Lag {
    pub(super) changes_per_second: f64,
    pub(super) median_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) most_ms: f64,
}

/// A change that the map does not have yet.
struct Change {
    key: FdbKey,
    present: bool,
    made: Instant,
}

/// Lets stations come and go behind a port of a bridge. To be called in the bridges' namespace.
pub(super) fn measure(pin: &Path, bridge: u32, port: u32) -> Result<Lag> {
    let map = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    let map: HashMap<_, FdbKey, FdbValue> = Map::HashMap(map).try_into()?;
    let mut writer = FdbWriter::open()?;
    let mut behind: VecDeque<Change> = VecDeque::new();
    let mut lags = Vec::new();
    let start = Instant::now();
    let (mut made, mut took) = (0, DURATION);
    while start.elapsed() < DURATION || !behind.is_empty() {
        let due = (start.elapsed().min(DURATION).as_secs_f64() * f64::from(RATE)) as u32;
        if made < due {
            let mut last = None;
            while made < due {
                // Rounds of arrivals and departures, in the same order.
                let (n, present) = (made % STATIONS, (made / STATIONS).is_multiple_of(2));
                let [_, a, b, c] = n.to_be_bytes();
                let mac = [0x0a, 0, 0, a, b, c];
                let remote = Some(remote(0));
                match present {
                    true => writer.add(port, mac, remote)?,
                    false => writer.remove(port, mac, remote)?,
                }
                last = Some((FdbKey { bridge, vlan: 0, mac }, present));
                made += 1;
            }
            writer.flush()?;
            took = start.elapsed();
            let made = Instant::now();
            behind.extend(last.map(|(key, present)| Change { key, present, made }));
        }
        while let Some(change) = behind.front()
            && map.get(&change.key, 0).is_ok() == change.present
        {
            lags.push(change.made.elapsed().as_secs_f64() * 1e3);
            behind.pop_front();
        }
        if let Some(change) = behind.front() {
            ensure!(
                change.made.elapsed() < LIMIT,
                "a change does not arrive in the map, after {} others",
                lags.len()
            );
        }
        thread::sleep(TICK / 5);
    }
    ensure!(!lags.is_empty(), "nothing has changed");
    let at = |share| quantile(lags.clone(), share);
    Ok(Lag {
        changes_per_second: f64::from(made) / took.as_secs_f64(),
        median_ms: at(0.5),
        p99_ms: at(0.99),
        most_ms: at(1.0),
    })
}
