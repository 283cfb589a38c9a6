//! A token bucket in one number: the time at which it is full again.
//!
//! Each packet moves that time on by what it costs; a packet passes as long as the time is not further
//! ahead than what the bucket holds. One number is one word of memory, which CPUs can share without a
//! lock: they add to it, so that no cost is lost while the bucket is in use. Two things they may do at
//! once: find it not empty yet (each CPU then lets one packet pass too many, which is paid for
//! afterwards), and find it full (then the cost of one packet per CPU may be lost, each time that the
//! traffic has been below its limit for as long as the bucket takes to fill).

/// How a packet changes the time at which the bucket is full again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It was full: the time is this now.
    Set(u64),
    /// It was not: the time moves on by so much.
    Add(u64),
    /// It is empty: the packet does not pass.
    Empty,
}

/// What a packet that costs `cost` does at `now` to a bucket of `burst`. All in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn take(full_at: u64, now: u64, burst: u64, cost: u64) -> Take {
    if full_at <= now {
        Take::Set(now + cost)
    } else if full_at - now <= burst {
        Take::Add(cost)
    } else {
        Take::Empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of the packets that arrive every `every` nanoseconds for a second pass, by a clock
    /// that ticks every `tick`.
    fn passing(full_at: &mut u64, from: u64, every: u64, tick: u64, interval: u64) -> u64 {
        let burst = SECOND / 10;
        let mut passed = 0;
        for at in (from..from + SECOND).step_by(every as usize) {
            match take(*full_at, at / tick * tick, burst, interval) {
                Take::Set(time) => *full_at = time,
                Take::Add(cost) => *full_at += cost,
                Take::Empty => continue,
            }
            passed += 1;
        }
        passed
    }

    #[test]
    fn a_flood_passes_at_its_rate_and_the_bucket_once() {
        for (tick, rate) in [(1, 1000), (1_000_000, 1000), (10_000_000, 100), (10_000_000, 50_000)]
        {
            let (mut full_at, interval) = (0, SECOND / rate);
            let first = passing(&mut full_at, SECOND, SECOND / (7 * rate), tick, interval);
            let second = passing(&mut full_at, 2 * SECOND, SECOND / (7 * rate), tick, interval);
            // A tenth of a second's worth at once, and what a tick is worth.
            let slack = 1 + rate * tick / SECOND;
            assert!(first.abs_diff(rate + rate / 10) <= slack, "{first} of {rate} every {tick}");
            assert!(second.abs_diff(rate) <= slack, "{second} of {rate} every {tick}");
        }
    }

    #[test]
    fn what_is_below_the_rate_passes_whole() {
        let (mut full_at, interval) = (0, SECOND / 1000);
        for second in 1..5 {
            assert_eq!(passing(&mut full_at, second * SECOND, SECOND / 999, 1, interval), 999 + 1);
        }
    }

    #[test]
    fn an_expensive_packet_is_paid_for_afterwards() {
        assert_eq!(take(0, 5, 10, 1000), Take::Set(1005));
        assert_eq!(take(1005, 994, 10, 1), Take::Empty);
        assert_eq!(take(1005, 995, 10, 1), Take::Add(1));
    }
}
