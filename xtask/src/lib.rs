//! Set-up, builds, demo, tests and lints of ovs-ebpf.
//!
//! Without its default feature `cli` this library is [`ebpf`] alone: the build script of
//! `ovs-loader` uses it, so there is one way to build the BPF object.

pub mod ebpf;

#[cfg(feature = "cli")]
pub mod build;
