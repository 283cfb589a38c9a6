//! Where the programs are attached: on each device last on its ingress hook, so that other programs
//! and filters there run first; port security alone before them, since none may go around it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use aya::programs::SchedClassifier;
use ovs_ebpf_common::abi::Program;

use super::clsact::Filters;
use super::tcx::Links;
use crate::bridge::model::IfIndex;
use crate::rules::tcx_is_supported;

/// By which of the kernel's two ways programs are attached to a device's ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// TCX links, of Linux 6.6 and later.
    Tcx,
    /// Classic filters, behind all others of tc.
    Clsact,
}

impl Hook {
    /// TCX where the kernel has it.
    #[must_use]
    pub fn probe() -> Self {
        if tcx_is_supported() { Self::Tcx } else { Self::Clsact }
    }
}

/// One way of attaching. What it attaches outlives the daemon; the next one replaces the program in
/// place, without a moment between.
pub(super) trait Attach {
    /// Replaces the program in everything attached under its name by an earlier daemon. Gives the
    /// devices.
    fn adopt(&mut self, program: Program, classifier: &mut SchedClassifier) -> BTreeSet<IfIndex>;

    /// Attaches to a device, whose last known name is given.
    fn attach(
        &mut self,
        program: Program,
        classifier: &mut SchedClassifier,
        ifindex: IfIndex,
        name: &str,
    ) -> anyhow::Result<()>;

    /// Detaches from a device, which may be gone.
    fn detach(&mut self, program: Program, ifindex: IfIndex);

    /// Removes what attaching needed on the devices, when all is detached.
    fn release(&mut self) {}

    /// The devices that the program is still attached to, of those it was attached to.
    fn remaining(
        &mut self,
        program: Program,
        devices: BTreeSet<IfIndex>,
    ) -> io::Result<BTreeSet<IfIndex>>;
}

/// How attaching to devices went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// The devices that refused, each with the kernel's words.
    pub refused: BTreeMap<IfIndex, String>,
    /// How many are still to come.
    pub left: usize,
}

pub(super) struct Attachments {
    way: Box<dyn Attach>,
    attached: BTreeMap<u32, BTreeSet<IfIndex>>,
}

impl Attachments {
    pub(super) fn new(hook: Hook, bpffs: &Path, version_directory: &Path) -> io::Result<Self> {
        let way: Box<dyn Attach> = match hook {
            Hook::Tcx => Box::new(Links::new(version_directory)),
            Hook::Clsact => Box::new(Filters::open(bpffs)?),
        };
        Ok(Self { way, attached: BTreeMap::new() })
    }

    /// Takes over what an earlier daemon attached.
    pub(super) fn adopt(&mut self, program: Program, classifier: &mut SchedClassifier) {
        let devices = self.way.adopt(program, classifier);
        self.attached.insert(program as u32, devices);
    }

    /// Attaches to exactly these devices, for as long as `limit` and to one at least.
    pub(super) fn set(
        &mut self,
        program: Program,
        classifier: &mut SchedClassifier,
        devices: &BTreeMap<IfIndex, String>,
        limit: Duration,
    ) -> Attached {
        let attached = self.attached.entry(program as u32).or_default();
        attached.retain(|&ifindex| {
            let wanted = devices.contains_key(&ifindex);
            if !wanted {
                self.way.detach(program, ifindex);
            }
            wanted
        });
        let mut outcome = Attached::default();
        let (begun, mut any) = (Instant::now(), false);
        for (&ifindex, name) in devices {
            if attached.contains(&ifindex) {
                continue;
            }
            if any && begun.elapsed() >= limit {
                outcome.left += 1;
                continue;
            }
            any = true;
            match self.way.attach(program, classifier, ifindex, name) {
                Ok(()) => drop(attached.insert(ifindex)),
                Err(error) => drop(outcome.refused.insert(ifindex, format!("{error:#}"))),
            }
        }
        outcome
    }

    /// Notes what others have detached, so that it is attached again.
    pub(super) fn check(&mut self) -> io::Result<()> {
        for program in Program::TC {
            let attached = self.attached.entry(program as u32).or_default();
            *attached = self.way.remaining(program, std::mem::take(attached))?;
        }
        Ok(())
    }

    /// The devices that a program is attached to.
    pub(super) fn devices(&self, program: Program) -> BTreeSet<IfIndex> {
        self.attached.get(&(program as u32)).cloned().unwrap_or_default()
    }

    /// Detaches some programs.
    pub(super) fn clear(&mut self, programs: &[Program]) {
        for &program in programs {
            for ifindex in self.attached.remove(&(program as u32)).unwrap_or_default() {
                self.way.detach(program, ifindex);
            }
        }
    }

    /// Removes what attaching needed on the devices, when all is detached.
    pub(super) fn release(&mut self) {
        self.way.release();
    }
}
