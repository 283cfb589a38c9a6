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
    /// kernel-vxlan with ovs-loader on both hosts
    OvsEbpfVxlan,
    /// kernel-gretap with ovs-loader on both hosts
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

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no path is hidden");
        f.pad(value.get_name())
    }
}
