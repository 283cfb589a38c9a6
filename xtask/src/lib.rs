//! Set-up, builds, demo, tests and lints of ovs-ebpf.
//!
//! Without its default feature `cli` this library is [`ebpf`] alone: the build script of
//! `ovs-loader` uses it, so there is one way to build the BPF object.

#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod build;
#[cfg(feature = "cli")]
mod daemons;
#[cfg(feature = "cli")]
pub mod demo;
#[cfg(feature = "cli")]
pub mod docker_plugin;
pub mod ebpf;
#[cfg(feature = "cli")]
pub mod fuzz;
#[cfg(feature = "cli")]
pub mod lint;
#[cfg(feature = "cli")]
pub mod progress;
#[cfg(feature = "cli")]
pub mod setup;
#[cfg(feature = "cli")]
pub mod sudo;
#[cfg(feature = "cli")]
pub mod test;
#[cfg(feature = "cli")]
mod vm;
