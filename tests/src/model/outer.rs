//! The outer headers: RFC 791 and RFC 8200, RFC 7348, RFC 2784 and 2890, RFC 6040.

use ovs_ebpf_common::{
    Reason,
    abi::{
        TunnelFlags, TunnelIndexKey, TunnelIndexKey6, TunnelIndexValue, TunnelKind, TunnelPath,
        TunnelValue,
    },
};

use super::read::{self, IP};
use super::{Forwarded, Received, Tables};

const UDP: u8 = 17;
const GRE: u8 = 47;

/// The outer headers of a packet that is a tunnel's by its looks.
pub(super) struct Outer {
    /// Bytes in front of the inner Ethernet header.
    pub(super) len: usize,
    /// The two ECN bits.
    pub(super) ecn: u8,
    index: Index,
}

enum Index {
    Ipv4(TunnelIndexKey),
    Ipv6(TunnelIndexKey6),
}

impl Outer {
    /// The tunnel that they name.
    pub(super) fn tunnel<'a>(&self, tables: &'a mut Tables) -> Option<&'a mut TunnelIndexValue> {
        match &self.index {
            Index::Ipv4(key) => tables.tunnel_index.get_mut(key),
            Index::Ipv6(key) => tables.tunnel_index6.get_mut(key),
        }
    }
}

const fn is_vxlan(kind: TunnelKind) -> bool {
    matches!(kind, TunnelKind::VxlanIpv4 | TunnelKind::VxlanIpv6)
}

/// The version of the IP header that a kind has outside.
const fn version(kind: TunnelKind) -> u8 {
    match kind {
        TunnelKind::VxlanIpv4 | TunnelKind::GreIpv4 | TunnelKind::GreKeyIpv4 => 4,
        TunnelKind::VxlanIpv6 | TunnelKind::GreIpv6 | TunnelKind::GreKeyIpv6 => 6,
    }
}

/// Where UDP or GRE begins.
const fn l4(kind: TunnelKind) -> usize {
    IP + if version(kind) == 4 { 20 } else { 40 }
}

/// Bytes in front of the inner Ethernet header: Ethernet, IP, and UDP with VXLAN or GRE.
pub(super) const fn len(kind: TunnelKind) -> usize {
    l4(kind)
        + match kind {
            TunnelKind::VxlanIpv4 | TunnelKind::VxlanIpv6 => 8 + 8,
            TunnelKind::GreIpv4 | TunnelKind::GreIpv6 => 4,
            TunnelKind::GreKeyIpv4 | TunnelKind::GreKeyIpv6 => 4 + 4,
        }
}

/// From where on the IP header's length field counts.
pub(super) const fn ip_len_from(kind: TunnelKind) -> usize {
    if version(kind) == 4 { IP } else { l4(kind) }
}

/// Which encapsulation a packet to this host has.
pub(super) fn classify(packet: &Received<'_>, vxlan_ports: &[u16]) -> Result<TunnelKind, Reason> {
    let frame = packet.frame;
    // As long as IPv4 and a UDP header need, whatever it is.
    if !packet.for_host || packet.tag.is_some() || frame.len() < IP + 20 + 8 {
        return Err(Reason::NotTunnel);
    }
    let (protocol, l4) = match frame[12..14] {
        [0x08, 0x00] => (ipv4_protocol(frame, vxlan_ports)?, IP + 20),
        [0x86, 0xdd] => (ipv6_protocol(frame)?, IP + 40),
        _ => return Err(Reason::NotTunnel),
    };
    let ipv6 = l4 > IP + 20;
    if protocol == UDP {
        let kind = if ipv6 { TunnelKind::VxlanIpv6 } else { TunnelKind::VxlanIpv4 };
        return if to_vxlan(frame, l4, vxlan_ports) { Ok(kind) } else { Err(Reason::NotTunnel) };
    }
    // RFC 2784 and 2890: version 0, Transparent Ethernet Bridging, at most the key bit.
    match (read::some(frame, l4), ipv6) {
        ([0x00, 0x00, 0x65, 0x58], false) => Ok(TunnelKind::GreIpv4),
        ([0x20, 0x00, 0x65, 0x58], false) => Ok(TunnelKind::GreKeyIpv4),
        ([0x00, 0x00, 0x65, 0x58], true) => Ok(TunnelKind::GreIpv6),
        ([0x20, 0x00, 0x65, 0x58], true) => Ok(TunnelKind::GreKeyIpv6),
        (_, _) => Err(Reason::TunnelFlags),
    }
}

/// Whether a UDP header at `l4` is addressed to one of the ports.
fn to_vxlan(frame: &[u8], l4: usize, vxlan_ports: &[u16]) -> bool {
    // An unused place holds port 0. No tunnel has that: what is sent there is looked at like a
    // tunnel's, and belongs to none.
    let port = &frame[l4 + 2..l4 + 4];
    vxlan_ports.iter().any(|known| known.to_ne_bytes() == port)
}

/// UDP or GRE, where an IPv4 packet carries that at once. Of fragments and behind options that is
/// what stands in the place of a UDP header.
fn ipv4_protocol(frame: &[u8], vxlan_ports: &[u16]) -> Result<u8, Reason> {
    let protocol = frame[IP + 9];
    let tunnel = match protocol {
        UDP => to_vxlan(frame, IP + 20, vxlan_ports),
        _ => protocol == GRE,
    };
    if !tunnel {
        return Err(Reason::NotTunnel);
    }
    // RFC 791: More Fragments, or an offset.
    let (more, offset) = (frame[IP + 6] & 0x20, read::word(frame, IP + 6) & 0x1fff);
    if more != 0 || offset != 0 {
        return Err(Reason::OuterFragment);
    }
    if frame[IP] != 0x45 { Err(Reason::OuterMalformed) } else { Ok(protocol) }
}

/// UDP or GRE, where an IPv6 packet carries that at once.
fn ipv6_protocol(frame: &[u8]) -> Result<u8, Reason> {
    if frame.len() < IP + 40 + 8 {
        return Err(Reason::NotTunnel);
    }
    let (next, after) = (frame[IP + 6], frame[IP + 40]);
    let behind = [UDP, GRE].contains(&after);
    match next {
        UDP | GRE => Ok(next),
        44 if behind => Err(Reason::OuterFragment),
        0 | 43 | 60 if behind => Err(Reason::OuterMalformed),
        _ => Err(Reason::NotTunnel),
    }
}

/// Reads the outer headers of a packet that is a tunnel's by its looks.
pub(super) fn read(kind: TunnelKind, frame: &[u8]) -> Result<Outer, Reason> {
    let l4 = l4(kind);
    let len = len(kind);
    // Of GRE the place of the key is read, whether there is one or not.
    if frame.len() < len.max(l4 + 8) {
        return Err(Reason::Truncated);
    }
    let ip_len = match version(kind) {
        4 => read::word(frame, IP + 2),
        _ => read::word(frame, IP + 4),
    };
    let whole = usize::from(ip_len) == frame.len() - ip_len_from(kind);
    let sound = match version(kind) {
        4 => read::ones_complement_sum(&frame[IP..l4]) == 0xffff,
        _ => frame[IP] / 16 == 6,
    };
    if !whole || !sound {
        return Err(Reason::OuterMalformed);
    }
    if is_vxlan(kind) {
        if usize::from(read::word(frame, l4 + 4)) != frame.len() - l4 {
            return Err(Reason::OuterMalformed);
        }
        // RFC 7348: the I flag; all other bits are reserved, or an extension's.
        let (flags, vni) = (&frame[l4 + 8..l4 + 12], &frame[l4 + 12..l4 + 16]);
        if flags != [0x08, 0, 0, 0] || vni[3] != 0 {
            return Err(Reason::TunnelFlags);
        }
    }
    let key = match kind {
        TunnelKind::VxlanIpv4 | TunnelKind::VxlanIpv6 => {
            [0, frame[l4 + 12], frame[l4 + 13], frame[l4 + 14]]
        }
        TunnelKind::GreIpv4 | TunnelKind::GreIpv6 => [0; 4],
        TunnelKind::GreKeyIpv4 | TunnelKind::GreKeyIpv6 => read::some(frame, l4 + 4),
    };
    let dst_port = if is_vxlan(kind) { read::some(frame, l4 + 2) } else { [0; 2] };
    let (kind, reserved) = (kind as u8, 0);
    let (ecn, index) = if l4 == IP + 20 {
        let (remote, local) = (read::some(frame, IP + 12), read::some(frame, IP + 16));
        let index = TunnelIndexKey { remote, local, key, dst_port, kind, reserved };
        (frame[IP + 1] % 4, Index::Ipv4(index))
    } else {
        let (remote, local) = (read::some(frame, IP + 8), read::some(frame, IP + 24));
        let index = TunnelIndexKey6 { remote, local, key, dst_port, kind, reserved };
        (frame[IP + 1] / 16 % 4, Index::Ipv6(index))
    };
    Ok(Outer { len, ecn, index })
}

/// The outer headers by a path's template, with the length field, TOS and TTL or their likes.
pub(super) fn write(
    kind: TunnelKind,
    path: &TunnelPath,
    tunnel: &TunnelValue,
    (ip_len, tos, ttl): (u16, u8, u8),
) -> Forwarded {
    let mut forwarded = Forwarded::exactly(path.header[..len(kind)].to_vec(), None);
    let header = &mut forwarded.frame;
    let has = |flag| tunnel.flags & flag != 0;
    let l4 = l4(kind);
    if version(kind) == 4 {
        header[IP + 1] = tos;
        header[IP + 2..IP + 4].copy_from_slice(&ip_len.to_be_bytes());
        header[IP + 8] = ttl;
        read::set_ipv4_checksum(&mut header[IP..l4]);
        forwarded.any_identification = has(TunnelFlags::NEEDS_ID);
    } else {
        header[IP] = 6 * 16 + tos / 16;
        header[IP + 1] = tos % 16 * 16 + header[IP + 1] % 16;
        header[IP + 4..IP + 6].copy_from_slice(&ip_len.to_be_bytes());
        header[IP + 7] = ttl;
        forwarded.any_flow_label = has(TunnelFlags::FLOW_LABEL);
    }
    if is_vxlan(kind) {
        let udp_len = ip_len - if version(kind) == 4 { 20 } else { 0 };
        let ports = source_ports(tunnel);
        header[l4..l4 + 2].copy_from_slice(&ports.start().to_be_bytes());
        header[l4 + 4..l4 + 6].copy_from_slice(&udp_len.to_be_bytes());
        forwarded.source_port = Some(ports);
        forwarded.source_port_at = l4;
    }
    forwarded
}

/// The ports that `udp_flow_src_port` may pick: it scales a 32-bit hash, which never reaches 1.
fn source_ports(tunnel: &TunnelValue) -> std::ops::RangeInclusive<u16> {
    let (min, span) = (tunnel.source_port_min, tunnel.source_port_span);
    min..=min + span.saturating_sub(1)
}

/// RFC 6040, figure 4: the inner ECN field after decapsulation; `None` is a drop.
pub(super) fn decapsulated_ecn(outer: u8, inner: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    match (outer, inner) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(CE),
        (ECT_1, ECT_0) => Some(ECT_1),
        _ => Some(inner),
    }
}
