//! The vectors' tunnels and frames as the codecs name them.

use ovs_ebpf_common::{
    Reason,
    abi::{IndexKey, TEMPLATE_LEN, TunnelKind, VXLAN_PORTS},
    wire::outer::{
        self, Accepted, AcceptedIpv6, CLASSIFY_LEN, CLASSIFY_LEN_IPV6, Outer, Patch, PatchIpv6,
    },
};
use ovs_ebpf_tests::vectors::{Kind, Tunnel};

/// Where the outer IPv4 header is.
pub(crate) const IP: std::ops::Range<usize> = 14..34;

/// The UDP destination port of the vectors' VXLAN tunnels.
pub(crate) const VXLAN_PORT: u16 = 4789;

pub(crate) fn kind(tunnel: &Tunnel) -> TunnelKind {
    match (tunnel.kind, tunnel.key, tunnel.remote.is_ipv6()) {
        (Kind::Vxlan, _, false) => TunnelKind::VxlanIpv4,
        (Kind::Gre, None, false) => TunnelKind::GreIpv4,
        (Kind::Gre, Some(_), false) => TunnelKind::GreKeyIpv4,
        (Kind::Vxlan, _, true) => TunnelKind::VxlanIpv6,
        (Kind::Gre, None, true) => TunnelKind::GreIpv6,
        (Kind::Gre, Some(_), true) => TunnelKind::GreKeyIpv6,
    }
}

pub(crate) fn parameters(tunnel: &Tunnel) -> Outer {
    Outer {
        destination_mac: tunnel.next_hop_mac,
        source_mac: tunnel.source_mac,
        local: tunnel.local,
        remote: tunnel.remote,
        key: tunnel.key.unwrap_or(0),
        dst_port: tunnel.destination_port.unwrap_or(0),
        df: tunnel.df,
        flow_label: 0,
    }
}

/// What a receiver finds such a tunnel's packets under.
pub(crate) fn index_key(kind: TunnelKind, outer: &Outer) -> IndexKey {
    let (key, port) = match kind {
        TunnelKind::VxlanIpv4 | TunnelKind::VxlanIpv6 => (outer.key & 0xff_ffff, outer.dst_port),
        TunnelKind::GreIpv4 | TunnelKind::GreIpv6 => (0, 0),
        TunnelKind::GreKeyIpv4 | TunnelKind::GreKeyIpv6 => (outer.key, 0),
    };
    IndexKey::new(kind, outer.local, outer.remote, key, port)
}

/// What differs from packet to packet, over either IP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub(crate) frame_len: u32,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    pub(crate) flow_label: [u8; 4],
    pub(crate) source_port: u16,
}

/// A whole outer header.
pub(crate) fn encode(kind: TunnelKind, outer: &Outer, fields: &Fields) -> Vec<u8> {
    let Fields { frame_len, tos, ttl, id, flow_label, source_port } = *fields;
    let (mut header, seed): ([u8; TEMPLATE_LEN], u32) = outer::template(kind, outer);
    if kind.is_ipv6() {
        let payload_len = outer::payload_len(kind, frame_len) as u16;
        let patch = PatchIpv6 { payload_len, tos, ttl, flow_label, source_port };
        outer::patch_ipv6(&mut header, kind, &patch);
    } else {
        let total_len = outer::total_len(kind, frame_len) as u16;
        let patch = Patch { total_len, tos, ttl, id, source_port };
        outer::patch(&mut header, kind, seed, &patch);
    }
    header[..kind.header_len()].to_vec()
}

/// Reads a frame's outer headers as `uplink_ingress` does, with one UDP port that is VXLAN's: the kind,
/// what identifies the tunnel, and the TOS byte.
pub(crate) fn decode(frame: &[u8], vxlan_port: u16) -> Result<(TunnelKind, IndexKey, u8), Reason> {
    let mut ports = [0; VXLAN_PORTS];
    ports[1] = vxlan_port.to_be();
    let start = frame.first_chunk::<CLASSIFY_LEN>().ok_or(Reason::NotTunnel)?;
    let kind = if outer::is_ipv6(start) {
        let start = frame.first_chunk::<CLASSIFY_LEN_IPV6>().ok_or(Reason::NotTunnel)?;
        outer::classify_ipv6(start, &ports)?
    } else {
        outer::classify(start, &ports)?
    };
    let (key, tos) = accept(kind, frame, frame.len() as u32)?;
    Ok((kind, key, tos))
}

/// Accepts the outer headers of a frame that says it is `frame_len` bytes long.
pub(crate) fn accept(
    kind: TunnelKind,
    frame: &[u8],
    frame_len: u32,
) -> Result<(IndexKey, u8), Reason> {
    /// As many of the frame's bytes as asked for.
    fn start<const N: usize>(frame: &[u8]) -> Result<&[u8; N], Reason> {
        frame.first_chunk().ok_or(Reason::Truncated)
    }
    if kind.is_ipv6() {
        let accepted = match kind {
            TunnelKind::VxlanIpv6 => outer::accept_vxlan_ipv6(start(frame)?, frame_len),
            _ => outer::accept_gre_ipv6(kind, start(frame)?, frame_len),
        };
        accepted.map(|AcceptedIpv6 { key, tos }| (IndexKey::Ipv6(key), tos))
    } else {
        let accepted = match kind {
            TunnelKind::VxlanIpv4 => outer::accept_vxlan(start(frame)?, frame_len),
            _ => outer::accept_gre(kind, start(frame)?, frame_len),
        };
        accepted.map(|Accepted { key, tos }| (IndexKey::Ipv4(key), tos))
    }
}
