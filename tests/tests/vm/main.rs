//! Two hosts with Open vSwitch's kernel datapath or gretap, which not every machine has: `cargo xtask test
//! --vm` runs these in a virtual machine. Needs root.

mod docker;
mod gretap;
mod plain;
