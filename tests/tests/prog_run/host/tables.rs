//! What the maps say.

use std::collections::BTreeMap;

use aya::{
    Pod,
    maps::{HashMap, MapData, RingBuf},
};
use ovs_ebpf_common::{
    abi::{
        Control, Event, FdbFlags, FdbKey, FdbValue, IndexKey, PortFlags, PortValue, TunnelCounters,
        TunnelFlags, TunnelIndexFlags, TunnelIndexValue, TunnelKind, TunnelPath, TunnelValue,
        VXLAN_PORTS,
    },
    wire::outer::{self, Outer},
};
use ovs_ebpf_tests::{
    model::Tables,
    vectors::{Kind, Tunnel},
};

use super::{BRIDGE, Host, SOURCE_PORTS, TUNNEL, UNDERLAY_MTU, UPLINK};

impl Host {
    /// Until when the programs may forward, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) fn set_lease(&mut self, lease_deadline: u64) {
        let mut vxlan_ports = [0; VXLAN_PORTS];
        vxlan_ports[0] = 4789u16.to_be();
        self.set_control(Control { lease_deadline, vxlan_ports, generation: 0 });
    }

    /// Sets the lease and the ports, under a generation that never was: the tables are asked again.
    fn set_control(&mut self, control: Control) {
        self.generation += 1;
        let generation = self.generation;
        self.control.set(0, Control { generation, ..control }, 0).expect("control");
    }

    /// Tells the programs that the tables have changed.
    pub(crate) fn forget_flows(&mut self) {
        let control = self.control.get(&0, 0).expect("control");
        self.set_control(control);
    }

    /// Makes a device a port of the bridge.
    pub(crate) fn set_port(&mut self, ifindex: u32) {
        let value = PortValue { bridge: BRIDGE, ..PortValue::default() };
        self.ports.insert(ifindex, value, 0).expect("ports");
        self.forget_flows();
    }

    /// Enters a station in the bridge's FDB, or changes its entry.
    pub(crate) fn set_station(&mut self, mac: [u8; 6], value: FdbValue) {
        self.fdb.insert(FdbKey { bridge: BRIDGE, vlan: 0, mac }, value, 0).expect("fdb");
        self.forget_flows();
    }

    /// Removes a station from the bridge's FDB.
    pub(crate) fn remove_station(&mut self, mac: [u8; 6]) {
        self.fdb.remove(&FdbKey { bridge: BRIDGE, vlan: 0, mac }).expect("fdb");
        self.forget_flows();
    }

    /// Sets the tunnel.
    pub(crate) fn set_tunnel(&mut self, value: TunnelValue) {
        self.tunnels.set(TUNNEL, value, 0).expect("tunnels");
    }

    /// Adds a tunnel beside others: how to send by it, and what identifies its packets.
    pub(crate) fn add_tunnel(&mut self, id: u32, value: TunnelValue, key: IndexKey) {
        self.tunnels.set(id, value, 0).expect("tunnels");
        let value = TunnelIndexValue {
            tunnel: id,
            bridge: BRIDGE,
            uplink: UPLINK,
            ..TunnelIndexValue::default()
        };
        match key {
            IndexKey::Ipv4(key) => self.tunnel_index.insert(key, value, 0).expect("tunnel_index"),
            IndexKey::Ipv6(key) => self.tunnel_index6.insert(key, value, 0).expect("tunnel_index6"),
        }
    }

    /// Sets what identifies the tunnel's packets, instead of what did before.
    pub(crate) fn set_tunnel_index(&mut self, key: IndexKey) {
        let value = TunnelIndexValue {
            tunnel: TUNNEL,
            bridge: BRIDGE,
            uplink: UPLINK,
            ..TunnelIndexValue::default()
        };
        let (mut over_ipv4, mut over_ipv6) = (BTreeMap::new(), BTreeMap::new());
        match key {
            IndexKey::Ipv4(key) => drop(over_ipv4.insert(key, value)),
            IndexKey::Ipv6(key) => drop(over_ipv6.insert(key, value)),
        }
        replace(&mut self.tunnel_index, &over_ipv4);
        replace(&mut self.tunnel_index6, &over_ipv6);
        self.forget_flows();
    }

    /// Makes the maps say what the tables do and nothing else.
    pub(crate) fn set_tables(&mut self, tables: &Tables) {
        replace(&mut self.ports, &tables.ports);
        replace(&mut self.fdb, &tables.fdb);
        replace(&mut self.doubts, &tables.doubts);
        replace(&mut self.tunnel_index, &tables.tunnel_index);
        replace(&mut self.tunnel_index6, &tables.tunnel_index6);
        replace(&mut self.guards, &tables.guards);
        replace(&mut self.uplinks, &tables.uplinks);
        replace(&mut self.security, &tables.security);
        replace(&mut self.allowed, &tables.allowed);
        replace(&mut self.stations, &tables.stations);
        for id in std::mem::take(&mut self.tunnels_set) {
            self.tunnels.set(id, TunnelValue::default(), 0).expect("tunnels");
        }
        for (id, value) in &tables.tunnels {
            self.tunnels.set(*id, value, 0).expect("tunnels");
            self.tunnels_set.push(*id);
        }
        self.set_control(tables.control);
    }

    /// Lets a port and the tunnel raise events, or stops that.
    pub(crate) fn set_events(&mut self, port: u32, on: bool) {
        let flags = if on { PortFlags::EVENTS } else { 0 };
        let value = PortValue { bridge: BRIDGE, flags, ..PortValue::default() };
        self.ports.insert(port, value, 0).expect("ports");
        let keys: Vec<_> =
            self.tunnel_index.keys().collect::<Result<_, _>>().expect("tunnel_index");
        for key in keys {
            let value = self.tunnel_index.get(&key, 0).expect("tunnel_index");
            let flags = if on { TunnelIndexFlags::EVENTS } else { 0 };
            let value = TunnelIndexValue { flags, next_event: 0, ..value };
            self.tunnel_index.insert(key, value, 0).expect("tunnel_index");
        }
        self.forget_flows();
    }

    /// The events raised since this was last asked.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let ring = self.events.as_mut().expect("not taken");
        let next = || ring.next().map(|record| Event::from_bytes(&record).expect("an event"));
        std::iter::from_fn(next).collect()
    }

    /// The ring buffer of events, for another reader.
    pub(crate) fn take_events(&mut self) -> RingBuf<MapData> {
        self.events.take().expect("not taken")
    }

    /// The tunnel's counters, of all CPUs.
    pub(crate) fn tunnel_counters(&self) -> TunnelCounters {
        self.tunnel_counters_of(TUNNEL)
    }

    /// A tunnel's counters, of all CPUs.
    pub(crate) fn tunnel_counters_of(&self, id: u32) -> TunnelCounters {
        let values = self.tunnel_counters.get(&id, 0).expect("tunnel_counters");
        values.iter().fold(TunnelCounters::default(), |sum, cpu| TunnelCounters {
            tx_packets: sum.tx_packets + cpu.tx_packets,
            tx_bytes: sum.tx_bytes + cpu.tx_bytes,
            rx_packets: sum.rx_packets + cpu.rx_packets,
            rx_bytes: sum.rx_bytes + cpu.rx_bytes,
        })
    }
}

/// A station behind a port, never validated anew.
pub(crate) fn at_port(ifindex: u32) -> FdbValue {
    FdbValue { target: ifindex, mtu: UNDERLAY_MTU, ..FdbValue::default() }
}

/// A station behind the tunnel, never validated anew.
pub(crate) fn behind_tunnel() -> FdbValue {
    FdbValue { target: TUNNEL, flags: FdbFlags::TUNNEL, ..FdbValue::default() }
}

/// What the maps call a vector's tunnel.
pub(crate) fn kind(tunnel: &Tunnel) -> TunnelKind {
    match (tunnel.kind, tunnel.key, tunnel.remote.is_ipv6()) {
        (Kind::Vxlan, _, false) => TunnelKind::VxlanIpv4,
        (Kind::Gre, None, false) => TunnelKind::GreIpv4,
        (Kind::Gre, Some(_), false) => TunnelKind::GreKeyIpv4,
        (Kind::Vxlan, _, true) => TunnelKind::VxlanIpv6,
        (Kind::Gre, None, true) => TunnelKind::GreIpv6,
        (Kind::Gre, Some(_), true) => TunnelKind::GreKeyIpv6,
    }
}

/// The value of `tunnels` for the tunnel's sending end.
pub(crate) fn sender_end(tunnel: &Tunnel) -> TunnelValue {
    let kind = kind(tunnel);
    let (header, checksum_seed) = outer::template(
        kind,
        &Outer {
            destination_mac: tunnel.next_hop_mac,
            source_mac: tunnel.source_mac,
            local: tunnel.local,
            remote: tunnel.remote,
            key: tunnel.key.unwrap_or(0),
            dst_port: tunnel.destination_port.unwrap_or(0),
            df: tunnel.df,
            flow_label: 0,
        },
    );
    let flag = |set, flag| if set { flag } else { 0 };
    let path = TunnelPath {
        header,
        checksum_seed,
        uplink: UPLINK,
        // Between the two is the outer header less its Ethernet header, plus the inner one.
        mtu: UNDERLAY_MTU - kind.header_len() as u32,
        kind: kind as u8,
        next_hop_family: libc::AF_INET as u32,
        ..TunnelPath::default()
    };
    TunnelValue {
        flags: TunnelFlags::READY
            | flag(tunnel.tos.is_none(), TunnelFlags::TOS_INHERIT)
            | flag(tunnel.ttl.is_none(), TunnelFlags::TTL_INHERIT)
            | flag(!tunnel.df && !kind.is_ipv6(), TunnelFlags::NEEDS_ID),
        // The other slot stays empty, to see that it is not used.
        active: 1,
        tos: tunnel.tos.unwrap_or(0),
        ttl: tunnel.ttl.unwrap_or(0),
        source_port_min: SOURCE_PORTS.0,
        source_port_span: SOURCE_PORTS.1,
        paths: [TunnelPath::default(), path],
        ..TunnelValue::default()
    }
}

/// What identifies its packets at the tunnel's receiving end.
pub(crate) fn receiver_key(tunnel: &Tunnel) -> IndexKey {
    let (remote, local) = (tunnel.local, tunnel.remote);
    let (key, dst_port) = (tunnel.key.unwrap_or(0), tunnel.destination_port.unwrap_or(0));
    IndexKey::new(kind(tunnel), remote, local, key, dst_port)
}

/// Makes a map have these entries and no others.
pub(super) fn replace<K: Pod + Ord, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    entries: &BTreeMap<K, V>,
) {
    let old: Vec<_> = map.keys().collect::<Result<_, _>>().expect("the map's keys");
    for key in old {
        map.remove(&key).expect("an entry to remove");
    }
    for (key, value) in entries {
        map.insert(key, value, 0).expect("room for an entry");
    }
}
