//! Stations stay known while all their traffic is fast.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, count, share},
    lab::{Encap, Lab, traffic::BothWays},
};

use crate::support::{RATE, fact, learned};

/// The shortest that Open vSwitch allows.
const AGEING: Duration = Duration::from_secs(15);

#[test]
fn stations_whose_traffic_is_fast_do_not_age() -> Result<()> {
    let lab = Lab::build_ovs(Encap::Vxlan, "options:key=42", &[1, 1])?;
    for host in lab.hosts() {
        let ageing = format!("other_config:mac-aging-time={}", AGEING.as_secs());
        host.vsctl(&["set", "bridge", "br-ex", &ageing])?;
    }
    let pair = Accelerated::start_on(lab, &[0, 1])?;
    pair.meet(pair.lab.container(0), pair.lab.container(1))?;
    fact("fast for longer than they age", || fast_for_longer_than_they_age(&pair))
}

fn fast_for_longer_than_they_age(pair: &Accelerated) -> Result<()> {
    let (one, other) = (pair.lab.container(0), pair.lab.container(1));
    // No ARP and no neighbour discovery: the streams alone have to keep them known.
    for (container, neighbour) in [(one, other), (other, one)] {
        container.exec(&["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"]);
        let (address, mac) = (neighbour.ipv4(), neighbour.mac());
        container.ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent\n"))?;
    }
    let streams = BothWays::paced(one, other, RATE)?;
    let counted = pair.counted(|| {
        let end = Instant::now() + AGEING * 3 / 2;
        while Instant::now() < end {
            streams.goes_on(u64::from(RATE) / 2);
        }
        Ok(())
    })?;
    for host in [0, 1] {
        for container in [one, other] {
            ensure!(learned(&pair.lab, host, container.mac())?, "{host}: {}", container.mac());
        }
    }
    // Each of two stations proves itself on each of two hosts.
    ensure!(count(&counted, "revalidation") >= 4, "{counted:?}");
    ensure!(share(&counted) >= 0.98, "{counted:?}");
    for container in [one, other] {
        container.exec(&["ip", "neigh", "flush", "dev", "eth0", "nud", "permanent"]);
    }
    streams.arrived_whole()
}
