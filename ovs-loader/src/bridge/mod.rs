//! The truth: the host's bridges, read live from whoever forwards for them, and changed where the
//! operator asks for it.

pub mod by_station;
pub mod host;
pub mod linux;
pub mod model;
pub(crate) mod netlink;
pub mod ovs;
pub mod provision;
pub mod vlans;
