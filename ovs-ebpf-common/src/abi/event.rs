/// Size of the `events` ring buffer, in bytes: a power of two, and whole pages of any size in use.
pub const EVENTS_SIZE: usize = 65_536;

/// For how long a port or tunnel is silent after an event, in nanoseconds: see [`Event`].
pub const EVENT_INTERVAL: u64 = 20_000_000;

/// A record of `events`: a frame came from where the FDB does not have its source.
///
/// The bridge, which gets the frame, is about to learn that. Raised where [`super::PortFlags`] or
/// [`super::TunnelIndexFlags`] ask for it, for frames that do not take the fast path anyway too
/// (broadcast, ARP). From then on where the FDB has it is in doubt ([`super::DoubtValue`]).
///
/// After an event its port or tunnel raises no other for [`EVENT_INTERVAL`], whatever arrives. Who asks
/// the bridge that long after an event has all that was not told apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The bridge: its device's ifindex.
    pub bridge: u32,
    /// Where the frame came from: an ifindex, or with [`EventFlags::TUNNEL`] a tunnel id.
    pub from: u32,
    /// The frame's source.
    pub mac: [u8; 6],
    /// [`EventFlags`].
    pub flags: u16,
}

impl Event {
    /// The event that a record of `events` is; none if the record's length is another.
    #[must_use]
    pub fn from_bytes(record: &[u8]) -> Option<Self> {
        let (bridge, rest) = record.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let (mac, flags) = rest.split_first_chunk()?;
        Some(Self {
            bridge: u32::from_ne_bytes(*bridge),
            from: u32::from_ne_bytes(*from),
            mac: *mac,
            flags: u16::from_ne_bytes(flags.try_into().ok()?),
        })
    }
}

/// Bits of [`Event::flags`].
pub struct EventFlags;

impl EventFlags {
    /// The frame came from a tunnel.
    pub const TUNNEL: u16 = 1 << 0;
    /// The FDB has the station elsewhere; without it, nowhere.
    pub const MOVED: u16 = 1 << 1;
}

const _: () = assert!(size_of::<Event>() == 16);
const _: () = assert!(EVENTS_SIZE.is_power_of_two());
super::pod!(Event);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_fields_in_their_places() {
        let record = [1, 0, 0, 0, 2, 0, 0, 0, 2, 3, 4, 5, 6, 7, 1, 0];
        let event = Event {
            bridge: u32::from_ne_bytes([1, 0, 0, 0]),
            from: u32::from_ne_bytes([2, 0, 0, 0]),
            mac: [2, 3, 4, 5, 6, 7],
            flags: u16::from_ne_bytes([1, 0]),
        };
        assert_eq!(Event::from_bytes(&record), Some(event));
        assert_eq!(Event::from_bytes(&record[..15]), None);
        assert_eq!(Event::from_bytes(&[record, record].concat()), None);
    }
}
