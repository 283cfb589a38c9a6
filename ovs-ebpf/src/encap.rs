//! Into a tunnel: size, outer headers, uplink.

use aya_ebpf::{
    bindings::{
        BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_GRE, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, TC_ACT_SHOT,
    },
    helpers::generated::bpf_get_prandom_u32,
};
use network_types::{eth::EthHdr, ip::IpProto, udp::UdpHdr};
use ovs_ebpf_common::{
    Reason,
    abi::{TEMPLATE_LEN, TunnelFlags, TunnelKind, TunnelPath, TunnelValue},
    wire::{
        ecn,
        frame::{ETHER_TYPE, Frame},
        ipv6,
        outer::{self, Patch, PatchIpv6},
        vlan,
    },
};

use crate::{
    counters::{self, Verdict},
    maps::TUNNELS,
    packet::{self, Ethernet, Packet, Tags},
};

/// The outer header, and behind it the inner Ethernet header, with its VLAN tag, that
/// `bpf_skb_adjust_room` leaves in front of the room it made. Aligned, to be copied by whole words.
#[repr(C, align(8))]
struct Headers([u8; TEMPLATE_LEN]);

/// Sends the frame into tunnel `id`, with the tag that it is to have there within the frame.
///
/// # Errors
/// [`Reason::TunnelUnresolved`], [`Reason::TooBig`], [`Reason::InnerOptions`],
/// [`Reason::VlanTagged`], [`Reason::EncapRefused`].
#[inline(always)]
pub fn send(packet: &Packet, id: u32, frame: &Frame, ethernet: &Ethernet, tags: Tags) -> Verdict {
    const VXLAN: u8 = TunnelKind::VxlanIpv4 as u8;
    const GRE: u8 = TunnelKind::GreIpv4 as u8;
    const GRE_KEY: u8 = TunnelKind::GreKeyIpv4 as u8;
    const VXLAN_IPV6: u8 = TunnelKind::VxlanIpv6 as u8;
    const GRE_IPV6: u8 = TunnelKind::GreIpv6 as u8;
    const GRE_KEY_IPV6: u8 = TunnelKind::GreKeyIpv6 as u8;
    let tunnel = TUNNELS.get(id).ok_or(Reason::TunnelUnresolved)?;
    if tunnel.flags & TunnelFlags::READY == 0 {
        return Err(Reason::TunnelUnresolved);
    }
    // SAFETY: a map value; volatile, for the daemon may flip it at any time: one slot for the packet.
    let active = unsafe { (&raw const tunnel.active).read_volatile() };
    let path = &tunnel.paths[usize::from(active & 1)];
    let len = packet.len() + tag_len(tags);
    let push = |kind| push(packet, kind, tunnel, path, frame, ethernet, tags);
    let action = match path.kind {
        VXLAN => push(TunnelKind::VxlanIpv4),
        GRE => push(TunnelKind::GreIpv4),
        GRE_KEY => push(TunnelKind::GreKeyIpv4),
        VXLAN_IPV6 => push(TunnelKind::VxlanIpv6),
        GRE_IPV6 => push(TunnelKind::GreIpv6),
        GRE_KEY_IPV6 => push(TunnelKind::GreKeyIpv6),
        _ => Err(Reason::TunnelUnresolved),
    }?;
    if let Some(counters) = counters::of_tunnel(id) {
        counters.tx_packets += 1;
        counters.tx_bytes += u64::from(len);
    }
    Ok(action)
}

/// `kind` is a constant at each call, so that each kind has its own straight-line code.
#[inline(always)]
fn push(
    packet: &Packet,
    kind: TunnelKind,
    tunnel: &TunnelValue,
    path: &TunnelPath,
    frame: &Frame,
    ethernet: &Ethernet,
    tags: Tags,
) -> Verdict {
    let tag_len = tag_len(tags);
    let frame_len = packet.len() + tag_len;
    // What the outer IP header's length field says.
    let ip_len = if kind.is_ipv6() {
        outer::payload_len(kind, frame_len)
    } else {
        outer::total_len(kind, frame_len)
    };
    let segment_len = segment_len(packet, frame, packet.len())? + tag_len;
    if segment_len - EthHdr::LEN as u32 > path.mtu || ip_len > u32::from(u16::MAX) {
        return Err(Reason::TooBig);
    }
    if kind.is_ipv6() && !kind.is_vxlan() && frame.has_ipv6_options() {
        return Err(Reason::InnerOptions);
    }
    // The kernel's device does not look for the ECN field behind a tag (`ip6gre_xmit_other`).
    if kind.is_ipv6() && !kind.is_vxlan() && tag_len != 0 {
        return Err(Reason::VlanTagged);
    }
    let has = |flag| tunnel.flags & flag != 0;
    let is_gre_ipv4 = !kind.is_ipv6() && !kind.is_vxlan();
    let is_behind_tag = is_gre_ipv4 && tag_len != 0;
    let is_hidden = is_behind_tag && has(TunnelFlags::TAG_HIDES);
    let ect_1_inherits = is_gre_ipv4 && tag_len == 0 && has(TunnelFlags::ECT_1_INHERIT);
    let inherits = (has(TunnelFlags::TOS_INHERIT) && !is_hidden)
        || (ect_1_inherits && ecn::is_ect_1(frame.tos));
    let tos = if inherits { frame.tos } else { tunnel.tos };
    // The kernel's device does not look for the ECN field behind a tag, and one at the other end would
    // write what the underlay marks over the tag.
    let tos = ecn::encapsulate(tos, if is_behind_tag { 0 } else { frame.tos });
    let inherits_ttl = has(TunnelFlags::TTL_INHERIT) && !is_hidden;
    let ttl = if inherits_ttl { frame.ttl } else { tunnel.ttl };
    let source_port = if kind.is_vxlan() {
        outer::source_port(packet.flow_hash(), tunnel.source_port_min, tunnel.source_port_span)
    } else {
        0
    };

    let header_len = kind.header_len();
    let mut headers = Headers(path.header);
    let l3 = if kind.is_ipv6() {
        let flow_label = if has(TunnelFlags::FLOW_LABEL) {
            ipv6::flow_label(packet.flow_hash())
        } else {
            [0; 4]
        };
        let payload_len = ip_len as u16;
        let patch = PatchIpv6 { payload_len, tos, ttl, flow_label, source_port };
        outer::patch_ipv6(&mut headers.0, kind, &patch);
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
    } else {
        let id = if has(TunnelFlags::NEEDS_ID) {
            // SAFETY: a helper without arguments.
            unsafe { bpf_get_prandom_u32() as u16 }
        } else {
            0
        };
        let patch = Patch { total_len: ip_len as u16, tos, ttl, id, source_port };
        outer::patch(&mut headers.0, kind, path.checksum_seed, &patch);
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    };
    for (at, word) in ethernet.iter().enumerate() {
        let at = header_len + 2 * at;
        headers.0[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    }
    if tag_len != 0 {
        let tag = header_len + ETHER_TYPE;
        let ether_type = ethernet[ETHER_TYPE / 2].to_ne_bytes();
        headers.0[tag..tag + 2].copy_from_slice(&vlan::TPID.to_be_bytes());
        headers.0[tag + 2..tag + 4].copy_from_slice(&tags.to.to_be_bytes());
        headers.0[tag + 4..tag + 6].copy_from_slice(&ether_type);
    }

    let l4 =
        if kind.is_vxlan() { BPF_F_ADJ_ROOM_ENCAP_L4_UDP } else { BPF_F_ADJ_ROOM_ENCAP_L4_GRE };
    let flags = BPF_F_ADJ_ROOM_FIXED_GSO
        | BPF_F_ADJ_ROOM_NO_CSUM_RESET
        | l3
        | l4
        | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;
    let flags = u64::from(flags) | encap_l2(EthHdr::LEN as u32 + tag_len);
    packet.resize(header_len as i32 + tag_len as i32, flags).map_err(|()| Reason::EncapRefused)?;
    let stored = packet.store(&headers.0, header_len + EthHdr::LEN + tag_len as usize);
    // The tag in metadata would be the outer frame's now.
    if stored.is_err() || packet.retag(Tags { from: tags.from, to: 0 }).is_err() {
        // `resize` made the head writable, so this can't be; the frame is no longer the bridge's.
        return Ok(TC_ACT_SHOT);
    }
    Ok(packet::to_neighbour(path.uplink, path.next_hop_family, &path.next_hop))
}

/// Bytes that the tag takes within the frame.
#[inline(always)]
fn tag_len(tags: Tags) -> u32 {
    if tags.to == 0 { 0 } else { vlan::LEN as u32 }
}

/// `BPF_F_ADJ_ROOM_ENCAP_L2(len)`: the inner frame has a link-layer header of that many bytes.
#[inline(always)]
const fn encap_l2(len: u32) -> u64 {
    (len as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT
}

/// Length of the largest frame this packet becomes on the wire, with its Ethernet header and without a
/// tag, in bytes.
///
/// # Errors
/// [`Reason::TooBig`] where it can't be told.
#[inline(always)]
fn segment_len(packet: &Packet, frame: &Frame, frame_len: u32) -> Result<u32, Reason> {
    let gso_size = packet.gso_size();
    if gso_size == 0 {
        return Ok(frame_len);
    }
    let header_len = if frame.transport == IpProto::Tcp as u8 {
        const DATA_OFFSET: usize = 12;
        let offset = usize::from(frame.transport_offset) + DATA_OFFSET;
        let [words] = packet.copy(offset).ok_or(Reason::TooBig)?;
        u32::from(words >> 4) * 4
    } else if frame.transport == IpProto::Udp as u8 {
        UdpHdr::LEN as u32
    } else {
        return Err(Reason::TooBig);
    };
    Ok(u32::from(frame.transport_offset) + header_len + gso_size)
}
