//! What the kernel programs and the loader share: wire formats, BPF map types, reasons.
//!
//! `no_std`, without allocation, and pure: the same functions run in the kernel, in the loader and
//! under `cargo test`.

#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod bucket;
mod reason;
pub mod wire;

pub use reason::{PACKET_REASONS, Reason};
