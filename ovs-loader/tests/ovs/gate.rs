//! What keeps a bridge or a port from the fast path: seen when it comes, gone when it goes.

use ovs_ebpf_common::Reason;
use ovs_loader::bridge::model::StpState;

use crate::lab::{add_bridge, against, against_port, on_host, open, port, until};
use crate::switch::Switch;

/// What stands against a port that ovs-vswitchd has not come to yet.
const NOT_YET: [(Reason, &str); 1] = [(Reason::OvsPortFailed, "ofport=[]")];

/// Applies changes one after the other, each with what must then stand against the bridge.
fn against_the_bridge(steps: &[(&str, &[(Reason, &str)])]) {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        let mut bridges = open(&switch).await;
        until(&mut bridges, |bridge| bridge.is_some_and(|bridge| against(bridge).is_empty())).await;
        for (command, wanted) in steps {
            switch.tool_words(command);
            until(&mut bridges, |bridge| bridge.is_some_and(|bridge| against(bridge) == *wanted))
                .await;
        }
    });
}

/// As [`against_the_bridge`], for the port `veth-a`.
fn against_the_port(steps: &[(&str, &[(Reason, &str)])]) {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        let mut bridges = open(&switch).await;
        for (command, wanted) in steps {
            switch.tool_words(command);
            until(&mut bridges, |bridge| {
                bridge.is_some_and(|bridge| against_port(bridge, "veth-a") == *wanted)
            })
            .await;
        }
    });
}

#[test]
fn a_flow_other_than_normal_is_seen_until_it_is_deleted() {
    against_the_bridge(&[
        (
            "ovs-ofctl add-flow br-ex priority=9,tcp,tp_dst=80,actions=drop",
            &[(Reason::OvsFlows, "priority=9,tcp,tp_dst=80 actions=drop")],
        ),
        ("ovs-ofctl del-flows br-ex tcp", &[]),
        ("ovs-ofctl del-flows br-ex", &[(Reason::OvsFlows, "no flow takes every packet")]),
        ("ovs-ofctl add-flow br-ex actions=NORMAL", &[]),
    ]);
}

#[test]
fn a_bridge_that_drops_fragments_is_seen() {
    against_the_bridge(&[
        ("ovs-ofctl set-frags br-ex drop", &[(Reason::OvsFlows, "set-frags drop")]),
        ("ovs-ofctl set-frags br-ex normal", &[]),
    ]);
}

#[test]
fn a_mirror_is_seen_until_it_is_removed() {
    against_the_bridge(&[
        (
            "ovs-vsctl -- --id=@p get port gre0 -- --id=@m create mirror name=m0 select-all=true \
             output-port=@p -- set bridge br-ex mirrors=@m",
            &[(Reason::OvsMirror, "mirror m0")],
        ),
        ("ovs-vsctl clear bridge br-ex mirrors", &[]),
    ]);
}

#[test]
fn what_samples_the_traffic_is_seen() {
    against_the_bridge(&[
        (
            "ovs-vsctl -- --id=@s create sflow targets=\"127.0.0.1\" -- set bridge br-ex sflow=@s",
            &[(Reason::OvsSampling, "sFlow")],
        ),
        ("ovs-vsctl clear bridge br-ex sflow", &[]),
        (
            "ovs-vsctl -- --id=@n create netflow targets=\"127.0.0.1:2055\" -- set bridge br-ex \
             netflow=@n",
            &[(Reason::OvsSampling, "NetFlow")],
        ),
        ("ovs-vsctl clear bridge br-ex netflow", &[]),
    ]);
}

#[test]
fn the_datapath_and_flooded_vlans_are_seen() {
    against_the_bridge(&[
        (
            "ovs-vsctl --no-wait set bridge br-ex datapath_type=netdev",
            &[(Reason::OvsDatapath, "datapath_type=netdev")],
        ),
        ("ovs-vsctl --no-wait set bridge br-ex datapath_type=system", &[]),
        ("ovs-vsctl set bridge br-ex flood_vlans=0", &[(Reason::OvsFlows, "flood_vlans=0")]),
        ("ovs-vsctl set bridge br-ex flood_vlans=5", &[(Reason::OvsFlows, "flood_vlans=5")]),
        ("ovs-vsctl clear bridge br-ex flood_vlans", &[]),
    ]);
}

#[test]
fn policing_and_queues_are_seen() {
    against_the_port(&[
        (
            "ovs-vsctl set interface veth-a ingress_policing_rate=1000",
            &[(Reason::Policing, "ingress_policing_rate=1000")],
        ),
        ("ovs-vsctl set interface veth-a ingress_policing_rate=0", &[]),
        (
            "ovs-vsctl set interface veth-a ingress_policing_kpkts_rate=5",
            &[(Reason::Policing, "ingress_policing_kpkts_rate=5")],
        ),
        ("ovs-vsctl set interface veth-a ingress_policing_kpkts_rate=0", &[]),
        (
            "ovs-vsctl -- --id=@q create qos type=linux-htb -- set port veth-a qos=@q",
            &[(Reason::Qos, "qos linux-htb")],
        ),
        ("ovs-vsctl clear port veth-a qos", &[]),
    ]);
}

#[test]
fn vlans_are_seen() {
    against_the_port(&[
        (
            "ovs-vsctl set port veth-a vlan_mode=dot1q-tunnel tag=5",
            &[(Reason::PortVlan, "vlan_mode=dot1q-tunnel")],
        ),
        ("ovs-vsctl set port veth-a vlan_mode=access", &[]),
        (
            "ovs-vsctl set port veth-a other_config:priority-tags=always",
            &[(Reason::PortVlan, "other_config:priority-tags=always")],
        ),
    ]);
}

#[test]
fn what_openflow_sets_on_a_port_is_seen() {
    against_the_port(&[
        ("ovs-ofctl mod-port br-ex veth-a no-forward", &[(Reason::OvsPortConfig, "no-forward")]),
        ("ovs-ofctl mod-port br-ex veth-a forward", &[]),
        ("ovs-ofctl mod-port br-ex veth-a no-receive", &[(Reason::OvsPortConfig, "no-receive")]),
    ]);
}

#[test]
fn probes_bonds_and_failures_are_seen() {
    against_the_port(&[
        (
            "ovs-vsctl set interface veth-a bfd:enable=true",
            &[(Reason::OvsPortConfig, "bfd:enable=true")],
        ),
        ("ovs-vsctl clear interface veth-a bfd", &[]),
        ("ovs-vsctl set interface veth-a cfm_mpid=3", &[(Reason::OvsPortConfig, "cfm_mpid=3")]),
        ("ovs-vsctl clear interface veth-a cfm_mpid", &[]),
        ("ovs-vsctl set port veth-a lacp=active", &[(Reason::Bond, "lacp=active")]),
        ("ovs-vsctl clear port veth-a lacp", &[]),
    ]);
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        switch.vsctl("add-bond br-ex bond0 p1 p2");
        switch.vsctl("--no-wait add-port br-ex bad -- set interface bad type=nonsense");
        switch.vsctl("add-port br-ex peer0 -- set interface peer0 type=patch options:peer=peer1");
        let mut bridges = open(&switch).await;
        until(&mut bridges, |bridge| {
            bridge.is_some_and(|bridge| against_port(bridge, "bad") != NOT_YET)
        })
        .await;
        let bridge = crate::lab::found(&bridges).unwrap();
        assert_eq!(against_port(bridge, "p1"), [(Reason::Bond, "bond bond0")]);
        assert_eq!(against_port(bridge, "p2"), [(Reason::Bond, "bond bond0")]);
        let failed = against_port(bridge, "bad");
        assert!(
            matches!(failed[..], [(Reason::OvsPortFailed, words)] if words.contains("bad")),
            "{failed:?}"
        );
        let patch = &port(bridge, "peer0").device;
        assert_eq!(*patch, ovs_loader::bridge::model::Device::Other("patch".to_owned()));
    });
}

#[test]
fn a_port_waits_for_the_spanning_tree() {
    on_host(async || {
        let switch = Switch::new();
        add_bridge(&switch);
        let mut bridges = open(&switch).await;
        let state = |wanted: fn(StpState) -> bool| {
            move |bridge: Option<&_>| {
                bridge.is_some_and(|bridge| wanted(port(bridge, "veth-a").stp))
            }
        };
        until(&mut bridges, state(|stp| stp == StpState::Forwarding)).await;
        switch.vsctl("set bridge br-ex stp_enable=true");
        until(&mut bridges, state(|stp| stp != StpState::Forwarding)).await;
        switch.vsctl("set bridge br-ex stp_enable=false");
        until(&mut bridges, state(|stp| stp == StpState::Forwarding)).await;
    });
}
