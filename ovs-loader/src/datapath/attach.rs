//! Where the programs are attached: one TCX link per device, last on its hook, so that other
//! programs there run first. Pinned, and replaced in place on adoption.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use nix::net::if_::if_indextoname;
use ovs_ebpf_common::abi::Program;

use crate::bridge::model::IfIndex;

pub(super) struct Attachments {
    directory: PathBuf,
    links: BTreeMap<(u32, IfIndex), FdLink>,
}

impl Attachments {
    pub(super) fn new(version_directory: &Path) -> Self {
        Self { directory: version_directory.join("links"), links: BTreeMap::new() }
    }

    /// Puts this program in place of the one in every pinned link of its name, without a moment
    /// between. Links whose device is gone are unpinned.
    pub(super) fn adopt(&mut self, program: Program, classifier: &mut SchedClassifier) {
        for (pin, ifindex) in pinned(&self.directory, program) {
            match replace(&pin, classifier) {
                Ok(link) => {
                    self.links.insert((program as u32, ifindex), link);
                }
                // The device is gone (ENOLINK), or the pin is no link of ours: attached anew where
                // it is wanted.
                Err(error) => {
                    tracing::debug!("not adopting {}: {error:#}", pin.display());
                    remove(&pin);
                }
            }
        }
    }

    pub(super) fn devices(&self, program: Program) -> BTreeSet<IfIndex> {
        self.links
            .keys()
            .filter(|(of, _)| *of == program as u32)
            .map(|(_, ifindex)| *ifindex)
            .collect()
    }

    pub(super) fn set(
        &mut self,
        program: Program,
        classifier: &mut SchedClassifier,
        devices: &BTreeMap<IfIndex, String>,
    ) -> BTreeMap<IfIndex, String> {
        let attached = self.devices(program);
        for &ifindex in attached.iter().filter(|ifindex| !devices.contains_key(ifindex)) {
            self.links.remove(&(program as u32, ifindex));
            remove(&self.pin(program, ifindex));
        }
        let mut refused = BTreeMap::new();
        for (&ifindex, name) in devices.iter().filter(|(ifindex, _)| !attached.contains(ifindex)) {
            match self.attach(program, classifier, ifindex, name) {
                Ok(link) => {
                    self.links.insert((program as u32, ifindex), link);
                }
                Err(error) => {
                    refused.insert(ifindex, format!("{error:#}"));
                }
            }
        }
        refused
    }

    fn attach(
        &self,
        program: Program,
        classifier: &mut SchedClassifier,
        ifindex: IfIndex,
        name: &str,
    ) -> anyhow::Result<FdLink> {
        // aya takes names only: look the index up again, in case the device was renamed meanwhile.
        let current = if_indextoname(ifindex)
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| name.to_owned());
        let id = classifier.attach_with_options(
            &current,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(LinkOrder::last()),
        )?;
        let link = into_fd(classifier.take_link(id)?)?;
        let pin = self.pin(program, ifindex);
        remove(&pin);
        let pinned = link.pin(&pin)?;
        Ok(FdLink::from(pinned))
    }

    fn pin(&self, program: Program, ifindex: IfIndex) -> PathBuf {
        self.directory.join(format!("{}-{ifindex}", program.name()))
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
fn pinned(directory: &Path, program: Program) -> Vec<(PathBuf, IfIndex)> {
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

fn remove(pin: &Path) {
    if let Err(error) = fs::remove_file(pin)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", pin.display());
    }
}
