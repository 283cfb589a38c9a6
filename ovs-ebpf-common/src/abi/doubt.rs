/// Capacity of the `doubts` map. The oldest go first.
pub const DOUBT_CAPACITY: usize = 4096;

/// For how long a station is not believed to be where it was, after a frame of it that came from elsewhere,
/// in nanoseconds: longer than it may take to learn what the bridge has made of the frame, also from an
/// ovs-vswitchd that is slow to answer.
pub const DOUBT: u64 = 10_000_000_000;

/// Value of `doubts`, whose key is that of `fdb`: a station that was heard elsewhere than here.
///
/// An entry of `fdb` that says something else is not in doubt. Only the programs write these.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoubtValue {
    /// Until when, in nanoseconds of `CLOCK_MONOTONIC`.
    pub until: u64,
    /// As [`super::FdbValue::target`].
    pub target: u32,
    /// 1 if that is a tunnel's id, 0 if it is an ifindex.
    pub is_tunnel: u32,
}

const _: () = assert!(size_of::<DoubtValue>() == 16);
super::pod!(DoubtValue);
