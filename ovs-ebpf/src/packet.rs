//! The packet: bounds-checked access to its bytes and its metadata. All pointer arithmetic on it
//! lives here.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_csum_level, bpf_get_hash_recalc, bpf_skb_adjust_room, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use network_types::eth::EthHdr;

/// A packet at TC ingress.
pub struct Packet {
    skb: *mut __sk_buff,
}

impl Packet {
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }

    #[inline(always)]
    fn skb(&self) -> &__sk_buff {
        // SAFETY: the program's context, valid as long as the program runs; the verifier checks each
        // field's access.
        unsafe { &*self.skb }
    }

    /// `N` bytes from `offset` on, if the packet's linear part has them.
    ///
    /// What this returns must not be used after [`Self::pull`], [`Self::resize`] or
    /// [`Self::store`]: the verifier refuses such a program.
    #[inline(always)]
    pub fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let (start, end) = (self.skb().data as usize, self.skb().data_end as usize);
        if start + offset + N > end {
            return None;
        }
        // SAFETY: within the packet by the comparison above, which the verifier checks; byte arrays
        // have no alignment and no invalid values.
        Some(unsafe { &*((start + offset) as *const [u8; N]) })
    }

    /// Makes the first `len` bytes linear, where the packet is that long and they are not yet.
    /// Changes no byte.
    #[inline(always)]
    pub fn pull(&self, len: usize) {
        let linear = (self.skb().data_end as usize).wrapping_sub(self.skb().data as usize);
        if linear < len && self.len() as usize >= len {
            // SAFETY: a helper on the program's own context. Where it fails, the next bounds check does.
            unsafe { bpf_skb_pull_data(self.skb, len as u32) };
        }
    }

    /// One byte anywhere in the packet.
    #[inline(always)]
    pub fn byte(&self, offset: usize) -> Option<u8> {
        let mut byte = 0u8;
        // SAFETY: a helper on the program's own context, writing one byte to the stack.
        let error = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), offset as u32, (&raw mut byte).cast(), 1)
        };
        (error == 0).then_some(byte)
    }

    /// Length in bytes, with the Ethernet header.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.skb().len
    }

    /// The device it arrived on.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        self.skb().ifindex
    }

    /// Whether it carries a VLAN tag in its metadata.
    #[inline(always)]
    pub fn has_vlan_tag(&self) -> bool {
        self.skb().vlan_present != 0
    }

    /// Whether it is addressed to the device (`PACKET_HOST`).
    #[inline(always)]
    pub fn is_for_host(&self) -> bool {
        self.skb().pkt_type == 0
    }

    /// Payload bytes of each segment that it will be cut into; 0 where it will not.
    #[inline(always)]
    pub fn gso_size(&self) -> u32 {
        self.skb().gso_size
    }

    /// Hash of the innermost flow, as the kernel uses it to pick UDP source ports.
    #[inline(always)]
    pub fn flow_hash(&self) -> u32 {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_get_hash_recalc(self.skb) as u32 }
    }

    /// Grows (or with a negative `by` shrinks) the packet behind its Ethernet header.
    /// `bpf_skb_adjust_room` checks before it changes anything: on an error the packet is as it was.
    #[inline(always)]
    pub fn resize(&self, by: i32, flags: u64) -> Result<(), ()> {
        const MODE_MAC: u32 = aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
        // SAFETY: a helper on the program's own context.
        match unsafe { bpf_skb_adjust_room(self.skb, by, MODE_MAC, flags) } {
            0 => Ok(()),
            _ => Err(()),
        }
    }

    /// Writes the first `len` bytes of `bytes` to the packet's beginning.
    #[inline(always)]
    pub fn store<const N: usize>(&self, bytes: &[u8; N], len: usize) -> Result<(), ()> {
        debug_assert!(len <= N);
        // SAFETY: a helper on the program's own context, reading `len` ≤ `N` bytes from the stack.
        match unsafe { bpf_skb_store_bytes(self.skb, 0, bytes.as_ptr().cast(), len as u32, 0) } {
            0 => Ok(()),
            _ => Err(()),
        }
    }

    /// Adjusts how many checksums count as verified, by one of `BPF_CSUM_LEVEL_*`. Does nothing
    /// where the device verified none.
    #[inline(always)]
    pub fn csum_level(&self, level: u32) {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_csum_level(self.skb, u64::from(level)) };
    }
}

/// An Ethernet header as bytes.
pub type Ethernet = [u8; EthHdr::LEN];
