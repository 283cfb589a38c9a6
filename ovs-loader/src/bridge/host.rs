//! All bridges of a host: the kernel's own and Open vSwitch's, as one.

use std::path::PathBuf;
use std::time::Duration;

use super::linux::{Error, LinuxBridges};
use super::model::{AllBridges, Changes, IfIndex};
use super::ovs::OvsBridges;

/// The bridges of the network namespace in which this was opened, live.
///
/// Every method must be called on a thread of that namespace, within a tokio runtime.
pub struct HostBridges {
    linux: LinuxBridges,
    ovs: OvsBridges,
}

impl HostBridges {
    /// Reads all bridges and subscribes to what changes them: see [`OvsBridges::open`] for
    /// `rundirs` and `patience`.
    ///
    /// # Errors
    /// Where the kernel can't be followed.
    pub async fn open(rundirs: &[PathBuf], patience: Duration) -> Result<Self, Error> {
        Ok(Self {
            linux: LinuxBridges::open().await?,
            ovs: OvsBridges::open(rundirs, patience).await?,
        })
    }

    /// The bridges as of the last call of another method.
    #[must_use]
    pub fn bridges(&self) -> AllBridges<'_> {
        AllBridges::new(self.linux.bridges(), self.ovs.bridges())
    }

    /// Whether every Open vSwitch that is followed has told of its bridges.
    #[must_use]
    pub fn are_heard(&self) -> bool {
        self.ovs.are_heard()
    }

    /// Waits for the next changes. May be dropped at any time, as those of the backends.
    ///
    /// # Errors
    /// Where the kernel can't be followed any more.
    pub async fn changed(&mut self) -> Result<Changes, Error> {
        tokio::select! {
            changes = self.linux.changed() => changes,
            changes = self.ovs.changed() => changes,
        }
    }

    /// Reads everything again that may have changed without being announced.
    ///
    /// # Errors
    /// As [`Self::changed`].
    pub async fn resync(&mut self) -> Result<Changes, Error> {
        let linux = self.linux.resync().await?;
        let ovs = self.ovs.resync().await?;
        Ok(Changes { topology: linux.topology || ovs.topology, fdb: [linux.fdb, ovs.fdb].concat() })
    }

    /// Has [`Self::changed`] read again, bit by bit, what may have changed without being announced.
    ///
    /// # Errors
    /// As [`Self::changed`].
    pub async fn refresh(&mut self) -> Result<Changes, Error> {
        self.linux.refresh();
        self.ovs.resync().await
    }

    /// A program has seen a station that the bridge's FDB has not, or elsewhere.
    pub fn hint(&self, bridge: IfIndex) {
        self.ovs.hint(bridge);
    }
}
