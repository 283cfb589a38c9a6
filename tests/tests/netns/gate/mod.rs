//! Each reason against the bypass: it is reported where it belongs, the bypass stops while it lasts
//! and returns when it goes, and the bridge carries the packets all the while.
//!
//! Host 1 has the daemon. Host 2 is a plain kernel, so that only one fast path is at work.

mod bridge;
mod capacity;
mod rules;
mod tunnel;

use std::time::Duration;

use anyhow::Result;
use ovs_ebpf_tests::lab::{Host, Lab, Loader, counters, wait_until};

use crate::support::{At, BothWays, has, shell};

/// How soon a reason is reported after it came up, or is gone after it went.
const REPORTED: Duration = Duration::from_secs(2);
/// How soon packets are fast again when nothing stands against it.
pub(crate) const FAST: Duration = Duration::from_secs(3);

/// What a reason does to the packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packets {
    /// None is lost, not even while it comes or goes.
    Arrive,
    /// The slow path carries them too; only the change itself costs some.
    ArriveInBetween,
    /// The slow path has no way for them either.
    Stop,
}

/// Which of the host's programs stand still.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Still {
    Both,
    Sending,
}

/// A pair of hosts, of which the first is accelerated.
struct Gate {
    loader: Loader,
    lab: Lab,
}

impl Gate {
    fn open() -> Result<Self> {
        Self::configured("")
    }

    fn configured(configuration: &str) -> Result<Self> {
        let lab = Lab::pair()?;
        let loader = Loader::start_with(lab.host(0), configuration)?;
        Ok(Self { loader, lab })
    }

    fn host(&self) -> &Host {
        self.lab.host(0)
    }

    /// Streams both ways between the first containers, once they are fast.
    fn traffic(&self) -> Result<BothWays> {
        let traffic = BothWays::start(self.lab.container(0), self.lab.container(1))?;
        traffic.is_fast(&self.loader, FAST);
        Ok(traffic)
    }

    /// Under streams in both directions the bypass stops when `appear` has run, for this reason, and
    /// returns after `vanish`. Both are shell commands on the host.
    fn stops(
        &self,
        (at, reason): (At<'_>, &str),
        (appear, vanish): (&str, &str),
        packets: Packets,
        still: Still,
    ) -> Result<()> {
        let traffic = self.traffic()?;
        assert!(!has(&self.loader, at, reason), "{reason} before its time");
        shell(self.host(), appear);
        wait_until(REPORTED, &format!("{reason} at {at:?}"), || {
            has(&self.loader, at, reason).then_some(())
        });

        let before = self.loader.fast_packets()?;
        if packets == Packets::Stop {
            self.sends(100)?;
        } else {
            traffic.goes_on(100);
        }
        let meanwhile = self.loader.fast_packets()? - before;
        assert_eq!(meanwhile.sent, 0, "{reason} did not stop the bypass: {meanwhile:?}");
        if still == Still::Both {
            assert_eq!(meanwhile.received, 0, "{reason} did not stop the bypass: {meanwhile:?}");
        }

        shell(self.host(), vanish);
        wait_until(REPORTED, &format!("{reason} gone"), || {
            (!has(&self.loader, at, reason)).then_some(())
        });
        traffic.is_fast(&self.loader, FAST);
        match packets {
            Packets::Arrive => traffic.arrived_whole(),
            Packets::ArriveInBetween | Packets::Stop => traffic.stop().map(|_| ()),
        }
    }

    /// Waits until the host's container has sent so many more packets.
    fn sends(&self, packets: u64) -> Result<()> {
        let sent = || counters::link(self.host(), "v1").map(|link| link.rx_packets);
        let before = sent()?;
        wait_until(FAST, "packets from the container", || {
            sent().is_ok_and(|now| now >= before + packets).then_some(())
        });
        Ok(())
    }
}
