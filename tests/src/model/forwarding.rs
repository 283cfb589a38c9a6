//! What both programs ask of the maps: the lease, the FDB, the limits of a port.

use ovs_ebpf_common::{
    Reason,
    abi::{FdbFlags, FdbKey, FdbValue},
};

use super::{Model, Received, read::ETHERNET};

/// Where a station is, or where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A local port, by ifindex.
    Port(u32),
    /// A tunnel, by id.
    Tunnel(u32),
}

pub(super) fn place(station: &FdbValue) -> Place {
    if station.flags & FdbFlags::TUNNEL == FdbFlags::TUNNEL {
        Place::Tunnel(station.target)
    } else {
        Place::Port(station.target)
    }
}

impl Model {
    pub(super) fn lease(&self, now: u64) -> Result<(), Reason> {
        if now < self.tables.control.lease_deadline { Ok(()) } else { Err(Reason::LeaseExpired) }
    }

    /// The two stations of a frame that came from `from`: source, then destination.
    pub(super) fn stations(
        &mut self,
        now: u64,
        from: Place,
        source: FdbKey,
        destination: FdbKey,
    ) -> Result<FdbValue, Reason> {
        let source = self.tables.fdb.get_mut(&source).ok_or(Reason::SourceUnknown)?;
        if place(source) != from {
            return Err(Reason::SourceMoved);
        }
        if source.revalidate_seconds > 0 && source.next_revalidation <= now {
            source.next_revalidation = now + u64::from(source.revalidate_seconds) * 1_000_000_000;
            return Err(Reason::Revalidation);
        }
        let isolated = source.flags & FdbFlags::ISOLATED != 0;
        let station = *self.tables.fdb.get(&destination).ok_or(Reason::DestinationUnknown)?;
        if place(&station) == from {
            return Err(Reason::SamePort);
        }
        if isolated && station.flags & FdbFlags::ISOLATED != 0 {
            return Err(Reason::Isolated);
        }
        Ok(station)
    }
}

/// Whether a local port takes a frame of `frame_len` bytes. What is to be cut is, there.
pub(super) fn fits(
    station: &FdbValue,
    packet: &Received<'_>,
    frame_len: usize,
) -> Result<(), Reason> {
    if packet.gso.is_none() && frame_len - ETHERNET > station.mtu as usize {
        return Err(Reason::TooBig);
    }
    Ok(())
}
