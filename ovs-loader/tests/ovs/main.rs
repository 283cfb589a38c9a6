//! The Open vSwitch backend against a real ovsdb-server, and an ovs-vswitchd with its dummy datapath,
//! which needs neither a kernel module nor privileges.

mod database;
mod switch;
