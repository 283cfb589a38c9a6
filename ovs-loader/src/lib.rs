//! Mirrors the host's bridges into BPF maps, so that the kernel programs of `ovs-ebpf` can
//! short-cut the packets they know.
//!
//! Data flows one way: [`bridge`] (the truth) to the mirror (the plan) to the datapath (the maps).

pub mod api;
pub mod bridge;
pub mod cli;
pub mod config;
