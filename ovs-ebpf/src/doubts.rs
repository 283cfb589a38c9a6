//! Stations that were heard elsewhere than the FDB has them. Where nothing tells the daemon of that, it takes
//! its time to learn what the bridge makes of it; until then the bridge decides.

use ovs_ebpf_common::{
    Reason,
    abi::{DOUBT, DoubtValue, FdbKey},
};

use crate::{fdb::Station, flows, lease::Now, maps::DOUBTS, origin::Origin};

/// Whether a station may be believed to be there.
///
/// # Errors
/// [`Reason::Doubted`].
#[inline(always)]
pub fn believe(key: &FdbKey, station: &Station, origin: &Origin, now: &Now) -> Result<(), Reason> {
    // The bridges that tell the daemon themselves raise no doubts.
    if origin.announces && is_doubted(key, station, now) {
        return Err(Reason::Doubted);
    }
    Ok(())
}

/// Doubts that a station is still there.
#[inline(always)]
pub fn raise(key: &FdbKey, station: &Station, now: &Now) {
    let was_believed = !is_doubted(key, station, now);
    let doubt = DoubtValue {
        until: now.0 + DOUBT,
        target: station.target,
        is_tunnel: u32::from(station.is_behind_tunnel()),
    };
    // Should there be no memory, the table is believed as before.
    let _ = DOUBTS.insert(key, doubt, 0);
    // While it is doubted, no flow to it or from it is kept.
    if was_believed {
        flows::forget();
    }
}

#[inline(always)]
fn is_doubted(key: &FdbKey, station: &Station, now: &Now) -> bool {
    let Some(doubt) = DOUBTS.get_ptr(key) else { return false };
    // SAFETY: a map value, valid until the program ends. A CPU that replaces it does so by another one.
    let doubt = unsafe { &*doubt };
    now.0 < doubt.until
        && doubt.target == station.target
        && (doubt.is_tunnel != 0) == station.is_behind_tunnel()
}
