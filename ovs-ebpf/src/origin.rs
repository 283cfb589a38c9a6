//! Where a frame came from, and where it goes from there.

use ovs_ebpf_common::{
    Reason,
    abi::{FdbKey, NO_VLAN, PortFlags, PortValue, TunnelIndexFlags, TunnelIndexValue},
    wire::{frame::Head, vlan},
};

use crate::{events, fdb, flows::Route, lease::Now, packet};

/// Where a frame came from.
#[derive(Clone, Copy)]
pub struct Origin {
    /// An ifindex, or of a tunnel its id.
    pub from: u32,
    pub is_tunnel: bool,
    pub bridge: u32,
    /// Of frames without a tag, and from [`Self::enter`] on the frame's own.
    pub vlan: u16,
    /// The control information of the frame's tag, 0 without: see [`Self::enter`].
    pub tag: u16,
    /// Whether frames with a tag are accepted.
    accepts_tags: bool,
    /// Whether events are asked for.
    pub announces: bool,
    /// When the next one may be raised.
    pub next_event: *mut u64,
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

    /// Where a frame with this tag and `head` goes by the FDB, and until when that is good, if it could be
    /// `parsed`.
    ///
    /// # Errors
    /// Those of [`Self::enter`], `parsed`, [`fdb::source`] and [`fdb::destination`].
    #[inline(always)]
    pub fn route(
        mut self,
        tag: Option<(u16, u16)>,
        head: &Head,
        parsed: Result<(), Reason>,
        now: &Now,
    ) -> Result<(Route, u64), Reason> {
        self.enter(tag)?;
        self.switch(head, parsed, now)
            .inspect_err(|&reason| events::observe(&self, head, reason, now))
    }

    #[inline(always)]
    fn switch(
        &self,
        head: &Head,
        parsed: Result<(), Reason>,
        now: &Now,
    ) -> Result<(Route, u64), Reason> {
        parsed?;
        let [destination, source] = packet::macs(&packet::ethernet(head));
        let (source, good_until) = fdb::source(&source, self, now)?;
        let station = fdb::destination(&destination, &source, self, now)?;
        let tunnel = if self.is_tunnel { self.from } else { 0 };
        Ok((Route { station, tag: station.tag_of(self), tunnel }, good_until))
    }
}
