//! RFC 6040's table of decapsulation, end to end: a packet for each of its cells from the underlay, and
//! what of it reaches the container.

use anyhow::Result;

use crate::lab::{Capture, Namespace};
use crate::model::set_ipv4_checksum;
use crate::vectors;

const ETHERNET: usize = 14;
/// An IEEE 802.1Q tag.
const TAG: usize = 4;
const UDP: u8 = 17;
/// The inner destination port of the first cell's packet; the last one's is that of none.
const PORT: u16 = 40_000;

/// A UDP packet from container to container as it crosses the underlay.
#[derive(Debug)]
pub struct Sample {
    frame: Vec<u8>,
    /// Bytes in front of the inner Ethernet header.
    outer: usize,
}

impl Sample {
    /// Of a frame from the Ethernet header on, with so many bytes in front of the inner one.
    #[must_use]
    pub fn new(frame: Vec<u8>, outer: usize) -> Self {
        Self { frame, outer }
    }

    /// Whether the inner frame has a VLAN tag.
    #[must_use]
    pub fn has_tag(&self) -> bool {
        self.tag() != 0
    }

    /// Bytes of the inner VLAN tag.
    fn tag(&self) -> usize {
        if self.frame[self.outer + 12..][..2] == [0x81, 0x00] { TAG } else { 0 }
    }

    /// Bytes of the inner IP header.
    fn ip_len(&self) -> usize {
        if self.frame[self.outer + ETHERNET + self.tag()] >> 4 == 6 { 40 } else { 20 }
    }

    /// The packet with these ECN fields and this destination port inside, and with right checksums but
    /// UDP's, of which the outer one is left out.
    fn with(&self, outer_ecn: u8, inner_ecn: u8, port: u16) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let inner = self.outer + ETHERNET + self.tag();
        set_ecn(&mut frame[ETHERNET..self.outer], outer_ecn);
        set_ecn(&mut frame[inner..], inner_ecn);
        frame[inner + self.ip_len() + 2..][..2].copy_from_slice(&port.to_be_bytes());
        let is_ipv6 = frame[ETHERNET] >> 4 == 6;
        if frame[ETHERNET + if is_ipv6 { 6 } else { 9 }] == UDP {
            // Behind it is VXLAN's header.
            frame[self.outer - 10..self.outer - 8].fill(0);
        }
        frame
    }

    /// The destination port of what a container has got, if it is of these packets. A tag is not in the
    /// frame then but beside it.
    fn port_of(&self, frame: &[u8], last: u16) -> Option<u16> {
        let at = ETHERNET + self.ip_len() + 2;
        let port = frame.get(at..at + 2)?;
        let port = u16::from_be_bytes([port[0], port[1]]);
        let len = self.frame.len() - self.outer - self.tag();
        (frame.len() == len && (PORT..=last).contains(&port)).then_some(port)
    }
}

/// Sets the ECN field of an IP packet.
fn set_ecn(packet: &mut [u8], ecn: u8) {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & 0xcf | ecn << 4;
    } else {
        packet[1] = packet[1] & 0xfc | ecn;
        set_ipv4_checksum(&mut packet[..20]);
    }
}

/// Sends a packet for each cell of [`vectors::ecn`] out of a host's `u0`. Gives what reaches the
/// container's `eth0` of each: nothing, or the frame.
///
/// # Errors
/// When the packet of no cell, which is sent last and with nothing marked, does not arrive.
pub fn delivered(
    from: &Namespace,
    container: &Namespace,
    sample: &Sample,
) -> Result<Vec<Option<Vec<u8>>>> {
    let mut underlay = Capture::start(from, "u0")?;
    let mut inside = Capture::start(container, "eth0")?;
    let cells = vectors::ecn().egress;
    for (port, cell) in (PORT..).zip(&cells) {
        underlay.send(&sample.with(cell.outer, cell.inner, port))?;
    }
    let last = PORT + cells.len() as u16;
    underlay.send(&sample.with(0, 0, last))?;
    let mut delivered = vec![None; cells.len()];
    loop {
        let frame = inside.next(|frame| sample.port_of(frame, last).is_some())?;
        match sample.port_of(&frame, last).map(|port| usize::from(port - PORT)) {
            Some(cell) if cell < cells.len() => delivered[cell] = Some(frame),
            _ => return Ok(delivered),
        }
    }
}
