//! Keys and values of the BPF maps: what the loader writes and the kernel programs read.
//!
//! Every type is `repr(C)` with explicit padding and a size assertion. Fields in network byte order
//! are byte arrays; integers are in host byte order. A change of any of these types, of a map's
//! meaning or of a [`crate::Reason`]'s code needs a new [`VERSION`]: it names the directory the maps
//! are pinned in, so that a daemon never adopts maps it does not understand.

mod control;
mod counters;
mod doubt;
mod event;
mod fdb;
mod flow;
mod guard;
mod port;
mod security;
mod tunnel;

pub use control::{Control, VXLAN_PORTS};
pub use counters::{Program, ProgramCounters, TunnelCounters};
pub use doubt::{DOUBT, DOUBT_CAPACITY, DoubtValue};
pub use event::{EVENT_INTERVAL, EVENTS_SIZE, Event, EventFlags};
pub use fdb::{FdbFlags, FdbKey, FdbValue};
pub use flow::{FLOW_CAPACITY, Flow, FlowKey};
pub use guard::{
    GUARD_CAPACITY, GuardKey, GuardKind, GuardValue, SOURCE_CAPACITY, SourceCounters, SourceKey,
    UPLINK_CAPACITY, UplinkValue,
};
pub use port::{PortFlags, PortValue};
pub use security::{
    ALLOWED_CAPACITY, AllowedKey, AllowedKind, AllowedValue, SecurityFlags, SecurityValue,
};
pub use tunnel::{
    IndexKey, OUTER_HEADER_MAX, TEMPLATE_LEN, TunnelFlags, TunnelIndexFlags, TunnelIndexKey,
    TunnelIndexKey6, TunnelIndexValue, TunnelKind, TunnelPath, TunnelValue,
};

/// The version of everything in this module.
pub const VERSION: u32 = 4;

/// In place of the VLAN of frames without a tag: such frames are not accepted.
pub const NO_VLAN: u16 = u16::MAX;

/// Capacity of the `fdb` map unless the configuration says otherwise.
pub const FDB_CAPACITY: usize = 65_536;
/// Capacity of the `ports` map.
pub const PORT_CAPACITY: usize = 4_096;
/// Capacity of `tunnels`, `tunnel_index`, `tunnel_index6` and `tunnel_counters`. Tunnel id 0 is never used.
pub const TUNNEL_CAPACITY: usize = 8_192;

/// Implements `aya::Pod` for map types.
macro_rules! pod {
    ($($type:ty),+) => {$(
        // SAFETY: repr(C), integers and byte arrays only, no implicit padding (size asserted), so
        // that every bit pattern is valid and every byte is initialised.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    )+};
}
pub(crate) use pod;
