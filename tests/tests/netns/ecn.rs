//! RFC 6040's table of decapsulation, end to end: each cell a packet from the underlay, through the kernel
//! and through the fast path.

use std::net::IpAddr;

use anyhow::Result;
use ovs_ebpf_tests::{
    ecn::{Sample, delivered},
    lab::{Capture, Encap, Lab, traffic::Datagrams},
    vectors,
};

use crate::accelerated::{Accelerated, Ends, count};
use crate::interop::{ETHERNET, accelerate};
use crate::over_ipv6::{self, move_to_ipv6, on_the_wire};

/// Compares the kernel's table with the fast path's and the RFC's, for a container's IPv4 and IPv6.
fn the_table_is_the_kernels(lab: Lab, over_ipv6: bool) -> Result<()> {
    let pair = Accelerated::start(lab, Ends::Both)?;
    let (from, to) = (pair.lab.container(0), pair.lab.container(1));
    for address in [IpAddr::from(to.ipv4()), IpAddr::from(to.ipv6())] {
        let flow = Datagrams::open(from, (to, address))?;
        assert_eq!(flow.send(100, 1)?, 1);
        let mut capture = Capture::start(pair.lab.host(1), "u0")?;
        let sample = if over_ipv6 {
            Sample::new(on_the_wire(&mut capture, &flow)?, over_ipv6::OUTER)
        } else {
            let frame = crate::interop::on_the_wire(&mut capture, &flow, 100)?;
            Sample::new(frame, crate::interop::OUTER)
        };
        let delivered = || delivered(pair.lab.host(0), to, &sample);
        accelerate(&pair, false)?;
        let kernel = delivered()?;
        accelerate(&pair, true)?;
        // The first may pass the bridge to prove the station.
        delivered()?;
        let mut fast = Vec::new();
        let counted = pair.counted(|| {
            fast = delivered()?;
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
