//! The model itself against Scapy's frames, RFC 6040's figure 4 among them: it must not only agree with
//! the programs.

use std::collections::BTreeMap;

use ovs_ebpf_common::{
    Reason,
    abi::{Control, FdbKey, FdbValue, IndexKey, PortValue, Program, TunnelIndexValue, TunnelValue},
};
use ovs_ebpf_tests::{
    model::{Forwarded, Model, Received, Tables},
    vectors::{self, Expected, Tunnel},
};

use crate::host::{
    BRIDGE, PORT, RECEIVER, SENDER, TUNNEL, UPLINK, at_port, behind_tunnel, reason, receiver_key,
    sender_end,
};

#[test]
fn the_model_encapsulates_as_scapy_does() {
    for vector in vectors::encap() {
        let forwarded = send(&vector.tunnel, &vector.inner).expect(&vector.name);
        let frame = forwarded.with_choices_of(&vector.outer);
        assert_eq!(frame, vector.outer, "{}: {}", vector.name, vector.description);
        let back = receive(&vector.tunnel, &vector.outer).expect(&vector.name);
        assert_eq!(back.frame, vector.inner, "{}: {}", vector.name, vector.description);
    }
}

#[test]
fn the_model_leaves_what_the_vectors_say() {
    for vector in vectors::encap_punt() {
        let outcome = send(&vector.tunnel, &vector.frame);
        assert_eq!(outcome, Err(reason(&vector.reason)), "{}", vector.name);
    }
    for vector in vectors::decap() {
        let outcome = receive(&vector.tunnel, &vector.outer).map(|forwarded| forwarded.frame);
        let expected = match vector.expected {
            Expected::Inner(frame) => Ok(frame),
            Expected::Reason(name) => Err(reason(&name)),
        };
        assert_eq!(outcome, expected, "{}: {}", vector.name, vector.description);
    }
}

fn send(tunnel: &Tunnel, frame: &[u8]) -> Result<Forwarded, Reason> {
    // Any port: Scapy's is one of its own.
    let value =
        TunnelValue { source_port_min: 0, source_port_span: u16::MAX, ..sender_end(tunnel) };
    let mut tables = tables([(SENDER, at_port(PORT)), (RECEIVER, behind_tunnel())]);
    tables.tunnels.insert(TUNNEL, value);
    Model::new(tables).run(Program::PortIngress, 0, &arrived(PORT, true, frame))
}

fn receive(tunnel: &Tunnel, frame: &[u8]) -> Result<Forwarded, Reason> {
    let index = TunnelIndexValue {
        tunnel: TUNNEL,
        bridge: BRIDGE,
        uplink: UPLINK,
        ..TunnelIndexValue::default()
    };
    let mut tables = tables([(SENDER, behind_tunnel()), (RECEIVER, at_port(PORT))]);
    match receiver_key(tunnel) {
        IndexKey::Ipv4(key) => drop(tables.tunnel_index.insert(key, index)),
        IndexKey::Ipv6(key) => drop(tables.tunnel_index6.insert(key, index)),
    }
    let for_host = frame.starts_with(&tunnel.next_hop_mac);
    Model::new(tables).run(Program::UplinkIngress, 0, &arrived(UPLINK, for_host, frame))
}

fn tables(stations: [([u8; 6], FdbValue); 2]) -> Tables {
    let vxlan_ports = [4789u16.to_be(), 0, 0, 0];
    let entry = |(mac, value)| (FdbKey { bridge: BRIDGE, vlan: 0, mac }, value);
    Tables {
        control: Control { lease_deadline: u64::MAX, vxlan_ports, generation: 0 },
        ports: BTreeMap::from([(PORT, PortValue { bridge: BRIDGE, ..PortValue::default() })]),
        fdb: stations.into_iter().map(entry).collect(),
        ..Tables::default()
    }
}

fn arrived(device: u32, for_host: bool, frame: &[u8]) -> Received<'_> {
    Received { device, for_host, tag: None, gso: None, frame }
}
