//! A frame before it is an skb: bounds-checked access to its bytes. All pointer arithmetic on it lives
//! here.

use aya_ebpf::{
    EbpfContext as _, bindings::xdp_md, helpers::generated::bpf_xdp_get_buff_len,
    programs::XdpContext,
};

/// A frame at XDP.
pub struct Frame {
    context: *mut xdp_md,
    data: usize,
    data_end: usize,
}

impl Frame {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { context: ctx.as_ptr().cast(), data: ctx.data(), data_end: ctx.data_end() }
    }

    /// `N` bytes from `offset` on, if the first of the frame's buffers has them; both even.
    #[inline(always)]
    pub fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N.is_multiple_of(2)) };
        if self.data + offset + N > self.data_end {
            return None;
        }
        let words = (self.data + offset) as *const u16;
        let mut bytes = [0; N];
        for (at, pair) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // SAFETY: within the frame by the comparison above, which the verifier checks. Drivers
            // place frames at even addresses (XDP_PACKET_HEADROOM, NET_IP_ALIGN).
            *pair = unsafe { words.add(at).read_unaligned() }.to_ne_bytes();
        }
        Some(bytes)
    }

    /// Length of all its buffers in bytes, with the Ethernet header.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_xdp_get_buff_len(self.context) as u32 }
    }

    /// The device it arrived on.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: a field of the program's context, valid as long as the program runs.
        unsafe { (&raw const (*self.context).ingress_ifindex).read_volatile() }
    }
}
