//! A cache in front of the FDB: where each flow goes, as the FDB last said on this CPU.
//!
//! An element is good as long as nothing in the FDB has changed since, which [`Control::generation`]
//! tells, and the source's next re-validation is not due.

use ovs_ebpf_common::{
    Reason,
    abi::{Control, FLOW_CAPACITY, Flow, FlowKey},
};

use crate::{
    events::Origin,
    fdb::{self, Station},
    lease::Now,
    maps::FLOWS,
    packet::Ethernet,
};

/// For how long an element is good at most, in nanoseconds. A processor with weakly ordered memory might
/// look at the FDB before the generation; what it then keeps for too long, it keeps no longer than this.
const MAX_AGE: u64 = 1_000_000_000;

/// Where a frame that came from `origin` goes, if both stations are where the FDB has them.
///
/// # Errors
/// Those of [`fdb::source`] and [`fdb::destination`].
#[inline(always)]
pub fn destination(
    ethernet: &Ethernet,
    origin: &Origin,
    control: &Control,
    now: &Now,
) -> Result<Station, Reason> {
    let key = origin.flow(ethernet);
    let words = words(&key);
    let cached = FLOWS.get_ptr_mut(slot(&words));
    if let Some(flow) = cached {
        // SAFETY: this CPU's own element, and programs are not preempted by each other on it.
        let flow = unsafe { &*flow };
        let is_good = flow.generation == control.generation && now.0 < flow.expires;
        let [w0, w1, w2] = self::words(&flow.key);
        // One by one: as arrays, the compiler would compare them byte by byte in a loop.
        if is_good && w0 == words[0] && w1 == words[1] && w2 == words[2] {
            return Ok(Station { target: flow.target, flags: flow.flags as u16, mtu: flow.mtu });
        }
    }
    // What changes in the FDB from here on changes this number once more.
    // SAFETY: a field of a map value; volatile, for the daemon may write it at any time.
    let generation = unsafe { (&raw const control.generation).read_volatile() };
    let (source, next_revalidation) = fdb::source(&key.source, origin, now)?;
    let station = fdb::destination(&origin.station(key.destination), &source)?;
    let expires = next_revalidation.min(now.0 + MAX_AGE);
    if let Some(flow) = cached {
        let Station { target, flags, mtu } = station;
        let flags = u32::from(flags);
        // SAFETY: as above.
        unsafe { *flow = Flow { key, generation, expires, target, mtu, flags, reserved: 0 } };
    }
    Ok(station)
}

#[inline(always)]
fn words(key: &FlowKey) -> [u64; 3] {
    let words = (&raw const *key).cast::<u64>();
    // SAFETY: three aligned words of bytes without padding (size asserted).
    unsafe { [*words, *words.add(1), *words.add(2)] }
}

/// The element of a flow: the highest bits of a product depend on all bits of the factors (Fibonacci
/// hashing). Flows of the same stations and VLAN share one.
#[inline(always)]
fn slot(&[_, low, high]: &[u64; 3]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let hash = (low ^ high.rotate_left(29)).wrapping_mul(ODD);
    (hash >> (64 - FLOW_CAPACITY.ilog2())) as u32
}
