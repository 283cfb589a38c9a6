//! What the kernel can do: run once by the loader on a frame of its own, attached to nothing.

use aya_ebpf::{macros::classifier, programs::TcContext};
use network_types::ip::Ipv4Hdr;

use crate::{decap, packet::Packet};

/// Takes an IPv4 header off in front of an IPv6 one, and tells the kernel so: 0, or 1 where it does
/// not understand.
#[classifier]
pub fn decap_probe(ctx: TcContext) -> i32 {
    let shrunk = Packet::new(&ctx).resize(-(Ipv4Hdr::LEN as i32), u64::from(decap::TO_IPV6));
    i32::from(shrunk.is_err())
}
