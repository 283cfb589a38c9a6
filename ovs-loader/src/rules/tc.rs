//! tc: filters and queueing disciplines on a device that the fast path runs before or goes around.
//!
//! Sources: `tc_dump_qdisc` (net/sched/sch_api.c), `tc_dump_tfilter` (net/sched/cls_api.c).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ovs_ebpf_common::abi::Program;

use super::netlink::{Dumper, attribute, ne_u32, string};
use crate::bridge::model::IfIndex;
use crate::datapath::clsact;

/// `RTNLGRP_TC`.
pub(super) const GROUP: u32 = 4;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
/// Bytes of `struct tcmsg`.
const TCMSG_LEN: usize = 20;
const TC_H_ROOT: u32 = 0xffff_ffff;
/// Parents of the filters of clsact (`TC_H_CLSACT` with `TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS`);
/// the ingress qdisc answers to the first as well.
pub(crate) const PARENT_INGRESS: u32 = 0xffff_fff2;
pub(crate) const PARENT_EGRESS: u32 = 0xffff_fff3;
pub(crate) const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;

/// Queueing disciplines that neither shape nor drop while the device keeps up: the defaults, and
/// plain queues. Any other was chosen by someone for what it does.
const PLAIN_QDISCS: &[&str] = &["noqueue", "pfifo_fast", "mq", "fq", "fq_codel", "pfifo", "bfifo"];

/// What tc has on a device. Strings say what, in the words of `tc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcFilters {
    /// Classic filters on ingress, but for ours.
    pub ingress_classic: Option<String>,
    /// Those of them that have our filters' priority: which run first is not known.
    pub ingress_classic_last: Option<String>,
    /// Our own classic filters on ingress, by their handles.
    pub ingress_own: Vec<u32>,
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
                let ingress = classic(dumper, qdisc.ifindex, PARENT_INGRESS)?;
                let (own, others): (Vec<_>, Vec<_>) =
                    ingress.into_iter().partition(|filter| filter.own().is_some());
                filters.ingress_own = own.iter().map(|filter| filter.handle).collect();
                let last = others.iter().filter(|filter| filter.priority() == clsact::PRIORITY);
                filters.ingress_classic_last = describe(last);
                filters.ingress_classic = describe(&others);
                // The ingress qdisc answers to any parent with its ingress filters.
                if qdisc.kind == "clsact" {
                    let egress = classic(dumper, qdisc.ifindex, PARENT_EGRESS)?;
                    add(&mut filters.egress, describe(&egress));
                }
            }
            kind => {
                if !PLAIN_QDISCS.contains(&kind) {
                    add(&mut filters.qdisc, Some(format!("qdisc {kind}")));
                }
                // A default qdisc has no handle; parent 0 stands for the root.
                let parent = if qdisc.parent == TC_H_ROOT { 0 } else { qdisc.handle };
                if qdisc.parent == TC_H_ROOT || qdisc.handle != 0 {
                    let what = describe(&classic(dumper, qdisc.ifindex, parent)?);
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

/// `struct tcmsg` (include/uapi/linux/rtnetlink.h).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcmsg {
    pub(crate) ifindex: IfIndex,
    pub(crate) handle: u32,
    pub(crate) parent: u32,
    /// Of a filter: the preference in the upper half, the protocol in network byte order in the lower.
    pub(crate) info: u32,
}

impl Tcmsg {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let Self { ifindex, handle, parent, info } = self;
        [0, ifindex, handle, parent, info].into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    fn parse(body: &[u8]) -> Option<(Self, &[u8])> {
        let header = Self {
            ifindex: ne_u32(body, 4)?,
            handle: ne_u32(body, 8)?,
            parent: ne_u32(body, 12)?,
            info: ne_u32(body, 16)?,
        };
        Some((header, body.get(TCMSG_LEN..)?))
    }
}

/// A classic filter, or with handle 0 a classifier's instance, which holds the filters of one priority.
pub(crate) struct Filter {
    chain: u32,
    info: u32,
    handle: u32,
    kind: String,
    /// What a `bpf` filter is called.
    name: String,
}

impl Filter {
    fn parse(body: &[u8]) -> Option<Self> {
        let (header, rest) = Tcmsg::parse(body)?;
        let options = attribute(rest, TCA_OPTIONS).unwrap_or_default();
        Some(Self {
            chain: attribute(rest, TCA_CHAIN).and_then(|value| ne_u32(value, 0)).unwrap_or(0),
            info: header.info,
            handle: header.handle,
            kind: attribute(rest, TCA_KIND).map(string).unwrap_or_default(),
            name: attribute(options, clsact::TCA_BPF_NAME).map(string).unwrap_or_default(),
        })
    }

    fn priority(&self) -> u32 {
        self.info >> 16
    }

    /// Whether it may have the place of one of our filters, if it is on ingress.
    fn is_beside_own(&self) -> bool {
        clsact::is_own_priority(self.priority()) && self.chain == 0 && self.kind == "bpf"
    }

    /// Of which of our programs it is the filter, if it is on ingress.
    pub(crate) fn own(&self) -> Option<Program> {
        let program = clsact::program_of(self.priority(), self.handle, &self.name);
        program.filter(|_| self.is_beside_own())
    }
}

/// All classic filters under a parent, with their classifiers' instances.
pub(crate) fn filters(
    dumper: &mut Dumper,
    ifindex: IfIndex,
    parent: u32,
) -> io::Result<Vec<Filter>> {
    let request = Tcmsg { ifindex, handle: 0, parent, info: 0 }.to_bytes();
    let bodies = dumper.dump(RTM_GETTFILTER, &request)?;
    Ok(bodies.iter().filter_map(|body| Filter::parse(body)).collect())
}

/// The devices that have a qdisc for ingress filters.
pub(crate) fn ingress_devices(dumper: &mut Dumper) -> io::Result<BTreeSet<IfIndex>> {
    let qdiscs = dumper.dump(RTM_GETQDISC, &[0; TCMSG_LEN])?;
    let qdiscs = qdiscs.iter().filter_map(|body| Qdisc::parse(body));
    let of_ingress = |qdisc: &Qdisc| matches!(qdisc.kind.as_str(), "ingress" | "clsact");
    Ok(qdiscs.filter(of_ingress).map(|qdisc| qdisc.ifindex).collect())
}

/// The programs whose filters are on a device's ingress.
pub(crate) fn own_filters(dumper: &mut Dumper, ifindex: IfIndex) -> io::Result<Vec<Program>> {
    let filters = filters(dumper, ifindex, PARENT_INGRESS)?;
    Ok(filters.iter().filter_map(Filter::own).collect())
}

/// The classic filters under a parent: one of each classifier's instance, and each of those beside ours.
fn classic(dumper: &mut Dumper, ifindex: IfIndex, parent: u32) -> io::Result<Vec<Filter>> {
    let mut instances = BTreeSet::new();
    let mut found = filters(dumper, ifindex, parent)?;
    found.retain(|filter| match filter.is_beside_own() {
        true => filter.handle != 0,
        false => instances.insert((filter.chain, filter.info)),
    });
    Ok(found)
}

/// Filters in the words of `tc`, such as `filter u32 pref 49152`.
fn describe<'a>(filters: impl IntoIterator<Item = &'a Filter>) -> Option<String> {
    let mut found = None;
    for filter in filters {
        add(&mut found, Some(format!("filter {} pref {}", filter.kind, filter.priority())));
    }
    found
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
