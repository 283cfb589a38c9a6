//! Open vSwitch's bridges.

pub mod db;
pub mod jsonrpc;
pub mod value;
