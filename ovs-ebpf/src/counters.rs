//! What each packet counts under, and how a verdict leaves the program.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, programs::TcContext};
use ovs_ebpf_common::{
    PACKET_REASONS, Reason,
    abi::{Program, TunnelCounters},
};

use crate::maps::{COUNTERS, TUNNEL_COUNTERS};

/// What becomes of a packet: the TC action of a forwarded one, or why it is left to the bridge.
pub type Verdict = Result<i32, Reason>;

/// Counts the verdict on a packet of `len` bytes and gives the TC action for it.
#[inline(always)]
#[must_use]
pub fn conclude(ctx: &TcContext, program: Program, len: u32, verdict: Verdict) -> i32 {
    #[cfg(feature = "log")]
    log(ctx, program, len, verdict);
    #[cfg(not(feature = "log"))]
    let _ = ctx;
    match verdict {
        Ok(action) => {
            if let Some(counters) = COUNTERS.get_ptr_mut(program as u32) {
                // SAFETY: this CPU's own element, and programs are not preempted by each other on it.
                let counters = unsafe { &mut *counters };
                counters.packets += 1;
                counters.bytes += u64::from(len);
            }
            action
        }
        Err(reason) => {
            count(program, reason);
            TC_ACT_UNSPEC
        }
    }
}

/// Counts a packet that is not forwarded.
#[inline(always)]
pub fn count(program: Program, reason: Reason) {
    if let Some(counters) = COUNTERS.get_ptr_mut(program as u32) {
        // SAFETY: as above; the mask keeps the index within the array.
        unsafe { (*counters).reasons[reason as usize & (PACKET_REASONS - 1)] += 1 };
    }
}

/// This CPU's counters of a tunnel.
#[inline(always)]
pub fn of_tunnel(id: u32) -> Option<&'static mut TunnelCounters> {
    // SAFETY: this CPU's own element, as above.
    TUNNEL_COUNTERS.get_ptr_mut(id).map(|counters| unsafe { &mut *counters })
}

#[cfg(feature = "log")]
#[inline(always)]
fn log(ctx: &TcContext, program: Program, len: u32, verdict: Verdict) {
    // Codes, not names: a look-up of names would be a table in the program.
    match verdict {
        Ok(_) => aya_log_ebpf::debug!(ctx, "program {}: {} bytes forwarded", program as u32, len),
        Err(reason) => aya_log_ebpf::debug!(
            ctx,
            "program {}: {} bytes left to the bridge, reason {}",
            program as u32,
            len,
            reason as u8
        ),
    }
}
