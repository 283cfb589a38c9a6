//! What others do to the bridges while the daemon runs.

use anyhow::Result;
use ovs_ebpf_tests::lab::{Lab, Loader, wait_until};
use serde_json::{Value, json};

use super::FOLLOWED;
use crate::support::{BothWays, elements, shell};

const BRIDGE: &str = "ip link add br-ex up type bridge
    ip link add vxlan0 type vxlan id 42 local 192.0.2.1 remote 192.0.2.2 dstport 4789
    ip link set vxlan0 master br-ex up
    ip link set v1 master br-ex";

fn bridges(loader: &Loader) -> Value {
    loader.status().unwrap_or_else(|error| panic!("{error:#}"))["bridges"].take()
}

#[test]
fn a_bridge_made_after_the_daemon_started_is_accelerated() -> Result<()> {
    let lab = Lab::pair()?;
    shell(lab.host(0), "ip link del vxlan0; ip link del br-ex");
    let loader = Loader::start(lab.host(0))?;
    assert_eq!(elements(&bridges(&loader)).count(), 0);
    shell(lab.host(0), BRIDGE);
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    traffic.arrived_whole()
}

#[test]
fn a_port_added_later_is_accelerated() -> Result<()> {
    let mut lab = Lab::pair()?;
    let loader = Loader::start(lab.host(0))?;
    lab.host_mut(0).add_container()?;
    let traffic = BothWays::start(lab.host(0).container(1), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    traffic.arrived_whole()
}

#[test]
fn a_removed_container_leaves_the_maps() -> Result<()> {
    let mut lab = Lab::pair()?;
    let loader = Loader::start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    traffic.stop()?;
    let mac = lab.container(0).mac().to_owned();
    lab.host_mut(0).remove_container(0)?;
    wait_until(FOLLOWED, "no entry of the container", || {
        let fdb = loader.fdb().ok()?;
        (!elements(&fdb["entries"]).any(|entry| entry["mac"] == *mac)).then_some(())
    });
    let map = loader.bpffs().join(format!("v{}", ovs_ebpf_common::abi::VERSION));
    let dump = |name: &str| {
        let pin = map.join(name);
        shell(lab.host(0), &format!("bpftool -j map dump pinned {}", pin.display()))
    };
    assert_eq!(elements(&serde_json::from_str(&dump("ports"))?).count(), 0);
    let entries: Value = serde_json::from_str(&dump("fdb"))?;
    let stations: Vec<_> =
        elements(&entries).map(|entry| &entry["formatted"]["key"]["mac"]).collect();
    assert!(stations.contains(&&json!([2, 0, 0, 0, 2, 1])), "the other's is there: {stations:?}");
    assert!(!stations.contains(&&json!([2, 0, 0, 0, 1, 1])), "{stations:?}");
    Ok(())
}

#[test]
fn a_renamed_device_stays_fast_and_has_its_new_name() -> Result<()> {
    let lab = Lab::pair()?;
    let loader = Loader::start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    shell(
        lab.host(0),
        "ip link set v1 name web; ip link set vxlan0 name overlay; ip link set u0 name wan",
    );
    wait_until(FOLLOWED, "the new names", || {
        let bridges = bridges(&loader);
        let names = [
            &bridges[0]["ports"][0]["name"],
            &bridges[0]["tunnels"][0]["name"],
            &bridges[0]["tunnels"][0]["uplink"],
        ];
        (names == ["web", "overlay", "wan"]).then_some(())
    });
    traffic.is_fast(&loader, FOLLOWED);
    traffic.arrived_whole()
}

#[test]
fn a_bridge_deleted_and_made_anew_under_traffic_is_fast_again() -> Result<()> {
    let lab = Lab::pair()?;
    let loader = Loader::start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    for _ in 0..3 {
        shell(lab.host(0), &format!("ip link del vxlan0; ip link del br-ex\n{BRIDGE}"));
    }
    traffic.is_fast(&loader, FOLLOWED);
    let settled = BothWays::start(lab.container(0), lab.container(1))?;
    settled.goes_on(300);
    settled.arrived_whole()?;
    traffic.stop().map(|_| ())
}
