//! What the daemon reports. These types are the `--json` output: fields are added, never renamed
//! and never left out; what is not known is `null`, a list without elements is `[]`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ovs_ebpf_common::Reason;
use serde::{Deserialize, Serialize};

use crate::bridge::model;

/// What is accelerated, and why the rest is not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// The version of the map ABI.
    pub abi: u32,
    /// How long the programs go on without the daemon, in seconds.
    pub lease_seconds: u32,
    /// What does not stop the fast path and should be known.
    pub warnings: Vec<String>,
    /// What is done on the uplinks before a packet is an skb.
    pub xdp: XdpStatus,
    /// The host's bridges.
    pub bridges: Vec<BridgeStatus>,
}

/// What is done on the uplinks before a packet is an skb (`accelerate.xdp`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct XdpStatus {
    /// `off` or `filter`.
    pub mode: String,
    /// The devices that tunnels lead through; `[]` if it is off.
    pub uplinks: Vec<UplinkStatus>,
    /// What accelerated tunnels receive by; `[]` if it is off.
    pub flows: Vec<FlowStatus>,
}

/// An uplink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Its name.
    pub name: String,
    /// Its ifindex.
    pub ifindex: u32,
    /// Whether the filter is there.
    pub filtered: bool,
    /// Why not.
    pub why: Vec<Why>,
}

/// Tunnels that receive by the same protocol and port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// `vxlan` or `gre`.
    pub encap: String,
    /// The UDP port (VXLAN).
    pub dst_port: Option<u16>,
    /// Whether packets are discarded that are none of these tunnels'.
    pub filtered: bool,
    /// Why not.
    pub why: Vec<Why>,
}

/// Why something is not accelerated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The reason's stable name.
    pub reason: String,
    /// What exactly was found; may be empty.
    pub detail: String,
    /// The reason in one line.
    pub help: String,
}

impl From<&model::Why> for Why {
    fn from(why: &model::Why) -> Self {
        Self {
            reason: why.reason.name().to_owned(),
            detail: why.detail.clone(),
            help: why.reason.help().to_owned(),
        }
    }
}

/// A bridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BridgeStatus {
    /// Its name.
    pub name: String,
    /// Its ifindex.
    pub ifindex: u32,
    /// Who forwards: `linux` or `ovs`.
    pub kind: String,
    /// Whether anything of it takes the fast path.
    pub accelerated: bool,
    /// Why not.
    pub why: Vec<Why>,
    /// Its ports that are not tunnels.
    pub ports: Vec<PortStatus>,
    /// Its tunnels, one for each remote.
    pub tunnels: Vec<TunnelStatus>,
    /// Its FDB in numbers.
    pub fdb: FdbCount,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Its name.
    pub name: String,
    /// Its ifindex.
    pub ifindex: u32,
    /// The container behind it, if one is known.
    pub container: Option<String>,
    /// What the device is: `veth`, `ethernet` or the kernel's own word.
    pub device: String,
    /// Whether it takes the fast path.
    pub accelerated: bool,
    /// Why not.
    pub why: Vec<Why>,
    /// What it is limited to; `null` if nothing is asked for.
    #[serde(default)]
    pub security: Option<PortSecurity>,
}

/// What a port is limited to (`[[port]]`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortSecurity {
    /// Whether it is.
    pub enforced: bool,
    /// The MACs that it may send from; `[]` is any.
    pub macs: Vec<String>,
    /// The addresses that it may send from; `[]` is any.
    pub addresses: Vec<IpAddr>,
    /// How many packets per second it may send to groups and unknown stations.
    pub flood_limit: Option<u32>,
    /// How many of its packets were discarded.
    pub discarded: u64,
    /// Why it is not limited, or not in all.
    pub why: Vec<Why>,
}

/// A tunnel to one remote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// The tunnel device.
    pub name: String,
    /// `vxlan` or `gre`.
    pub encap: String,
    /// The outer source address, if it is known.
    pub local: Option<IpAddr>,
    /// The outer destination address, if there is one.
    pub remote: Option<IpAddr>,
    /// The GRE key or the VNI.
    pub key: Option<u32>,
    /// The UDP destination port (VXLAN).
    pub dst_port: Option<u16>,
    /// The device towards the remote.
    pub uplink: Option<String>,
    /// The next hop towards the remote.
    pub next_hop: Option<IpAddr>,
    /// The largest inner packet in bytes, without its Ethernet header.
    pub mtu: Option<u32>,
    /// Whether it takes the fast path.
    pub accelerated: bool,
    /// Why not.
    pub why: Vec<Why>,
}

/// An FDB in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbCount {
    /// Entries of the bridge.
    pub entries: u64,
    /// Those that take the fast path.
    pub accelerated: u64,
}

/// An FDB entry by entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FdbReport {
    /// The entries, by bridge, VLAN and MAC.
    pub entries: Vec<FdbEntry>,
}

/// An FDB entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The bridge's name.
    pub bridge: String,
    /// The station, as `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// The VLAN id; 0 without VLAN filtering.
    pub vlan: u16,
    /// `local`, `static`, `dynamic` or `locked`.
    pub kind: String,
    /// The port's name.
    pub port: String,
    /// The container behind the port, if one is known.
    pub container: Option<String>,
    /// The remote, if it is behind a tunnel.
    pub remote: Option<IpAddr>,
    /// Whether it takes the fast path.
    pub accelerated: bool,
    /// Why not.
    pub why: Vec<Why>,
}

/// The tunnels with their traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// The tunnels, by bridge and name.
    pub tunnels: Vec<Tunnel>,
}

/// A tunnel with its traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The bridge's name.
    pub bridge: String,
    /// Its number in the BPF maps; `null` if it is not in them.
    pub id: Option<u32>,
    /// What `status` says of it, in the same object.
    #[serde(flatten)]
    pub status: TunnelStatus,
    /// Sent by the fast path.
    pub tx: Traffic,
    /// Received by the fast path.
    pub rx: Traffic,
}

/// An amount of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of the inner frames.
    pub bytes: u64,
}

/// The counters since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// What took the fast path.
    pub fast: Fast,
    /// What did not, by the reason's name.
    pub reasons: BTreeMap<String, u64>,
    /// What was discarded, by the reason's name.
    pub discarded: BTreeMap<String, u64>,
    /// Where the packets came from that the filter on the uplinks discarded, those with the most
    /// first. Of many sources those seen last.
    pub sources: Vec<Source>,
    /// The fast path's part of the tunnels' and ports' packets, 0 to 1; `null` without packets.
    pub fast_share: Option<f64>,
}

/// A source of discarded tunnel packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The outer source address, which may be forged.
    pub address: IpAddr,
    /// Packets that were discarded as `unknown_remote`.
    pub unknown_remote: u64,
    /// Packets that were discarded as `wrong_key`.
    pub wrong_key: u64,
    /// Packets that were discarded as `malformed`.
    pub malformed: u64,
}

impl Source {
    /// All its packets.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.unknown_remote + self.wrong_key + self.malformed
    }
}

/// What took the fast path, by program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fast {
    /// From the ports.
    pub port_ingress: Traffic,
    /// From the uplinks.
    pub uplink_ingress: Traffic,
}

impl Stats {
    /// The counters with the share that follows from them.
    #[must_use]
    pub fn new(fast: Fast, reasons: BTreeMap<String, u64>) -> Self {
        let not_tunnel = Reason::NotTunnel.name();
        let punts: u64 =
            reasons.iter().filter(|(name, _)| *name != not_tunnel).map(|(_, count)| count).sum();
        let fast_packets = fast.port_ingress.packets + fast.uplink_ingress.packets;
        let all = fast_packets + punts;
        // Rounding above 2^53 packets does no harm to a share.
        let fast_share = (all > 0).then(|| fast_packets as f64 / all as f64);
        Self { fast, reasons, fast_share, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(fast: u64, reasons: &[(&str, u64)]) -> Stats {
        let traffic = Traffic { packets: fast, bytes: 0 };
        let reasons = reasons.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Stats::new(Fast { port_ingress: traffic, uplink_ingress: traffic }, reasons)
    }

    #[test]
    fn the_share_leaves_out_what_is_not_tunnel_traffic() {
        let share = stats(3, &[("not_tunnel", 1000), ("multicast", 1), ("not_ip", 1)]).fast_share;
        assert_eq!(share, Some(0.75));
    }

    #[test]
    fn without_packets_there_is_no_share() {
        assert_eq!(stats(0, &[("not_tunnel", 7)]).fast_share, None);
    }

    #[test]
    fn a_reason_is_reported_with_its_help() {
        let why = Why::from(&model::Why::new(Reason::NoRoute, "192.0.2.2"));
        assert_eq!((why.reason.as_str(), why.detail.as_str()), ("no_route", "192.0.2.2"));
        assert_eq!(why.help, "no route to the remote");
    }
}
