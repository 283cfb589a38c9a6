//! TCX links: one per device and program, pinned as `links/<program>-<ifindex>`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use nix::net::if_::if_indextoname;
use ovs_ebpf_common::abi::Program;

use super::attach::Attach;
use super::link;
use crate::bridge::model::IfIndex;

pub(super) struct Links {
    directory: PathBuf,
    links: BTreeMap<(u32, IfIndex), FdLink>,
}

impl Links {
    pub(super) fn new(version_directory: &Path) -> Self {
        Self { directory: version_directory.join("links"), links: BTreeMap::new() }
    }

    /// Detaches all that are pinned, whoever attached them.
    pub(super) fn remove_all(&self) {
        for program in Program::TC {
            pinned(&self.directory, program).iter().for_each(|(pin, _)| link::detach(pin));
        }
    }

    fn pin(&self, program: Program, ifindex: IfIndex) -> PathBuf {
        self.directory.join(format!("{}-{ifindex}", program.name()))
    }
}

impl Attach for Links {
    fn adopt(&mut self, program: Program, classifier: &mut SchedClassifier) -> BTreeSet<IfIndex> {
        let mut devices = BTreeSet::new();
        for (pin, ifindex) in pinned(&self.directory, program) {
            match replace(&pin, classifier) {
                Ok(link) => {
                    self.links.insert((program as u32, ifindex), link);
                    devices.insert(ifindex);
                }
                // The device is gone (ENOLINK), or the pin is no link of ours: attached anew where
                // it is wanted.
                Err(error) => {
                    tracing::debug!("not adopting {}: {error:#}", pin.display());
                    link::remove(&pin);
                }
            }
        }
        devices
    }

    fn attach(
        &mut self,
        program: Program,
        classifier: &mut SchedClassifier,
        ifindex: IfIndex,
        name: &str,
    ) -> anyhow::Result<()> {
        // aya takes names only: look the index up again, in case the device was renamed meanwhile.
        let current = if_indextoname(ifindex)
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| name.to_owned());
        let id = classifier.attach_with_options(
            &current,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(match program {
                Program::PortSecurity => LinkOrder::first(),
                _ => LinkOrder::last(),
            }),
        )?;
        let link = into_fd(classifier.take_link(id)?)?;
        let pin = self.pin(program, ifindex);
        link::remove(&pin);
        let pinned = link.pin(&pin)?;
        self.links.insert((program as u32, ifindex), FdLink::from(pinned));
        Ok(())
    }

    fn detach(&mut self, program: Program, ifindex: IfIndex) {
        self.links.remove(&(program as u32, ifindex));
        link::detach(&self.pin(program, ifindex));
    }

    /// All: nobody else can take a link away.
    fn remaining(
        &mut self,
        _program: Program,
        devices: BTreeSet<IfIndex>,
    ) -> io::Result<BTreeSet<IfIndex>> {
        Ok(devices)
    }
}

fn replace(pin: &Path, classifier: &mut SchedClassifier) -> anyhow::Result<FdLink> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let id = classifier.attach_to_link(link.try_into()?)?;
    Ok(into_fd(classifier.take_link(id)?)?)
}

fn into_fd(link: SchedClassifierLink) -> Result<FdLink, LinkError> {
    link.try_into()
}

/// The pins of a program's links with their ifindex.
pub(super) fn pinned(directory: &Path, program: Program) -> Vec<(PathBuf, IfIndex)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let ifindex = name.strip_prefix(program.name())?.strip_prefix('-')?.parse().ok()?;
            Some((entry.path(), ifindex))
        })
        .collect()
}
