//! Access ports: ports in one VLAN, whose frames are untagged on the wire.

use netlink_packet_core::Parseable as _;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::change::Change;
use super::message::of;
use super::{Action, Error};
use crate::bridge::model::IfIndex;

/// Makes an interface a port, in a VLAN if one is given, and brings it up when it is all that.
pub async fn add_access_port(
    bridge: &str,
    interface: &str,
    vlan: Option<u16>,
) -> Result<Vec<Action>, Error> {
    let mut change = Change::about(&[bridge, interface]).await?;
    let done = change.add_access_port(bridge, interface, vlan).await;
    change.end(done).await
}

/// Makes a port the access port of a VLAN: it is taken out of all others.
pub async fn set_access_vlan(bridge: &str, interface: &str, vlan: u16) -> Result<(), Error> {
    let mut change = Change::begin().await?;
    let index = change.port_of(bridge, interface)?.ifindex;
    let done = change.set_access_vlan(bridge, index, interface, vlan).await;
    change.end(done).await.map(drop)
}

impl Change {
    async fn add_access_port(
        &mut self,
        bridge: &str,
        interface: &str,
        vlan: Option<u16>,
    ) -> Result<(), Error> {
        let index = self.bridge(bridge)?;
        let port = self.interface(interface)?;
        if self.join(index, port, interface).await? {
            self.done.push(Action::PortAdded {
                bridge: bridge.to_owned(),
                interface: interface.to_owned(),
            });
        }
        if let Some(vlan) = vlan {
            self.set_access_vlan(bridge, port, interface, vlan).await?;
        }
        self.bring_up(port, interface).await
    }

    async fn set_access_vlan(
        &mut self,
        bridge: &str,
        port: IfIndex,
        interface: &str,
        vlan: u16,
    ) -> Result<(), Error> {
        if !self.link(bridge).is_some_and(|link| link.vlan_filtering()) {
            return Err(Error::NoVlans { bridge: bridge.to_owned(), vlan });
        }
        let before = self.vlans(port, interface).await?;
        let access = BridgeVlanInfo {
            flags: BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged,
            vid: vlan,
        };
        // The new one first, so that the port is never without any.
        self.request(join(port, access), 0, || format!("put {interface} into VLAN {vlan}")).await?;
        let back = match before.iter().find(|info| info.vid == vlan) {
            Some(as_before) => join(port, *as_before),
            None => leave(port, vlan),
        };
        self.undo_with(format!("take {interface} out of VLAN {vlan}"), back);
        for info in before.into_iter().filter(|info| info.vid != vlan) {
            let vid = info.vid;
            self.request(leave(port, vid), 0, || format!("take {interface} out of VLAN {vid}"))
                .await?;
            self.undo_with(format!("put {interface} back into VLAN {vid}"), join(port, info));
        }
        Ok(())
    }

    /// The VLANs that a port is in.
    async fn vlans(
        &mut self,
        port: IfIndex,
        interface: &str,
    ) -> Result<Vec<BridgeVlanInfo>, Error> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
        let mut vlans = Vec::new();
        self.requests
            .dump(RouteNetlinkMessage::GetLink(message), |frame| {
                let Ok(link) = LinkMessage::parse(frame.payload) else { return };
                if link.header.index != port {
                    return;
                }
                for attribute in &link.attributes {
                    let LinkAttribute::AfSpecBridge(all) = attribute else { continue };
                    vlans.extend(all.iter().filter_map(|one| match one {
                        AfSpecBridge::VlanInfo(info) => Some(*info),
                        _ => None,
                    }));
                }
            })
            .await
            .map_err(|refused| Error::kernel(format!("read the VLANs of {interface}"), &refused))?;
        Ok(vlans)
    }
}

/// Puts a port into a VLAN, or changes how it is in it.
fn join(port: IfIndex, info: BridgeVlanInfo) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(membership(port, info))
}

/// Takes a port out of a VLAN.
fn leave(port: IfIndex, vid: u16) -> RouteNetlinkMessage {
    let info = BridgeVlanInfo { flags: BridgeVlanInfoFlags::empty(), vid };
    RouteNetlinkMessage::DelLink(membership(port, info))
}

/// A port's membership in a VLAN.
fn membership(port: IfIndex, info: BridgeVlanInfo) -> LinkMessage {
    let mut message = of(port);
    message.header.interface_family = AddressFamily::Bridge;
    message.attributes.push(LinkAttribute::AfSpecBridge(vec![AfSpecBridge::VlanInfo(info)]));
    message
}
