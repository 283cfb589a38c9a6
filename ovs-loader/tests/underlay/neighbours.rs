//! The next hops' entries in the kernel's neighbour table: which are kept fresh, and whose they are.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ovs_ebpf_common::Reason;

use crate::lab::{DEADLINE, Lab, follow, mac, path, unresolved, vxlan};

#[test]
fn a_silent_neighbour_is_no_neighbour_until_it_speaks() {
    Lab::run(async |lab| {
        lab.ip("left", "link set eth0 arp off");
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        let failed = "192.0.2.2 dev up0 FAILED";
        let found = unresolved(&mut underlay, &target, Reason::NoNeighbour, failed).await;
        let known = found.route.unwrap();
        assert_eq!(
            (known.uplink, known.local.to_string()),
            (lab.index("host", "up0"), "192.0.2.1".into())
        );

        // Nothing but the kernel's own keeping of a managed neighbour asks again.
        lab.ip("left", "link set eth0 arp on");
        path(&mut underlay, &target, |_| true).await;
    });
}

#[test]
fn a_next_hop_is_managed_until_its_target_goes() {
    Lab::run(async |lab| {
        let (left, right) = (vxlan("192.0.2.2"), vxlan("192.0.2.130"));
        let mut underlay = follow(&[left, right]).await;
        for address in ["192.0.2.2", "192.0.2.130"] {
            let entry = lab.neighbour(address);
            assert!(entry.contains("managed") && entry.contains("proto 79"), "{entry}");
        }
        path(&mut underlay, &left, |_| true).await;
        underlay.set_targets(BTreeSet::from([right])).await.unwrap();
        assert!(!lab.neighbour("192.0.2.2").contains("managed"));
        assert!(lab.neighbour("192.0.2.2").contains("lladdr"), "un-managing keeps the address");
        assert!(lab.neighbour("192.0.2.130").contains("managed"));

        underlay.release().await.unwrap();
        assert!(!lab.neighbour("192.0.2.130").contains("managed"));
    });
}

#[test]
fn a_deleted_neighbour_is_managed_again() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |_| true).await;
        lab.ip("host", "neigh del 192.0.2.2 dev up0");
        // It may be back before anyone could see it gone: then there is no change to wait for.
        let deadline = Instant::now() + DEADLINE;
        while !lab.neighbour("192.0.2.2").contains("managed") {
            assert!(Instant::now() < deadline, "{}", lab.neighbour("192.0.2.2"));
            let _ = tokio::time::timeout(Duration::from_millis(20), underlay.changed()).await;
        }
        path(&mut underlay, &target, |_| true).await;
    });
}

#[test]
fn a_killed_daemons_neighbours_are_given_back_by_the_next() {
    Lab::run(async |lab| {
        let (left, right) = (vxlan("192.0.2.2"), vxlan("192.0.2.130"));
        drop(follow(&[left, right]).await);
        assert!(lab.neighbour("192.0.2.2").contains("managed"), "a drop is like a kill");

        // The next one has no use for the left neighbour any more.
        let next = follow(&[right]).await;
        assert!(!lab.neighbour("192.0.2.2").contains("managed"));
        assert!(lab.neighbour("192.0.2.130").contains("managed"));
        next.release().await.unwrap();
        assert!(!lab.neighbour("192.0.2.130").contains("managed"));
    });
}

#[test]
fn an_operators_neighbours_are_used_and_left_alone() {
    Lab::run(async |lab| {
        let permanent = "02:00:00:00:00:77";
        lab.ip("host", &format!("neigh add 192.0.2.2 lladdr {permanent} dev up0 nud permanent"));
        lab.ip("host", "neigh add 192.0.2.130 dev up1 managed");
        let (left, right) = (vxlan("192.0.2.2"), vxlan("192.0.2.130"));
        let mut underlay = follow(&[left, right]).await;
        let found = path(&mut underlay, &left, |_| true).await;
        assert_eq!(found.next_hop_mac, mac(permanent));
        path(&mut underlay, &right, |_| true).await;
        underlay.resync().await.unwrap();
        underlay.release().await.unwrap();

        let entry = lab.neighbour("192.0.2.2");
        assert!(entry.contains("PERMANENT") && entry.contains(permanent), "{entry}");
        assert!(!entry.contains("managed") && !entry.contains("proto"), "{entry}");
        let entry = lab.neighbour("192.0.2.130");
        assert!(entry.contains("managed") && !entry.contains("proto"), "{entry}");
    });
}

#[test]
fn a_control_planes_neighbour_keeps_its_mark() {
    Lab::run(async |lab| {
        let (left, right) = (lab.mac("left", "eth0"), lab.mac("right", "eth0"));
        lab.ip("host", &format!("neigh add 192.0.2.2 dev up0 lladdr {left} extern_learn"));
        lab.ip("host", &format!("neigh add 192.0.2.130 dev up1 lladdr {right} protocol zebra"));
        let underlay = follow(&[vxlan("192.0.2.2"), vxlan("192.0.2.130")]).await;
        let learned = lab.neighbour("192.0.2.2");
        assert!(learned.contains("extern_learn") && !learned.contains("managed"), "{learned}");
        let marked = lab.neighbour("192.0.2.130");
        assert!(marked.contains("proto zebra"), "{marked}");
        underlay.release().await.unwrap();
        assert!(!lab.neighbour("192.0.2.130").contains("managed"));
    });
}

#[test]
fn a_neighbour_that_becomes_permanent_stays_so() {
    Lab::run(async |lab| {
        let target = vxlan("192.0.2.2");
        let mut underlay = follow(&[target]).await;
        path(&mut underlay, &target, |_| true).await;
        let permanent = mac("02:00:00:00:00:77");
        lab.ip(
            "host",
            &format!("neigh replace 192.0.2.2 lladdr {permanent} dev up0 nud permanent"),
        );
        path(&mut underlay, &target, |path| path.next_hop_mac == permanent).await;
        underlay.release().await.unwrap();
        assert!(lab.neighbour("192.0.2.2").contains("PERMANENT"));
    });
}
