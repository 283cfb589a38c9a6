//! Out of a tunnel: what the outer headers say, and off they go.

use aya_ebpf::bindings::{
    BPF_CSUM_LEVEL_DEC, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
    BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, TC_ACT_SHOT,
};
use network_types::eth::EthHdr;
use ovs_ebpf_common::{
    Reason,
    abi::{Control, FlowKey, IndexKey, TunnelIndexValue, TunnelKind},
    wire::{
        frame::{self, ETHER_TYPE, Frame, Head, Network},
        ipv4, ipv6,
        outer::{self, CLASSIFY_LEN, CLASSIFY_LEN_IPV6},
        vlan,
    },
};

use crate::{
    counters::Verdict,
    fdb::{self, Station},
    maps::{TUNNEL_INDEX, TUNNEL_INDEX6},
    packet::{self, Ethernet, Packet, Tags},
};

/// Tells tunnel packets from all others: the only work done on most of a host's packets.
///
/// # Errors
/// [`Reason::NotTunnel`] first of all; of what may be a tunnel's [`Reason::OuterFragment`],
/// [`Reason::OuterMalformed`], [`Reason::TunnelFlags`].
#[inline(always)]
pub fn classify(packet: &Packet, control: &Control) -> Result<TunnelKind, Reason> {
    let start = packet.first::<CLASSIFY_LEN>().ok_or(Reason::NotTunnel)?;
    let kind = if outer::is_ipv6(&start) {
        let start = packet.first::<CLASSIFY_LEN_IPV6>().ok_or(Reason::NotTunnel)?;
        outer::classify_ipv6(&start, &control.vxlan_ports)
    } else {
        outer::classify(&start, &control.vxlan_ports)
    };
    match kind {
        Err(Reason::NotTunnel) => kind,
        // Frames to other hosts, and those of a VLAN device above this one.
        _ if !packet.is_for_host() || packet.has_vlan_tag() => Err(Reason::NotTunnel),
        _ => kind,
    }
}

/// What a tunnel packet's outer headers say.
pub struct Outer {
    key: IndexKey,
    /// The TOS byte.
    pub tos: u8,
}

/// Reads a tunnel packet's outer headers.
///
/// # Errors
/// [`Reason::OuterMalformed`], [`Reason::TunnelFlags`], [`Reason::Truncated`].
#[inline(always)]
pub fn accept(packet: &Packet, kind: TunnelKind) -> Result<Outer, Reason> {
    const SHORT: Reason = Reason::Truncated;
    packet.pull(kind.header_len() + frame::MIN_LEN);
    let frame_len = packet.len();
    if kind.is_ipv6() {
        let outer = if kind.is_vxlan() {
            outer::accept_vxlan_ipv6(&packet.bytes(0).ok_or(SHORT)?, frame_len)
        } else {
            outer::accept_gre_ipv6(kind, &packet.bytes(0).ok_or(SHORT)?, frame_len)
        }?;
        return Ok(Outer { key: IndexKey::Ipv6(outer.key), tos: outer.tos });
    }
    let outer = if kind.is_vxlan() {
        outer::accept_vxlan(&packet.bytes(0).ok_or(SHORT)?, frame_len)
    } else {
        outer::accept_gre(kind, &packet.bytes(0).ok_or(SHORT)?, frame_len)
    }?;
    Ok(Outer { key: IndexKey::Ipv4(outer.key), tos: outer.tos })
}

impl Outer {
    /// The tunnel that the headers name.
    ///
    /// # Errors
    /// [`Reason::TunnelUnknown`].
    #[inline(always)]
    pub fn tunnel(&self) -> Result<*mut TunnelIndexValue, Reason> {
        match &self.key {
            IndexKey::Ipv4(key) => TUNNEL_INDEX.get_ptr_mut(key),
            IndexKey::Ipv6(key) => TUNNEL_INDEX6.get_ptr_mut(key),
        }
        .ok_or(Reason::TunnelUnknown)
    }

    /// The key of the flow that a frame within belongs to.
    ///
    /// # Errors
    /// [`Reason::TunnelUnknown`], over IPv6.
    #[inline(always)]
    pub fn flow(
        &self,
        ifindex: u32,
        frame: &Ethernet,
        tag: Option<(u16, u16)>,
    ) -> Result<FlowKey, Reason> {
        let [destination, source] = packet::macs(frame);
        let (tpid, tag) = tag.unwrap_or((0, 0));
        let (outer, kind) = match &self.key {
            // SAFETY: 16 bytes without padding (size asserted).
            IndexKey::Ipv4(key) => (unsafe { *(&raw const *key).cast() }, key.kind),
            // SAFETY: a map value, valid until the program ends, of more bytes than these.
            IndexKey::Ipv6(key) => (unsafe { *self.tunnel()?.cast() }, key.kind),
        };
        let kind = u32::from(kind);
        Ok(FlowKey { destination, source, ifindex, outer, tag, tpid, kind })
    }
}

/// Whether the kernel understands [`TO_IPV6`] and [`TO_IPV4`]: the loader's finding, a constant to the verifier.
#[unsafe(no_mangle)]
static DECAP_L3: u8 = 1;

/// What is taken off leaves no gap in sizes and checksums.
const FLAGS: u32 = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
/// [`FLAGS`], and an IPv6 packet is what remains of an IPv4 one (Linux 6.3).
pub const TO_IPV6: u32 = FLAGS | BPF_F_ADJ_ROOM_DECAP_L3_IPV6;

/// [`FLAGS`], and an IPv4 packet is what remains of an IPv6 one (Linux 6.3).
const TO_IPV4: u32 = FLAGS | BPF_F_ADJ_ROOM_DECAP_L3_IPV4;

/// Takes the VLAN tag out of the inner frame's `head`, if there is one. Gives its protocol identifier
/// and control information. The packet stays as it is.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn untag(
    packet: &Packet,
    kind: TunnelKind,
    head: &mut Head,
) -> Result<Option<(u16, u16)>, Reason> {
    let word = |head: &Head, at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let tpid = word(head, ETHER_TYPE);
    if !vlan::is_tag(tpid) {
        return Ok(None);
    }
    let tci = word(head, EthHdr::LEN);
    let behind = kind.header_len() + vlan::LEN;
    packet.pull(behind + frame::MIN_LEN);
    let behind: Head = packet.bytes(behind).ok_or(Reason::Truncated)?;
    head[ETHER_TYPE..].copy_from_slice(&behind[ETHER_TYPE..]);
    Ok(Some((tpid, tci)))
}

/// What is inside.
pub struct Inner<'a> {
    /// As it was read.
    pub frame: &'a Frame,
    /// The TOS byte that it is to have.
    pub tos: u8,
    /// Without a tag.
    pub ethernet: &'a Ethernet,
    /// Bytes of the tag that it came with.
    pub tag_len: u32,
    /// The control information of the VLAN tag that it leaves with, 0 is none.
    pub tag: u16,
}

/// Takes the outer headers off, and the inner frame's tag, and delivers it to a local port.
///
/// # Errors
/// [`Reason::DecapRefused`].
#[inline(always)]
pub fn deliver(packet: &Packet, kind: TunnelKind, inner: &Inner, station: &Station) -> Verdict {
    let &Inner { frame, tos, ethernet, tag_len, tag } = inner;
    // SAFETY: a static of the program's; volatile, for the loader sets it.
    let decap_l3 = unsafe { (&raw const DECAP_L3).read_volatile() } != 0;
    // Neither `bpf_redirect_peer` nor segmentation reads the EtherType: the kernel has to be told of
    // another family.
    let to_ipv6 = !kind.is_ipv6() && frame.network == Network::Ipv6;
    let to_ipv4 = kind.is_ipv6() && frame.network == Network::Ipv4;
    let flags = match decap_l3 {
        true if to_ipv6 => TO_IPV6,
        true if to_ipv4 => TO_IPV4,
        _ => FLAGS,
    };
    // What goes is everything between the outer Ethernet header, which the inner one replaces, and
    // the inner packet: the outer IP header up to and with the inner Ethernet header and its tag.
    let spared = if to_ipv4 && !decap_l3 { packet::IPV6_GROWTH } else { 0 };
    packet
        .resize(spared - kind.header_len() as i32 - tag_len as i32, u64::from(flags))
        .map_err(|()| Reason::DecapRefused)?;
    let is_told = match decap_l3 {
        false if to_ipv6 => packet.make_ipv6(u64::from(FLAGS)),
        false if to_ipv4 => packet.make_ipv4(),
        _ => Ok(()),
    };
    // `resize` made the head writable, so that none of this can fail; the frame is no longer the
    // kernel's.
    if is_told.is_err()
        || packet.store(ethernet, EthHdr::LEN).is_err()
        || (tos != frame.tos && set_tos(packet, frame, tos).is_err())
    {
        return Ok(TC_ACT_SHOT);
    }
    if kind.is_vxlan() {
        // What the NIC verified was the outer UDP checksum first (`__skb_decr_checksum_unnecessary`
        // in the kernel's UDP tunnels).
        packet.csum_level(BPF_CSUM_LEVEL_DEC);
    }
    if packet.retag(Tags { from: 0, to: tag }).is_err() {
        // As above: a tag in metadata takes no room.
        return Ok(TC_ACT_SHOT);
    }
    fdb::deliver(packet, station)
}

/// Changes the TOS byte or traffic class of the packet that `frame` was read of, and for IPv4 its
/// checksum.
#[inline(always)]
fn set_tos(packet: &Packet, frame: &Frame, tos: u8) -> Result<(), ()> {
    const IP: usize = EthHdr::LEN;
    const CHECKSUM: usize = IP + 10;
    let start = packet.copy(IP).ok_or(())?;
    match frame.network {
        Network::Ipv4 => {
            packet.rewrite(IP, [start[0], tos])?;
            let checksum = u16::from_be_bytes(packet.copy(CHECKSUM).ok_or(())?);
            let checksum = ipv4::checksum_with_tos(checksum, frame.tos, tos);
            packet.rewrite(CHECKSUM, checksum.to_be_bytes())
        }
        Network::Ipv6 => packet.rewrite(IP, ipv6::with_traffic_class(start, tos)),
    }
}
