//! What headers say, and RFC 1071's checksum.

use ovs_ebpf_common::Reason;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
/// Where the outer IP header begins.
pub(super) const IP: usize = ETHERNET;

/// A frame of the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overlay {
    pub(super) destination: [u8; 6],
    pub(super) source: [u8; 6],
    /// TOS or traffic class.
    pub(super) tos: u8,
    /// TTL or hop limit.
    pub(super) ttl: u8,
    /// What is next to the IP header.
    pub(super) protocol: u8,
    /// IPv6, with a header behind it that may hold a tunnel encapsulation limit.
    pub(super) ipv6_options: bool,
    /// The transport header's length in a segment of a GSO packet, with everything before it;
    /// `None` where the headers do not tell.
    pub(super) headers_of_segments: Option<usize>,
}

/// A frame of the overlay without its VLAN tag, and that.
pub(super) fn untag(frame: &[u8]) -> Result<(Vec<u8>, Option<[u8; 4]>), Reason> {
    if frame.len() < ETHERNET + 20 {
        return Err(Reason::Truncated);
    }
    if frame[12..14] != [0x81, 0x00] && frame[12..14] != [0x88, 0xa8] {
        return Ok((frame.to_vec(), None));
    }
    let without = [&frame[..12], &frame[16..]].concat();
    if without.len() < ETHERNET + 20 {
        return Err(Reason::Truncated);
    }
    Ok((without, Some(frame[12..16].try_into().expect("four bytes"))))
}

/// Reads a frame of the overlay, without its VLAN tag. IEEE 802.3, RFC 791, RFC 8200.
pub(super) fn overlay(frame: &[u8]) -> Result<Overlay, Reason> {
    // Ethernet and IPv4, whatever it turns out to be.
    if frame.len() < ETHERNET + 20 {
        return Err(Reason::Truncated);
    }
    if frame[0] & 0x01 == 0x01 {
        return Err(Reason::Multicast);
    }
    let ip = &frame[ETHERNET..];
    let (tos, ttl, protocol, ip_header) = match (frame[12], frame[13]) {
        (0x08, 0x00) => (ip[1], ip[8], ip[9], usize::from(ip[0] % 16) * 4),
        (0x86, 0xdd) if ip.len() < 40 => return Err(Reason::Truncated),
        (0x86, 0xdd) => ((ip[0] % 16) * 16 + ip[1] / 16, ip[7], ip[6], 40),
        (0x81, 0x00) | (0x88, 0xa8) => return Err(Reason::VlanStacked),
        _ => return Err(Reason::NotIp),
    };
    let transport = ETHERNET + ip_header;
    let headers_of_segments = match protocol {
        6 => frame.get(transport + 12).map(|offset| transport + usize::from(offset / 16) * 4),
        17 => Some(transport + 8),
        _ => None,
    };
    Ok(Overlay {
        destination: frame[..6].try_into().expect("six bytes"),
        source: source(frame),
        tos,
        ttl,
        protocol,
        // Hop-by-hop options, routing, authentication, destination options.
        ipv6_options: frame[12] == 0x86 && [0, 43, 51, 60].contains(&protocol),
        headers_of_segments,
    })
}

/// The source MAC of a frame with an Ethernet header.
pub(super) fn source(frame: &[u8]) -> [u8; 6] {
    frame[6..12].try_into().expect("six bytes")
}

/// A header's 16-bit word.
pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// So many bytes of a header.
pub(super) fn some<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("as many bytes")
}

/// The frame with another TOS or traffic class than `from`. An IPv4 header's checksum is as right or
/// wrong as it was (RFC 1624, as the kernel adds: from, and the complement of to).
pub(super) fn with_tos(frame: &[u8], from: u8, to: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let ipv4 = frame[12] == 0x08;
    let ip = &mut frame[ETHERNET..];
    if ipv4 {
        ip[1] = to;
        let terms = [[ip[10], ip[11]], [0, from], [0xff, !to]].concat();
        ip[10..12].copy_from_slice(&ones_complement_sum(&terms).to_be_bytes());
    } else {
        ip[0] = ip[0] / 16 * 16 + to / 16;
        ip[1] = ip[1] % 16 + to % 16 * 16;
    }
    frame
}

/// RFC 1071: the ones' complement sum of 16-bit words. Over a header with a right checksum: 0xffff.
pub(super) fn ones_complement_sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum: u16, pair| {
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
        sum + u16::from(carry)
    })
}

/// Makes the checksum of an IPv4 header right.
pub fn set_ipv4_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = !ones_complement_sum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}
