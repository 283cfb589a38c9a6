//! What bridges, ports, tunnels and stations are read as.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ovs_loader::bridge::model::{Bridge, BridgeKind, Device, FdbEntry, FdbKind, NO_INTERFACE};
use ovs_loader::bridge::ovs::OvsBridges;

use crate::lab::{
    BRIDGE, SOON, add_bridge, against, against_port, found, ifindex, ip, on_host, open, port,
    station, until,
};
use crate::switch::Switch;

/// Has a device receive a frame from `02:00:00:00:00:NN`.
fn receive(switch: &Switch, device: &str, last: u8) {
    let packet = format!(
        "netdev-dummy/receive {device} \
         in_port(1),eth(src=02:00:00:00:00:{last:02x},dst=ff:ff:ff:ff:ff:ff),eth_type(0x88b5)"
    );
    switch.appctl(&packet);
}

#[test]
fn a_bridge_is_read_with_its_ports_tunnels_and_stations() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        switch.vsctl(
            "set bridge br-ex other_config:mac-aging-time=60 -- set port veth-a protected=true",
        );
        switch.appctl("fdb/add br-ex veth-a 0 02:00:00:00:00:01");
        switch.appctl("fdb/add br-ex gre0 0 02:00:00:00:00:02");
        receive(&switch, "br-ex", 3);
        let bridges = open(&switch).await;
        let bridge = found(&bridges).expect("the bridge");
        assert_eq!(against(bridge), []);
        assert_eq!((bridge.ifindex, bridge.kind), (ifindex("br-ex"), BridgeKind::Ovs));
        assert_eq!((bridge.up, bridge.ageing), (true, Duration::from_secs(60)));
        assert_eq!(bridge.ports.len(), 2);

        let veth = port(bridge, "veth-a");
        assert_eq!((veth.ifindex, veth.up, veth.mtu), (ifindex("veth-a"), true, 1500));
        assert!(matches!(&veth.device, Device::Veth(Some(peer)) if !peer.other_namespace));
        assert!(veth.isolated);
        let gre = port(bridge, "gre0");
        assert!(gre.ifindex > NO_INTERFACE && gre.up && !gre.isolated);
        let Device::Tunnel(tunnel) = &gre.device else { panic!("{gre:?}") };
        assert_eq!(tunnel.remotes[0].address, IpAddr::from([192, 0, 2, 2]));
        assert_eq!((tunnel.key_in, tunnel.key_out), (Some(7), Some(7)));

        let fixed = |port, kind| Some(FdbEntry { port, kind });
        assert_eq!(station(Some(bridge), 1), fixed(veth.ifindex, FdbKind::Static));
        assert_eq!(station(Some(bridge), 2), fixed(gre.ifindex, FdbKind::Static));
        assert_eq!(station(Some(bridge), 3), fixed(bridge.ifindex, FdbKind::Local));
    });
}

#[test]
fn stations_come_and_go_and_move_without_a_change_of_the_topology() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        let mut bridges = open(&switch).await;
        receive(&switch, "veth-a", 1);
        let changes = until(&mut bridges, |bridge| station(bridge, 1).is_some()).await;
        assert!(!changes.topology && changes.fdb.len() == 1, "{changes:?}");
        let veth = FdbEntry { port: ifindex("veth-a"), kind: FdbKind::Dynamic };
        assert_eq!(station(found(&bridges), 1), Some(veth));

        receive(&switch, "gre0", 1);
        let changes =
            until(&mut bridges, |bridge| station(bridge, 1).is_some_and(|now| now != veth)).await;
        assert!(!changes.topology && changes.fdb.len() == 1, "{changes:?}");

        switch.appctl("fdb/flush br-ex");
        let changes = until(&mut bridges, |bridge| station(bridge, 1).is_none()).await;
        assert!(!changes.topology && changes.fdb.len() == 1, "{changes:?}");
    });
}

#[test]
fn a_hint_makes_a_station_known_long_before_the_next_question_is_due() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        let mut bridges = open(&switch).await;
        let mut times = Vec::new();
        for last in 1..6 {
            receive(&switch, "veth-a", last);
            bridges.hint(ifindex("br-ex"));
            let start = Instant::now();
            until(&mut bridges, |bridge| station(bridge, last).is_some()).await;
            times.push(start.elapsed());
        }
        // The first may come with a question that was due; the others start right after one.
        times.sort_unstable();
        assert!(times[2] < Duration::from_millis(120), "{times:?}");
    });
}

#[test]
fn a_port_that_is_deleted_takes_its_stations_along() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        switch.appctl("fdb/add br-ex gre0 0 02:00:00:00:00:02");
        let mut bridges = open(&switch).await;
        assert!(station(found(&bridges), 2).is_some());
        switch.vsctl("del-port br-ex gre0");
        until(&mut bridges, |bridge| bridge.is_some_and(|bridge| bridge.ports.len() == 1)).await;
        until(&mut bridges, |bridge| station(bridge, 2).is_none()).await;
        switch.vsctl("del-br br-ex");
        until(&mut bridges, |bridge| bridge.is_none()).await;
    });
}

#[test]
fn another_port_with_the_same_number_does_not_inherit_the_stations() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        ip("link add veth-b type veth peer veth-b-c");
        let number = switch.vsctl("get interface veth-a ofport");
        switch.appctl("fdb/add br-ex veth-a 0 02:00:00:00:00:01");
        let mut bridges = open(&switch).await;
        assert!(station(found(&bridges), 1).is_some());
        switch.vsctl(&format!(
            "del-port br-ex veth-a -- add-port br-ex veth-b -- set interface veth-b ofport_request={number}"
        ));
        let replaced = |bridge: Option<&Bridge>| {
            bridge.is_some_and(|bridge| {
                bridge
                    .ports
                    .values()
                    .any(|port| port.name == "veth-b" && port.unsupported.is_empty())
            })
        };
        until(&mut bridges, |bridge| {
            assert_ne!(
                station(bridge, 1).map(|entry| entry.port),
                Some(ifindex("veth-b")),
                "a station of veth-a's"
            );
            replaced(bridge)
        })
        .await;
        assert_eq!(switch.vsctl("get interface veth-b ofport"), number);
        // And the new port's own are told.
        receive(&switch, "veth-b", 1);
        until(&mut bridges, |bridge| station(bridge, 1).is_some()).await;
    });
}

#[test]
fn a_bridge_that_is_made_anew_inherits_nothing() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        switch.appctl("fdb/add br-ex veth-a 0 02:00:00:00:00:01");
        switch.appctl("fdb/add br-ex gre0 0 02:00:00:00:00:02");
        let mut bridges = open(&switch).await;
        assert!(station(found(&bridges), 1).is_some());
        let before = port(found(&bridges).unwrap(), "gre0").ifindex;
        // In one transaction, and its ports the other way round: their numbers are exchanged.
        switch.vsctl(
            "del-br br-ex -- add-br br-ex \
             -- add-port br-ex gre0 -- set interface gre0 type=gre options:remote_ip=192.0.2.2 \
                options:key=8 ofport_request=1 -- add-port br-ex veth-a \
             -- set interface veth-a ofport_request=2",
        );
        let is_new = |bridge: Option<&Bridge>| {
            bridge.is_some_and(|bridge| {
                let gre = bridge.ports.values().find(|port| port.name == "gre0");
                gre.is_some_and(|gre| gre.ifindex != before)
            })
        };
        let has_none = |bridge: Option<&Bridge>| bridge.is_some_and(|bridge| bridge.fdb.is_empty());
        until(&mut bridges, |bridge| {
            assert!(!is_new(bridge) || has_none(bridge), "{bridge:#?}");
            is_new(bridge) && bridge.is_some_and(|bridge| against(bridge).is_empty())
        })
        .await;
        let Device::Tunnel(tunnel) = &port(found(&bridges).unwrap(), "gre0").device else {
            panic!()
        };
        assert_eq!(tunnel.key_in, Some(8));
        receive(&switch, "veth-a", 1);
        until(&mut bridges, |bridge| {
            station(bridge, 1).is_some_and(|entry| entry.port == ifindex("veth-a"))
        })
        .await;
    });
}

#[test]
fn a_device_that_goes_down_or_away_is_seen() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        let mut bridges = open(&switch).await;
        let is_up = |up| {
            move |bridge: Option<&_>| bridge.is_some_and(|bridge| port(bridge, "veth-a").up == up)
        };
        ip("link set veth-a-c down");
        until(&mut bridges, is_up(false)).await;
        ip("link set veth-a-c up");
        until(&mut bridges, is_up(true)).await;
        ip("link del veth-a");
        until(&mut bridges, is_up(false)).await;
        assert!(port(found(&bridges).unwrap(), "veth-a").ifindex > NO_INTERFACE);
        ip("link add veth-a type veth peer veth-a-c");
        until(&mut bridges, |bridge| {
            bridge.is_some_and(|bridge| port(bridge, "veth-a").ifindex == ifindex("veth-a"))
        })
        .await;
    });
}

#[test]
fn a_tunnels_shared_device_is_found() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        switch.vsctl(
            "add-port br-ex vx -- set interface vx type=vxlan options:remote_ip=192.0.2.2 \
             options:dst_port=8472",
        );
        ip("link add vxlan_sys_8472 type vxlan external dstport 8472");
        let bridges = open(&switch).await;
        let Device::Tunnel(tunnel) = &port(found(&bridges).unwrap(), "vx").device else { panic!() };
        let device = tunnel.device.as_ref().expect("the device");
        assert_eq!(
            (device.ifindex, device.name.as_str()),
            (ifindex("vxlan_sys_8472"), "vxlan_sys_8472")
        );
        let Device::Tunnel(tunnel) = &port(found(&bridges).unwrap(), "gre0").device else {
            panic!()
        };
        assert_eq!(tunnel.device, None);
    });
}

#[test]
fn two_open_vswitches_are_kept_apart() {
    on_host(async || {
        let (one, two) = (Switch::new(), Switch::new());
        add_bridge(&one);
        ip("link add br-two type veth peer br-two-x");
        two.vsctl("add-br br-two -- add-port br-two gre0 -- set interface gre0 type=gre options:remote_ip=192.0.2.3");
        let rundirs = [one.rundir().to_owned(), two.rundir().to_owned()];
        let mut bridges = OvsBridges::open(&rundirs, SOON).await.unwrap();
        assert_eq!(bridges.bridges().len(), 2);
        let numbers: Vec<_> =
            bridges.bridges().values().map(|bridge| port(bridge, "gre0").ifindex).collect();
        assert_ne!(numbers[0], numbers[1]);
        two.vsctl("del-br br-two");
        let changed = async {
            while bridges.bridges().len() == 2 {
                bridges.changed().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, changed).await.expect("a change");
        assert!(bridges.bridges().values().all(|bridge| bridge.name == BRIDGE));
        assert_eq!(against_port(found(&bridges).unwrap(), "gre0"), []);
    });
}
