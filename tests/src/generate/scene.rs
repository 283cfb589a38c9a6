//! A host's tables: two bridges or VLANs, ports, tunnels of every kind and stations behind them.

use std::collections::btree_map::Entry;

use ovs_ebpf_common::abi::{
    Control, DoubtValue, FdbFlags, FdbKey, FdbValue, GuardKey, GuardKind, NO_VLAN, PortFlags,
    PortValue, TEMPLATE_LEN, TUNNEL_CAPACITY, TunnelFlags, TunnelIndexFlags, TunnelIndexKey,
    TunnelIndexKey6, TunnelIndexValue, TunnelKind, TunnelPath, TunnelValue, UplinkValue,
    VXLAN_PORTS,
};

use super::{Random, security};
use crate::model::Tables;

/// A device that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: [u8; 6],
}

/// A bridge and a VLAN of it: stations of one never meet those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Domain {
    pub(super) bridge: u32,
    pub(super) vlan: u16,
}

impl Domain {
    /// Whether frames of it may come from a port or a tunnel: without a tag from those of its VLAN, with
    /// one from those that take any.
    pub(super) fn meets(self, bridge: u32, vlan: u16, takes_tags: bool) -> bool {
        self.bridge == bridge && (self.vlan == vlan || (takes_tags && self.vlan != 0))
    }
}

/// A station in the FDB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Station {
    pub(super) domain: Domain,
    pub(super) mac: [u8; 6],
    pub(super) value: FdbValue,
}

/// The receiving end of a tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Of a kind over IPv4 the addresses are in the first four bytes.
    pub(super) key: TunnelIndexKey6,
    pub(super) value: TunnelIndexValue,
}

impl End {
    pub(super) fn takes_tags(&self) -> bool {
        self.value.flags & TunnelIndexFlags::TAGGED != 0
    }
}

/// The key of `tunnel_index` that is meant.
fn ipv4_key(key: &TunnelIndexKey6) -> TunnelIndexKey {
    let TunnelIndexKey6 { remote, local, key, dst_port, kind, reserved } = *key;
    let four = |address: [u8; 16]| *address.first_chunk().expect("sixteen bytes");
    TunnelIndexKey { remote: four(remote), local: four(local), key, dst_port, kind, reserved }
}

/// The tables, and what they say as lists to choose from.
#[derive(Debug)]
pub struct Scene {
    /// The maps.
    pub tables: Tables,
    /// The devices there are.
    pub devices: Vec<Device>,
    pub(super) stations: Vec<Station>,
    pub(super) ends: Vec<End>,
}

const STATIONS: usize = 24;
const TUNNELS: usize = 8;
/// Limits of ports and tunnels: usual ones, and some that short frames meet.
const MTUS: [u32; 8] = [1500, 1500, 1450, 1450, 9000, 576, 100, 68];

impl Scene {
    /// A scene on a host with these devices, of which there is at least one.
    #[must_use]
    pub fn new(random: &mut Random, devices: &[Device]) -> Self {
        let mut scene = Self {
            tables: Tables { control: control(random), ..Tables::default() },
            devices: devices.to_vec(),
            stations: Vec::new(),
            ends: Vec::new(),
        };
        let here = Domain { bridge: 9, vlan: 0 };
        let there = random.of(&[Domain { bridge: 8, vlan: 0 }, Domain { bridge: 9, vlan: 7 }]);
        let domain = |random: &mut Random| if random.one_in(4) { there } else { here };
        for device in devices {
            let Domain { bridge, vlan } = domain(random);
            if !random.one_in(12) {
                let flags = flag(random.one_in(2), PortFlags::EVENTS)
                    | flag(random.one_in(2), PortFlags::TAGGED);
                let vlan = if random.one_in(16) { NO_VLAN } else { vlan };
                let next_event = next_event(random);
                let value = PortValue { bridge, vlan, flags, next_event };
                scene.tables.ports.insert(device.ifindex, value);
            }
        }
        for device in devices {
            if !random.one_in(12) {
                let value = UplinkValue { mac: device.mac, ..UplinkValue::default() };
                scene.tables.uplinks.insert(device.ifindex, value);
            }
        }
        let ifindices: Vec<u32> = devices.iter().map(|device| device.ifindex).collect();
        security::secure(random, &ifindices, &mut scene.tables);
        for _ in 0..TUNNELS {
            let domain = domain(random);
            scene.add_tunnel(random, domain);
        }
        for number in 0..STATIONS as u8 {
            let domain = domain(random);
            scene.add_station(random, domain, [0x02, 0, 0, 0, 0x0a, number]);
        }
        scene
    }

    fn add_tunnel(&mut self, random: &mut Random, domain: Domain) {
        // Now and then the number of a device: that is not the tunnel.
        let id = match random.below(3) {
            0 => random.of(&self.devices).ifindex,
            _ => 1 + random.below(TUNNEL_CAPACITY - 1) as u32,
        };
        let (value, paths) = tunnel(random, &self.tables.control, self.devices[0].ifindex);
        self.tables.tunnels.insert(id, value);
        // Both paths' remotes may send, unless another tunnel's do from there already.
        for key in paths {
            let uplink = random.of(&self.devices).ifindex;
            let Domain { bridge, vlan } = domain;
            let flags = flag(random.one_in(2), TunnelIndexFlags::EVENTS)
                | flag(random.one_in(2), TunnelIndexFlags::TAGGED);
            let vlan = if random.one_in(16) { NO_VLAN } else { vlan };
            let next_event = next_event(random);
            let value = TunnelIndexValue { tunnel: id, bridge, uplink, vlan, flags, next_event };
            let is_ipv6 = TunnelKind::ALL.iter().any(|kind| *kind as u8 == key.kind && ipv6(*kind));
            let entered = if is_ipv6 {
                enter(self.tables.tunnel_index6.entry(key), value)
            } else {
                enter(self.tables.tunnel_index.entry(ipv4_key(&key)), value)
            };
            if entered {
                self.ends.push(End { key, value });
                self.guard(random, &key);
            }
        }
    }

    /// Lets the filter know of a tunnel's receiving end, mostly of all there is to know.
    fn guard(&mut self, random: &mut Random, end: &TunnelIndexKey6) {
        let kind = TunnelKind::ALL.into_iter().find(|kind| *kind as u8 == end.kind);
        let kind = kind.expect("an end's kind is one");
        let mapped = |address: [u8; 16]| match address {
            [a, b, c, d, ..] if !ipv6(kind) => {
                std::net::Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().octets()
            }
            address => address,
        };
        let protocol = if vxlan(kind) { 17 } else { 47 };
        for (address, key, kind) in [
            (end.local, [0; 4], GuardKind::Endpoint),
            (end.remote, [0; 4], GuardKind::Remote),
            (end.remote, end.key, GuardKind::Way),
        ] {
            let address = mapped(address);
            let key = GuardKey { address, key, dst_port: end.dst_port, protocol, kind: kind as u8 };
            if !random.one_in(6) {
                self.tables.guards.insert(key, 1);
            }
        }
    }

    fn add_station(&mut self, random: &mut Random, domain: Domain, mac: [u8; 6]) {
        let Domain { bridge, vlan } = domain;
        let in_domain =
            |end: &&End| domain.meets(end.value.bridge, end.value.vlan, end.takes_tags());
        let tunnels: Vec<u32> =
            self.ends.iter().filter(in_domain).map(|end| end.value.tunnel).collect();
        // The first one is local, so that there is one.
        let behind_tunnel = random.one_in(2) && !tunnels.is_empty() && !self.stations.is_empty();
        let (target, own_flags) = if behind_tunnel {
            // Now and then a tunnel that is not there, or can't be.
            let target = match random.below(32) {
                0 => 0,
                1 => TUNNEL_CAPACITY as u32,
                2 => random.below(TUNNEL_CAPACITY) as u32,
                _ => random.of(&tunnels),
            };
            (target, FdbFlags::TUNNEL)
        } else {
            let flags =
                flag(random.one_in(2), FdbFlags::PEER) | flag(random.one_in(4), FdbFlags::HARDWARE);
            // Mostly a port of the bridge.
            let is_port = |device: &&Device| {
                let port = self.tables.ports.get(&device.ifindex);
                port.is_some_and(|port| (port.bridge, port.vlan) == (bridge, vlan))
            };
            let ports: Vec<&Device> = self.devices.iter().filter(is_port).collect();
            let anywhere = ports.is_empty() || random.one_in(16);
            let device = if anywhere { random.of(&self.devices) } else { *random.of(&ports) };
            (device.ifindex, flags)
        };
        let (revalidate_seconds, next_revalidation) = match random.below(6) {
            0 => (3600, 0),
            1 => (3600, u64::MAX),
            2 => (0, u64::MAX),
            _ => (0, 0),
        };
        let value = FdbValue {
            target,
            flags: own_flags
                | flag(random.one_in(4), FdbFlags::ISOLATED)
                | flag(vlan != 0 && random.one_in(2), FdbFlags::TAGGED),
            revalidate_seconds,
            mtu: random.of(&MTUS),
            reserved: 0,
            next_revalidation,
        };
        let key = FdbKey { bridge, vlan, mac };
        self.tables.fdb.insert(key, value);
        if random.one_in(16) {
            let doubt = DoubtValue {
                until: if random.one_in(2) { u64::MAX } else { 0 },
                target: target ^ u32::from(random.one_in(4)),
                is_tunnel: u32::from(behind_tunnel),
            };
            self.tables.doubts.insert(key, doubt);
        }
        self.stations.push(Station { domain, mac, value });
    }
}

fn flag(set: bool, flag: u16) -> u16 {
    if set { flag } else { 0 }
}

/// Takes a free place.
fn enter<K: Ord, V>(place: Entry<'_, K, V>, value: V) -> bool {
    match place {
        Entry::Vacant(free) => {
            free.insert(value);
            true
        }
        Entry::Occupied(_) => false,
    }
}

/// Whether a kind's outer header is IPv6's.
pub(super) fn ipv6(kind: TunnelKind) -> bool {
    [TunnelKind::VxlanIpv6, TunnelKind::GreIpv6, TunnelKind::GreKeyIpv6].contains(&kind)
}

/// Whether a kind is VXLAN.
fn vxlan(kind: TunnelKind) -> bool {
    [TunnelKind::VxlanIpv4, TunnelKind::VxlanIpv6].contains(&kind)
}

/// A time when events may be raised: now, or never.
fn next_event(random: &mut Random) -> u64 {
    random.of(&[0, 0, u64::MAX])
}

fn control(random: &mut Random) -> Control {
    let lease_deadline = match random.below(32) {
        0 => 0,
        1 => 1,
        _ => u64::MAX,
    };
    let mut vxlan_ports = [0; VXLAN_PORTS];
    for port in &mut vxlan_ports {
        if random.one_in(2) {
            *port = random.of(&[4789u16, 8472, 65_535, 1]).to_be();
        }
    }
    vxlan_ports[random.below(VXLAN_PORTS)] = 4789u16.to_be();
    Control { lease_deadline, vxlan_ports, generation: 0 }
}

/// A tunnel with both its paths, and the keys of packets that come back along them.
fn tunnel(
    random: &mut Random,
    control: &Control,
    uplink: u32,
) -> (TunnelValue, [TunnelIndexKey6; 2]) {
    let flag = |set, flag| if set { flag } else { 0 };
    let df = !random.one_in(4);
    let source_port_min = random.word();
    let source_port_span = match random.below(4) {
        0 => random.below(2) as u16,
        _ => random.below(usize::from(u16::MAX - source_port_min) + 1) as u16,
    };
    let (paths, keys): (Vec<_>, Vec<_>) = (0..2).map(|_| path(random, control, uplink, df)).unzip();
    let value = TunnelValue {
        flags: flag(!random.one_in(16), TunnelFlags::READY)
            | flag(random.one_in(4), TunnelFlags::TOS_INHERIT)
            | flag(random.one_in(4), TunnelFlags::TTL_INHERIT)
            | flag(!df, TunnelFlags::NEEDS_ID)
            | flag(random.one_in(2), TunnelFlags::FLOW_LABEL)
            | flag(random.one_in(2), TunnelFlags::ECT_1_INHERIT)
            | flag(random.one_in(2), TunnelFlags::TAG_HIDES),
        active: random.below(2) as u8,
        tos: random.byte(),
        ttl: random.byte(),
        source_port_min,
        source_port_span,
        paths: [paths[0], paths[1]],
        ..TunnelValue::default()
    };
    (value, [keys[0], keys[1]])
}

fn path(
    random: &mut Random,
    control: &Control,
    uplink: u32,
    df: bool,
) -> (TunnelPath, TunnelIndexKey6) {
    let kind = random.of(&TunnelKind::ALL);
    // Few addresses, so that tunnels differ in one thing alone.
    let (here, there) = (1 + random.below(2) as u8, 10 + random.below(4) as u8);
    let address = |last| match ipv6(kind) {
        false => [&[192, 0, 2, last][..], &[0; 12]].concat(),
        true => [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[last]].concat(),
    };
    let (local, remote) = (address(here), address(there));
    let key: u32 = match kind {
        TunnelKind::GreIpv4 | TunnelKind::GreIpv6 => 0,
        TunnelKind::VxlanIpv4 | TunnelKind::VxlanIpv6 => random.of(&[0, 1, 42, 0xff_ffff]),
        TunnelKind::GreKeyIpv4 | TunnelKind::GreKeyIpv6 => random.of(&[0, 1, 42, u32::MAX]),
    };
    let used: Vec<_> = control.vxlan_ports.into_iter().filter(|port| *port != 0).collect();
    let dst_port = if vxlan(kind) { random.of(&used).to_ne_bytes() } else { [0; 2] };

    let mut header = Vec::with_capacity(TEMPLATE_LEN);
    header.extend([0x02, 0, 0, 0, 1, 2, 0x02, 0, 0, 0, 1, 1]);
    let protocol = if vxlan(kind) { 17 } else { 47 };
    let mut checksum_seed = 0;
    if ipv6(kind) {
        let label = if random.one_in(4) { [0x0f, 0xed, 0xcb] } else { [0; 3] };
        header.extend([0x86, 0xdd, 0x60, label[0], label[1], label[2], 0, 0, protocol, 0]);
        header.extend(local.iter().chain(&remote));
    } else {
        let flags = if df { 0x40 } else { 0 };
        header.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, flags, 0, 0, protocol, 0, 0]);
        header.extend(local[..4].iter().chain(&remote[..4]));
        checksum_seed = header[14..34]
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
    }
    match kind {
        TunnelKind::VxlanIpv4 | TunnelKind::VxlanIpv6 => {
            header.extend([0, 0, dst_port[0], dst_port[1], 0, 0, 0, 0, 0x08, 0, 0, 0]);
            header.extend((key << 8).to_be_bytes());
        }
        TunnelKind::GreIpv4 | TunnelKind::GreIpv6 => header.extend([0, 0, 0x65, 0x58]),
        TunnelKind::GreKeyIpv4 | TunnelKind::GreKeyIpv6 => {
            header.extend([0x20, 0, 0x65, 0x58]);
            header.extend(key.to_be_bytes());
        }
    }
    header.resize(TEMPLATE_LEN, 0);
    let path = TunnelPath {
        header: header.try_into().expect("the longest header's length"),
        checksum_seed,
        uplink,
        mtu: random.of(&MTUS),
        kind: if random.one_in(32) { random.of(&[0, 7, 255]) } else { kind as u8 },
        next_hop_family: 2,
        ..TunnelPath::default()
    };
    let back = TunnelIndexKey6 {
        remote: remote.try_into().expect("sixteen bytes"),
        local: local.try_into().expect("sixteen bytes"),
        key: key.to_be_bytes(),
        dst_port,
        kind: kind as u8,
        reserved: 0,
    };
    (path, back)
}
