//! The filter on the uplinks: native XDP, one link for each device, pinned as
//! `links/uplink_xdp-<ifindex>`.
//!
//! Drivers set their queues up anew when XDP comes or goes, and lose packets meanwhile. So a device
//! keeps the filter until the daemon ends, also while no tunnel leads through it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use nix::errno::Errno;
use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::Program;

use super::tcx::{pinned, remove};
use crate::bridge::model::{IfIndex, Why};

pub(super) struct Links {
    directory: PathBuf,
    links: BTreeMap<IfIndex, FdLink>,
}

impl Links {
    pub(super) fn new(version_directory: &Path) -> Self {
        Self { directory: version_directory.join("links"), links: BTreeMap::new() }
    }

    /// Replaces the program on the devices where an earlier daemon attached it.
    pub(super) fn adopt(&mut self, program: &mut Xdp) {
        for (pin, ifindex) in pinned(&self.directory, Program::UplinkXdp) {
            match replace(&pin, program) {
                Ok(link) => drop(self.links.insert(ifindex, link)),
                Err(error) => {
                    tracing::debug!("not adopting {}: {error:#}", pin.display());
                    remove(&pin);
                }
            }
        }
    }

    /// Detaches what an earlier daemon attached.
    pub(super) fn remove_all(&self) {
        pinned(&self.directory, Program::UplinkXdp).iter().for_each(|(pin, _)| remove(pin));
    }

    fn pin(&self, ifindex: IfIndex) -> PathBuf {
        self.directory.join(format!("{}-{ifindex}", Program::UplinkXdp.name()))
    }

    /// The devices with the filter.
    pub(super) fn devices(&self) -> BTreeSet<IfIndex> {
        self.links.keys().copied().collect()
    }

    pub(super) fn attach(&mut self, program: &mut Xdp, ifindex: IfIndex) -> Result<(), Why> {
        let id = program
            .attach_to_if_index(ifindex, XdpMode::Driver)
            .map_err(|error| refusal(&error))?;
        let other = |error: &dyn std::fmt::Display| {
            Why::new(Reason::XdpUnsupported, format!("cannot keep it attached: {error}"))
        };
        let link = program.take_link(id).map_err(|error| other(&error))?;
        // Attached without a link, by netlink, it could neither be pinned nor be told from others'.
        let link = FdLink::try_from(link).map_err(|error| other(&error))?;
        let pin = self.pin(ifindex);
        remove(&pin);
        let pinned = link.pin(&pin).map_err(|error| other(&error))?;
        self.links.insert(ifindex, FdLink::from(pinned));
        Ok(())
    }

    pub(super) fn detach(&mut self, ifindex: IfIndex) {
        self.links.remove(&ifindex);
        remove(&self.pin(ifindex));
    }
}

/// What stands against XDP on a device, by the kernel's refusal (`dev_xdp_attach`).
fn refusal(error: &ProgramError) -> Why {
    let errno = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    match errno.map(Errno::from_raw) {
        Some(Errno::EBUSY | Errno::EEXIST) => Why::from(Reason::XdpTaken),
        Some(Errno::EOPNOTSUPP) => Why::from(Reason::XdpUnsupported),
        _ => {
            // The error's own text leaves the kernel's words to its source.
            let words = std::error::Error::source(error).map(ToString::to_string);
            Why::new(Reason::XdpUnsupported, words.unwrap_or_else(|| error.to_string()))
        }
    }
}

fn replace(pin: &Path, program: &mut Xdp) -> anyhow::Result<FdLink> {
    let link = XdpLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
    let id = program.attach_to_link(link)?;
    Ok(FdLink::try_from(program.take_link(id)?)?)
}
