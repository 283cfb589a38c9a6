//! The vectors' tunnels and frames as the codecs name them.

use ovs_ebpf_common::{
    Reason,
    abi::{TEMPLATE_LEN, TunnelIndexKey, TunnelKind, VXLAN_PORTS},
    wire::outer::{self, Accepted, CLASSIFY_LEN, Outer, Patch},
};
use ovs_ebpf_tests::vectors::{Kind, Tunnel};

/// Where the outer IPv4 header is.
pub(crate) const IP: std::ops::Range<usize> = 14..34;

/// The UDP destination port of the vectors' VXLAN tunnels.
pub(crate) const VXLAN_PORT: u16 = 4789;

pub(crate) fn kind(tunnel: &Tunnel) -> TunnelKind {
    match (tunnel.kind, tunnel.key) {
        (Kind::Vxlan, _) => TunnelKind::VxlanIpv4,
        (Kind::Gre, None) => TunnelKind::GreIpv4,
        (Kind::Gre, Some(_)) => TunnelKind::GreKeyIpv4,
    }
}

pub(crate) fn parameters(tunnel: &Tunnel) -> Outer {
    Outer {
        destination_mac: tunnel.next_hop_mac,
        source_mac: tunnel.source_mac,
        local: tunnel.local.octets(),
        remote: tunnel.remote.octets(),
        key: tunnel.key.unwrap_or(0),
        dst_port: tunnel.destination_port.unwrap_or(0),
        df: tunnel.df,
    }
}

/// What a receiver finds such a tunnel's packets under.
pub(crate) fn index_key(kind: TunnelKind, outer: &Outer) -> TunnelIndexKey {
    let (key, port) = match kind {
        TunnelKind::VxlanIpv4 => (outer.key & 0xff_ffff, outer.dst_port),
        TunnelKind::GreIpv4 => (0, 0),
        TunnelKind::GreKeyIpv4 => (outer.key, 0),
    };
    TunnelIndexKey {
        remote: outer.local,
        local: outer.remote,
        key: key.to_be_bytes(),
        dst_port: port.to_be_bytes(),
        kind: kind as u8,
        reserved: 0,
    }
}

/// A whole outer header.
pub(crate) fn encode(kind: TunnelKind, outer: &Outer, patch: &Patch) -> Vec<u8> {
    let (mut header, seed): ([u8; TEMPLATE_LEN], u32) = outer::template(kind, outer);
    outer::patch(&mut header, kind, seed, patch);
    header[..kind.header_len()].to_vec()
}

/// Reads a frame's outer headers as `uplink_ingress` does, with one UDP port that is VXLAN's.
pub(crate) fn decode(frame: &[u8], vxlan_port: u16) -> Result<(TunnelKind, Accepted), Reason> {
    let mut ports = [[0; 2]; VXLAN_PORTS];
    ports[1] = vxlan_port.to_be_bytes();
    let start = frame.first_chunk::<CLASSIFY_LEN>().ok_or(Reason::NotTunnel)?;
    let kind = outer::classify(start, &ports)?;
    let len = frame.len() as u32;
    let accepted = match kind {
        TunnelKind::VxlanIpv4 => {
            outer::accept_vxlan(frame.first_chunk().ok_or(Reason::Truncated)?, len)
        }
        TunnelKind::GreIpv4 | TunnelKind::GreKeyIpv4 => {
            outer::accept_gre(kind, frame.first_chunk().ok_or(Reason::Truncated)?, len)
        }
    }?;
    Ok((kind, accepted))
}
