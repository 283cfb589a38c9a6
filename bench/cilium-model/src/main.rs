//! For the benchmark: how Cilium's overlay carries a packet, without all that it does besides. The
//! kernel's vxlan device encapsulates, with metadata that a program sets (`collect_md`); what comes out of
//! it goes straight into the container. There is one remote host and one container: no look-ups.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![allow(unreachable_pub, reason = "a program object has no users in Rust")]

mod programs;

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
