//! More changes at once than the daemon's socket holds.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use ovs_ebpf_common::abi::{FdbKey, FdbValue, VERSION};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, Ends, assert_all_fast, count},
    lab::{FdbWriter, Loader, wait_until},
};

use crate::support::{BothWays, mac};

/// Stations that come and go.
const STATIONS: u32 = 30_000;
/// What their MACs begin with: unlike the kernel's random ones, not locally administered.
const PREFIX: u8 = 0x04;
/// How long the storm may take to overrun the socket, and the daemon to make up for it.
const LIMIT: Duration = Duration::from_secs(30);
/// Packets of the test's own traffic that pass before, and after.
const PACKETS: u64 = 200;

fn station(n: u32) -> [u8; 6] {
    let [a, b, c, d] = n.to_be_bytes();
    [PREFIX, 0, a, b, c, d]
}

/// Has all stations come and go, and every other one come again: what is missed of the last two is not
/// said again. Gives those that are there then.
fn storm(writer: &mut FdbWriter, port: u32) -> Result<BTreeSet<[u8; 6]>> {
    for n in 0..STATIONS {
        writer.add(port, station(n), None)?;
    }
    for n in 0..STATIONS {
        writer.remove(port, station(n), None)?;
    }
    for n in (0..STATIONS).step_by(2) {
        writer.add(port, station(n), None)?;
    }
    writer.flush()?;
    Ok((0..STATIONS).step_by(2).map(station).collect())
}

fn pin(loader: &Loader) -> PathBuf {
    loader.bpffs().join(format!("v{VERSION}/fdb"))
}

fn fdb(pin: &Path) -> Result<HashMap<MapData, FdbKey, FdbValue>> {
    let map = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    Ok(Map::HashMap(map).try_into()?)
}

/// Those of the storm that are in the map.
fn stations(pin: &Path) -> Result<BTreeSet<[u8; 6]>> {
    let keys = fdb(pin)?.keys().collect::<Result<Vec<_>, _>>()?;
    Ok(keys.into_iter().map(|key| key.mac).filter(|mac| mac[0] == PREFIX).collect())
}

fn overruns(loader: &Loader) -> usize {
    loader.log().matches("the kernel dropped bridge notifications").count()
}

/// Sets a flag when it is dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_overrun_under_traffic_leaves_no_station_wrong_and_takes_none_away() -> Result<()> {
    let pair = Accelerated::pair(Ends::Both)?;
    let (host, loader) = (pair.lab.host(0), &pair.loaders[0]);
    let pin = pin(loader);
    let index = |name: &'static str| {
        host.run_in(move || nix::net::if_::if_nametoindex(name)).context("no such device")
    };
    let (port, bridge) = (index("v1")?, index("br-ex")?);
    let held: Vec<FdbKey> = [pair.lab.container(0), pair.lab.container(1)]
        .iter()
        .map(|container| {
            let mac = mac(container.mac())?.try_into().expect("six bytes");
            Ok(FdbKey { bridge, vlan: 0, mac })
        })
        .collect::<Result<_>>()?;

    let traffic = BothWays::start(pair.lab.container(0), pair.lab.container(1))?;
    traffic.goes_on(PACKETS);
    let ended = AtomicBool::new(false);
    let mut wanted = BTreeSet::new();
    let counted = pair.counted(|| {
        thread::scope(|scope| {
            // The stations that talk are in the map all the time.
            let watch = scope.spawn(|| -> Result<u64> {
                let fdb = fdb(&pin)?;
                let mut looks = 0;
                while !ended.load(Ordering::Relaxed) {
                    for key in &held {
                        fdb.get(key, 0).with_context(|| format!("no {key:?}, {looks} looks"))?;
                    }
                    looks += 1;
                    thread::sleep(Duration::from_micros(200));
                }
                Ok(looks)
            });
            let end = SetOnDrop(&ended);
            let storm = host.run_in(|| -> Result<BTreeSet<[u8; 6]>> {
                let mut writer = FdbWriter::open()?;
                loop {
                    let present = storm(&mut writer, port)?;
                    // What an earlier storm lacked is not what this one tells of.
                    let overrun = wait_until(LIMIT, "an overrun, or all followed", || {
                        let overrun = overruns(loader) > 0;
                        (overrun || stations(&pin).ok()? == present).then_some(overrun)
                    });
                    if overrun {
                        return Ok(present);
                    }
                }
            });
            wanted = storm?;
            wait_until(LIMIT, "the map to say what the bridge does", || {
                (stations(&pin).ok()? == wanted).then_some(())
            });
            traffic.goes_on(PACKETS);
            drop(end);
            let looks = watch.join().expect("it does not panic")?;
            assert!(looks > 100, "{looks} looks");
            Ok(())
        })
    })?;
    traffic.arrived_whole()?;
    assert!(count(&counted, "sent") > PACKETS, "{counted:?}");
    assert_all_fast(&counted);
    Ok(())
}
