//! What a bridge should be.

use std::net::IpAddr;

use ovs_ebpf_common::wire::vxlan::{PORT, VNI_MAX};

use super::Error;
use crate::bridge::model::{Encap, Tunnel};

/// A bridge with its tunnel and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// The bridge's name.
    pub name: String,
    /// Its tunnel, if it has one.
    pub tunnel: Option<TunnelSpec>,
    /// Interfaces to be its ports; they must exist.
    pub ports: Vec<String>,
}

/// A tunnel of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSpec {
    /// The device's name; for GRE with several remotes a number follows it. Without one:
    /// `vxlan<key>` (`-<number>` after it where that
    /// is taken), `gre-<number>`.
    pub name: Option<String>,
    /// VXLAN or GRE.
    pub encap: Encap,
    /// The local outer address; without one the route decides.
    pub local: Option<IpAddr>,
    /// The other ends.
    pub remotes: Vec<IpAddr>,
    /// The VNI (24 bits, required) or GRE key (32 bits, none without one).
    pub key: Option<u32>,
    /// VXLAN: the UDP destination port, 4789 without one.
    pub dst_port: Option<u16>,
}

impl TunnelSpec {
    /// The UDP destination port; 0 for GRE, which has none.
    pub(super) fn port(&self) -> u16 {
        match self.encap {
            Encap::Vxlan => self.dst_port.unwrap_or(PORT),
            Encap::Gre => 0,
        }
    }

    /// Whether the underlay is IPv6.
    pub(super) fn is_ipv6(&self) -> bool {
        self.local.iter().chain(&self.remotes).any(IpAddr::is_ipv6)
    }

    /// Whether an existing tunnel is this one, as far as its own options go.
    pub(super) fn matches(&self, tunnel: &Tunnel) -> bool {
        tunnel.encap == self.encap
            && tunnel.key_in == self.key
            && tunnel.key_out == self.key
            && tunnel.dst_port == self.port()
            && (self.local.is_none() || tunnel.local == self.local)
    }

    /// Checks what the kernel would not, or only in other words.
    pub(super) fn validate(&self, bridge: &str) -> Result<(), Error> {
        match self.problem() {
            Some(problem) => Err(Error::Tunnel { bridge: bridge.to_owned(), problem }),
            None => Ok(()),
        }
    }

    fn problem(&self) -> Option<String> {
        match (self.encap, self.key) {
            (Encap::Vxlan, None) => {
                return Some(format!("VXLAN needs a key: give the VNI, 0 to {VNI_MAX}"));
            }
            (Encap::Vxlan, Some(key)) if key > VNI_MAX => {
                return Some(format!("key {key} is no VNI: give 0 to {VNI_MAX}"));
            }
            _ => {}
        }
        match (self.encap, self.dst_port) {
            (Encap::Vxlan, Some(0)) => return Some("port 0: give a UDP port, 1 to 65535".into()),
            (Encap::Gre, Some(_)) => return Some("GRE has no port: leave it out".into()),
            _ => {}
        }
        if self.encap == Encap::Gre && self.remotes.is_empty() {
            return Some("GRE needs a remote: give at least one address".into());
        }
        if let Some(remote) =
            self.remotes.iter().find(|remote| remote.is_multicast() || remote.is_unspecified())
        {
            return Some(format!("remote {remote}: give the address of one other host"));
        }
        if let Some(local) =
            self.local.filter(|local| local.is_multicast() || local.is_unspecified())
        {
            return Some(format!("local {local}: give an address of this host"));
        }
        if let Some(remote) =
            self.remotes.iter().find(|remote| self.local.is_some_and(|local| local == **remote))
        {
            return Some(format!("remote {remote} is the local address: leave it out"));
        }
        if self.is_ipv6() && self.local.is_none() {
            return Some("an IPv6 underlay needs the local address: give one".into());
        }
        let mut all = self.local.iter().chain(&self.remotes);
        if !(all.clone().all(IpAddr::is_ipv6) || all.all(IpAddr::is_ipv4)) {
            return Some("local and remotes are of both IPv4 and IPv6: give one family".into());
        }
        None
    }
}
