//! Open vSwitch's bridges.

pub mod db;
pub mod jsonrpc;
pub mod openflow;
pub mod value;
