//! Two hosts with one way between them.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use ovs_ebpf_tests::lab::{Encap, KEY, Lab, Loader, Namespace};

use super::{
    cilium,
    described::{self, Fixture},
    path::DataPath,
};
use crate::daemons;

/// The product's programs, as the kernel shows them.
const PROGRAMS: &[&str] = &["port_ingress", "uplink_ingress"];

/// Two hosts, ready to be measured.
pub(super) struct Testbed {
    path: DataPath,
    // Ended before their hosts.
    loaders: Vec<Loader>,
    _model: Vec<Ebpf>,
    fixtures: Vec<Fixture>,
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
            DataPath::CiliumModel => Lab::build_unjoined(&[1, 1]),
            DataPath::Host
            | DataPath::HostAccelerated
            | DataPath::KernelVxlan
            | DataPath::OvsEbpfVxlan => Lab::build(Encap::Vxlan, &[1, 1]),
            DataPath::KernelGretap => Lab::build(Encap::Gre, &[1, 1]),
            DataPath::OvsEbpfGre => match Lab::build(Encap::Gre, &[1, 1]) {
                // As its error names the module that makes gretap ports.
                Err(error) if error.to_string().contains("ip_gre") => return Self::described(),
                built => built,
            },
            DataPath::OvsVxlan | DataPath::OvsVxlanAccelerated => {
                Lab::build_ovs(Encap::Vxlan, &key, &[1, 1])
            }
            DataPath::OvsGre | DataPath::OvsGreAccelerated => {
                Lab::build_ovs(Encap::Gre, &key, &[1, 1])
            }
        }?;
        let model = if path == DataPath::CiliumModel { cilium::join(&lab)? } else { Vec::new() };
        daemons::wait_until_reachable(&lab)?;
        let loaders =
            if path.is_accelerated() { daemons::start(&lab, loader)? } else { Vec::new() };
        if !loaders.is_empty() {
            let (from, to) = (lab.container(0), lab.container(1));
            daemons::wait_until_fast(&loaders, from, to.ipv4().into())?;
        }
        Ok(Self { path, loaders, _model: model, fixtures: Vec::new(), lab })
    }

    /// `ovs-ebpf-gre` without the kernel's gretap.
    fn described() -> Result<Self> {
        let lab = Lab::build_unjoined(&[1, 1])?;
        let fixtures = described::join(&lab)?;
        daemons::wait_until_reachable(&lab)?;
        let (loaders, model) = (Vec::new(), Vec::new());
        Ok(Self { path: DataPath::OvsEbpfGre, loaders, _model: model, fixtures, lab })
    }

    /// What a reader of its figures has to know.
    pub(super) fn note(&self) -> Option<&'static str> {
        (!self.fixtures.is_empty()).then_some(described::NOTE)
    }

    /// The way between the hosts.
    pub(super) fn path(&self) -> DataPath {
        self.path
    }

    /// Where packets come from.
    pub(super) fn from(&self) -> &Namespace {
        if self.path.is_between_hosts() { self.lab.host(0) } else { self.lab.container(0) }
    }

    /// Where they go to.
    pub(super) fn to(&self) -> (&Namespace, IpAddr) {
        if self.path.is_between_hosts() {
            (self.lab.host(1), self.lab.host(1).underlay().into())
        } else {
            (self.lab.container(1), self.lab.container(1).ipv4().into())
        }
    }

    /// The names of the programs that packets pass.
    pub(super) fn programs(&self) -> &'static [&'static str] {
        match self.path {
            DataPath::CiliumModel => cilium::PROGRAMS,
            _ if self.path.is_accelerated() => PROGRAMS,
            _ => &[],
        }
    }

    /// The share of tunnel packets that have taken the fast path, where there is one.
    ///
    /// # Errors
    /// When a daemon does not answer.
    pub(super) fn fast_share(&self) -> Result<Option<f64>> {
        if self.loaders.is_empty() || self.path.is_between_hosts() {
            return Ok(None);
        }
        Ok(Some(daemons::packets(&self.loaders)?.share()))
    }

    /// Packets and bytes that the first host has sent on its uplink, of unsegmented packets.
    ///
    /// # Errors
    /// When the device can't be asked.
    pub(super) fn uplink_sent(&self) -> Result<(u64, u64)> {
        let shown =
            self.lab.host(0).try_exec(&["ip", "-json", "-s", "link", "show", "dev", "u0"])?;
        let shown: serde_json::Value = serde_json::from_str(&shown).context("not JSON of ip")?;
        let sent = &shown[0]["stats64"]["tx"];
        (sent["packets"].as_u64().zip(sent["bytes"].as_u64())).context("ip shows no counters of u0")
    }

    /// Makes the kernel segment and aggregate on the uplinks in software, as with a NIC that does not
    /// segment tunnels, or leaves it to the veth again, which passes all on as it is.
    ///
    /// # Errors
    /// With what ethtool says.
    pub(super) fn segment_in_software(&self, on: bool) -> Result<()> {
        let (segments, aggregates) = if on { ("off", "on") } else { ("on", "off") };
        for host in self.lab.hosts() {
            host.try_exec(&["ethtool", "-K", "u0", "tso", segments, "gro", aggregates])?;
        }
        Ok(())
    }
}
