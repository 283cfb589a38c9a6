//! Every map. What they mean is in `ovs_ebpf_common::abi`; `docs/bpftool.md` shows them from outside.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use ovs_ebpf_common::abi::{
    ALLOWED_CAPACITY, AllowedKey, AllowedValue, Control, DOUBT_CAPACITY, DoubtValue, EVENTS_SIZE,
    Event, FDB_CAPACITY, FLOW_CAPACITY, FdbKey, FdbValue, Flow, GUARD_CAPACITY, GuardKey,
    GuardValue, PORT_CAPACITY, PortValue, Program, ProgramCounters, SOURCE_CAPACITY, SecurityValue,
    SourceCounters, SourceKey, TUNNEL_CAPACITY, TunnelCounters, TunnelIndexKey, TunnelIndexKey6,
    TunnelIndexValue, TunnelValue, UPLINK_CAPACITY, UplinkValue,
};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// Lease, VXLAN's UDP ports and the generation of the tables; one element.
#[btf_map(name = "control")]
pub static CONTROL: Array<Control, 1> = Array::new();

/// ifindex -> accelerated bridge port.
#[btf_map(name = "ports")]
pub static PORTS: HashMap<u32, PortValue, PORT_CAPACITY, ON_DEMAND> = HashMap::new();

/// Bridge, VLAN and MAC -> port or tunnel.
#[btf_map(name = "fdb")]
pub static FDB: HashMap<FdbKey, FdbValue, FDB_CAPACITY, ON_DEMAND> = HashMap::new();

/// The stations that were heard elsewhere than `fdb` had them.
#[btf_map(name = "doubts")]
pub static DOUBTS: LruHashMap<FdbKey, DoubtValue, DOUBT_CAPACITY> = LruHashMap::new();

/// Where each flow goes, as the tables last said, on each CPU.
#[btf_map(name = "flows")]
pub static FLOWS: PerCpuArray<Flow, FLOW_CAPACITY> = PerCpuArray::new();

/// Tunnel id -> how to encapsulate.
#[btf_map(name = "tunnels")]
pub static TUNNELS: Array<TunnelValue, TUNNEL_CAPACITY> = Array::new();

/// Outer addresses, port and key -> tunnel id and bridge.
#[btf_map(name = "tunnel_index")]
pub static TUNNEL_INDEX: HashMap<TunnelIndexKey, TunnelIndexValue, TUNNEL_CAPACITY, ON_DEMAND> =
    HashMap::new();

/// The same of packets over IPv6.
#[btf_map(name = "tunnel_index6")]
pub static TUNNEL_INDEX6: HashMap<TunnelIndexKey6, TunnelIndexValue, TUNNEL_CAPACITY, ON_DEMAND> =
    HashMap::new();

/// [`Program`] -> forwarded packets, and the others by reason.
#[btf_map(name = "counters")]
pub static COUNTERS: PerCpuArray<ProgramCounters, { Program::ALL.len() }> = PerCpuArray::new();

/// Tunnel id -> traffic.
#[btf_map(name = "tunnel_counters")]
pub static TUNNEL_COUNTERS: PerCpuArray<TunnelCounters, TUNNEL_CAPACITY> = PerCpuArray::new();

/// Stations that appear or move, to be read by the daemon.
#[btf_map(name = "events")]
pub static EVENTS: RingBuf<Event, EVENTS_SIZE> = RingBuf::new();

/// What the filter on the uplinks knows of the tunnels' traffic: a set.
#[btf_map(name = "guards")]
pub static GUARDS: HashMap<GuardKey, GuardValue, GUARD_CAPACITY, ON_DEMAND> = HashMap::new();

/// ifindex -> uplink with the filter.
#[btf_map(name = "xdp_uplinks")]
pub static UPLINKS: HashMap<u32, UplinkValue, UPLINK_CAPACITY, ON_DEMAND> = HashMap::new();

/// Outer source address -> how many of its packets were discarded, for those seen last.
#[btf_map(name = "xdp_sources")]
pub static SOURCES: LruHashMap<SourceKey, SourceCounters, SOURCE_CAPACITY> = LruHashMap::new();

/// ifindex -> secured bridge port.
#[btf_map(name = "security")]
pub static SECURITY: HashMap<u32, SecurityValue, PORT_CAPACITY, ON_DEMAND> = HashMap::new();

/// The MACs and addresses of secured ports: a set.
#[btf_map(name = "allowed")]
pub static ALLOWED: HashMap<AllowedKey, AllowedValue, ALLOWED_CAPACITY, ON_DEMAND> = HashMap::new();

/// The stations that bridges with secured ports know, wherever they are: a set.
#[btf_map(name = "stations")]
pub static STATIONS: HashMap<FdbKey, AllowedValue, FDB_CAPACITY, ON_DEMAND> = HashMap::new();
