//! Out of a tunnel: which tunnel it is, and its outer headers off.

use aya_ebpf::bindings::{
    BPF_CSUM_LEVEL_DEC, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
    BPF_F_ADJ_ROOM_NO_CSUM_RESET, TC_ACT_SHOT,
};
use network_types::eth::EthHdr;
use ovs_ebpf_common::{
    Reason,
    abi::{Control, TunnelKind},
    wire::{
        frame::{self, Head, Network},
        outer::{self, Accepted, CLASSIFY_LEN},
        vlan,
    },
};

use crate::{
    counters::Verdict,
    fdb::{self, Station},
    packet::{Ethernet, Packet, Tags},
};

/// Tells tunnel packets from all others: the only work done on most of a host's packets.
///
/// # Errors
/// [`Reason::NotTunnel`] first of all; of what may be a tunnel's [`Reason::OuterFragment`],
/// [`Reason::OuterMalformed`], [`Reason::TunnelFlags`].
#[inline(always)]
pub fn classify(packet: &Packet, control: &Control) -> Result<TunnelKind, Reason> {
    // Frames to other hosts, and those of a VLAN device above this one.
    if !packet.is_for_host() || packet.has_vlan_tag() {
        return Err(Reason::NotTunnel);
    }
    packet.pull(CLASSIFY_LEN);
    let start = packet.bytes::<CLASSIFY_LEN>(0).ok_or(Reason::NotTunnel)?;
    outer::classify(&start, &control.vxlan_ports)
}

/// Reads a tunnel packet's outer headers.
///
/// # Errors
/// [`Reason::OuterMalformed`], [`Reason::TunnelFlags`], [`Reason::Truncated`].
#[inline(always)]
pub fn accept(packet: &Packet, kind: TunnelKind) -> Result<Accepted, Reason> {
    packet.pull(kind.header_len() + frame::MIN_LEN);
    let frame_len = packet.len();
    match kind {
        TunnelKind::VxlanIpv4 => {
            outer::accept_vxlan(&packet.bytes(0).ok_or(Reason::Truncated)?, frame_len)
        }
        TunnelKind::GreIpv4 | TunnelKind::GreKeyIpv4 => {
            outer::accept_gre(kind, &packet.bytes(0).ok_or(Reason::Truncated)?, frame_len)
        }
    }
}

/// Whether the kernel understands [`TO_IPV6`]: the loader's finding, a constant to the verifier.
#[unsafe(no_mangle)]
static DECAP_L3: u8 = 1;

/// What is taken off leaves no gap in sizes and checksums.
const FLAGS: u32 = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
/// [`FLAGS`], and an IPv6 packet is what remains of an IPv4 one (Linux 6.3).
pub const TO_IPV6: u32 = FLAGS | BPF_F_ADJ_ROOM_DECAP_L3_IPV6;

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

const ETHER_TYPE: usize = 12;

/// What is inside.
pub struct Inner<'a> {
    pub network: Network,
    /// Without a tag.
    pub ethernet: &'a Ethernet,
    /// The control information of the VLAN tag that it leaves with, 0 is none.
    pub tag: u16,
}

/// Takes the outer headers and the inner link-layer header off, `header_len` bytes in all but the
/// outer Ethernet header, and delivers the inner frame to a local port.
///
/// # Errors
/// [`Reason::DecapRefused`].
#[inline(always)]
pub fn deliver(
    packet: &Packet,
    kind: TunnelKind,
    header_len: u32,
    inner: &Inner,
    station: &Station,
) -> Verdict {
    let &Inner { network, ethernet, tag } = inner;
    // What goes is everything between the outer Ethernet header, which the inner one replaces, and
    // the inner packet: the outer IP header up to and with the inner Ethernet header and its tag.
    let header_len = header_len as i32;
    // SAFETY: a static of the program's; volatile, for the loader sets it.
    let decap_l3 = unsafe { (&raw const DECAP_L3).read_volatile() } != 0;
    // Neither `bpf_redirect_peer` nor segmentation reads the EtherType: the kernel has to be told of
    // another family.
    let flags = if network == Network::Ipv6 && decap_l3 { TO_IPV6 } else { FLAGS };
    packet.resize(-header_len, u64::from(flags)).map_err(|()| Reason::DecapRefused)?;
    if network == Network::Ipv6 && !decap_l3 && packet.make_ipv6(u64::from(FLAGS)).is_err() {
        // As below.
        return Ok(TC_ACT_SHOT);
    }
    if packet.store(ethernet, EthHdr::LEN).is_err() {
        // `resize` made the head writable, so this can't be; the frame is no longer the kernel's.
        return Ok(TC_ACT_SHOT);
    }
    if matches!(kind, TunnelKind::VxlanIpv4) {
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
