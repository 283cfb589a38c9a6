//! The filter on an uplink, before a frame is an skb: XDP. Opt-in (`accelerate.xdp`).

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use ovs_ebpf_common::{
    Reason,
    abi::{Program, SourceCounters, UplinkValue},
    wire::{
        frame::ETHER_TYPE,
        guard::{self, START_LEN, START_LEN_IPV6, Suspect},
    },
};

use crate::{
    counters,
    frame::Frame,
    lease,
    maps::{GUARDS, SOURCES, UPLINKS},
};

/// Discards tunnel packets that nobody on this host wants, and lets everything else pass.
#[xdp(frags)]
pub fn uplink_xdp(ctx: XdpContext) -> u32 {
    match judge(&Frame::new(&ctx)) {
        Some((reason, source)) => {
            counters::count(Program::UplinkXdp, reason);
            note(reason, &source);
            XDP_DROP
        }
        None => XDP_PASS,
    }
}

/// Why a frame is discarded, and its source; `None` of those that pass.
#[inline(always)]
fn judge(frame: &Frame) -> Option<(Reason, [u8; 16])> {
    match frame.bytes(ETHER_TYPE)? {
        guard::IPV4 => judge_ip::<false, START_LEN>(frame),
        guard::IPV6 => judge_ip::<true, START_LEN_IPV6>(frame),
        _ => None,
    }
}

/// [`judge`] of one version of IP, whose frames begin with `LEN` bytes to look at.
#[inline(always)]
fn judge_ip<const IPV6: bool, const LEN: usize>(frame: &Frame) -> Option<(Reason, [u8; 16])> {
    let start = frame.bytes::<LEN>(0)?;
    // Cheap first: most of what a host receives goes no further.
    let suspect = guard::suspect::<IPV6>(&start)?;
    GUARDS.get_ptr(suspect.endpoint)?;
    let UplinkValue { mac, .. } = read(UPLINKS.get_ptr(frame.ifindex())?);
    if start[..6] != mac || lease::check(lease::control().ok()?).is_err() {
        return None;
    }
    match wanted::<IPV6>(frame, &start, &suspect) {
        Ok(()) => None,
        Err(reason) => Some((reason, suspect.source)),
    }
}

/// Whether a packet to a guarded endpoint is one of its tunnels'.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::UnknownRemote`], [`Reason::WrongKey`].
#[inline(always)]
fn wanted<const IPV6: bool>(frame: &Frame, start: &[u8], suspect: &Suspect) -> Result<(), Reason> {
    suspect.check::<IPV6>(start, frame.len())?;
    // In another of the frame's buffers: the kernel finds it.
    let Some(key) = key::<IPV6>(frame, suspect) else { return Ok(()) };
    if GUARDS.get_ptr(suspect.way(key?)).is_some() {
        return Ok(());
    }
    Err(match GUARDS.get_ptr(suspect.remote()) {
        Some(_) => Reason::WrongKey,
        None => Reason::UnknownRemote,
    })
}

/// The packet's key; `None` where it can't be read.
#[inline(always)]
fn key<const IPV6: bool>(frame: &Frame, suspect: &Suspect) -> Option<Result<[u8; 4], Reason>> {
    // Constant offsets: the verifier tracks no others.
    Some(if suspect.is_vxlan() {
        suspect.vni(frame.bytes(guard::vxlan_at(IPV6))?)
    } else if !suspect.has_key {
        Ok([0; 4])
    } else if suspect.has_checksum {
        Ok(frame.bytes(guard::gre_key_at(IPV6, true))?)
    } else {
        Ok(frame.bytes(guard::gre_key_at(IPV6, false))?)
    })
}

/// Counts a discarded packet for its source.
#[inline(always)]
fn note(reason: Reason, source: &[u8; 16]) {
    let counters = match SOURCES.get_ptr_mut(source) {
        Some(counters) => counters,
        None => {
            let _ = SOURCES.insert(source, SourceCounters::default(), 0);
            let Some(counters) = SOURCES.get_ptr_mut(source) else { return };
            counters
        }
    };
    // SAFETY: a map value, valid until the program ends. CPUs may meet: then a packet is missing from
    // its source's count, not from its reason's.
    let counters = unsafe { &mut *counters };
    match reason {
        Reason::WrongKey => counters.wrong_key += 1,
        Reason::Malformed => counters.malformed += 1,
        _ => counters.unknown_remote += 1,
    }
}

#[inline(always)]
fn read(value: *const UplinkValue) -> UplinkValue {
    // SAFETY: a map value, valid until the program ends.
    unsafe { *value }
}
