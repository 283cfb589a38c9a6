//! From the kernel's links to bridges, their ports and what the ports are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::time::Duration;

use netlink_packet_core::Parseable;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
    VlanProtocol, XdpAttached,
};

use super::tunnel::{self, Defaults};
use super::{offloads, vlan, vnifilter};
use crate::bridge::model::{
    Bridge, BridgeKind, Bridges, Device, IfIndex, Mac, Port, StpState, VethPeer, Why,
};
use crate::bridge::netlink::{Refused, Requests};
use crate::bridge::vlans::{PortVlans, VlanVnis};
use ovs_ebpf_common::Reason;

/// A dump that others keep changing is taken as it is after so many tries: each change has sent
/// a notification, so another dump follows.
pub(super) const TRIES: usize = 4;

/// Every bridge of the calling thread's network namespace, without FDBs.
pub(super) async fn dump() -> Result<Bridges, Refused> {
    let mut requests = Requests::open()?;
    let links = dump_links(&mut requests).await?;
    let mut bridges = bridges(&links, Defaults::read());
    vlan::add(&mut bridges, &mut requests).await?;
    vnifilter::apply(&mut bridges, &links, &mut requests).await?;
    let ports = bridges.values_mut().flat_map(|bridge| bridge.ports.values_mut());
    add_peers(ports, &links, &mut requests).await?;
    Ok(bridges)
}

/// A link, as the port that it is for Open vSwitch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bridge) struct Member {
    pub(in crate::bridge) port: Port,
    /// It is in a datapath of the kernel's; `None` where the kernel has no such datapath at all.
    pub(in crate::bridge) in_datapath: Option<bool>,
    /// Of a tunnel's device: what it does to frames that the fast path would do without.
    pub(in crate::bridge) around: Vec<Why>,
}

/// The links of the calling thread's network namespace that have one of these names.
pub(in crate::bridge) async fn dump_members(
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Member>, Refused> {
    let mut requests = Requests::open()?;
    let messages = dump_links(&mut requests).await?;
    let defaults = Defaults::read();
    let links: Vec<_> = messages.iter().map(Link::new).collect();
    let is_datapath = |link: &&Link<'_>| link.name == "ovs-system" && link.is_open_vswitch();
    let datapath = links.iter().find(is_datapath).map(Link::index);
    let below = below_vlan_devices(&links);
    let mut members: BTreeMap<_, _> = links
        .iter()
        .filter(|link| wanted(link.name))
        .map(|link| {
            let in_datapath = datapath.map(|datapath| link.controller == Some(datapath));
            let under_vlan_devices = below.contains(&link.index());
            let port = Port { under_vlan_devices, ..port(link, defaults) };
            let around = match &port.device {
                Device::Tunnel(_) => offloads::around(link.name, link.xdp).collect(),
                _ => Vec::new(),
            };
            (link.name.to_owned(), Member { port, in_datapath, around })
        })
        .collect();
    let ports = members.values_mut().map(|member| &mut member.port);
    add_peers(ports, &messages, &mut requests).await?;
    Ok(members)
}

/// Every link of the socket's network namespace.
pub(crate) async fn dump_links(requests: &mut Requests) -> Result<Vec<LinkMessage>, Refused> {
    let mut links = Vec::new();
    for _ in 0..TRIES {
        links.clear();
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let interrupted = requests
            .dump(RouteNetlinkMessage::GetLink(message), |frame| links.extend(parse(frame.payload)))
            .await?;
        if !interrupted {
            break;
        }
    }
    Ok(links)
}

/// A link of the socket's network namespace by its name; `None` if there is none.
pub(crate) async fn link_named(
    requests: &mut Requests,
    name: &str,
) -> Result<Option<LinkMessage>, Refused> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut found = None;
    match requests
        .get(RouteNetlinkMessage::GetLink(message), |frame| found = parse(frame.payload))
        .await
    {
        Ok(()) => Ok(found),
        Err(refused) if refused.error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(refused) => Err(refused),
    }
}

fn parse(payload: &[u8]) -> Option<LinkMessage> {
    LinkMessage::parse(payload)
        .inspect_err(|error| tracing::warn!(%error, "left out a link that cannot be decoded"))
        .ok()
}

/// The parts of a link that matter here.
pub(crate) struct Link<'a> {
    message: &'a LinkMessage,
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    mtu: u32,
    /// The bridge (or bond, or VRF) that it is a port of.
    pub(crate) controller: Option<IfIndex>,
    /// `IFLA_LINK`: for a veth its peer, in the namespace of `namespace`.
    link: Option<IfIndex>,
    /// `IFLA_LINK_NETNSID`: where `link` lives, or a tunnel's underlay, if elsewhere.
    namespace: Option<i32>,
    xdp: bool,
    /// `IFLA_PHYS_SWITCH_ID`: a port of a switch that forwards in hardware.
    switch_port: bool,
    kind: Option<&'a InfoKind>,
    data: Option<&'a InfoData>,
    port: &'a [InfoBridgePort],
}

impl<'a> Link<'a> {
    pub(crate) fn new(message: &'a LinkMessage) -> Self {
        let mut link = Self {
            message,
            name: "",
            mac: Mac::ZERO,
            mtu: 0,
            controller: None,
            link: None,
            namespace: None,
            xdp: false,
            switch_port: false,
            kind: None,
            data: None,
            port: &[],
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.as_slice().try_into().map_or(Mac::ZERO, Mac);
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.controller = Some(*index),
                LinkAttribute::Link(index) => link.link = Some(*index),
                LinkAttribute::LinkNetNsId(id) => link.namespace = Some(*id),
                LinkAttribute::PhysSwitchId(_) => link.switch_port = true,
                LinkAttribute::Xdp(xdp) => {
                    link.xdp = xdp.iter().any(
                        |xdp| matches!(xdp, LinkXdp::Attached(how) if *how != XdpAttached::None),
                    );
                }
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => link.kind = Some(kind),
                            LinkInfo::Data(data) => link.data = Some(data),
                            LinkInfo::PortData(InfoPortData::BridgePort(port)) => link.port = port,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }

    pub(crate) fn index(&self) -> IfIndex {
        self.message.header.index
    }

    /// Administratively up.
    pub(crate) fn is_up(&self) -> bool {
        self.has(LinkFlags::Up)
    }

    /// A device of Open vSwitch's own, as its bridges have one.
    pub(crate) fn is_open_vswitch(&self) -> bool {
        matches!(self.kind, Some(InfoKind::Other(kind)) if kind == "openvswitch")
    }

    pub(crate) fn is_bridge(&self) -> bool {
        matches!(self.data, Some(InfoData::Bridge(_)))
    }

    /// In bytes of the packet within the Ethernet frame.
    pub(crate) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// A bridge that keeps VLANs apart.
    pub(crate) fn vlan_filtering(&self) -> bool {
        let Some(InfoData::Bridge(info)) = self.data else { return false };
        info.contains(&InfoBridge::VlanFiltering(true))
    }

    /// A vxlan device with `vnifilter`.
    pub(super) fn filters_vnis(&self) -> bool {
        let Some(InfoData::Vxlan(info)) = self.data else { return false };
        info.contains(&InfoVxlan::Vnifilter(true))
    }

    /// A vxlan device in metadata mode (`external`).
    fn takes_metadata(&self) -> bool {
        let Some(InfoData::Vxlan(info)) = self.data else { return false };
        info.contains(&InfoVxlan::CollectMetadata(true))
    }

    /// As the port of a bridge that it is or would be.
    pub(crate) fn port(&self) -> Port {
        port(self, Defaults::read())
    }

    fn has(&self, flags: LinkFlags) -> bool {
        self.message.header.flags.contains(flags)
    }
}

/// The bridges among the links with their ports. Veth peers are still to be added.
pub(super) fn bridges(messages: &[LinkMessage], defaults: Defaults) -> Bridges {
    let links: Vec<_> = messages.iter().map(Link::new).collect();
    let below = below_vlan_devices(&links);
    let mut bridges: Bridges = links
        .iter()
        .filter_map(|link| match link.data {
            Some(InfoData::Bridge(data)) => Some((link.index(), bridge(link, data))),
            _ => None,
        })
        .collect();
    for link in &links {
        if let Some(bridge) = link.controller.and_then(|index| bridges.get_mut(&index)) {
            let under_vlan_devices = below.contains(&link.index());
            bridge.ports.insert(link.index(), Port { under_vlan_devices, ..port(link, defaults) });
        }
    }
    bridges
}

/// The devices that VLAN devices of this namespace are on. Of another namespace's they can't be told.
fn below_vlan_devices(links: &[Link<'_>]) -> HashSet<IfIndex> {
    let is_vlan = |link: &&Link<'_>| matches!(link.kind, Some(InfoKind::Vlan));
    links.iter().filter(is_vlan).filter_map(|vlan| vlan.link).collect()
}

fn bridge(link: &Link<'_>, data: &[InfoBridge]) -> Bridge {
    let mut bridge = Bridge {
        ifindex: link.index(),
        name: link.name.to_owned(),
        kind: BridgeKind::Linux,
        mac: link.mac,
        up: link.is_up(),
        ageing: Duration::ZERO,
        vlan_aware: false,
        nf_call: false,
        unsupported: Vec::new(),
        ports: BTreeMap::new(),
        fdb: HashMap::new(),
    };
    let mut protocol = VlanProtocol::Ieee8021Q;
    for info in data {
        match info {
            // In clock_t, which is 1/100 s for every user of the kernel (USER_HZ).
            InfoBridge::AgeingTime(time) => {
                bridge.ageing = Duration::from_millis(u64::from(*time) * 10);
            }
            InfoBridge::VlanFiltering(on) => bridge.vlan_aware = *on,
            InfoBridge::VlanProtocol(used) => protocol = *used,
            InfoBridge::NfCallIpTables(on)
            | InfoBridge::NfCallIp6Tables(on)
            | InfoBridge::NfCallArpTables(on) => bridge.nf_call |= *on,
            _ => {}
        }
    }
    if bridge.vlan_aware && protocol != VlanProtocol::Ieee8021Q {
        let words = format!("vlan_protocol {protocol}");
        bridge.unsupported.push(Why::new(Reason::VlanFiltering, words));
    }
    bridge
}

fn port(link: &Link<'_>, defaults: Defaults) -> Port {
    let mut port = Port {
        ifindex: link.index(),
        name: link.name.to_owned(),
        mac: link.mac,
        up: link.has(LinkFlags::Up | LinkFlags::LowerUp),
        mtu: link.mtu,
        stp: StpState::Disabled,
        isolated: false,
        locked: false,
        vlans: PortVlans::default(),
        under_vlan_devices: false,
        unsupported: Vec::new(),
        device: device(link, defaults),
    };
    for info in link.port {
        match info {
            InfoBridgePort::State(state) => port.stp = stp(*state),
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            InfoBridgePort::Locked(on) => port.locked = *on,
            _ => {}
        }
    }
    let vlan_tunnel = link.port.contains(&InfoBridgePort::VlanTunnel(true));
    match &mut port.device {
        // The bridge gives it the VNIs of the VLANs.
        Device::Tunnel(_) if vlan_tunnel && link.takes_metadata() => {
            port.vlans.vnis = Some(VlanVnis::default());
        }
        Device::Tunnel(tunnel) if link.takes_metadata() => {
            tunnel.unsupported.push(Reason::TunnelExternal.into());
        }
        _ if vlan_tunnel => port.unsupported.push(Why::new(Reason::PortVlan, "vlan_tunnel on")),
        _ => {}
    }
    port
}

fn stp(state: BridgePortState) -> StpState {
    match state {
        BridgePortState::Listening => StpState::Listening,
        BridgePortState::Learning => StpState::Learning,
        BridgePortState::Forwarding => StpState::Forwarding,
        BridgePortState::Blocking => StpState::Blocking,
        _ => StpState::Disabled,
    }
}

fn device(link: &Link<'_>, defaults: Defaults) -> Device {
    if link.switch_port {
        // It may have forwarded the frame in hardware already, which only the bridge can tell
        // (`nbp_switchdev_allowed_egress`).
        return Device::Other("port of a hardware switch".to_owned());
    }
    let mut tunnel = match (link.kind, link.data) {
        (_, Some(InfoData::Vxlan(info))) => tunnel::vxlan(info, defaults),
        (_, Some(InfoData::GreTap(info))) => tunnel::gretap(info, defaults),
        (_, Some(InfoData::GreTap6(info))) => tunnel::ip6gretap(info, defaults),
        (Some(InfoKind::Veth), _) => return Device::Veth(None),
        (
            None
            | Some(
                InfoKind::Tun
                | InfoKind::Bond
                | InfoKind::Team
                | InfoKind::Vlan
                | InfoKind::Dummy
                | InfoKind::MacVlan
                | InfoKind::Netdevsim,
            ),
            _,
        ) if link.message.header.link_layer_type == LinkLayerType::Ether => {
            return Device::Ethernet;
        }
        (Some(kind), _) => return Device::Other(kind.to_string()),
        (None, _) => return Device::Other(format!("{:?}", link.message.header.link_layer_type)),
    };
    if let Some(id) = link.namespace {
        tunnel.unsupported.push(Why::new(Reason::TunnelOption, format!("link-netnsid {id}")));
    }
    tunnel.unsupported.extend(offloads::around(link.name, link.xdp));
    Device::Tunnel(Box::new(tunnel))
}

/// Completes the veth ports with what is known of their peers.
async fn add_peers(
    ports: impl Iterator<Item = &mut Port>,
    messages: &[LinkMessage],
    requests: &mut Requests,
) -> Result<(), Refused> {
    let links: HashMap<_, _> =
        messages.iter().map(|message| (message.header.index, Link::new(message))).collect();
    for port in ports {
        let Device::Veth(peer) = &mut port.device else { continue };
        let Some(link) = links.get(&port.ifindex) else { continue };
        let Some(index) = link.link else { continue };
        *peer = match link.namespace {
            None => links.get(&index).map(|other| veth_peer(other, false)),
            Some(namespace) => foreign_link(requests, namespace, index)
                .await?
                .map(|message| veth_peer(&Link::new(&message), true)),
        };
    }
    Ok(())
}

fn veth_peer(link: &Link<'_>, other_namespace: bool) -> VethPeer {
    VethPeer { mac: link.mac, mtu: link.mtu, other_namespace, xdp: link.xdp }
}

/// A link of another namespace, by the id that namespace has in this one. None if it is gone, or
/// its namespace has no id here: `rtnl_getlink` then says which of the two, and both mean that
/// nothing is known.
async fn foreign_link(
    requests: &mut Requests,
    namespace: i32,
    index: IfIndex,
) -> Result<Option<LinkMessage>, Refused> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfNetnsId(namespace));
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut found = None;
    match requests
        .get(RouteNetlinkMessage::GetLink(message), |frame| found = parse(frame.payload))
        .await
    {
        Ok(()) => Ok(found),
        Err(refused) if is_socket_failure(&refused.error) => Err(refused),
        Err(refused) => {
            tracing::debug!(namespace, index, %refused, "a veth's peer is out of sight");
            Ok(None)
        }
    }
}

/// Whether the socket failed, as opposed to the kernel answering that there is no such link.
fn is_socket_failure(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EBADF | libc::ENOTCONN) | None)
}
