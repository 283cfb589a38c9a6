//! RFC 6040's table of decapsulation, end to end: each cell a packet from the underlay, through the kernel
//! and through the fast path.

use std::net::IpAddr;

use anyhow::Result;
use ovs_ebpf_tests::{
    lab::{Capture, Encap, Lab, traffic::Datagrams},
    model::set_ipv4_checksum,
    vectors,
};

use crate::accelerated::{Accelerated, Ends, count};
use crate::interop::{ETHERNET, accelerate};
use crate::over_ipv6::{self, move_to_ipv6, on_the_wire};

/// The inner destination port of the first cell's packet; the last one's is that of none.
const PORT: u16 = 40_000;

/// A packet from container to container as it crosses the underlay.
struct Sample {
    frame: Vec<u8>,
    /// Bytes in front of the inner Ethernet header.
    outer: usize,
}

impl Sample {
    /// The packet with these ECN fields and this destination port inside, and with right checksums but
    /// UDP's, of which the outer one is left out.
    fn with(&self, outer_ecn: u8, inner_ecn: u8, port: u16) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let inner = self.outer + ETHERNET;
        set_ecn(&mut frame[ETHERNET..self.outer], outer_ecn);
        let ip_len = set_ecn(&mut frame[inner..], inner_ecn);
        frame[inner + ip_len + 2..][..2].copy_from_slice(&port.to_be_bytes());
        frame[self.outer - 10..self.outer - 8].fill(0);
        frame
    }
}

/// Sets the ECN field of an IP packet; gives the length of its header.
fn set_ecn(packet: &mut [u8], ecn: u8) -> usize {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & 0xcf | ecn << 4;
        return 40;
    }
    packet[1] = packet[1] & 0xfc | ecn;
    set_ipv4_checksum(&mut packet[..20]);
    20
}

/// What reaches the container of each cell's packet: nothing, or the frame.
fn delivered(pair: &Accelerated, sample: &Sample) -> Result<Vec<Option<Vec<u8>>>> {
    let mut underlay = Capture::start(pair.lab.host(0), "u0")?;
    let mut container = Capture::start(pair.lab.container(1), "eth0")?;
    let cells = vectors::ecn().egress;
    for (port, cell) in (PORT..).zip(&cells) {
        underlay.send(&sample.with(cell.outer, cell.inner, port))?;
    }
    let last = PORT + cells.len() as u16;
    underlay.send(&sample.with(0, 0, last))?;
    let at = sample.frame.len() - sample.outer;
    let ip_len = if sample.frame[sample.outer + 12] == 0x86 { 40 } else { 20 };
    let port = |frame: &[u8]| {
        let port = frame.get(ETHERNET + ip_len + 2..ETHERNET + ip_len + 4)?;
        let port = u16::from_be_bytes([port[0], port[1]]);
        (frame.len() == at && (PORT..=last).contains(&port)).then_some(port)
    };
    let mut delivered = vec![None; cells.len()];
    loop {
        let frame = container.next(|frame| port(frame).is_some())?;
        match usize::from(port(&frame).expect("just asked") - PORT) {
            cell if cell < cells.len() => delivered[cell] = Some(frame),
            _ => return Ok(delivered),
        }
    }
}

/// Compares the kernel's table with the fast path's and the RFC's, for a container's IPv4 and IPv6.
fn the_table_is_the_kernels(lab: Lab, over_ipv6: bool) -> Result<()> {
    let pair = Accelerated::start(lab, Ends::Both)?;
    let (from, to) = (pair.lab.container(0), pair.lab.container(1));
    for address in [IpAddr::from(to.ipv4()), IpAddr::from(to.ipv6())] {
        let flow = Datagrams::open(from, (to, address))?;
        assert_eq!(flow.send(100, 1)?, 1);
        let mut capture = Capture::start(pair.lab.host(1), "u0")?;
        let sample = if over_ipv6 {
            Sample { frame: on_the_wire(&mut capture, &flow)?, outer: over_ipv6::OUTER }
        } else {
            let frame = crate::interop::on_the_wire(&mut capture, &flow, 100)?;
            Sample { frame, outer: crate::interop::OUTER }
        };
        accelerate(&pair, false)?;
        let kernel = delivered(&pair, &sample)?;
        accelerate(&pair, true)?;
        // The first may pass the bridge to prove the station.
        delivered(&pair, &sample)?;
        let mut fast = Vec::new();
        let counted = pair.counted(|| {
            fast = delivered(&pair, &sample)?;
            Ok(())
        })?;
        // All but the one that is dropped, and the last.
        assert_eq!(
            (count(&counted, "received"), count(&counted, "ecn_mark")),
            (16, 1),
            "{address}"
        );
        for ((cell, kernel), fast) in vectors::ecn().egress.iter().zip(&kernel).zip(&fast) {
            assert_eq!(fast, kernel, "{address}, {cell:?}");
            let ecn = fast.as_ref().map(|frame| match address {
                IpAddr::V4(_) => frame[ETHERNET + 1] & 3,
                IpAddr::V6(_) => frame[ETHERNET + 1] >> 4 & 3,
            });
            assert_eq!(ecn, cell.result, "{address}, {cell:?}");
        }
    }
    Ok(())
}

#[test]
fn congestion_on_the_way_is_marked_inside_as_the_kernel_does() -> Result<()> {
    the_table_is_the_kernels(Lab::build(Encap::Vxlan, &[1, 1])?, false)
}

#[test]
fn congestion_on_the_way_over_ipv6_is_marked_inside_as_the_kernel_does() -> Result<()> {
    let lab = Lab::build(Encap::Vxlan, &[1, 1])?;
    move_to_ipv6(&lab, over_ipv6::PLAIN)?;
    the_table_is_the_kernels(lab, true)
}
