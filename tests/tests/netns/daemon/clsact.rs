//! Attached by classic filters, as on kernels without TCX.
//!
//! The kernel may lose a packet where a qdisc is made or removed: no stream is asked for all of its
//! packets over such a moment.

use anyhow::Result;
use ovs_ebpf_tests::lab::{Host, Lab, Loader, Namespace, wait_until};

use super::FOLLOWED;
use crate::support::{At, BothWays, elements, has, ovs_loader, shell};

const CLSACT: &[&str] = &["--attach", "clsact"];

fn start(host: &Host) -> Result<Loader> {
    let mut loader = Loader::spawn(host, None, CLSACT)?;
    loader.ready()?;
    Ok(loader)
}

/// The programs on the port's and the uplink's ingress, in the words of `tc`: name and kernel's id.
fn programs(host: &Namespace) -> Vec<(String, u64)> {
    let show = |device: &str| {
        let shown = shell(host, &format!("tc -j filter show dev {device} ingress"));
        let filters = serde_json::from_str(&shown).unwrap_or_default();
        let options = elements(&filters).map(|filter| &filter["options"]);
        options
            .filter_map(|options| {
                let name = options["bpf_name"].as_str()?.to_owned();
                Some((name, options["prog"]["id"].as_u64()?))
            })
            .collect::<Vec<_>>()
    };
    [show("v1"), show("u0")].concat()
}

/// All qdiscs, and the ingress filters on the port and the uplink.
fn tc(host: &Namespace) -> String {
    let script = "tc qdisc; for device in u0 v1; do tc filter show dev $device ingress; done";
    shell(host, script)
}

fn names(programs: &[(String, u64)]) -> Vec<&str> {
    programs.iter().map(|(name, _)| name.as_str()).collect()
}

const BOTH: [&str; 2] = ["ovs-ebpf:port_ingress", "ovs-ebpf:uplink_ingress"];

#[test]
fn filters_carry_traffic_and_go_with_the_daemon() -> Result<()> {
    let lab = Lab::pair()?;
    let before = tc(lab.host(0));
    let mut loader = start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    assert_eq!(names(&programs(lab.host(0))), BOTH);
    assert!(loader.sigterm()?.success());
    traffic.goes_on(100);
    assert_eq!(tc(lab.host(0)), before);
    traffic.stop().map(|_| ())
}

#[test]
fn a_new_start_replaces_the_programs_in_place() -> Result<()> {
    let lab = Lab::pair()?;
    let before = tc(lab.host(0));
    let mut first = start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&first, FOLLOWED);
    let old = programs(lab.host(0));
    first.kill_9()?;
    traffic.goes_on(100);
    assert_eq!(programs(lab.host(0)), old, "what was attached stays");
    let mut second = start(lab.host(0))?;
    let new = programs(lab.host(0));
    assert_eq!(names(&new), BOTH);
    assert!(new.iter().all(|program| !old.contains(program)), "{old:?} {new:?}");
    traffic.is_fast(&second, FOLLOWED);
    second.kill_9()?;
    traffic.arrived_whole()?;
    ovs_loader(lab.host(0), &["down"])?;
    assert_eq!(tc(lab.host(0)), before);
    Ok(())
}

#[test]
fn another_hook_takes_over_and_leaves_one_program_on_each_device() -> Result<()> {
    let lab = Lab::pair()?;
    let before = tc(lab.host(0));
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    for hook in ["clsact", "tcx", "clsact", "tcx"] {
        let mut loader = Loader::spawn(lab.host(0), None, &["--attach", hook])?;
        loader.ready()?;
        traffic.is_fast(&loader, FOLLOWED);
        let filters = programs(lab.host(0)).len();
        let pins = std::fs::read_dir(lab.host(0).bpffs())?.flatten();
        let links = pins.filter_map(|pin| std::fs::read_dir(pin.path().join("links")).ok());
        let links = links.flatten().count();
        assert_eq!((filters, links), if hook == "tcx" { (0, 2) } else { (2, 0) });
        loader.kill_9()?;
    }
    ovs_loader(lab.host(0), &["down"])?;
    assert_eq!(tc(lab.host(0)), before);
    traffic.stop().map(|_| ())
}

#[test]
fn filters_that_others_removed_are_back_at_once() -> Result<()> {
    let lab = Lab::pair()?;
    let before = tc(lab.host(0));
    let loader = start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    // As ovs-vswitchd does when it sets the policing of a port.
    for device in ["v1", "u0"] {
        shell(lab.host(0), &format!("tc qdisc del dev {device} clsact"));
        wait_until(FOLLOWED, "both programs", || {
            (names(&programs(lab.host(0))) == BOTH).then_some(())
        });
        traffic.is_fast(&loader, FOLLOWED);
    }
    traffic.stop()?;
    // And where a port of the bridge comes at that very moment.
    let port = "ip link add new type veth peer name new-peer && ip link set new master br-ex up";
    for device in ["v1", "u0"] {
        shell(lab.host(0), &format!("tc qdisc del dev {device} clsact; {port}"));
        wait_until(FOLLOWED, "both programs beside a new port", || {
            (names(&programs(lab.host(0))) == BOTH).then_some(())
        });
        shell(lab.host(0), "ip link del new");
    }
    loader.down()?;
    assert_eq!(tc(lab.host(0)), before);
    Ok(())
}

#[test]
fn filters_of_others_run_first_and_stay() -> Result<()> {
    let lab = Lab::pair()?;
    let filter = |what: &str| {
        let place = "dev v1 ingress pref 7 protocol ip u32";
        shell(lab.host(0), &format!("tc filter replace {place} {what} classid 1:1"));
    };
    shell(lab.host(0), "tc qdisc add dev v1 clsact");
    filter("match ip dst 198.51.100.1");
    let before = tc(lab.host(0));
    let loader = start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    assert!(!has(&loader, At::Port("v1"), "ingress_filter"));
    traffic.stop()?;
    loader.down()?;
    assert_eq!(tc(lab.host(0)), before);

    // What the filter decides on never gets to ours.
    shell(lab.host(0), "tc filter del dev v1 ingress pref 7");
    filter("match u32 0 0");
    let loader = start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    wait_until(FOLLOWED, "packets from the other host on the fast path", || {
        (loader.fast_packets().ok()?.received > 1000).then_some(())
    });
    traffic.goes_on(1000);
    assert_eq!(loader.fast_packets()?.sent, 0);
    Ok(())
}

#[test]
fn a_filter_beside_ours_stops_the_bypass() -> Result<()> {
    let lab = Lab::pair()?;
    let loader = start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    // With the priority that ours have, and a handle of its own.
    let beside = "tc filter add dev v1 ingress pref 65535 handle 77 bpf bytecode '1,6 0 0 0,'";
    shell(lab.host(0), beside);
    wait_until(FOLLOWED, "the reason", || {
        has(&loader, At::Port("v1"), "ingress_filter").then_some(())
    });
    shell(lab.host(0), "tc filter del dev v1 ingress pref 65535 handle 77 bpf");
    traffic.is_fast(&loader, FOLLOWED);
    traffic.arrived_whole()
}
