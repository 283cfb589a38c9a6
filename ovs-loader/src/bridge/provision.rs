//! Changing bridges where the operator asks for it: the command line's `bridge`, `port` and
//! `tunnel`, and the configuration's `[[bridge]]`.
//!
//! Each function brings about a state and says what it had to change: nothing if it was so
//! already. One that fails takes back what it had changed. All work on the calling thread's
//! network namespace.

use std::fmt;
use std::net::IpAddr;

use super::model::{Device, Encap};
use change::Change;
pub(crate) use change::check_name;
pub use error::Error;

mod change;
mod error;
mod look;
mod message;
mod spec;
mod veth;
mod vlan;

pub use look::{Interface, look, owners, raise_mtu, tunnels};
pub use spec::{BridgeSpec, TunnelSpec};
pub use veth::{Owner, VethSpec, add_veth, del_interface, exists, interfaces, owner};
pub use vlan::{add_access_port, set_access_vlan};

/// Something that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A bridge was created.
    BridgeAdded(String),
    /// A bridge was deleted.
    BridgeDeleted(String),
    /// An interface became a port.
    PortAdded {
        /// The bridge.
        bridge: String,
        /// The interface.
        interface: String,
    },
    /// An interface was released from its bridge.
    PortDeleted {
        /// The bridge.
        bridge: String,
        /// The interface.
        interface: String,
    },
    /// A tunnel device was created.
    TunnelAdded {
        /// The bridge.
        bridge: String,
        /// The device.
        name: String,
    },
    /// A tunnel device was deleted.
    TunnelDeleted {
        /// The bridge.
        bridge: String,
        /// The device.
        name: String,
    },
    /// A remote was added to a VXLAN tunnel's flood list.
    RemoteAdded {
        /// The device.
        tunnel: String,
        /// The remote.
        remote: IpAddr,
    },
    /// A GRE port was isolated from the other isolated ports.
    Isolated(String),
    /// An interface was brought up.
    BroughtUp(String),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BridgeAdded(name) => write!(f, "created bridge {name}"),
            Self::BridgeDeleted(name) => write!(f, "deleted bridge {name}"),
            Self::PortAdded { bridge, interface } => write!(f, "added {interface} to {bridge}"),
            Self::PortDeleted { bridge, interface } => {
                write!(f, "removed {interface} from {bridge}")
            }
            Self::TunnelAdded { bridge, name } => write!(f, "created tunnel {name} on {bridge}"),
            Self::TunnelDeleted { bridge, name } => {
                write!(f, "deleted tunnel {name} of {bridge}")
            }
            Self::RemoteAdded { tunnel, remote } => write!(f, "added remote {remote} to {tunnel}"),
            Self::Isolated(name) => write!(f, "isolated {name} from the other isolated ports"),
            Self::BroughtUp(name) => write!(f, "brought {name} up"),
        }
    }
}

/// Creates a bridge and brings it up.
pub async fn add_bridge(name: &str) -> Result<Vec<Action>, Error> {
    let mut change = Change::begin().await?;
    let done = change.add_bridge(name).await;
    change.end(done).await
}

/// Deletes a bridge. Its ports are released, its tunnels stay as devices without a bridge.
pub async fn del_bridge(name: &str) -> Result<Vec<Action>, Error> {
    let mut change = Change::begin().await?;
    let bridge = change.bridge(name)?;
    change.delete(bridge, name, Action::BridgeDeleted(name.to_owned())).await?;
    change.end(Ok(())).await
}

/// Deletes a bridge that has no ports; one that has any, or is none, is left alone.
pub async fn del_bridge_if_empty(name: &str) -> Result<(), Error> {
    let mut change = Change::begin().await?;
    let Ok(bridge) = change.bridge(name) else { return Ok(()) };
    if change.has_ports(bridge) {
        return Ok(());
    }
    change.delete(bridge, name, Action::BridgeDeleted(name.to_owned())).await
}

/// Whether a bridge exists; an error if the name belongs to something else.
pub async fn is_bridge(name: &str) -> Result<bool, Error> {
    match Change::begin().await?.bridge(name) {
        Ok(_) => Ok(true),
        Err(Error::NoBridge(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Brings an interface up.
pub async fn bring_up(interface: &str) -> Result<(), Error> {
    let mut change = Change::about(&[interface]).await?;
    let index = change.interface(interface)?;
    change.bring_up(index, interface).await
}

/// Brings an interface up on which this host is not to speak by itself: it gets no IPv6 address.
pub async fn bring_up_mute(interface: &str) -> Result<(), Error> {
    let mut change = Change::about(&[interface]).await?;
    let index = change.interface(interface)?;
    change.mute(index, interface).await?;
    change.bring_up(index, interface).await
}

/// Makes an interface a port of a bridge and brings it up.
pub async fn add_port(bridge: &str, interface: &str) -> Result<Vec<Action>, Error> {
    let mut change = Change::begin().await?;
    let done = change.add_port(bridge, interface).await;
    change.end(done).await
}

/// Releases an interface from a bridge.
pub async fn del_port(bridge: &str, interface: &str) -> Result<Vec<Action>, Error> {
    let mut change = Change::begin().await?;
    let index = change.port_of(bridge, interface)?.ifindex;
    change.set_controller(index, interface, None).await?;
    change
        .done
        .push(Action::PortDeleted { bridge: bridge.to_owned(), interface: interface.to_owned() });
    change.end(Ok(())).await
}

/// Adds a tunnel to a bridge, or what an existing one of the same key lacks.
///
/// VXLAN: one device, and a flood entry (`bridge fdb append 00:00:00:00:00:00 dst …`) for each
/// remote. GRE: one gretap device for each remote, each an *isolated* port, so that a full mesh
/// has no loop. Remotes that others added stay.
pub async fn add_tunnel(bridge: &str, tunnel: &TunnelSpec) -> Result<Vec<Action>, Error> {
    tunnel.validate(bridge)?;
    let mut change = Change::begin().await?;
    let done = change.add_tunnel(bridge, tunnel).await;
    change.end(done).await
}

/// Deletes a tunnel device that is a port of a bridge.
pub async fn del_tunnel(bridge: &str, name: &str) -> Result<Vec<Action>, Error> {
    let mut change = Change::begin().await?;
    let port = change.port_of(bridge, name)?;
    if !matches!(port.device, Device::Tunnel(_)) {
        return Err(Error::NotTunnel { bridge: bridge.to_owned(), port: name.to_owned() });
    }
    let deleted = Action::TunnelDeleted { bridge: bridge.to_owned(), name: name.to_owned() };
    change.delete(port.ifindex, name, deleted).await?;
    change.end(Ok(())).await
}

/// Creates or completes a bridge with its tunnel, remotes and ports.
pub async fn ensure(spec: &BridgeSpec) -> Result<Vec<Action>, Error> {
    if let Some(tunnel) = &spec.tunnel {
        tunnel.validate(&spec.name)?;
    }
    let mut change = Change::begin().await?;
    let done = change.ensure(spec).await;
    change.end(done).await
}

impl Change {
    async fn ensure(&mut self, spec: &BridgeSpec) -> Result<(), Error> {
        self.add_bridge(&spec.name).await?;
        if let Some(tunnel) = &spec.tunnel {
            self.add_tunnel(&spec.name, tunnel).await?;
        }
        for port in &spec.ports {
            self.add_port(&spec.name, port).await?;
        }
        Ok(())
    }

    async fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        match self.bridge(name) {
            Ok(index) => self.bring_up(index, name).await,
            Err(Error::NoBridge(_)) => self.create_bridge(name).await,
            Err(error) => Err(error),
        }
    }

    async fn add_port(&mut self, bridge: &str, interface: &str) -> Result<(), Error> {
        let index = self.bridge(bridge)?;
        let port = self.interface(interface)?;
        if self.join(index, port, interface).await? {
            self.done.push(Action::PortAdded {
                bridge: bridge.to_owned(),
                interface: interface.to_owned(),
            });
        }
        self.bring_up(port, interface).await
    }

    async fn add_tunnel(&mut self, bridge: &str, spec: &TunnelSpec) -> Result<(), Error> {
        let index = self.bridge(bridge)?;
        match spec.encap {
            Encap::Vxlan => self.add_vxlan(bridge, index, spec).await,
            Encap::Gre => {
                for remote in &spec.remotes {
                    self.add_gre(bridge, index, spec, *remote).await?;
                }
                Ok(())
            }
        }
    }
}
