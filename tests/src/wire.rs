//! Datagrams over VXLAN and IPv4 as they cross the underlay.

use std::net::IpAddr;

use anyhow::Result;

use crate::lab::{Capture, traffic::Datagrams};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Outer Ethernet, IPv4, UDP and VXLAN.
pub const OUTER: usize = ETHERNET + IPV4 + 8 + 8;

/// Sends a datagram of a flow and gives the frame that it is in, told by its inner destination port.
///
/// # Errors
/// When it is not sent, or not seen within 3 s.
///
/// # Panics
/// When it does not arrive.
pub fn on_the_wire(capture: &mut Capture, flow: &Datagrams, size: usize) -> Result<Vec<u8>> {
    let peer = flow.sender().peer_addr()?;
    let inner = match peer.ip() {
        IpAddr::V4(_) => IPV4,
        IpAddr::V6(_) => 40,
    };
    assert_eq!(flow.send(size, 1)?, 1, "{size} bytes");
    capture.next(|frame| {
        frame
            .get(OUTER + ETHERNET + inner + 2..)
            .is_some_and(|rest| rest.starts_with(&peer.port().to_be_bytes()))
            && frame[12..14] == [8, 0]
            && frame[ETHERNET + 9] == 17
    })
}

/// A frame without what may differ from packet to packet: IP identification, the checksums of IP and of
/// the outer UDP. The inner IPv4 header has an identification and a checksum, too.
#[must_use]
pub fn comparable(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let mut clear = |at: usize| frame[at..at + 2].fill(0);
    clear(ETHERNET + 4);
    clear(ETHERNET + 10);
    clear(ETHERNET + IPV4 + 6);
    clear(OUTER + ETHERNET + 4);
    clear(OUTER + ETHERNET + 10);
    frame
}
