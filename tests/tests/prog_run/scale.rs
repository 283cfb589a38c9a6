//! What a packet costs with few stations and many, with few tunnels and many.

use std::env;

use aya::sys::{Stats, enable_stats};
use ovs_ebpf_common::abi::{FdbFlags, FdbKey, FdbValue, Program};
use ovs_ebpf_tests::vectors;
use serde_json::json;

use crate::host::{
    BRIDGE, Host, PORT, RECEIVER, SENDER, UPLINK, at_port, receiver_key, sender_end,
};
use crate::run::{Input, REDIRECT};

/// Stations behind tunnels, and over how many tunnels they are spread. `cargo xtask bench --scale`
/// asks for more.
const SIZES: [(u32, u32); 3] = [(10, 1), (1_000, 100), (20_000, 1_000)];
/// Runs of each program for each size. Odd, so that there is one in the middle.
const RUNS: u32 = 301;

/// Byte offsets in an Ethernet frame, and of the VNI in one over VXLAN and IPv4.
const SOURCE: std::ops::Range<usize> = 6..12;
const DESTINATION: std::ops::Range<usize> = 0..6;
const VNI: std::ops::Range<usize> = 14 + 20 + 8 + 4..14 + 20 + 8 + 7;
const INNER: usize = 14 + 20 + 8 + 8;

fn station(n: u32) -> [u8; 6] {
    let [a, b, c, d] = n.to_be_bytes();
    [0x06, 0, a, b, c, d]
}

/// A host with a table of one size after another.
struct Scene {
    host: Host,
    stations: u32,
    tunnels: u32,
    inner: Vec<u8>,
    outer: Vec<u8>,
}

impl Scene {
    fn new(capacity: u32) -> Self {
        let vector = vectors::encap().swap_remove(0);
        let mut host = Host::with_fdb_capacity(capacity);
        host.set_station(SENDER, at_port(PORT));
        host.set_station(RECEIVER, at_port(PORT));
        Self { host, stations: 0, tunnels: 0, inner: vector.inner, outer: vector.outer }
    }

    fn resize(&mut self, stations: u32, tunnels: u32) {
        let tunnel = vectors::encap().swap_remove(0).tunnel;
        for id in self.tunnels + 1..=tunnels {
            self.host.add_tunnel(id, sender_end(&tunnel), receiver_key(&with_vni(&tunnel, id)));
        }
        let first = if tunnels == self.tunnels { self.stations } else { 0 };
        for n in first..stations {
            let value = FdbValue {
                target: 1 + n % tunnels,
                flags: FdbFlags::TUNNEL,
                ..FdbValue::default()
            };
            let key = FdbKey { bridge: BRIDGE, vlan: 0, mac: station(n) };
            self.host.fdb.insert(key, value, 0).expect("room");
        }
        (self.stations, self.tunnels) = (stations.max(self.stations), tunnels);
        self.host.forget_flows();
    }

    /// Frames to and from a station, each with where it arrives.
    fn frames(&self, n: u32) -> [(Program, u32, Vec<u8>); 2] {
        let (mut inner, mut outer) = (self.inner.clone(), self.outer.clone());
        inner[DESTINATION].copy_from_slice(&station(n));
        outer[VNI].copy_from_slice(&(1 + n % self.tunnels).to_be_bytes()[1..]);
        outer[INNER..][SOURCE].copy_from_slice(&station(n));
        [(Program::PortIngress, PORT, inner), (Program::UplinkIngress, UPLINK, outer)]
    }

    /// The time of a run in nanoseconds, the median over stations far from each other: of a program
    /// that knows the flow, or of one that has to look it up.
    fn cost(&mut self, at: usize, known: bool) -> u64 {
        let mut samples = Vec::new();
        for run in 0..RUNS {
            // Odd and near the golden ratio: the stations come in no order.
            let n = (u64::from(run) * 0x9e37_79b1 % u64::from(self.stations)) as u32;
            let (program, ifindex, frame) = self.frames(n).into_iter().nth(at).expect("one of two");
            let input = Input { ifindex, frame: &frame, gso_size: 0, mark: 0 };
            self.host.forget_flows();
            if known {
                self.host.observe(program, input);
            }
            let before = self.host.info(program).run_time();
            assert_eq!(self.host.observe(program, input).outcome.verdict, REDIRECT, "{n}");
            samples.push((self.host.info(program).run_time() - before).as_nanos() as u64);
        }
        samples.sort_unstable();
        samples[samples.len() / 2]
    }
}

fn with_vni(tunnel: &vectors::Tunnel, vni: u32) -> vectors::Tunnel {
    vectors::Tunnel { key: Some(vni), ..tunnel.clone() }
}

/// `10:1,1000:100` is ten stations behind one tunnel, then 1,000 behind 100.
fn sizes() -> Vec<(u32, u32)> {
    let Ok(text) = env::var("OVS_EBPF_SCALE_SIZES") else { return SIZES.to_vec() };
    let size = |text: &str| {
        let (stations, tunnels) = text.split_once(':').expect("STATIONS:TUNNELS");
        (stations.parse().expect("a number"), tunnels.parse().expect("a number"))
    };
    text.split(',').map(size).collect()
}

#[test]
fn every_station_of_a_long_table_is_found() {
    let sizes = sizes();
    let capacity = sizes.iter().map(|size| size.0).max().expect("a size") + 2;
    let _measured = enable_stats(Stats::RunTime).expect("run times");
    let mut scene = Scene::new(capacity.next_power_of_two());
    for (stations, tunnels) in sizes {
        scene.resize(stations, tunnels);
        let [encap, decap] = [0, 1].map(|at| [true, false].map(|known| scene.cost(at, known)));
        let line = json!({
            "stations": stations,
            "tunnels": tunnels,
            "port_ingress": { "known_flow": encap[0], "new_flow": encap[1] },
            "uplink_ingress": { "known_flow": decap[0], "new_flow": decap[1] },
        });
        println!("{line}");
    }
}
