//! Classic filters on the clsact qdisc, for kernels without TCX: one per device and program, with a
//! fixed priority and handle, so that each daemon finds and replaces what an earlier one left.
//!
//! Such a filter has no pin; it keeps its program alive. A qdisc that had to be made for it is noted as
//! the directory `<bpffs>/clsact/<ifindex>`, and removed at the end. Others' are not touched, but others may remove ours with all filters on it: `ovs-vswitchd` does when it sets a
//! port's policing.
//!
//! Sources: `tc_modify_qdisc` (net/sched/sch_api.c), `tc_new_tfilter` (net/sched/cls_api.c),
//! `cls_bpf_change` (net/sched/cls_bpf.c).

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

use aya::programs::SchedClassifier;
use ovs_ebpf_common::abi::Program;

use super::attach::Attach;
use crate::bridge::model::IfIndex;
use crate::rules::netlink::{Dumper, push_attribute};
use crate::rules::tc::{self, PARENT_EGRESS, PARENT_INGRESS, TCA_KIND, Tcmsg};

/// `tc`'s `pref` of the programs that forward: the last there is, so that all other filters run first.
pub(crate) const PRIORITY: u32 = 0xffff;
/// That of port security: the first.
const FIRST_PRIORITY: u32 = 1;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
/// `TC_H_CLSACT`, as a parent; its major number is the qdisc's handle.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const ETH_P_ALL: u16 = 3;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
/// The name's attribute, by which filters are known.
pub(crate) const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAGS_GEN: u16 = 9;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TCA_CLS_FLAGS_SKIP_HW: u32 = 1;
/// How often a filter is tried on a qdisc that others remove at that very moment.
const TRIES: u32 = 3;

/// The name of a program's filters, as `tc filter show` has it.
fn name(program: Program) -> String {
    format!("ovs-ebpf:{}", program.name())
}

fn handle(program: Program) -> u32 {
    program as u32 + 1
}

fn priority(program: Program) -> u32 {
    match program {
        Program::PortSecurity => FIRST_PRIORITY,
        _ => PRIORITY,
    }
}

/// Whether it is the priority of one of these programs' filters.
pub(crate) fn is_own_priority(priority: u32) -> bool {
    Program::TC.into_iter().any(|program| self::priority(program) == priority)
}

/// Which program's filter it is, of all `bpf` filters on an ingress.
pub(crate) fn program_of(priority: u32, handle: u32, name: &str) -> Option<Program> {
    let own = |program: &Program| {
        let program = *program;
        (self::priority(program), self::handle(program)) == (priority, handle)
            && self::name(program) == name
    };
    Program::TC.into_iter().find(own)
}

pub(super) struct Filters {
    netlink: Dumper,
    /// The qdiscs made for the filters.
    made: PathBuf,
}

impl Filters {
    pub(super) fn open(bpffs: &Path) -> io::Result<Self> {
        let netlink = Dumper::open(libc::NETLINK_ROUTE as isize)?
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTONOSUPPORT))?;
        Ok(Self { netlink, made: bpffs.join("clsact") })
    }

    /// Removes all filters of these programs on the host, whoever attached them, and the qdiscs made
    /// for them. Gives whether there were any.
    pub(super) fn remove_all(&mut self) -> io::Result<bool> {
        let mut any = false;
        for ifindex in tc::ingress_devices(&mut self.netlink)? {
            for program in tc::own_filters(&mut self.netlink, ifindex)? {
                self.detach(program, ifindex);
                any = true;
            }
        }
        self.release();
        Ok(any)
    }

    /// Those of the devices that have the program's filter.
    fn attached(
        &mut self,
        program: Program,
        devices: BTreeSet<IfIndex>,
    ) -> io::Result<BTreeSet<IfIndex>> {
        let mut attached = BTreeSet::new();
        for ifindex in devices {
            if tc::own_filters(&mut self.netlink, ifindex)?.contains(&program) {
                attached.insert(ifindex);
            }
        }
        Ok(attached)
    }

    /// Makes the device's qdisc unless it has one.
    fn ensure_qdisc(&mut self, ifindex: IfIndex) -> io::Result<()> {
        let header = Tcmsg { ifindex, handle: CLSACT_HANDLE, parent: CLSACT, info: 0 };
        let mut request = header.to_bytes();
        push_attribute(&mut request, TCA_KIND, b"clsact\0");
        match self.netlink.change(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &request) {
            Ok(()) => {
                fs::create_dir_all(self.note(ifindex))?;
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Adds the filter, or replaces the program of the one that is there.
    fn put(&mut self, program: Program, fd: BorrowedFd<'_>, ifindex: IfIndex) -> io::Result<()> {
        let mut options = Vec::new();
        push_attribute(&mut options, TCA_BPF_FD, &fd.as_raw_fd().to_ne_bytes());
        push_attribute(&mut options, TCA_BPF_NAME, format!("{}\0", name(program)).as_bytes());
        push_attribute(&mut options, TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
        push_attribute(&mut options, TCA_BPF_FLAGS_GEN, &TCA_CLS_FLAGS_SKIP_HW.to_ne_bytes());
        let mut request = filter(program, ifindex).to_bytes();
        push_attribute(&mut request, TCA_KIND, b"bpf\0");
        push_attribute(&mut request, TCA_OPTIONS, &options);
        self.netlink.change(RTM_NEWTFILTER, NLM_F_CREATE, &request)
    }

    fn remove(&mut self, program: Program, ifindex: IfIndex) -> io::Result<()> {
        let mut request = filter(program, ifindex).to_bytes();
        push_attribute(&mut request, TCA_KIND, b"bpf\0");
        self.netlink.change(RTM_DELTFILTER, 0, &request)
    }

    /// Removes the qdisc made for the device's filters, unless others have come.
    fn remove_qdisc(&mut self, ifindex: IfIndex) -> io::Result<()> {
        for parent in [PARENT_INGRESS, PARENT_EGRESS] {
            if !tc::filters(&mut self.netlink, ifindex, parent)?.is_empty() {
                return Ok(());
            }
        }
        let qdisc = Tcmsg { ifindex, handle: CLSACT_HANDLE, parent: CLSACT, info: 0 };
        self.netlink.change(RTM_DELQDISC, 0, &qdisc.to_bytes())
    }

    fn note(&self, ifindex: IfIndex) -> PathBuf {
        self.made.join(ifindex.to_string())
    }
}

impl Attach for Filters {
    fn adopt(&mut self, program: Program, classifier: &mut SchedClassifier) -> BTreeSet<IfIndex> {
        let found = tc::ingress_devices(&mut self.netlink)
            .and_then(|devices| self.attached(program, devices));
        let mut devices = found.unwrap_or_else(|error| {
            tracing::warn!("cannot read the devices' tc filters: {error}");
            BTreeSet::new()
        });
        devices.retain(|&ifindex| match self.attach(program, classifier, ifindex, "") {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!("not adopting the filter on device {ifindex}: {error:#}");
                false
            }
        });
        devices
    }

    fn attach(
        &mut self,
        program: Program,
        classifier: &mut SchedClassifier,
        ifindex: IfIndex,
        _name: &str,
    ) -> anyhow::Result<()> {
        let fd = classifier.fd()?.as_fd();
        let mut result = Ok(());
        for _ in 0..TRIES {
            self.ensure_qdisc(ifindex)?;
            result = self.put(program, fd, ifindex);
            if result.is_ok() {
                break;
            }
        }
        Ok(result?)
    }

    fn detach(&mut self, program: Program, ifindex: IfIndex) {
        if let Err(error) = self.remove(program, ifindex) {
            // With the device or its qdisc the filter has gone.
            tracing::debug!("no {} to remove from device {ifindex}: {error}", name(program));
        }
    }

    /// Removes the qdiscs, which stay until then: the kernel loses packets when one comes or goes.
    fn release(&mut self) {
        let Ok(notes) = fs::read_dir(&self.made) else { return };
        for note in notes.flatten() {
            let ifindex = note.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(Err(error)) = ifindex.map(|ifindex| self.remove_qdisc(ifindex)) {
                tracing::debug!("no qdisc to remove for {}: {error}", note.path().display());
            }
            forget(&note.path());
        }
        forget(&self.made);
    }

    fn remaining(
        &mut self,
        program: Program,
        devices: BTreeSet<IfIndex>,
    ) -> io::Result<BTreeSet<IfIndex>> {
        let attached = self.attached(program, devices.clone())?;
        // What others took away they may have made anew: no longer ours.
        devices.difference(&attached).for_each(|&ifindex| forget(&self.note(ifindex)));
        Ok(attached)
    }
}

/// The place of a program's filter.
fn filter(program: Program, ifindex: IfIndex) -> Tcmsg {
    let info = priority(program) << 16 | u32::from(ETH_P_ALL.to_be());
    Tcmsg { ifindex, handle: handle(program), parent: PARENT_INGRESS, info }
}

/// Removes a note, if it is there and nothing is in it.
fn forget(note: &Path) {
    if let Err(error) = fs::remove_dir(note) {
        tracing::debug!("cannot remove {}: {error}", note.display());
    }
}
