//! The Open vSwitch backend against a real ovsdb-server, and an ovs-vswitchd with its dummy datapath,
//! which needs no kernel module. The devices that its ports stand for are real ones, in a network
//! namespace of each test's own.

mod bridges;
mod cost;
mod database;
mod gate;
mod lab;
mod life;
mod switch;
