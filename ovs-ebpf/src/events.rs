//! Telling the daemon what the bridge is about to learn, where nothing else does.

use ovs_ebpf_common::{
    Reason,
    abi::{
        EVENT_INTERVAL, Event, EventFlags, FdbKey, FlowKey, NO_VLAN, PortFlags, PortValue,
        TunnelIndexFlags, TunnelIndexValue,
    },
    wire::{frame::Head, vlan},
};

use crate::{
    fdb,
    lease::Now,
    maps::EVENTS,
    packet::{self, Ethernet},
};

/// Where a frame came from.
#[derive(Clone, Copy)]
pub struct Origin {
    /// An ifindex, or of a tunnel its id.
    pub from: u32,
    pub is_tunnel: bool,
    bridge: u32,
    /// Of frames without a tag, and from [`Self::enter`] on the frame's own.
    pub vlan: u16,
    /// The control information of the frame's tag, 0 without: see [`Self::enter`].
    pub tag: u16,
    /// Whether frames with a tag are accepted.
    accepts_tags: bool,
    /// Whether events are asked for.
    announces: bool,
    /// When the next one may be raised.
    next_event: *mut u64,
}

impl Origin {
    /// A port.
    #[inline(always)]
    pub fn port(ifindex: u32, port: *mut PortValue) -> Self {
        // SAFETY: a map value, valid until the program ends.
        let value = unsafe { &mut *port };
        Self {
            from: ifindex,
            is_tunnel: false,
            bridge: value.bridge,
            vlan: value.vlan,
            tag: 0,
            accepts_tags: value.flags & PortFlags::TAGGED != 0,
            announces: value.flags & PortFlags::EVENTS != 0,
            next_event: &raw mut value.next_event,
        }
    }

    /// A tunnel.
    #[inline(always)]
    pub fn tunnel(tunnel: *mut TunnelIndexValue) -> Self {
        // SAFETY: as above.
        let value = unsafe { &mut *tunnel };
        Self {
            from: value.tunnel,
            is_tunnel: true,
            bridge: value.bridge,
            vlan: value.vlan,
            tag: 0,
            accepts_tags: value.flags & TunnelIndexFlags::TAGGED != 0,
            announces: value.flags & TunnelIndexFlags::EVENTS != 0,
            next_event: &raw mut value.next_event,
        }
    }

    /// Puts a frame with this tag (protocol identifier and control information) into its VLAN, or one
    /// without. Whether the port carries that VLAN, the stations' entries say.
    ///
    /// # Errors
    /// [`Reason::VlanUntagged`], [`Reason::VlanTagged`], [`Reason::VlanStacked`],
    /// [`Reason::VlanPriority`].
    #[inline(always)]
    pub fn enter(&mut self, tag: Option<(u16, u16)>) -> Result<(), Reason> {
        match tag {
            None if self.vlan == NO_VLAN => return Err(Reason::VlanUntagged),
            None => {}
            Some(_) if !self.accepts_tags => return Err(Reason::VlanTagged),
            Some((tpid, tci)) => {
                self.vlan = vlan::accept(tpid, tci)?;
                self.tag = tci;
            }
        }
        Ok(())
    }

    /// The FDB's key of a station of the same bridge and VLAN.
    #[inline(always)]
    pub fn station(&self, mac: [u8; 6]) -> FdbKey {
        FdbKey { bridge: self.bridge, vlan: self.vlan, mac }
    }

    /// The key of a frame's flow.
    #[inline(always)]
    pub fn flow(&self, ethernet: &Ethernet) -> FlowKey {
        let [d0, d1, d2, s0, s1, s2, _] = *ethernet;
        FlowKey {
            from: self.from,
            bridge: self.bridge,
            destination: packet::mac([d0, d1, d2]),
            source: packet::mac([s0, s1, s2]),
            vlan: self.vlan,
            is_tunnel: u16::from(self.is_tunnel),
        }
    }

    /// Raises an event where a frame that is left to the bridge for `reason` teaches it where a station
    /// is. A flood of them costs a comparison each. A full ring buffer loses the event: the daemon
    /// asks the bridge from time to time all the same.
    #[inline(always)]
    pub fn observe(&self, head: &Head, reason: Reason, now: &Now) {
        // Others come from stations in their places, or teach the bridge something else.
        let teaches = matches!(
            reason,
            Reason::SourceUnknown | Reason::SourceMoved | Reason::Multicast | Reason::NotIp
        );
        // SAFETY: a field of a map value, valid until the program ends. CPUs may race for it: then
        // there is more than one event, which does no harm.
        if !self.announces || !teaches || now.0 < unsafe { *self.next_event } {
            return;
        }
        let mut mac = [0; 6];
        mac.copy_from_slice(&head[6..12]);
        // A bridge learns no group address.
        if mac[0] & 1 != 0 {
            return;
        }
        let moved = match fdb::find(&self.station(mac)) {
            None => 0,
            Some(station) if station.is_at(self) => return,
            Some(_) => EventFlags::MOVED,
        };
        let tunnel = if self.is_tunnel { EventFlags::TUNNEL } else { 0 };
        // SAFETY: as above.
        unsafe { *self.next_event = now.0 + EVENT_INTERVAL };
        let event = Event { bridge: self.bridge, from: self.from, mac, flags: tunnel | moved };
        let _ = EVENTS.output(event, 0);
    }
}
