//! Frames with and without VLAN tags, on a wire: reception takes a tag out of the frame before the
//! programs see it, which a test run does not.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use aya::programs::TcAttachType;
use ovs_ebpf_common::abi::{
    FdbFlags, FdbKey, FdbValue, IndexKey, NO_VLAN, PortFlags, PortValue, Program, TunnelIndexFlags,
    TunnelIndexValue,
};
use ovs_ebpf_tests::vectors::{self, Vlan, VlanFate, Way};

use crate::host::{
    self, BRIDGE, Host, OTHER_PORT, PORT, RECEIVER, SENDER, SOURCE_PORTS, TUNNEL, UPLINK, at_port,
    behind_tunnel, receiver_key, sender_end,
};
use crate::veth::Wire;

/// The outer UDP source port of a frame on the underlay.
const SOURCE_PORT: std::ops::Range<usize> = 34..36;
const SOURCE_MAC: std::ops::Range<usize> = 6..12;

/// A host with both programs attached, and sockets on the other ends of its devices.
struct Wired {
    host: Host,
    port: Wire,
    other_port: Wire,
    uplink: Wire,
}

impl Wired {
    fn new() -> Self {
        let mut host = Host::new();
        for (program, ifindex) in [(Program::PortIngress, PORT), (Program::UplinkIngress, UPLINK)] {
            let device = format!("dev{ifindex}");
            host.program(program).attach(&device, TcAttachType::Ingress).expect("attach");
        }
        // What is too long is to be the bridge's to find.
        for end in ["dev", "peer"] {
            for index in [PORT, OTHER_PORT, UPLINK] {
                host::ip(&format!("link set {end}{index} mtu 9000"));
            }
        }
        host::ip(&format!("address add 192.0.2.1/24 dev dev{UPLINK}"));
        let open = |ifindex: u32| Wire::open(ifindex + 1, true).expect("a packet socket");
        let (port, other_port, uplink) = (open(PORT), open(OTHER_PORT), open(UPLINK));
        Self { host, port, other_port, uplink }
    }

    /// Makes the maps say what a vector does.
    fn set(&mut self, vector: &Vlan) {
        let (vlan, tagged) = (vector.vlan, if vector.tagged { FdbFlags::TAGGED } else { 0 });
        let keys: Vec<_> = self.host.fdb.keys().collect::<Result<_, _>>().expect("fdb");
        for key in keys {
            self.host.fdb.remove(&key).expect("fdb");
        }
        let native = vector.native.unwrap_or(NO_VLAN);
        let at = |way, port| if way == Way::Port { at_port(port) } else { behind_tunnel() };
        let destination = at(vector.to, OTHER_PORT);
        let destination = FdbValue { flags: destination.flags | tagged, ..destination };
        for (mac, value) in [(SENDER, at(vector.from, PORT)), (RECEIVER, destination)] {
            self.host.fdb.insert(FdbKey { bridge: BRIDGE, vlan, mac }, value, 0).expect("fdb");
        }
        let flag = |flag| if vector.takes_tags { flag } else { 0 };
        let port = PortValue {
            bridge: BRIDGE,
            vlan: native,
            flags: flag(PortFlags::TAGGED),
            ..PortValue::default()
        };
        self.host.ports.insert(PORT, port, 0).expect("ports");
        self.host.forget_flows();
        let mut tunnel = sender_end(&vector.tunnel);
        let IpAddr::V4(remote) = vector.tunnel.remote else { panic!("{}: IPv4", vector.name) };
        tunnel.paths[1].next_hop[..4].copy_from_slice(&remote.octets());
        self.host.set_tunnel(tunnel);
        let key = receiver_key(&vector.tunnel);
        self.host.set_tunnel_index(key);
        let index = TunnelIndexValue {
            tunnel: TUNNEL,
            bridge: BRIDGE,
            uplink: UPLINK,
            vlan: native,
            flags: flag(TunnelIndexFlags::TAGGED),
            next_event: 0,
        };
        let IndexKey::Ipv4(key) = key else { panic!("{}: IPv4", vector.name) };
        self.host.tunnel_index.insert(key, index, 0).expect("tunnel_index");
        self.host.forget_flows();
        // What the programs remember of the FDB, they ask anew.
        self.host.set_lease(u64::MAX);
        let neighbour = vector.tunnel.next_hop_mac.map(|byte| format!("{byte:02x}")).join(":");
        host::ip(&format!(
            "neighbour replace {remote} lladdr {neighbour} nud permanent dev dev{UPLINK}"
        ));
    }

    /// Sends the vector's frame; gives the counters that moved and the frame that left, if one did.
    fn pass(&mut self, vector: &Vlan) -> (Vec<(usize, u64)>, Option<Vec<u8>>) {
        let (program, from) = match vector.from {
            Way::Port => (Program::PortIngress, &self.port),
            Way::Tunnel => (Program::UplinkIngress, &self.uplink),
        };
        let to = if vector.to == Way::Port { &self.other_port } else { &self.uplink };
        from.send(&vector.frame).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        let deadline = Instant::now() + Duration::from_secs(5);
        let moved = loop {
            let moved = self.host.moved(program);
            if !moved.is_empty() {
                break moved;
            }
            assert!(Instant::now() < deadline, "{}: nothing arrived", vector.name);
            std::thread::yield_now();
        };
        let left = loop {
            match to.next() {
                Some(frame) => break Some(frame),
                // What is forwarded arrives soon, and what is not has arrived by now if ever.
                None if moved[0].0 == 0 && Instant::now() < deadline => std::thread::yield_now(),
                None => break None,
            }
        };
        (moved, left)
    }
}

#[test]
fn every_frame_leaves_with_the_tag_it_is_to_have_or_not_at_all() {
    let mut wired = Wired::new();
    let vectors = vectors::vlan();
    for vector in &vectors {
        let name = &vector.name;
        wired.set(vector);
        let (moved, left) = wired.pass(vector);
        match &vector.fate {
            VlanFate::Reason(reason) => {
                let code = host::reason(reason) as usize;
                assert_eq!(moved, [(2 + code, 1)], "{name} should count as {reason}");
                assert_eq!(left, None, "{name}");
            }
            VlanFate::Leaves(expected) => {
                let [(0, 1), (1, _)] = moved[..] else { panic!("{name}: counted {moved:?}") };
                let mut left = left.unwrap_or_else(|| panic!("{name} did not arrive"));
                if vector.to == Way::Tunnel {
                    take_own_choices(&mut left, vector, expected);
                }
                assert_eq!(hex(&left), hex(expected), "{name}");
            }
        }
    }
}

/// Replaces what the kernel chose by the vector's: the uplink's MAC, and the UDP source port.
fn take_own_choices(left: &mut [u8], vector: &Vlan, expected: &[u8]) {
    left[SOURCE_MAC].copy_from_slice(&expected[SOURCE_MAC]);
    if vector.tunnel.destination_port.is_some() {
        let port = u16::from_be_bytes(left[SOURCE_PORT].try_into().expect("two bytes"));
        let (first, span) = SOURCE_PORTS;
        assert!((first..=first + span).contains(&port), "{}: source port {port}", vector.name);
        left[SOURCE_PORT].copy_from_slice(&expected[SOURCE_PORT]);
    }
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
