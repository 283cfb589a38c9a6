//! Streams in both directions.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Stream, StreamReport};
use crate::lab::{Container, FastPackets, Loader, wait_until};

/// A paced stream between two containers in each direction.
#[derive(Debug)]
pub struct BothWays {
    there: Stream,
    back: Stream,
}

impl BothWays {
    /// Starts streams of 1000 packets per second.
    ///
    /// # Errors
    /// When a socket can't be set up.
    pub fn start(one: &Container, other: &Container) -> Result<Self> {
        Self::paced(one, other, 1000)
    }

    /// Starts streams of so many packets per second each.
    ///
    /// # Errors
    /// When a socket can't be set up.
    pub fn paced(one: &Container, other: &Container, per_second: u32) -> Result<Self> {
        Ok(Self {
            there: Stream::paced(one, (other, other.ipv4().into()), per_second)?,
            back: Stream::paced(other, (one, one.ipv4().into()), per_second)?,
        })
    }

    /// Packets that have arrived so far.
    pub fn arrived(&self) -> (u64, u64) {
        (self.there.arrived(), self.back.arrived())
    }

    /// Waits until so many more packets have arrived on each side.
    ///
    /// # Panics
    /// When that takes longer than 3 s.
    #[track_caller]
    pub fn goes_on(&self, packets: u64) {
        let before = self.arrived();
        wait_until(Duration::from_secs(3), "packets both ways", || {
            let now = self.arrived();
            (now.0 >= before.0 + packets && now.1 >= before.1 + packets).then_some(())
        });
    }

    /// Waits until this daemon's programs carry both streams.
    ///
    /// # Panics
    /// When they don't within the limit, or the daemon does not answer.
    #[track_caller]
    pub fn is_fast(&self, loader: &Loader, limit: Duration) {
        let read = || loader.fast_packets().unwrap_or_else(|error| panic!("{error:#}"));
        let before = read();
        wait_until(limit, "the fast path both ways", || {
            let FastPackets { sent, received, .. } = read() - before;
            (sent >= 100 && received >= 100).then_some(())
        });
    }

    /// Ends both streams.
    ///
    /// # Errors
    /// When a socket failed.
    pub fn stop(self) -> Result<[StreamReport; 2]> {
        Ok([self.there.stop()?, self.back.stop()?])
    }

    /// Ends both streams.
    ///
    /// # Errors
    /// When a packet was lost or came twice.
    pub fn arrived_whole(self) -> Result<()> {
        let reports = self.stop()?;
        ensure!(
            reports.iter().all(|report| report.lost == 0 && report.duplicated == 0),
            "{reports:?}"
        );
        Ok(())
    }
}
