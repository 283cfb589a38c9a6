//! What can go wrong when bridges are changed, and what to do then.

use crate::bridge::model::Encap;
use crate::bridge::netlink::Refused;

/// A bridge could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be a network interface's.
    #[error(
        "{0:?} cannot name an interface: give 1 to 15 characters without spaces, '/', ':' or '%'"
    )]
    Name(String),
    /// There is no such bridge.
    #[error("there is no bridge {0}: create it with `ovs-loader bridge add {0}`")]
    NoBridge(String),
    /// There is no such interface.
    #[error("there is no interface {0} in this network namespace: `ip link` lists them")]
    NoInterface(String),
    /// The name belongs to something else than a bridge.
    #[error("{0} is not a bridge: choose another name, or delete it with `ip link del {0}`")]
    NotBridge(String),
    /// It is a bridge of another kind.
    #[error(
        "{0} is a bridge of Open vSwitch: change it with ovs-vsctl; if Open vSwitch does not run, start it"
    )]
    OpenVswitch(String),
    /// The interface belongs to another bridge, bond or VRF.
    #[error(
        "{interface} is a port of {owner} already: release it with `ip link set {interface} nomaster`"
    )]
    Taken {
        /// The interface.
        interface: String,
        /// Whose port it is.
        owner: String,
    },
    /// The interface is not a port of the bridge.
    #[error("{interface} is not a port of {bridge}: `bridge link` lists the ports")]
    NotPort {
        /// The bridge.
        bridge: String,
        /// The interface.
        interface: String,
    },
    /// The port is not a tunnel.
    #[error(
        "{port} is not a VXLAN or GRE tunnel: remove it from the bridge with \
         `ovs-loader port del {bridge} {port}`"
    )]
    NotTunnel {
        /// The bridge.
        bridge: String,
        /// The port.
        port: String,
    },
    /// An interface of the tunnel's name is something else.
    #[error(
        "{name} exists and is {found}, not {wanted}: choose another name, or delete it with \
         `ip link del {name}`"
    )]
    Differs {
        /// The interface.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The bridge does not look at VLANs.
    #[error(
        "{bridge} does not filter VLANs, so that VLAN {vlan} would mean nothing: turn it on with \
         `ip link set {bridge} type bridge vlan_filtering 1`"
    )]
    NoVlans {
        /// The bridge.
        bridge: String,
        /// The VLAN asked for.
        vlan: u16,
    },
    /// The tunnel's description makes no sense.
    #[error("tunnel of {bridge}: {problem}")]
    Tunnel {
        /// The bridge.
        bridge: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// The kernel lacks a kind of device.
    #[error(
        "the kernel has no {kind}: load module {module} (modprobe {module}), or install the \
         kernel package that has it"
    )]
    NoModule {
        /// The kind as `ip link` calls it.
        kind: &'static str,
        /// The module that brings it.
        module: &'static str,
    },
    /// The caller may not.
    #[error("cannot {doing}: run as root (CAP_NET_ADMIN)")]
    Permission {
        /// What was being done.
        doing: String,
    },
    /// The kernel refused.
    #[error("cannot {doing}: {reason}")]
    Kernel {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        reason: String,
    },
}

impl Error {
    /// The kernel's refusal to do something.
    pub(super) fn kernel(doing: impl Into<String>, refused: &Refused) -> Self {
        let doing = doing.into();
        match refused.error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { doing },
            _ => Self::Kernel { doing, reason: refused.to_string() },
        }
    }

    /// The kernel's refusal to create a device of a kind.
    pub(super) fn create(name: &str, kind: Kind, refused: &Refused) -> Self {
        if refused.error.raw_os_error() == Some(libc::EOPNOTSUPP) {
            return Self::NoModule { kind: kind.name(), module: kind.module() };
        }
        Self::kernel(format!("create {} {name}", kind.name()), refused)
    }
}

/// A kind of device that is created here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bridge,
    Vxlan,
    GreTap,
    Ip6GreTap,
    Veth,
}

impl Kind {
    /// The kind of a tunnel by its encapsulation and underlay.
    pub(super) fn tunnel(encap: Encap, ipv6: bool) -> Self {
        match (encap, ipv6) {
            (Encap::Vxlan, _) => Self::Vxlan,
            (Encap::Gre, false) => Self::GreTap,
            (Encap::Gre, true) => Self::Ip6GreTap,
        }
    }

    /// As `ip link` calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Vxlan => "vxlan",
            Self::GreTap => "gretap",
            Self::Ip6GreTap => "ip6gretap",
            Self::Veth => "veth",
        }
    }

    fn module(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Vxlan => "vxlan",
            Self::GreTap => "ip_gre",
            Self::Ip6GreTap => "ip6_gre",
            Self::Veth => "veth",
        }
    }
}
