//! Two hosts with one way between them.

use std::{net::IpAddr, path::Path};

use anyhow::Result;
use ovs_ebpf_tests::lab::{Encap, KEY, Lab, Loader, Namespace};

use super::path::DataPath;
use crate::daemons;

/// Two hosts, ready to be measured.
#[derive(Debug)]
pub(super) struct Testbed {
    path: DataPath,
    // Ended before their hosts.
    loaders: Vec<Loader>,
    lab: Lab,
}

impl Testbed {
    /// Makes the hosts, starts this `ovs-loader` where the path has it, and waits until packets take
    /// the path.
    ///
    /// # Errors
    /// Where the kernel lacks something, and when a daemon does not start.
    pub(super) fn build(path: DataPath, loader: &Path) -> Result<Self> {
        let key = format!("options:key={KEY}");
        let lab = match path {
            DataPath::Bridge => Lab::build_flat(&[1, 1]),
            DataPath::Host
            | DataPath::HostAccelerated
            | DataPath::KernelVxlan
            | DataPath::OvsEbpfVxlan => Lab::build(Encap::Vxlan, &[1, 1]),
            DataPath::KernelGretap | DataPath::OvsEbpfGre => Lab::build(Encap::Gre, &[1, 1]),
            DataPath::OvsVxlan | DataPath::OvsVxlanAccelerated => {
                Lab::build_ovs(Encap::Vxlan, &key, &[1, 1])
            }
            DataPath::OvsGre | DataPath::OvsGreAccelerated => {
                Lab::build_ovs(Encap::Gre, &key, &[1, 1])
            }
        }?;
        daemons::wait_until_reachable(&lab);
        let loaders =
            if path.is_accelerated() { daemons::start(&lab, loader)? } else { Vec::new() };
        let testbed = Self { path, loaders, lab };
        testbed.wait_until_fast()?;
        Ok(testbed)
    }

    /// Waits until packets take the fast path, where there is one.
    fn wait_until_fast(&self) -> Result<()> {
        if self.loaders.is_empty() {
            return Ok(());
        }
        daemons::wait_until_fast(&self.lab, &self.loaders)
    }

    /// Where packets come from.
    pub(super) fn from(&self) -> &Namespace {
        match self.path {
            DataPath::Host | DataPath::HostAccelerated => self.lab.host(0),
            _ => self.lab.container(0),
        }
    }

    /// Where they go to.
    pub(super) fn to(&self) -> (&Namespace, IpAddr) {
        match self.path {
            DataPath::Host | DataPath::HostAccelerated => {
                (self.lab.host(1), self.lab.host(1).underlay().into())
            }
            _ => (self.lab.container(1), self.lab.container(1).ipv4().into()),
        }
    }
}
