//! The bridges that containers are attached to: the kernel's, and Open vSwitch's.

use std::path::Path;

use super::Error;
use super::ovs::{self, NewPort};
use super::record::Backend;
use crate::bridge::provision::{self, Owner};

impl Backend {
    /// Whose a bridge is; `None` if nobody has one of that name.
    pub(crate) async fn of(bridge: &str, rundir: &Path) -> Result<Option<Self>, Error> {
        if let Some(mut switch) = ovs::connect_if_there(rundir).await?
            && switch.has_bridge(bridge).await?
        {
            return Ok(Some(Self::Ovs { rundir: rundir.to_owned() }));
        }
        Ok(provision::is_bridge(bridge).await?.then_some(Self::Linux))
    }

    /// Whose a new bridge is to be: Open vSwitch's where it runs.
    pub(crate) async fn for_new(rundir: &Path) -> Result<Self, Error> {
        Ok(match ovs::connect_if_there(rundir).await? {
            Some(_) => Self::Ovs { rundir: rundir.to_owned() },
            None => Self::Linux,
        })
    }

    /// Whether a bridge has a port, and this host its device.
    pub(crate) async fn has(&self, bridge: &str, port: &str) -> Result<bool, Error> {
        let owner = provision::owner(port).await?;
        Ok(match self {
            Self::Linux => owner == Owner::Port(bridge.to_owned()),
            Self::Ovs { rundir } => {
                let found = ovs::connect(rundir).await?.bridge_of(port).await?;
                owner != Owner::Absent && found.as_deref() == Some(bridge)
            }
        })
    }

    /// Whether there is such a bridge.
    pub(crate) async fn exists(&self, bridge: &str) -> Result<bool, Error> {
        Ok(match self {
            Self::Linux => provision::is_bridge(bridge).await?,
            Self::Ovs { rundir } => ovs::connect(rundir).await?.has_bridge(bridge).await?,
        })
    }

    /// Creates a bridge.
    pub(crate) async fn create(&self, bridge: &str, wait: bool) -> Result<(), Error> {
        match self {
            Self::Linux => provision::add_bridge(bridge).await.map(drop)?,
            Self::Ovs { rundir } => ovs::connect(rundir).await?.add_bridge(bridge, wait).await?,
        }
        Ok(())
    }

    /// Deletes a bridge that nobody else uses.
    pub(crate) async fn delete_if_empty(&self, bridge: &str) -> Result<(), Error> {
        match self {
            Self::Linux => provision::del_bridge_if_empty(bridge).await?,
            Self::Ovs { rundir } => ovs::connect(rundir).await?.del_bridge_if_empty(bridge).await?,
        }
        Ok(())
    }

    /// Makes an interface a port of a bridge, and brings it up.
    pub(crate) async fn attach(&self, port: &NewPort<'_>, wait: bool) -> Result<(), Error> {
        match self {
            Self::Linux => {
                provision::add_access_port(port.bridge, port.name, port.vlan).await.map(drop)?;
            }
            Self::Ovs { rundir } => {
                ovs::connect(rundir).await?.add_port(port, wait).await?;
                provision::bring_up(port.name).await?;
            }
        }
        Ok(())
    }

    /// Takes a port out of its bridge. A Linux bridge forgets it when it is deleted.
    pub(crate) async fn detach(&self, port: &str) -> Result<(), Error> {
        match self {
            Self::Linux => Ok(()),
            Self::Ovs { rundir } => ovs::connect(rundir).await?.del_port(port).await,
        }
    }

    /// Makes a port the access port of a VLAN.
    pub(super) async fn set_vlan(
        &self,
        bridge: &str,
        port: &str,
        vlan: u16,
        wait: bool,
    ) -> Result<(), Error> {
        match self {
            Self::Linux => provision::set_access_vlan(bridge, port, vlan).await?,
            Self::Ovs { rundir } => ovs::connect(rundir).await?.set_vlan(port, vlan, wait).await?,
        }
        Ok(())
    }
}
