//! What the bridge is about to learn, where nothing tells the daemon: the program does, and does not believe
//! the table meanwhile.

use ovs_ebpf_common::{
    Reason,
    abi::{EVENT_INTERVAL, Event, EventFlags},
    wire::frame::Head,
};

use crate::{doubts, fdb, lease::Now, maps::EVENTS, origin::Origin};

/// Raises an event where a frame that is left to the bridge for `reason` teaches it where a station
/// is. A flood of them costs a look-up each. A full ring buffer loses the event: the daemon
/// asks the bridge from time to time all the same.
#[inline(always)]
pub fn observe(origin: &Origin, head: &Head, reason: Reason, now: &Now) {
    // Others come from stations in their places, or teach the bridge something else.
    let teaches = matches!(
        reason,
        Reason::SourceUnknown | Reason::SourceMoved | Reason::Multicast | Reason::NotIp
    );
    if !origin.announces || !teaches {
        return;
    }
    let mut mac = [0; 6];
    mac.copy_from_slice(&head[6..12]);
    // A bridge learns no group address.
    if mac[0] & 1 != 0 {
        return;
    }
    let key = origin.station(mac);
    let moved = match fdb::find(&key) {
        None => 0,
        Some(station) if station.is_at(origin) => return,
        Some(station) => {
            doubts::raise(&key, &station, now);
            EventFlags::MOVED
        }
    };
    // SAFETY: a field of a map value, valid until the program ends. CPUs may race for it: then
    // there is more than one event, which does no harm.
    unsafe {
        if now.0 < *origin.next_event {
            return;
        }
        *origin.next_event = now.0 + EVENT_INTERVAL;
    }
    let tunnel = if origin.is_tunnel { EventFlags::TUNNEL } else { 0 };
    let event = Event { bridge: origin.bridge, from: origin.from, mac, flags: tunnel | moved };
    let _ = EVENTS.output(event, 0);
}
