//! Two hosts with Open vSwitch and its kernel datapath, which few machines have: `cargo xtask test
//! --vm` runs these in a virtual machine. Needs root.

mod plain;
