//! The packet: bounds-checked access to its bytes and its metadata. All pointer arithmetic on it
//! lives here.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1},
    helpers::generated::{
        bpf_csum_level, bpf_get_hash_recalc, bpf_redirect_neigh, bpf_skb_adjust_room,
        bpf_skb_change_proto, bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_pull_data,
        bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};
use ovs_ebpf_common::wire::{frame::Head, vlan};

/// `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

/// By how much an IPv6 header is longer than an IPv4 one, in bytes.
pub const IPV6_GROWTH: i32 = (Ipv6Hdr::LEN - Ipv4Hdr::LEN) as i32;

/// A packet at TC ingress.
pub struct Packet {
    skb: *mut __sk_buff,
}

/// One field of the packet's context, read anew each time: helpers change the context.
macro_rules! field {
    ($packet:ident.$name:ident) => {
        // SAFETY: the program's context, valid as long as the program runs; the verifier checks each
        // field's access.
        unsafe { (&raw const (*$packet.skb).$name).read_volatile() }
    };
}

impl Packet {
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }

    /// `N` bytes from `offset` on, if the packet's linear part has them; both even.
    ///
    /// Copied by 16-bit words, of which the compiler keeps those that are used: the widest that BPF's
    /// alignment rules allow behind a 14-byte Ethernet header.
    #[inline(always)]
    pub fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N.is_multiple_of(2)) };
        let (start, end) = (field!(self.data) as usize, field!(self.data_end) as usize);
        if start + offset + N > end {
            return None;
        }
        let words = (start + offset) as *const u16;
        let mut bytes = [0; N];
        for (at, pair) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // SAFETY: within the packet by the comparison above, which the verifier checks.
            // `skb->data` is even: the kernel aligns it (NET_SKB_PAD, NET_IP_ALIGN).
            *pair = unsafe { words.add(at).read() }.to_ne_bytes();
        }
        Some(bytes)
    }

    /// The first `N` bytes, made linear if they are not yet; `N` is even.
    #[inline(always)]
    pub fn first<const N: usize>(&self) -> Option<[u8; N]> {
        self.bytes(0).or_else(|| {
            self.pull(N);
            self.bytes(0)
        })
    }

    /// Makes the first `len` bytes linear, where the packet is that long and they are not yet.
    /// Changes no byte.
    #[inline(always)]
    pub fn pull(&self, len: usize) {
        let linear = (field!(self.data_end) as usize).wrapping_sub(field!(self.data) as usize);
        if linear < len && self.len() as usize >= len {
            // SAFETY: a helper on the program's own context. Where it fails, the next bounds check does.
            unsafe { bpf_skb_pull_data(self.skb, len as u32) };
        }
    }

    /// `N` bytes anywhere in the packet, which may have them in pieces.
    #[inline(always)]
    pub fn copy<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0u8; N];
        // SAFETY: a helper on the program's own context, writing so many bytes to the stack.
        let error = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast(),
                offset as u32,
                (&raw mut bytes).cast(),
                const { N as u32 },
            )
        };
        (error == 0).then_some(bytes)
    }

    /// Length in bytes, with the Ethernet header.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        field!(self.len)
    }

    /// The device it arrived on.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        field!(self.ifindex)
    }

    /// Whether it carries a VLAN tag in its metadata.
    #[inline(always)]
    pub fn has_vlan_tag(&self) -> bool {
        field!(self.vlan_present) != 0
    }

    /// The protocol identifier and the control information of that tag, in host byte order.
    #[inline(always)]
    pub fn vlan_tag(&self) -> (u16, u16) {
        (u16::from_be(field!(self.vlan_proto) as u16), field!(self.vlan_tci) as u16)
    }

    /// Changes the tag in its metadata. Touches no byte of the frame.
    #[inline(always)]
    pub fn retag(&self, tags: Tags) -> Result<(), ()> {
        if tags.from == tags.to {
            return Ok(());
        }
        // SAFETY: helpers on the program's own context.
        let error = unsafe {
            if tags.to == 0 {
                bpf_skb_vlan_pop(self.skb)
            } else {
                bpf_skb_vlan_push(self.skb, vlan::TPID.to_be(), tags.to)
            }
        };
        if error == 0 { Ok(()) } else { Err(()) }
    }

    /// Whether it is addressed to the device (`PACKET_HOST`).
    #[inline(always)]
    pub fn is_for_host(&self) -> bool {
        field!(self.pkt_type) == PACKET_HOST
    }

    /// Makes it one that is addressed to the device, if it is not.
    #[inline(always)]
    pub fn set_for_host(&self) {
        if !self.is_for_host() {
            // SAFETY: a helper on the program's own context, which can't fail for this type.
            unsafe { bpf_skb_change_type(self.skb, PACKET_HOST) };
        }
    }

    /// Forgets the mark, which means something in this network namespace only.
    #[inline(always)]
    pub fn clear_mark(&self) {
        if field!(self.mark) != 0 {
            // SAFETY: a field of the program's context that it may write.
            unsafe { (&raw mut (*self.skb).mark).write_volatile(0) };
        }
    }

    /// Payload bytes of each segment that it will be cut into; 0 where it will not.
    #[inline(always)]
    pub fn gso_size(&self) -> u32 {
        field!(self.gso_size)
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

    /// Makes an IPv4 packet an IPv6 one, for what the kernel knows of it beside its bytes: nothing is
    /// translated. `flags` are [`Self::resize`]'s.
    ///
    /// Only after that has shrunk the packet: it refuses GSO types that `bpf_skb_change_proto` does
    /// not look at, and leaves a head that is writable and has the room.
    #[inline(always)]
    pub fn make_ipv6(&self, flags: u64) -> Result<(), ()> {
        const ETH_P_IPV6: u16 = 0x86dd;
        // SAFETY: a helper on the program's own context.
        match unsafe { bpf_skb_change_proto(self.skb, ETH_P_IPV6.to_be(), 0) } {
            0 => self.resize(-IPV6_GROWTH, flags),
            _ => Err(()),
        }
    }

    /// Makes an IPv6 packet an IPv4 one, as [`Self::make_ipv6`] does the reverse: takes the first
    /// [`IPV6_GROWTH`] bytes behind the Ethernet header away with it.
    #[inline(always)]
    pub fn make_ipv4(&self) -> Result<(), ()> {
        const ETH_P_IP: u16 = 0x0800;
        // SAFETY: a helper on the program's own context.
        match unsafe { bpf_skb_change_proto(self.skb, ETH_P_IP.to_be(), 0) } {
            0 => Ok(()),
            _ => Err(()),
        }
    }

    /// Changes two bytes behind the Ethernet header, and with them what the device summed.
    #[inline(always)]
    pub fn rewrite(&self, offset: usize, bytes: [u8; 2]) -> Result<(), ()> {
        let (from, flags) = ((&raw const bytes).cast(), u64::from(BPF_F_RECOMPUTE_CSUM));
        // SAFETY: a helper on the program's own context, reading two bytes from the stack.
        match unsafe { bpf_skb_store_bytes(self.skb, offset as u32, from, 2, flags) } {
            0 => Ok(()),
            _ => Err(()),
        }
    }

    /// Writes the first `len` bytes of `bytes` to the packet's beginning.
    #[inline(always)]
    pub fn store<T>(&self, bytes: &T, len: usize) -> Result<(), ()> {
        debug_assert!(len <= size_of::<T>());
        let from = (&raw const *bytes).cast();
        // SAFETY: a helper on the program's own context, reading `len` bytes of `bytes` from the stack.
        match unsafe { bpf_skb_store_bytes(self.skb, 0, from, len as u32, 0) } {
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

/// What a frame's VLAN tag changes from and to: control information in host byte order, 0 is none.
/// Where both are tags they are the same.
#[derive(Clone, Copy)]
pub struct Tags {
    pub from: u16,
    pub to: u16,
}

/// An Ethernet header as 16-bit words, each as it lies in memory: the compiler would copy bytes one
/// by one.
pub type Ethernet = [u16; EthHdr::LEN / 2];

/// The Ethernet header that a frame begins with.
#[inline(always)]
pub fn ethernet(head: &Head) -> Ethernet {
    let mut words = [0; EthHdr::LEN / 2];
    for (word, pair) in words.iter_mut().zip(head.as_chunks::<2>().0) {
        *word = u16::from_ne_bytes(*pair);
    }
    words
}

/// Destination and source of an [`Ethernet`] header.
#[inline(always)]
pub fn macs(&[d0, d1, d2, s0, s1, s2, _]: &Ethernet) -> [[u8; 6]; 2] {
    // SAFETY: six bytes either way.
    [[d0, d1, d2], [s0, s1, s2]]
        .map(|words| unsafe { core::mem::transmute::<[u16; 3], [u8; 6]>(words) })
}

/// Sends an IP packet to a neighbour on a device: the kernel writes both MACs from its neighbour table
/// as it is when the packet leaves. Gives the TC action.
#[inline(always)]
pub fn to_neighbour(device: u32, family: u32, address: &[u8; 16]) -> i32 {
    let next_hop = bpf_redir_neigh {
        nh_family: family,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
            // SAFETY: any sixteen bytes are four words; the kernel reads the first alone for IPv4.
            ipv6_nh: unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(*address) },
        },
    };
    let size = size_of::<bpf_redir_neigh>() as i32;
    // SAFETY: a helper that copies the structure, and notes the target for the kernel to act on after
    // the program.
    unsafe { bpf_redirect_neigh(device, (&raw const next_hop).cast_mut(), size, 0) as i32 }
}
