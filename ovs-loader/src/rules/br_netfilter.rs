//! Bridge netfilter: whether bridged frames are handed to the ip and ip6 rulesets.

use std::fs;
use std::io;

/// The sysctls of the calling thread's network namespace; all off where the module is not loaded.
///
/// `bridge-nf-call-arptables` is left out: the fast path takes no ARP frame, so no ARP rule is
/// gone around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrNetfilter {
    /// `net.bridge.bridge-nf-call-iptables`.
    pub iptables: bool,
    /// `net.bridge.bridge-nf-call-ip6tables`.
    pub ip6tables: bool,
}

impl BrNetfilter {
    /// Reads the sysctls.
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self {
            iptables: sysctl("/proc/sys/net/bridge/bridge-nf-call-iptables")?,
            ip6tables: sysctl("/proc/sys/net/bridge/bridge-nf-call-ip6tables")?,
        })
    }
}

fn sysctl(path: &str) -> io::Result<bool> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim() != "0"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
