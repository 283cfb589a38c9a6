//! What watching costs while nothing changes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::time::timeout;

use crate::lab::{fresh, ifindex, in_namespace, sh};

const PORTS: u32 = 100;
const WATCHED: Duration = Duration::from_secs(3);

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("CPU time").into()
}

#[test]
fn watching_a_hundred_ports_takes_under_one_percent_of_a_core() {
    in_namespace(async || {
        let mut script = String::new();
        for port in 0..PORTS {
            writeln!(script, "link add p{port} type veth peer name q{port}").expect("String");
        }
        sh(&format!("ip -batch - <<END\n{script}END"));
        // A table of legacy iptables is read at each poll.
        sh("iptables-legacy -w -A FORWARD -j ACCEPT");
        let mut rules = fresh().await;
        let ports: BTreeSet<_> = (0..PORTS).map(|port| ifindex(&format!("p{port}"))).collect();
        rules.watch_devices(ports).expect("watch devices");

        let before = cpu_time();
        assert!(timeout(WATCHED, rules.changed()).await.is_err(), "nothing changed");
        let used = cpu_time() - before;
        println!("{used:?} of CPU time in {WATCHED:?}");
        assert!(used < WATCHED / 100, "{used:?} of CPU time in {WATCHED:?}");
    });
}
