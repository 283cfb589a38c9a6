//! The kernel programs: a fast path beside a bridge. A packet's whole way is in [`programs`].

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
// For `shared.rs`: the target has no atomic operations of the library's own.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![allow(unreachable_pub, reason = "a program object has no users in Rust")]

mod counters;
mod decap;
mod doubts;
mod encap;
mod events;
mod fdb;
mod flows;
mod frame;
mod lease;
mod maps;
mod origin;
mod packet;
mod programs;
mod shared;

/// The verifier proves that no panic is reachable; the linker needs the symbol all the same.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// GPL-compatible, as the redirect helpers require.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

// Lets `cargo clippy --workspace` see this crate without a BPF toolchain.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
