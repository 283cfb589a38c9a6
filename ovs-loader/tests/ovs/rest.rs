//! What a large FDB costs that does not change.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::lab::{add_bridge, found, on_host, open};
use crate::switch::Switch;

const STATIONS: usize = 10_000;

/// Long enough for one whole FDB.
const REST: Duration = Duration::from_secs(11);

/// Of one core.
const SHARE: f64 = 0.02;

/// Gives the bridge so many fixed stations.
fn add_stations(switch: &Switch) {
    switch.vsctl("set bridge br-ex other_config:mac-table-size=20000");
    let pid = std::fs::read_to_string(switch.rundir().join("ovs-vswitchd.pid")).unwrap();
    let socket = switch.rundir().join(format!("ovs-vswitchd.{}.ctl", pid.trim()));
    let mut stream = UnixStream::connect(socket).unwrap();
    for n in 0..STATIONS {
        let mac = format!("02:01:00:00:{:02x}:{:02x}", n >> 8, n & 0xff);
        let request =
            format!(r#"{{"id":{n},"method":"fdb/add","params":["br-ex","veth-a","0","{mac}"]}}"#);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        while !answer.ends_with('}') {
            let mut bytes = [0; 256];
            let len = stream.read(&mut bytes).unwrap();
            answer.push_str(std::str::from_utf8(&bytes[..len]).unwrap());
        }
        assert!(answer.contains(r#""error":null"#), "{answer}");
    }
}

/// The CPU time that this thread has used: everything runs on it.
fn used() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[test]
fn ten_thousand_stations_at_rest_cost_next_to_nothing() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        add_stations(&switch);
        let mut bridges = open(&switch).await;
        assert_eq!(found(&bridges).unwrap().fdb.len(), STATIONS);
        // What has just been set up may still be told.
        let _ = tokio::time::timeout(Duration::from_secs(1), bridges.changed()).await;
        let (start, before) = (Instant::now(), used());
        let changed = tokio::time::timeout(REST, bridges.changed()).await;
        assert!(changed.is_err(), "{:?}", changed.map(|changes| changes.map(|c| c.topology)));
        let share = (used() - before).as_secs_f64() / start.elapsed().as_secs_f64();
        assert!(share < SHARE, "{:.2} %", share * 100.0);
        println!("{:.2} % of a core", share * 100.0);
    });
}
