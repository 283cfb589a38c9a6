//! The two programs.

use aya_ebpf::{
    bindings::{BPF_F_ZERO_CSUM_TX, TC_ACT_SHOT, bpf_tunnel_key},
    helpers::generated::{
        bpf_redirect, bpf_redirect_peer, bpf_skb_change_type, bpf_skb_get_tunnel_key,
        bpf_skb_set_tunnel_key,
    },
    macros::classifier,
    programs::TcContext,
};

/// The VNI.
const KEY: u32 = 42;
const TTL: u8 = 64;
/// Kinds of a packet: linux/if_packet.h.
const PACKET_HOST: u32 = 0;
/// See [`PACKET_HOST`].
const PACKET_OTHERHOST: u32 = 3;
/// Bytes of `bpf_tunnel_key` up to `remote_ipv4`, which older kernels know too.
const KEY_LEN: u32 = size_of::<bpf_tunnel_key>() as u32;

/// Of the remote host, in host byte order.
#[unsafe(no_mangle)]
static REMOTE: u32 = 0;
/// Interface index of the vxlan device.
#[unsafe(no_mangle)]
static OVERLAY: u32 = 0;
/// Interface index of the container's host-side veth.
#[unsafe(no_mangle)]
static PORT: u32 = 0;

/// Container to remote: TC ingress of the container's host-side veth.
#[classifier]
pub fn from_container(ctx: TcContext) -> i32 {
    // SAFETY: all zeros is a value of this C structure.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = KEY;
    key.tunnel_ttl = TTL;
    key.__bindgen_anon_1.remote_ipv4 = setting(&REMOTE);
    // SAFETY: the context is the program's own, and the key is as long as is said.
    let set = unsafe {
        bpf_skb_set_tunnel_key(ctx.skb.skb, &raw mut key, KEY_LEN, u64::from(BPF_F_ZERO_CSUM_TX))
    };
    if set != 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: it only notes the device.
    unsafe { bpf_redirect(setting(&OVERLAY), 0) as i32 }
}

/// Remote to container: TC ingress of the vxlan device.
#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    // SAFETY: all zeros is a value of this C structure.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    // SAFETY: the context is the program's own, and the key is as long as is said.
    let got = unsafe { bpf_skb_get_tunnel_key(ctx.skb.skb, &raw mut key, KEY_LEN, 0) };
    if got != 0 || key.tunnel_id != KEY {
        return TC_ACT_SHOT;
    }
    // SAFETY: the context is the program's own.
    if unsafe { (*ctx.skb.skb).pkt_type } == PACKET_OTHERHOST {
        // It is for the container, not for the vxlan device. SAFETY: as above.
        unsafe { bpf_skb_change_type(ctx.skb.skb, PACKET_HOST) };
    }
    // SAFETY: it only notes the device.
    unsafe { bpf_redirect_peer(setting(&PORT), 0) as i32 }
}

/// A constant that the loader sets.
fn setting(constant: &'static u32) -> u32 {
    // SAFETY: a static of the program's; volatile, for the loader changes it.
    unsafe { core::ptr::read_volatile(constant) }
}
