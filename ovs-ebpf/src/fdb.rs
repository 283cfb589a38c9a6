//! The mirrored forwarding table: where stations are, and whether a frame fits to that.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_peer};
use ovs_ebpf_common::{
    Reason,
    abi::{FdbFlags, FdbKey, FdbValue},
};

use crate::{counters::Verdict, doubts, lease::Now, maps::FDB, origin::Origin, packet::Packet};

const SECOND: u64 = 1_000_000_000;

/// Where a station is, as read from the map at one moment.
#[derive(Clone, Copy)]
pub struct Station {
    /// An ifindex, or with [`FdbFlags::TUNNEL`] a tunnel id.
    pub target: u32,
    /// [`FdbFlags`].
    pub flags: u16,
    /// See [`FdbValue::mtu`].
    pub mtu: u32,
}

impl Station {
    #[inline(always)]
    pub fn is_behind_tunnel(&self) -> bool {
        self.flags & FdbFlags::TUNNEL != 0
    }

    /// Whether it is where a frame came from.
    #[inline(always)]
    pub fn is_at(&self, origin: &Origin) -> bool {
        self.target == origin.from && self.is_behind_tunnel() == origin.is_tunnel
    }

    /// The tag that a frame leaves with: control information, 0 is none. A tag that stays keeps its
    /// priority.
    #[inline(always)]
    pub fn tag_of(&self, origin: &Origin) -> u16 {
        match self.flags & FdbFlags::TAGGED {
            0 => 0,
            _ if origin.tag != 0 => origin.tag,
            _ => origin.vlan,
        }
    }

    /// Whether the port's device may cut GSO packets in hardware.
    #[inline(always)]
    pub fn may_segment_in_hardware(&self) -> bool {
        self.flags & FdbFlags::HARDWARE != 0
    }
}

/// The source's entry, which must say that the frame came from where it did; and from when on the
/// source has to be looked at again, in nanoseconds of `CLOCK_MONOTONIC`.
///
/// # Errors
/// [`Reason::SourceUnknown`], [`Reason::SourceMoved`], [`Reason::Doubted`], and [`Reason::Revalidation`] once
/// per interval.
#[inline(always)]
pub fn source(mac: &[u8; 6], origin: &Origin, now: &Now) -> Result<(Station, u64), Reason> {
    let key = origin.station(*mac);
    let entry = FDB.get_ptr_mut(key).ok_or(Reason::SourceUnknown)?;
    let station = read(entry);
    if !station.is_at(origin) {
        return Err(Reason::SourceMoved);
    }
    doubts::believe(&key, &station, origin, now)?;
    // SAFETY: a map value, valid until the program ends. CPUs may race for the deadline: then more
    // than one packet passes the bridge, which does no harm.
    let (next, interval) =
        unsafe { (&raw mut (*entry).next_revalidation, (*entry).revalidate_seconds) };
    if interval == 0 {
        return Ok((station, u64::MAX));
    }
    // SAFETY: as above.
    unsafe {
        if now.0 >= *next {
            *next = now.0 + u64::from(interval) * SECOND;
            return Err(Reason::Revalidation);
        }
        Ok((station, *next))
    }
}

/// The destination's entry, for a frame from `source`.
///
/// # Errors
/// [`Reason::DestinationUnknown`], [`Reason::Doubted`], [`Reason::SamePort`], [`Reason::Isolated`].
#[inline(always)]
pub fn destination(
    mac: &[u8; 6],
    source: &Station,
    origin: &Origin,
    now: &Now,
) -> Result<Station, Reason> {
    let key = origin.station(*mac);
    let station = find(&key).ok_or(Reason::DestinationUnknown)?;
    doubts::believe(&key, &station, origin, now)?;
    if station.target == source.target && station.is_behind_tunnel() == source.is_behind_tunnel() {
        return Err(Reason::SamePort);
    }
    if station.flags & source.flags & FdbFlags::ISOLATED != 0 {
        return Err(Reason::Isolated);
    }
    Ok(station)
}

/// A station's entry.
#[inline(always)]
pub fn find(key: &FdbKey) -> Option<Station> {
    FDB.get_ptr_mut(key).map(read)
}

/// Everything forwarding needs of an entry, read at once: the map may give a deleted entry's memory
/// to another station.
#[inline(always)]
fn read(entry: *mut FdbValue) -> Station {
    // SAFETY: a map value, valid until the program ends. Volatile: each field is loaded here, once.
    unsafe {
        Station {
            target: (&raw const (*entry).target).read_volatile(),
            flags: (&raw const (*entry).flags).read_volatile(),
            mtu: (&raw const (*entry).mtu).read_volatile(),
        }
    }
}

/// Whether a packet of `len` bytes, without its Ethernet header, fits through the local port as the
/// bridge would have it (`is_skb_forwardable`).
///
/// # Errors
/// [`Reason::TooBig`].
#[inline(always)]
pub fn fits(packet: &Packet, len: u32, station: &Station) -> Result<(), Reason> {
    if len > station.mtu && packet.gso_size() == 0 {
        return Err(Reason::TooBig);
    }
    Ok(())
}

/// Hands the frame to a local port: to the other end of a veth at once where that owns the MAC, else
/// out of the port's device.
#[inline(always)]
pub fn deliver(packet: &Packet, station: &Station) -> Verdict {
    // SAFETY: helpers that note the target for the kernel to act on after the program.
    Ok(unsafe {
        if station.flags & FdbFlags::PEER != 0 {
            // What the veth does to a frame that changes its namespace (`skb_scrub_packet`), kernels
            // before 6.15 leave out: the frame to somebody else that the host's end saw would be
            // dropped by the other end.
            packet.set_for_host();
            packet.clear_mark();
            bpf_redirect_peer(station.target, 0)
        } else {
            bpf_redirect(station.target, 0)
        }
    } as i32)
}
