//! What a secured port may send: TC ingress of a bridge port, before every other program there. Opt-in
//! (`[[port]]`).
//!
//! It neither asks for the lease nor for the fast path: what it does holds on the bridge's way too, and
//! without the daemon.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use ovs_ebpf_common::{
    Reason,
    abi::{AllowedKey, FdbKey, Program, SecurityFlags, SecurityValue},
    bucket::{self, Take},
    wire::{
        sender::{self, Bytes, Own},
        vlan,
    },
};

use crate::{
    counters, lease,
    maps::{ALLOWED, SECURITY, STATIONS},
    packet::Packet,
    shared::Shared,
};

/// Discards what is not in the port's own name, and floods beyond its limit; everything else goes on.
#[classifier]
pub fn port_security(ctx: TcContext) -> i32 {
    let packet = Packet::new(&ctx);
    let ifindex = packet.ifindex();
    let Some(port) = SECURITY.get_ptr_mut(ifindex) else { return TC_ACT_UNSPEC };
    match judge(&packet, ifindex, port) {
        Ok(()) => TC_ACT_UNSPEC,
        Err(reason) => {
            counters::count(Program::PortSecurity, reason);
            // SAFETY: a field of a map value, valid until the program ends.
            unsafe { Shared::new(&raw mut (*port).discarded) }.add(1);
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn judge(packet: &Packet, ifindex: u32, port: *mut SecurityValue) -> Result<(), Reason> {
    // SAFETY: a map value, valid until the program ends.
    let flags = unsafe { (*port).flags };
    if flags & (SecurityFlags::MACS | SecurityFlags::ADDRESSES) != 0 {
        sender::check(packet, &Port { ifindex, flags })?;
    }
    if flags & SecurityFlags::FLOOD != 0 {
        limit(packet, port, flags)?;
    }
    Ok(())
}

/// What is a port's own.
struct Port {
    ifindex: u32,
    flags: u16,
}

impl Own for Port {
    #[inline(always)]
    fn mac(&self, mac: [u8; 6]) -> bool {
        self.flags & SecurityFlags::MACS == 0
            || ALLOWED.get_ptr(AllowedKey::mac(self.ifindex, mac)).is_some()
    }

    #[inline(always)]
    fn ipv4(&self, address: [u8; 4]) -> bool {
        self.flags & SecurityFlags::ADDRESSES == 0
            || ALLOWED.get_ptr(AllowedKey::ipv4(self.ifindex, address)).is_some()
    }

    #[inline(always)]
    fn ipv6(&self, address: [u8; 16]) -> bool {
        self.flags & SecurityFlags::ADDRESSES == 0
            || ALLOWED.get_ptr(AllowedKey::ipv6(self.ifindex, address)).is_some()
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.copy(offset)
    }
}

/// Takes a packet that the bridge sends to more than one port from the port's bucket.
///
/// # Errors
/// [`Reason::FloodLimited`].
#[inline(always)]
fn limit(packet: &Packet, port: *mut SecurityValue, flags: u16) -> Result<(), Reason> {
    let Some(destination) = packet.copy::<6>(0) else { return Ok(()) };
    let now = lease::now();
    if destination[0] & 1 == 0 {
        // What nobody keeps up to date says nothing of who is unknown.
        let judged = flags & SecurityFlags::UNKNOWN != 0 && lease::runs(now);
        if !judged || is_known(packet, port, flags, destination) {
            return Ok(());
        }
    }
    // SAFETY: a map value, valid until the program ends.
    let (full_at, interval, burst) =
        unsafe { (Shared::new(&raw mut (*port).full_at), (*port).interval, (*port).burst) };
    // What is still to be cut counts as what becomes of it, or one more.
    let segments = match packet.gso_size() {
        0 => 1,
        size => u64::from(packet.len() / size) + 1,
    };
    match bucket::take(full_at.get(), now, burst, interval * segments) {
        Take::Set(time) => full_at.set(time),
        Take::Add(cost) => full_at.add(cost),
        Take::Empty => return Err(Reason::FloodLimited),
    }
    Ok(())
}

/// Whether the bridge has a station in its FDB.
#[inline(always)]
fn is_known(packet: &Packet, port: *mut SecurityValue, flags: u16, mac: [u8; 6]) -> bool {
    // SAFETY: a map value, valid until the program ends.
    let (bridge, untagged) = unsafe { ((*port).bridge, (*port).vlan) };
    let tagged = flags & SecurityFlags::TAGGED != 0 && packet.has_vlan_tag();
    let vlan = match if tagged { vlan::id(packet.vlan_tag().1) } else { 0 } {
        // None, or a priority only.
        0 => untagged,
        vlan => vlan,
    };
    STATIONS.get_ptr(FdbKey { bridge, vlan, mac }).is_some()
}
