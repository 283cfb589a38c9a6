//! One entry of a forwarding table, as an `AF_BRIDGE` neighbour message tells of it.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{DecodeError, NlasIterator};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourExtFlags, NeighbourFlags, NeighbourHeader, NeighbourMessageBuffer, NeighbourState,
};

use crate::bridge::model::{FdbEntry, FdbKey, FdbKind, IfIndex, Mac, Remote};

// `linux/neighbour.h`
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_PORT: u16 = 6;
const NDA_VNI: u16 = 7;
const NDA_IFINDEX: u16 = 8;
const NDA_MASTER: u16 = 9;
const NDA_SRC_VNI: u16 = 11;
const NDA_NH_ID: u16 = 13;
const NDA_FLAGS_EXT: u16 = 15;

/// One entry as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A bridge has a station behind a port.
    Bridge { bridge: IfIndex, key: FdbKey, entry: FdbEntry },
    /// A vxlan device has a station behind a remote.
    Tunnel { device: IfIndex, mac: Mac, destination: Destination },
}

/// Where a vxlan device sends (`struct vxlan_rdst`). What is `None` is the device's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    /// `0.0.0.0` where a nexthop group decides.
    pub(super) address: IpAddr,
    port: Option<u16>,
    vni: Option<u32>,
    source_vni: Option<u32>,
    link: Option<IfIndex>,
    nexthop: Option<u32>,
}

impl Record {
    /// The bridge or vxlan device whose table it is of.
    pub(super) fn table(&self) -> IfIndex {
        match self {
            Self::Bridge { bridge, .. } => *bridge,
            Self::Tunnel { device, .. } => *device,
        }
    }
}

impl Destination {
    /// In metadata mode, the VNI whose frames are sent there.
    pub(super) fn source_vni(&self) -> Option<u32> {
        self.source_vni
    }

    /// As the model has it, in the words of `bridge fdb show`.
    pub(super) fn remote(&self, tunnel_link: Option<IfIndex>) -> Remote {
        let via = self.link.filter(|link| Some(*link) != tunnel_link);
        let words = [
            self.port.map(|port| format!("port {port}")),
            // A frame's own VNI is what it is sent with where none is set.
            self.vni.filter(|_| self.vni != self.source_vni).map(|vni| format!("vni {vni}")),
            self.nexthop.map(|id| format!("nhid {id}")),
            via.map(|link| format!("via {}", device_name(link))),
        ];
        let options: Vec<_> = words.into_iter().flatten().collect();
        Remote {
            vni: self.source_vni,
            address: self.address,
            // `vxlan_xmit_one` looks for the route by the entry's own device.
            bound: self.link.is_some() || tunnel_link.is_none(),
            options: options.join(" "),
        }
    }
}

/// A device's name, `if` and the index where it has gone.
fn device_name(index: IfIndex) -> String {
    nix::net::if_::if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| format!("if{index}"))
}

/// Whether a neighbour message is one of a forwarding table, from its `ndm_family`.
pub(super) fn is_fdb(payload: &[u8]) -> bool {
    payload.first() == Some(&u8::from(AddressFamily::Bridge))
}

/// An entry; none where the message is of another device's address list, or not decodable.
pub(super) fn parse(payload: &[u8]) -> Option<Record> {
    decode(payload)
        .inspect_err(|error| tracing::warn!(%error, "left out an FDB entry that cannot be decoded"))
        .ok()?
}

/// Decodes what is needed of a message where it lies: a million of them come at once.
fn decode(payload: &[u8]) -> Result<Option<Record>, DecodeError> {
    let header = NeighbourHeader::parse(payload)?;
    let device = header.ifindex;
    let mut mac = None;
    let mut vlan = 0;
    let mut bridge = None;
    let mut locked = false;
    let mut address = None;
    let (mut port, mut vni, mut source_vni, mut link, mut nexthop) = (None, None, None, None, None);
    for attribute in NlasIterator::new(&payload[size_of::<NeighbourMessageBuffer>()..]) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NDA_LLADDR => mac = value.try_into().ok().map(Mac),
            NDA_VLAN => vlan = value.try_into().map_or(0, u16::from_ne_bytes),
            NDA_MASTER => bridge = word(value),
            NDA_FLAGS_EXT => {
                let flags = NeighbourExtFlags::from_bits_retain(word(value).unwrap_or_default());
                // Any flag beside these says that the entry is not an ordinary one.
                locked = !(flags - NeighbourExtFlags::Managed).is_empty();
            }
            NDA_DST => address = ip(value),
            NDA_PORT => port = value.try_into().ok().map(u16::from_be_bytes),
            NDA_VNI => vni = word(value),
            NDA_SRC_VNI => source_vni = word(value),
            NDA_IFINDEX => link = word(value).filter(|index| *index != 0),
            NDA_NH_ID => nexthop = word(value),
            _ => {}
        }
    }
    let Some(mac) = mac else { return Ok(None) };
    if let Some(bridge) = bridge {
        let kind = match header.state {
            _ if locked => FdbKind::Locked,
            NeighbourState::Permanent => FdbKind::Local,
            NeighbourState::Noarp => FdbKind::Static,
            _ => FdbKind::Dynamic,
        };
        let entry = FdbEntry { port: device, kind };
        return Ok(Some(Record::Bridge { bridge, key: FdbKey { vlan, mac }, entry }));
    }
    if !header.flags.contains(NeighbourFlags::Own) || (address.is_none() && nexthop.is_none()) {
        return Ok(None);
    }
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let destination = Destination { address, port, vni, source_vni, link, nexthop };
    Ok(Some(Record::Tunnel { device, mac, destination }))
}

/// A value of 32 bits in the host's byte order.
fn word(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// An IPv4 or IPv6 address, by its length: the message's family is `AF_BRIDGE`.
fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}
