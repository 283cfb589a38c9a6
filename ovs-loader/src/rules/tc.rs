//! tc: filters and queueing disciplines on a device that the fast path runs before or goes around.
//!
//! Sources: `tc_dump_qdisc` (net/sched/sch_api.c), `tc_dump_tfilter` (net/sched/cls_api.c).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::netlink::{Dumper, attribute, ne_u32, string};
use crate::bridge::model::IfIndex;

/// `RTNLGRP_TC`.
pub(super) const GROUP: u32 = 4;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
/// Bytes of `struct tcmsg`.
const TCMSG_LEN: usize = 20;
const TC_H_ROOT: u32 = 0xffff_ffff;
/// Parents of the filters of clsact (`TC_H_CLSACT` with `TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS`);
/// the ingress qdisc answers to the first as well.
const PARENT_INGRESS: u32 = 0xffff_fff2;
const PARENT_EGRESS: u32 = 0xffff_fff3;
const TCA_KIND: u16 = 1;
const TCA_CHAIN: u16 = 11;

/// Queueing disciplines that neither shape nor drop while the device keeps up: the defaults, and
/// plain queues. Any other was chosen by someone for what it does.
const PLAIN_QDISCS: &[&str] = &["noqueue", "pfifo_fast", "mq", "fq", "fq_codel", "pfifo", "bfifo"];

/// What tc has on a device. Strings say what, in the words of `tc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcFilters {
    /// Classic filters on ingress.
    pub ingress_classic: Option<String>,
    /// The ids of the TCX programs on ingress, ours included, in the order they run.
    pub ingress_tcx: Vec<u32>,
    /// Filters on egress: clsact, TCX, or of a queueing discipline.
    pub egress: Option<String>,
    /// A queueing discipline that shapes, schedules or drops.
    pub qdisc: Option<String>,
}

impl TcFilters {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A queueing discipline of one device.
struct Qdisc {
    ifindex: IfIndex,
    handle: u32,
    parent: u32,
    kind: String,
}

/// Reads the filters and queueing disciplines of `devices`, without TCX; devices with nothing on
/// them are left out.
pub(super) fn read(
    dumper: &mut Dumper,
    devices: &BTreeSet<IfIndex>,
) -> io::Result<BTreeMap<IfIndex, TcFilters>> {
    let mut found = BTreeMap::<IfIndex, TcFilters>::new();
    if devices.is_empty() {
        return Ok(found);
    }
    let qdiscs = dumper.dump(RTM_GETQDISC, &[0; TCMSG_LEN])?;
    for qdisc in qdiscs.iter().filter_map(|body| Qdisc::parse(body)) {
        if !devices.contains(&qdisc.ifindex) {
            continue;
        }
        let filters = found.entry(qdisc.ifindex).or_default();
        match qdisc.kind.as_str() {
            "ingress" | "clsact" => {
                add(&mut filters.ingress_classic, classic(dumper, qdisc.ifindex, PARENT_INGRESS)?);
                // The ingress qdisc answers to any parent with its ingress filters.
                if qdisc.kind == "clsact" {
                    add(&mut filters.egress, classic(dumper, qdisc.ifindex, PARENT_EGRESS)?);
                }
            }
            kind => {
                if !PLAIN_QDISCS.contains(&kind) {
                    add(&mut filters.qdisc, Some(format!("qdisc {kind}")));
                }
                // A default qdisc has no handle; parent 0 stands for the root.
                let parent = if qdisc.parent == TC_H_ROOT { 0 } else { qdisc.handle };
                if qdisc.parent == TC_H_ROOT || qdisc.handle != 0 {
                    let what = classic(dumper, qdisc.ifindex, parent)?;
                    add(&mut filters.egress, what.map(|what| format!("qdisc {kind} {what}")));
                }
            }
        }
    }
    found.retain(|_, filters| !filters.is_empty());
    Ok(found)
}

/// Adds a finding to what was found before.
pub(super) fn add(found: &mut Option<String>, what: Option<String>) {
    match (found.as_mut(), what) {
        (Some(found), Some(what)) => {
            found.push_str(", ");
            found.push_str(&what);
        }
        (None, what) => *found = what,
        (Some(_), None) => {}
    }
}

/// The classic filters under a parent, such as `filter u32 pref 49152`.
fn classic(dumper: &mut Dumper, ifindex: IfIndex, parent: u32) -> io::Result<Option<String>> {
    let mut request = [0; TCMSG_LEN];
    request[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    request[12..16].copy_from_slice(&parent.to_ne_bytes());

    // Each classifier instance comes as one message, then one for each filter.
    let mut instances = BTreeMap::<(u32, u32), String>::new();
    for body in dumper.dump(RTM_GETTFILTER, &request)? {
        let Some((header, rest)) = body.split_at_checked(TCMSG_LEN) else { continue };
        let info = ne_u32(header, 16).unwrap_or(0);
        let chain = attribute(rest, TCA_CHAIN).and_then(|value| ne_u32(value, 0)).unwrap_or(0);
        let kind = attribute(rest, TCA_KIND).map(string).unwrap_or_default();
        instances.entry((chain, info)).or_insert(kind);
    }
    let mut found = None;
    for ((_, info), kind) in instances {
        // tcm_info: preference in the upper half, protocol in the lower.
        add(&mut found, Some(format!("filter {kind} pref {}", info >> 16)));
    }
    Ok(found)
}

impl Qdisc {
    fn parse(body: &[u8]) -> Option<Self> {
        Some(Self {
            ifindex: ne_u32(body, 4)?,
            handle: ne_u32(body, 8)?,
            parent: ne_u32(body, 12)?,
            kind: string(attribute(body.get(TCMSG_LEN..)?, TCA_KIND)?),
        })
    }
}
