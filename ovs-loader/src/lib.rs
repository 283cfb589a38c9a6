//! Mirrors the host's bridges into BPF maps, so that the kernel programs of `ovs-ebpf` can
//! short-cut the packets they know.
//!
//! Data flows one way: [`bridge`] (the truth), with what [`underlay`] and [`rules`] say of the host,
//! to [`mirror`] (the plan) to [`datapath`] (the maps).

pub mod api;
mod bpf;
pub mod bridge;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod docker;
pub mod mirror;
pub mod plugin;
pub mod rules;
pub mod state;
pub mod underlay;
