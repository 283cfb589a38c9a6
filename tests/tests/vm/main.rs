//! Two hosts with Open vSwitch's kernel datapath or gretap, which not every machine has: `cargo xtask
//! test --vm` runs these in a virtual machine. Needs root.
//!
//! The machine is emulated, so a test is a lab with many facts; a failure names the fact.

mod docker;
mod ecn;
mod flat;
mod gate;
mod gretap;
mod interop;
mod moves;
mod network;
mod options;
mod over_ipv6;
mod ports;
mod resilience;
mod security;
mod stations;
mod support;
mod vlan;
mod vni;
mod wire;
