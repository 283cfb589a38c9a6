//! The headers on the wire: VXLAN and GRE over IPv4 and IPv6, what is accepted of them and how they are
//! written.
//!
//! Header layouts come from `network_types`; here is what it lacks. Everything is pure and works on
//! headers already bounds-checked, so that the kernel programs and the tests run the same code.

pub mod ecn;
pub mod frame;
pub mod gre;
pub mod guard;
pub mod ipv4;
pub mod ipv6;
pub mod outer;
pub mod sender;
pub mod vlan;
pub mod vxlan;
