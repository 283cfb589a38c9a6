//! The programs that the demo and the tests run.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use super::{Purpose, apt};

/// A program, the Debian package it comes in, and who runs it for what.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) program: &'static str,
    pub(super) package: &'static str,
    pub(super) purposes: &'static [Purpose],
    pub(super) why: &'static str,
}

const ALL: &[Purpose] = &[Purpose::Demo, Purpose::Test, Purpose::Bench];
const BENCH: &[Purpose] = &[Purpose::Bench];
const TEST: &[Purpose] = &[Purpose::Test];
const VM: &[Purpose] = &[Purpose::Vm];
const TEST_AND_DOCKER: &[Purpose] = &[Purpose::Test, Purpose::Docker];
const BUSYBOX: &[Purpose] = &[Purpose::Test, Purpose::Docker, Purpose::Vm];
const TEST_AND_VM: &[Purpose] = &[Purpose::Test, Purpose::Vm];
/// The package, and the service that it brings.
const OVS: &str = "openvswitch-switch";

pub(super) const TOOLS: &[Tool] = &[
    tool("ip", "iproute2", ALL, "makes hosts out of network namespaces"),
    tool("bridge", "iproute2", ALL, "shows and changes a bridge's FDB"),
    tool("tc", "iproute2", TEST, "other filters on the programs' hooks"),
    tool("ping", "iputils-ping", ALL, "loss and latency between containers"),
    tool("iperf3", "iperf3", ALL, "TCP and UDP load"),
    tool("bpftool", "bpftool", ALL, "dumps the maps as an operator would"),
    tool("sockperf", "sockperf", BENCH, "requests and responses over TCP"),
    tool("nuttcp", "nuttcp", BENCH, "UDP load"),
    tool("perf", "linux-perf", BENCH, "the processor's counters, where it has any"),
    tool("tcpdump", "tcpdump", TEST, "captures packets on the uplink"),
    tool(
        "ethtool",
        "ethtool",
        &[Purpose::Test, Purpose::Bench],
        "offloads of the test hosts' devices",
    ),
    tool("nft", "nftables", TEST, "firewall rules that a bypass must respect"),
    tool("c++", "g++", &[Purpose::Fuzz], "builds the fuzzer's own part"),
    tool("iptables", "iptables", TEST, "firewall rules that a bypass must respect"),
    tool("dockerd", "docker.io", TEST_AND_DOCKER, "containers that start, stop and restart"),
    tool("uuidgen", "uuid-runtime", TEST, "ovs-docker, to compare with, runs it"),
    tool("qemu-system-x86_64", "qemu-system-x86", VM, "runs kernels that this machine has not"),
    tool("busybox", "busybox-static", BUSYBOX, "containers, and the virtual machine's start"),
    tool("depmod", "kmod", VM, "finds the modules of the virtual machine's kernel"),
    tool("setpriv", "util-linux", VM, "ends the virtual machine with what has started it"),
    tool("ovsdb-server", "openvswitch-common", TEST_AND_VM, "Open vSwitch's database"),
    tool("ovs-vswitchd", OVS, TEST_AND_VM, "Open vSwitch"),
    tool("ovs-vsctl", OVS, TEST_AND_VM, "Open vSwitch"),
];

const fn tool(
    program: &'static str,
    package: &'static str,
    purposes: &'static [Purpose],
    why: &'static str,
) -> Tool {
    Tool { program, package, purposes, why }
}

impl Tool {
    /// Where the program is. The directories for root's programs count too: they may be missing
    /// from a user's PATH.
    pub(super) fn find(&self) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let directories = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
        find_in(directories, self.program)
    }
}

fn find_in(directories: impl Iterator<Item = PathBuf>, program: &str) -> Option<PathBuf> {
    directories.map(|dir| dir.join(program)).find(|path| Path::is_file(path))
}

/// Installs the programs that `purpose` needs and the machine lacks.
pub(super) fn ensure(purpose: Purpose) -> Result<()> {
    let missing: Vec<&Tool> = TOOLS
        .iter()
        .filter(|tool| tool.purposes.contains(&purpose) && tool.find().is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        eprintln!("{} is missing: {}", tool.program, tool.why);
    }
    if apt::is_here() {
        let packages = packages(&missing);
        apt::install(&packages)?;
        if packages.iter().any(|package| package == OVS) {
            apt::disable(OVS)?;
        }
    }
    let still: Vec<&str> =
        missing.iter().filter(|tool| tool.find().is_none()).map(|tool| tool.program).collect();
    if !still.is_empty() {
        bail!("install these programs, then run this again: {}", still.join(", "));
    }
    Ok(())
}

fn packages(tools: &[&Tool]) -> Vec<String> {
    let mut packages: Vec<String> = tools.iter().map(|tool| tool.package.to_owned()).collect();
    packages.sort();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_of_several_programs_is_installed_once() {
        let tools: Vec<&Tool> = TOOLS.iter().filter(|tool| tool.package == "iproute2").collect();
        assert!(tools.len() > 1);
        assert_eq!(packages(&tools), ["iproute2"]);
    }

    #[test]
    fn a_program_is_found_in_the_first_directory_that_has_it() {
        let directories = ["/nonexistent", "/bin", "/usr/bin"].map(PathBuf::from);
        assert_eq!(find_in(directories.into_iter(), "sh"), Some("/bin/sh".into()));
        assert_eq!(find_in(["/nonexistent".into()].into_iter(), "sh"), None);
    }
}
