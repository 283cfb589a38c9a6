//! What following a large bridge costs at rest.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::lab::{add_bridge, found, on_host, open};
use crate::switch::Switch;

const STATIONS: usize = 10_000;

/// How long it is watched: all that is done now and then is done within it.
const REST: Duration = Duration::from_secs(12);

/// The largest part of a core.
const SHARE: f64 = 0.02;

/// Has a station behind `veth-a` send a broadcast, for each of so many stations.
fn speak(switch: &Switch, stations: usize) {
    let mut socket = UnixStream::connect(switch.control()).expect("ovs-vswitchd's socket");
    let mut buffer = [0; 4096];
    for station in 0..stations {
        let [high, low] = u16::try_from(station).expect("few").to_be_bytes();
        let frame = format!("ffffffffffff0200aa01{high:02x}{low:02x}88b5{}", "00".repeat(46));
        let request = format!(
            r#"{{"id":{station},"method":"netdev-dummy/receive","params":["veth-a","{frame}"]}}"#
        );
        socket.write_all(request.as_bytes()).expect("a request");
        let length = socket.read(&mut buffer).expect("an answer");
        let answer = String::from_utf8_lossy(&buffer[..length]);
        assert!(answer.contains(r#""error":null"#), "{answer}");
    }
}

/// How many stations ovs-vswitchd has in its table.
fn learned(switch: &Switch) -> usize {
    let counters = switch.appctl("fdb/stats-show br-ex");
    let current = counters
        .split_once("entries in the table: ")
        .and_then(|(_, rest)| rest.split_once('/').and_then(|(current, _)| current.parse().ok()));
    current.unwrap_or_else(|| panic!("no current entries: {counters}"))
}

/// The processor time of this thread.
fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("the usage");
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Duration::from_micros(micros.cast_unsigned())
}

#[test]
fn ten_thousand_stations_cost_less_than_two_per_cent_of_a_core_at_rest() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        switch.vsctl("set bridge br-ex other_config:mac-table-size=20000");
        // ovs-vswitchd drops frames when many come at once.
        let deadline = Instant::now() + Duration::from_secs(60);
        while learned(&switch) < STATIONS {
            assert!(Instant::now() < deadline, "only {} were learned", learned(&switch));
            speak(&switch, STATIONS);
        }
        let mut bridges = open(&switch).await;
        let loaded = tokio::time::timeout(Duration::from_secs(20), async {
            while found(&bridges).is_none_or(|bridge| bridge.fdb.len() < STATIONS) {
                bridges.changed().await.expect("changes");
            }
        });
        loaded.await.expect("all stations are known in time");

        let before = used();
        let rest = tokio::time::timeout(REST, async {
            loop {
                bridges.changed().await.expect("changes");
            }
        });
        let Err(_) = rest.await;
        let used = used() - before;
        eprintln!("{used:?} of {REST:?}");
        assert!(used.as_secs_f64() < REST.as_secs_f64() * SHARE, "{used:?} of {REST:?}");
        assert!(found(&bridges).is_some_and(|bridge| bridge.fdb.len() >= STATIONS));
    });
}
