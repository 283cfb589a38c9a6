//! May the programs forward at all?

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use ovs_ebpf_common::{Reason, abi::Control};

use crate::maps::CONTROL;

/// The time, in nanoseconds of `CLOCK_MONOTONIC`, a tick (1 to 10 ms) exact.
pub struct Now(pub u64);

/// The lease, which UDP ports are VXLAN's, and the generation of the tables.
///
/// # Errors
/// Never, but the verifier can't know.
#[inline(always)]
pub fn control() -> Result<&'static Control, Reason> {
    CONTROL.get(0).ok_or(Reason::LeaseExpired)
}

/// The time, if the daemon's lease runs.
///
/// # Errors
/// [`Reason::LeaseExpired`].
#[inline(always)]
pub fn check(control: &Control) -> Result<Now, Reason> {
    let now = now();
    if now >= control.lease_deadline {
        return Err(Reason::LeaseExpired);
    }
    Ok(Now(now))
}

/// The time, in nanoseconds of `CLOCK_MONOTONIC`, a tick exact, whatever the lease says.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Whether the daemon's lease runs.
#[inline(always)]
pub fn runs(now: u64) -> bool {
    CONTROL.get(0).is_some_and(|control| now < control.lease_deadline)
}
