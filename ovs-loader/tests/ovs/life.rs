//! Daemons that start late, crash and come back.

use std::time::Instant;

use ovs_ebpf_common::Reason;
use ovs_loader::bridge::model::Bridge;

use crate::lab::{PATIENCE, add_bridge, against, found, on_host, open, station, until};
use crate::switch::Switch;

fn is_free(bridge: Option<&Bridge>) -> bool {
    bridge.is_some_and(|bridge| against(bridge).is_empty())
}

fn is_unreachable(bridge: Option<&Bridge>) -> bool {
    bridge.is_some_and(|bridge| matches!(against(bridge)[..], [(Reason::OvsUnreachable, _)]))
}

#[test]
fn an_open_vswitch_that_starts_later_is_taken_up() {
    on_host(async || {
        let mut switch = Switch::database_only();
        switch.kill_database();
        let mut bridges = open(&switch).await;
        assert!(bridges.bridges().is_empty());
        switch.start_database();
        switch.vsctl("--no-wait add-br br-ex");
        until(&mut bridges, is_unreachable).await;
        switch.start_vswitchd();
        until(&mut bridges, is_free).await;
    });
}

#[test]
fn without_ovs_vswitchd_what_is_known_holds_for_a_while_and_then_no_more() {
    on_host(async || {
        let mut switch = Switch::new();
        add_bridge(&switch);
        switch.appctl("fdb/add br-ex veth-a 0 02:00:00:00:00:01");
        let mut bridges = open(&switch).await;
        assert!(is_free(found(&bridges)) && station(found(&bridges), 1).is_some());

        let start = Instant::now();
        switch.kill_vswitchd();
        until(&mut bridges, is_unreachable).await;
        assert!(start.elapsed() >= PATIENCE);
        assert_eq!(station(found(&bridges), 1), None);

        switch.start_vswitchd();
        until(&mut bridges, is_free).await;
        switch.appctl("fdb/add br-ex veth-a 0 02:00:00:00:00:01");
        until(&mut bridges, |bridge| station(bridge, 1).is_some()).await;
    });
}

#[test]
fn an_ovs_vswitchd_that_restarts_with_an_empty_fdb_is_followed() {
    on_host(async || {
        let mut switch = Switch::new();
        add_bridge(&switch);
        switch.appctl("fdb/add br-ex veth-a 0 02:00:00:00:00:01");
        let mut bridges = open(&switch).await;
        switch.kill_vswitchd();
        switch.start_vswitchd();
        until(&mut bridges, |bridge| station(bridge, 1).is_none()).await;
        until(&mut bridges, is_free).await;
    });
}

#[test]
fn without_ovsdb_server_the_configuration_stays_and_changes_are_seen_once_it_is_back() {
    on_host(async || {
        let mut switch = Switch::new();
        add_bridge(&switch);
        let mut bridges = open(&switch).await;
        switch.kill_database();
        // ovs-vswitchd is asked all the while.
        switch.appctl("fdb/add br-ex veth-a 0 02:00:00:00:00:01");
        until(&mut bridges, |bridge| station(bridge, 1).is_some()).await;
        assert!(is_free(found(&bridges)));

        switch.start_database();
        switch.vsctl("--no-wait del-port br-ex gre0");
        until(&mut bridges, |bridge| bridge.is_some_and(|bridge| bridge.ports.len() == 1)).await;
    });
}

#[test]
fn an_ovs_vswitchd_that_comes_back_before_its_database_is_no_worse_than_none() {
    on_host(async || {
        let mut switch = Switch::new();
        add_bridge(&switch);
        let mut bridges = open(&switch).await;
        assert!(is_free(found(&bridges)));
        let start = Instant::now();
        switch.kill_database();
        switch.kill_vswitchd();
        // It says that there is no such bridge.
        switch.start_vswitchd();
        until(&mut bridges, is_unreachable).await;
        assert!(start.elapsed() >= PATIENCE);
        switch.start_database();
        until(&mut bridges, is_free).await;
    });
}

#[test]
fn a_database_that_comes_back_empty_leaves_no_bridge() {
    on_host(async || {
        let mut switch = Switch::new();
        add_bridge(&switch);
        let mut bridges = open(&switch).await;
        assert!(found(&bridges).is_some());
        switch.kill_database();
        switch.empty_database();
        switch.start_database();
        until(&mut bridges, |bridge| bridge.is_none()).await;
    });
}
