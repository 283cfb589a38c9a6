//! Open vSwitch's bridges.

pub mod openflow;
