//! The ways that packets can take from one host's container to another's.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A way, under the name that `--only` and the results have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DataPath {
    /// From host to host over the underlay, without containers
    Host,
    /// host with ovs-loader on both hosts: what its programs cost traffic that is not theirs
    #[value(name = "host+ovs-ebpf")]
    #[serde(rename = "host+ovs-ebpf")]
    HostAccelerated,
    /// Linux bridges that the uplinks are ports of: no tunnel
    Bridge,
    /// Linux bridges with the kernel's vxlan ports
    KernelVxlan,
    /// Linux bridges with the kernel's gretap ports
    KernelGretap,
    /// BPF programs that have the kernel's vxlan device encapsulate, as Cilium does; no bridge
    CiliumModel,
    /// kernel-vxlan with ovs-loader on both hosts
    OvsEbpfVxlan,
    /// kernel-gretap with ovs-loader on both hosts; where the kernel has no gretap, with a fixture in
    /// place of the daemon
    OvsEbpfGre,
    /// Open vSwitch's kernel datapath over VXLAN
    OvsVxlan,
    /// ovs-vxlan with ovs-loader on both hosts
    #[value(name = "ovs-vxlan+ovs-ebpf")]
    #[serde(rename = "ovs-vxlan+ovs-ebpf")]
    OvsVxlanAccelerated,
    /// Open vSwitch's kernel datapath over GRE
    OvsGre,
    /// ovs-gre with ovs-loader on both hosts
    #[value(name = "ovs-gre+ovs-ebpf")]
    #[serde(rename = "ovs-gre+ovs-ebpf")]
    OvsGreAccelerated,
}

impl DataPath {
    /// What is measured between network namespaces of this machine.
    pub(super) const IN_NAMESPACES: &[Self] = &[
        Self::Host,
        Self::Bridge,
        Self::KernelVxlan,
        Self::CiliumModel,
        Self::OvsEbpfVxlan,
        Self::OvsEbpfGre,
    ];
    /// What is measured in a virtual machine.
    pub(super) const IN_MACHINE: &[Self] = &[
        Self::Host,
        Self::Bridge,
        Self::KernelVxlan,
        Self::CiliumModel,
        Self::OvsEbpfVxlan,
        Self::OvsEbpfGre,
        Self::OvsVxlan,
        Self::OvsVxlanAccelerated,
        Self::OvsGre,
        Self::OvsGreAccelerated,
    ];

    /// Whether packets go from host to host, without containers.
    pub(super) fn is_between_hosts(self) -> bool {
        matches!(self, Self::Host | Self::HostAccelerated)
    }

    /// Whether ovs-loader runs on the hosts.
    pub(super) fn is_accelerated(self) -> bool {
        matches!(
            self,
            Self::HostAccelerated
                | Self::OvsEbpfVxlan
                | Self::OvsEbpfGre
                | Self::OvsVxlanAccelerated
                | Self::OvsGreAccelerated
        )
    }
}

impl DataPath {
    /// What a path with ovs-loader is compared with: first the same without it.
    pub(super) fn rivals(self) -> &'static [Self] {
        match self {
            Self::HostAccelerated => &[Self::Host],
            Self::OvsEbpfVxlan => &[Self::KernelVxlan, Self::Bridge, Self::CiliumModel, Self::Host],
            Self::OvsEbpfGre => &[Self::KernelGretap, Self::KernelVxlan, Self::Bridge],
            Self::OvsVxlanAccelerated => &[Self::OvsVxlan],
            Self::OvsGreAccelerated => &[Self::OvsGre],
            _ => &[],
        }
    }
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no path is hidden");
        f.pad(value.get_name())
    }
}
