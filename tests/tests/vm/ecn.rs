//! RFC 6040's table of decapsulation, end to end: each cell a packet from the underlay. What reaches the
//! container of it is what the bridge delivers without the fast path, and where that is wrong, the RFC's.

use anyhow::{Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, Ends, count},
    ecn::{Sample, delivered},
    lab::{Capture, Encap, Lab},
    vectors,
};

use crate::support::{eventually, fact, peer, until_reached};
use crate::wire::{self, ETHERNET, Flow, flows, in_a_vlan, outer_len};

/// What was delivered of each cell's packet.
type Table = Vec<Option<Vec<u8>>>;

/// The ECN field of a container's frame.
fn ecn(frame: &[u8]) -> u8 {
    if frame[ETHERNET] >> 4 == 6 { frame[ETHERNET + 1] >> 4 & 3 } else { frame[ETHERNET + 1] & 3 }
}

/// Compares the RFC's and the bridge's tables with the fast path's, for every flow. Behind a tag the
/// kernel does not find the ECN field: docs/decisions/0003-ecn-on-encapsulation.md
fn the_tables_are_the_bridges(lab: Lab, flows: Vec<Flow>) -> Result<()> {
    until_reached(lab.container(0), lab.container(1));
    let table = |lab: &Lab, sample: &Sample| delivered(lab.host(0), lab.container(1), sample);
    let mut alone: Vec<(Flow, Sample, Table)> = Vec::new();
    fact("the bridge alone", || {
        for flow in flows {
            let mut capture = Capture::start(lab.host(1), "u0")?;
            let frame = flow.on_the_wire(&mut capture, 0)?;
            let outer = outer_len(&frame).expect("a tunnel's");
            let sample = Sample::new(frame, outer);
            // The first of a kind passes ovs-vswitchd, and may be overtaken.
            table(&lab, &sample)?;
            let delivered = table(&lab, &sample)?;
            alone.push((flow, sample, delivered));
        }
        Ok(())
    })?;
    let pair = Accelerated::start(lab, Ends::Both)?;
    for (flow, sample, alone) in &alone {
        fact(&flow.name, || {
            // It may take a moment until the stations are known, and the first may prove them.
            eventually(|| {
                let mut fast = Table::new();
                let counted = pair.counted(|| {
                    fast = table(&pair.lab, sample)?;
                    Ok(())
                })?;
                // All but the one that is dropped, and the last.
                let counts = (count(&counted, "received"), count(&counted, "ecn_mark"));
                ensure!(counts == (16, 1), "{counted:?}");
                for ((cell, alone), fast) in vectors::ecn().egress.iter().zip(alone).zip(&fast) {
                    let ecn = fast.as_ref().map(|frame| ecn(frame));
                    ensure!(ecn == cell.result, "{cell:?}: {fast:02x?}");
                    let same = fast == alone || sample.has_tag();
                    ensure!(same, "{cell:?}: fast {fast:02x?}, alone {alone:02x?}");
                }
                Ok(())
            })
        })?;
    }
    Ok(())
}

/// To the second host's container, with and without a VLAN tag.
fn the_tables_of_open_vswitch(encap: Encap) -> Result<()> {
    let lab = Lab::build_ovs(encap, "options:key=42", &[1, 1])?;
    let mut flows = flows(peer(lab.container(0)), peer(lab.container(1)))?;
    let [from, to] = in_a_vlan(&lab)?;
    flows.extend(wire::flows(from, to)?);
    the_tables_are_the_bridges(lab, flows)
}

#[test]
fn congestion_on_the_way_is_marked_inside_as_open_vswitch_over_gre_does() -> Result<()> {
    the_tables_of_open_vswitch(Encap::Gre)
}

#[test]
fn congestion_on_the_way_is_marked_inside_as_open_vswitch_over_vxlan_does() -> Result<()> {
    the_tables_of_open_vswitch(Encap::Vxlan)
}

#[test]
fn congestion_on_the_way_is_marked_inside_as_gretap_does() -> Result<()> {
    let lab = Lab::build(Encap::Gre, &[1, 1])?;
    let flows = flows(peer(lab.container(0)), peer(lab.container(1)))?;
    the_tables_are_the_bridges(lab, flows)
}
