//! TCX links: one per device and program, pinned as `links/<program>-<ifindex>`. Nothing but the pin holds one:
//! with a descriptor for each, a host with a thousand ports would run out of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use aya::sys::SyscallError;
use nix::net::if_::if_indextoname;
use ovs_ebpf_common::abi::Program;

use super::attach::Attach;
use crate::bridge::model::IfIndex;

/// Within this time a device is rid of a program whose link has gone. The kernel gets to it later
/// (`bpf_link_put`), and a container that starts has its port come, go and come again meanwhile. To wait for it
/// when it goes would take as long for each of a thousand ports.
const DETACHED: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(2);

pub(super) struct Links {
    directory: PathBuf,
}

impl Links {
    pub(super) fn new(version_directory: &Path) -> Self {
        Self { directory: version_directory.join("links") }
    }

    /// Detaches all that are pinned, whoever attached them.
    pub(super) fn remove_all(&self) {
        for program in Program::TC {
            pinned(&self.directory, program).iter().for_each(|(pin, _)| remove(pin));
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
                Ok(()) => {
                    devices.insert(ifindex);
                }
                // The device is gone (ENOLINK), or the pin is no link of ours: attached anew where
                // it is wanted.
                Err(error) => {
                    tracing::debug!("not adopting {}: {error:#}", pin.display());
                    remove(&pin);
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
        let order = || match program {
            Program::PortSecurity => LinkOrder::first(),
            _ => LinkOrder::last(),
        };
        let begun = Instant::now();
        let id = loop {
            let options = TcAttachOptions::TcxOrder(order());
            match classifier.attach_with_options(&current, TcAttachType::Ingress, options) {
                Err(error) if is_attached(&error) && begun.elapsed() < DETACHED => sleep(PAUSE),
                outcome => break outcome?,
            }
        };
        let link = into_fd(classifier.take_link(id)?)?;
        let pin = self.pin(program, ifindex);
        remove(&pin);
        link.pin(&pin)?;
        Ok(())
    }

    fn detach(&mut self, program: Program, ifindex: IfIndex) {
        remove(&self.pin(program, ifindex));
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

fn replace(pin: &Path, classifier: &mut SchedClassifier) -> anyhow::Result<()> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let id = classifier.attach_to_link(link.try_into()?)?;
    // Closes the link's descriptor.
    drop(classifier.take_link(id)?);
    Ok(())
}

/// Whether the device has this very program.
fn is_attached(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(SyscallError { io_error, .. })
        if io_error.raw_os_error() == Some(libc::EEXIST))
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

/// Removes a pin, if it is there.
pub(super) fn remove(pin: &Path) {
    if let Err(error) = fs::remove_file(pin)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", pin.display());
    }
}
