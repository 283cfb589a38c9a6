//! What both programs ask of the maps: the lease, the FDB, the limits of a port.

use std::collections::BTreeMap;

use ovs_ebpf_common::{
    Reason,
    abi::{DOUBT, DoubtValue, Event, EventFlags, FdbFlags, FdbKey, FdbValue, NO_VLAN},
};

use super::{
    Model, Received,
    read::{self, ETHERNET, Overlay},
};

/// Where a station is.
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

/// The port or tunnel that a frame came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) place: Place,
    pub(super) bridge: u32,
    /// Of frames without a tag; then the frame's.
    pub(super) vlan: u16,
    /// Whether it takes frames with a tag.
    pub(super) takes_tags: bool,
    /// Whether it tells of stations.
    pub(super) tells: bool,
    /// From when on.
    pub(super) next_event: u64,
}

impl Origin {
    /// Finds the VLAN of a frame with or without a tag. IEEE 802.1Q, clause 9.6: three bits of
    /// priority, one of drop eligibility, twelve of the VLAN.
    pub(super) fn enter(&mut self, tag: Option<[u8; 4]>) -> Result<(), Reason> {
        match tag {
            None if self.vlan == NO_VLAN => Err(Reason::VlanUntagged),
            None => Ok(()),
            Some(_) if !self.takes_tags => Err(Reason::VlanTagged),
            Some([0x81, 0x00, high, low]) => {
                self.vlan = u16::from(high % 16) * 256 + u16::from(low);
                let eligible = high / 16 % 2 == 1;
                if eligible || self.vlan == 0 { Err(Reason::VlanPriority) } else { Ok(()) }
            }
            Some(_) => Err(Reason::VlanStacked),
        }
    }

    /// The tag with which a frame that came with `tag` goes to a station.
    pub(super) fn tag_to(&self, station: &FdbValue, tag: Option<[u8; 4]>) -> Option<[u8; 4]> {
        let [high, low] = self.vlan.to_be_bytes();
        (station.flags & FdbFlags::TAGGED != 0).then(|| tag.unwrap_or([0x81, 0x00, high, low]))
    }

    /// The FDB's key of a station of the same bridge and VLAN.
    fn key(&self, mac: [u8; 6]) -> FdbKey {
        FdbKey { bridge: self.bridge, vlan: self.vlan, mac }
    }
}

impl Model {
    pub(super) fn lease(&self, now: u64) -> Result<(), Reason> {
        if now < self.tables.control.lease_deadline { Ok(()) } else { Err(Reason::LeaseExpired) }
    }

    /// Asks for the two stations of a frame, source first. Gives the destination's entry.
    pub(super) fn stations(
        &mut self,
        now: u64,
        origin: &Origin,
        overlay: &Overlay,
    ) -> Result<FdbValue, Reason> {
        let key = origin.key(overlay.source);
        let source = self.tables.fdb.get_mut(&key).ok_or(Reason::SourceUnknown)?;
        if place(source) != origin.place {
            return Err(Reason::SourceMoved);
        }
        if origin.tells && is_doubted(&self.tables.doubts, &key, source, now) {
            return Err(Reason::Doubted);
        }
        if source.revalidate_seconds > 0 && source.next_revalidation <= now {
            source.next_revalidation = now + u64::from(source.revalidate_seconds) * 1_000_000_000;
            return Err(Reason::Revalidation);
        }
        let isolated = source.flags & FdbFlags::ISOLATED != 0;
        let destination = origin.key(overlay.destination);
        let station = *self.tables.fdb.get(&destination).ok_or(Reason::DestinationUnknown)?;
        if origin.tells && is_doubted(&self.tables.doubts, &destination, &station, now) {
            return Err(Reason::Doubted);
        }
        if place(&station) == origin.place {
            return Err(Reason::SamePort);
        }
        if isolated && station.flags & FdbFlags::ISOLATED != 0 {
            return Err(Reason::Isolated);
        }
        Ok(station)
    }

    /// The event that a frame raises which is left to the bridge: where that is about to learn that
    /// the source is not where the FDB has it, which is then doubted. Broadcast, and what is not IP, teach
    /// it too.
    pub(super) fn event(
        &mut self,
        now: u64,
        origin: &Origin,
        frame: &[u8],
        reason: Reason,
    ) -> Option<Event> {
        let heard = [Reason::SourceUnknown, Reason::SourceMoved, Reason::Multicast, Reason::NotIp];
        let mac = read::source(frame);
        // IEEE 802.1D: no source is a group address.
        if !origin.tells || !heard.contains(&reason) || mac[0] % 2 == 1 {
            return None;
        }
        let key = origin.key(mac);
        let known = self.tables.fdb.get(&key).map(place);
        if known == Some(origin.place) {
            return None;
        }
        if let Some(doubtful) = known {
            let (target, is_tunnel) = match doubtful {
                Place::Port(ifindex) => (ifindex, 0),
                Place::Tunnel(id) => (id, 1),
            };
            self.tables.doubts.insert(key, DoubtValue { until: now + DOUBT, target, is_tunnel });
            self.doubts.push(key);
        }
        if now < origin.next_event {
            return None;
        }
        let (from, tunnel) = match origin.place {
            Place::Port(ifindex) => (ifindex, 0),
            Place::Tunnel(id) => (id, EventFlags::TUNNEL),
        };
        let moved = if known.is_some() { EventFlags::MOVED } else { 0 };
        Some(Event { bridge: origin.bridge, from, mac, flags: tunnel | moved })
    }
}

/// Whether a station was heard elsewhere a moment ago.
fn is_doubted(
    doubts: &BTreeMap<FdbKey, DoubtValue>,
    key: &FdbKey,
    station: &FdbValue,
    now: u64,
) -> bool {
    doubts.get(key).is_some_and(|doubt| {
        let at = match doubt.is_tunnel {
            0 => Place::Port(doubt.target),
            _ => Place::Tunnel(doubt.target),
        };
        at == place(station) && now < doubt.until
    })
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
