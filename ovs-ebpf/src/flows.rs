//! A cache in front of the tables: where each flow goes, as they last said on this CPU.
//!
//! An element is good as long as nothing in the tables has changed since, which [`Control::generation`]
//! tells, and the source's next re-validation is not due.

use ovs_ebpf_common::abi::{Control, FLOW_CAPACITY, Flow, FlowKey};

use crate::{
    fdb::Station,
    lease::Now,
    maps::{CONTROL, FLOWS},
};

/// For how long an element is good at most, in nanoseconds. A processor with weakly ordered memory might
/// look at a table before the generation; what it then keeps for too long, it keeps no longer than this.
const MAX_AGE: u64 = 1_000_000_000;

/// Whether there is a cache: the loader's finding, a constant to the verifier. With PREEMPT_RT programs on one CPU
/// may preempt each other, from Linux 6.18 on (PREEMPT_RT_NEEDS_BH_LOCK), and one's element be another's halfway.
#[unsafe(no_mangle)]
static FLOW_CACHE: u8 = 1;

/// The generation that no element has.
const FORGOTTEN: u64 = 0;

/// Where the frames of a flow go.
#[derive(Clone, Copy)]
pub struct Route {
    /// The receiving station.
    pub station: Station,
    /// Control information of the VLAN tag that they leave with, 0 is none.
    pub tag: u16,
    /// The tunnel that they came by, 0 from a port.
    pub tunnel: u32,
}

/// What the cache says of a flow.
pub enum Found {
    /// Where it goes.
    Hit(Route),
    /// Nothing: it is to be looked up, and may then be [kept](Miss::keep).
    Miss(Miss),
}

/// A flow that is not in the cache.
pub struct Miss {
    element: Option<*mut Flow>,
    generation: u64,
}

/// Looks for a flow.
#[inline(always)]
pub fn find(key: &FlowKey, control: &Control, now: &Now) -> Found {
    let words = words(key);
    // SAFETY: a static of the program's; volatile, for the loader sets it.
    let is_on = unsafe { (&raw const FLOW_CACHE).read_volatile() } != 0;
    let element = if is_on { FLOWS.get_ptr_mut(slot(&words)) } else { None };
    if let Some(flow) = element {
        // SAFETY: this CPU's own element, and programs are not preempted by each other on it (`FLOW_CACHE`).
        let flow = unsafe { &*flow };
        let is_good = flow.generation == control.generation && now.0 < flow.expires;
        let [w0, w1, w2, w3, w4] = self::words(&flow.key);
        // One by one: as arrays, the compiler would compare them byte by byte in a loop.
        if is_good
            && w0 == words[0]
            && w1 == words[1]
            && w2 == words[2]
            && w3 == words[3]
            && w4 == words[4]
        {
            let &Flow { target, flags, mtu, tag, tunnel, .. } = flow;
            return Found::Hit(Route { station: Station { target, flags, mtu }, tag, tunnel });
        }
    }
    // What changes in the tables from here on changes this number once more.
    // SAFETY: a field of a map value; volatile, for the daemon may write it at any time.
    let generation = unsafe { (&raw const control.generation).read_volatile() };
    Found::Miss(Miss { element, generation })
}

impl Miss {
    /// Keeps what was looked up after the miss. It is good until then, in nanoseconds of
    /// `CLOCK_MONOTONIC`, or as long as elements are.
    #[inline(always)]
    pub fn keep(self, key: &FlowKey, route: &Route, good_until: u64, now: &Now) {
        let Self { element: Some(element), generation } = self else { return };
        if generation == FORGOTTEN {
            return;
        }
        let &Route { station: Station { target, flags, mtu }, tag, tunnel } = route;
        let expires = good_until.min(now.0 + MAX_AGE);
        // SAFETY: as in `find`.
        unsafe {
            *element = Flow { key: *key, generation, expires, target, mtu, flags, tag, tunnel }
        };
    }
}

/// Has all flows looked up again from here on, on every CPU.
#[inline(always)]
pub fn forget() {
    if let Some(control) = CONTROL.get_ptr_mut(0) {
        // SAFETY: a field of a map value, written at once. The daemon's number may come just after it:
        // that is a new one as well.
        unsafe { (&raw mut (*control).generation).write_volatile(FORGOTTEN) };
    }
}

#[inline(always)]
fn words(key: &FlowKey) -> [u64; 5] {
    // SAFETY: five aligned words of bytes without padding (size asserted).
    unsafe { *(&raw const *key).cast() }
}

/// The element of a flow: the highest bits of a product depend on all bits of the factors (Fibonacci
/// hashing). Flows of the same stations that arrive on one device share one.
#[inline(always)]
fn slot(&[low, high, ..]: &[u64; 5]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let hash = (low ^ high.rotate_left(29)).wrapping_mul(ODD);
    (hash >> (64 - FLOW_CAPACITY.ilog2())) as u32
}
