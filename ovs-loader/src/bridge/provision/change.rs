//! One change of the host's bridges: its steps, and the way back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::error::Kind;
use super::message::{flood_entry, gre_info, isolated, of, set, vxlan_info, without_addresses};
use super::{Action, Error, TunnelSpec};
use crate::bridge::linux::{fdb, links};
use crate::bridge::model::{Device, Encap, IfIndex, Port, Tunnel};
use crate::bridge::netlink::Requests;

/// `IFNAMSIZ` without the terminating zero.
const LONGEST_NAME: usize = 15;

/// A change under way.
pub(super) struct Change {
    pub(super) requests: Requests,
    links: Vec<LinkMessage>,
    /// What was changed so far.
    pub(super) done: Vec<Action>,
    undo: Vec<Undo>,
}

/// How a step is taken back.
struct Undo {
    what: String,
    message: RouteNetlinkMessage,
}

impl Change {
    /// Looks at what is there.
    pub(super) async fn begin() -> Result<Self, Error> {
        let requests = Requests::open()
            .map_err(|error| Error::kernel("open a netlink socket", &error.into()))?;
        let mut this = Self { requests, links: Vec::new(), done: Vec::new(), undo: Vec::new() };
        this.look().await?;
        Ok(this)
    }

    /// Looks at these interfaces alone, whose number is then no matter: hosts have thousands.
    pub(super) async fn about(names: &[&str]) -> Result<Self, Error> {
        let requests = Requests::open()
            .map_err(|error| Error::kernel("open a netlink socket", &error.into()))?;
        let mut this = Self { requests, links: Vec::new(), done: Vec::new(), undo: Vec::new() };
        for name in names {
            this.look_at(name).await?;
        }
        Ok(this)
    }

    async fn look_at(&mut self, name: &str) -> Result<(), Error> {
        let found = links::link_named(&mut self.requests, name).await;
        let found = found.map_err(|refused| Error::kernel(format!("look at {name}"), &refused))?;
        self.links.extend(found);
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Error> {
        self.links = links::dump_links(&mut self.requests)
            .await
            .map_err(|refused| Error::kernel("list the interfaces", &refused))?;
        Ok(())
    }

    /// What was done; or everything taken back and the error. Taking back goes on after a step
    /// that fails.
    pub(super) async fn end(mut self, result: Result<(), Error>) -> Result<Vec<Action>, Error> {
        if result.is_err() {
            while let Some(Undo { what, message }) = self.undo.pop() {
                if let Err(refused) = self.requests.change(message, 0).await {
                    tracing::warn!(%refused, "could not take a change back: {what}");
                }
            }
        }
        result.map(|()| self.done)
    }

    /// Takes note of how to take the last step back.
    pub(super) fn undo_with(&mut self, what: String, message: RouteNetlinkMessage) {
        self.undo.push(Undo { what, message });
    }

    /// An interface by its name.
    pub(super) fn link(&self, name: &str) -> Option<links::Link<'_>> {
        self.links.iter().map(links::Link::new).find(|link| link.name == name)
    }

    /// The names of all interfaces.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.links.iter().map(|link| links::Link::new(link).name.to_owned()).collect()
    }

    /// An interface's name by its index.
    pub(super) fn name_of(&self, index: IfIndex) -> String {
        let mut links = self.links.iter().map(links::Link::new);
        links
            .find(|link| link.index() == index)
            .map_or_else(|| format!("interface {index}"), |link| link.name.to_owned())
    }

    /// A bridge's ifindex.
    pub(super) fn bridge(&self, name: &str) -> Result<IfIndex, Error> {
        match self.link(name) {
            Some(link) if link.is_bridge() => Ok(link.index()),
            Some(link) if link.is_open_vswitch() => Err(Error::OpenVswitch(name.to_owned())),
            Some(_) => Err(Error::NotBridge(name.to_owned())),
            None => Err(Error::NoBridge(name.to_owned())),
        }
    }

    /// Whether a bridge has ports.
    pub(super) fn has_ports(&self, bridge: IfIndex) -> bool {
        self.links.iter().map(links::Link::new).any(|link| link.controller == Some(bridge))
    }

    /// A bridge's ports.
    pub(super) fn ports_of(&self, bridge: IfIndex) -> Vec<Port> {
        let links = self.links.iter().map(links::Link::new);
        links.filter(|link| link.controller == Some(bridge)).map(|link| link.port()).collect()
    }

    /// An interface's ifindex.
    pub(super) fn interface(&self, name: &str) -> Result<IfIndex, Error> {
        let link = self.link(name).ok_or_else(|| Error::NoInterface(name.to_owned()))?;
        Ok(link.index())
    }

    /// A port of a bridge.
    pub(super) fn port_of(&self, bridge: &str, interface: &str) -> Result<Port, Error> {
        let index = self.bridge(bridge)?;
        let link = self.link(interface).ok_or_else(|| Error::NoInterface(interface.to_owned()))?;
        if link.controller != Some(index) {
            return Err(Error::NotPort {
                bridge: bridge.to_owned(),
                interface: interface.to_owned(),
            });
        }
        Ok(link.port())
    }

    pub(super) async fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        self.requests
            .change(message, flags)
            .await
            .map_err(|refused| Error::kernel(doing(), &refused))
    }

    /// Creates a bridge and brings it up.
    pub(super) async fn create_bridge(&mut self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let index = self.create(name, Kind::Bridge, InfoKind::Bridge, None).await?;
        self.done.push(Action::BridgeAdded(name.to_owned()));
        self.set_up(index, name).await
    }

    pub(super) async fn create(
        &mut self,
        name: &str,
        kind: Kind,
        info_kind: InfoKind,
        data: Option<InfoData>,
    ) -> Result<IfIndex, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut info = vec![LinkInfo::Kind(info_kind)];
        info.extend(data.map(LinkInfo::Data));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.requests
            .change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .await
            .map_err(|refused| Error::create(name, kind, &refused))?;
        let mut created = LinkMessage::default();
        created.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.undo.push(Undo {
            what: format!("delete {name}"),
            message: RouteNetlinkMessage::DelLink(created),
        });
        self.look_at(name).await?;
        self.link(name).map(|link| link.index()).ok_or_else(|| Error::NoInterface(name.to_owned()))
    }

    /// Deletes an interface. There is no way back.
    pub(super) async fn delete(
        &mut self,
        index: IfIndex,
        name: &str,
        done: Action,
    ) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelLink(of(index));
        self.request(message, 0, || format!("delete {name}")).await?;
        self.done.push(done);
        Ok(())
    }

    /// Makes an interface a port; false if it is one already.
    pub(super) async fn join(
        &mut self,
        bridge: IfIndex,
        index: IfIndex,
        name: &str,
    ) -> Result<bool, Error> {
        let controller = self.link(name).and_then(|link| link.controller);
        match controller {
            Some(controller) if controller == bridge => Ok(false),
            Some(controller) => {
                self.look().await?;
                let owner = self.name_of(controller);
                Err(Error::Taken { interface: name.to_owned(), owner })
            }
            None => {
                self.set_controller(index, name, Some(bridge)).await?;
                self.undo.push(Undo {
                    what: format!("release {name}"),
                    message: set(index, LinkAttribute::Controller(0)),
                });
                Ok(true)
            }
        }
    }

    /// Sets or clears whose port an interface is.
    pub(super) async fn set_controller(
        &mut self,
        index: IfIndex,
        name: &str,
        controller: Option<IfIndex>,
    ) -> Result<(), Error> {
        let message = set(index, LinkAttribute::Controller(controller.unwrap_or(0)));
        self.request(message, 0, || match controller {
            Some(_) => format!("make {name} a port"),
            None => format!("release {name} from its bridge"),
        })
        .await
    }

    /// Brings an interface up that was there before.
    pub(super) async fn bring_up(&mut self, index: IfIndex, name: &str) -> Result<(), Error> {
        if self.link(name).is_some_and(|link| link.is_up()) {
            return Ok(());
        }
        self.set_up(index, name).await?;
        let mut message = of(index);
        message.header.change_mask = LinkFlags::Up;
        self.undo.push(Undo {
            what: format!("take {name} down"),
            message: RouteNetlinkMessage::SetLink(message),
        });
        self.done.push(Action::BroughtUp(name.to_owned()));
        Ok(())
    }

    /// Has an interface get no IPv6 address when it comes up; a kernel without IPv6 gives it none.
    pub(super) async fn mute(&mut self, index: IfIndex, name: &str) -> Result<(), Error> {
        match self.requests.change(without_addresses(index), 0).await {
            Err(refused) if refused.error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
            result => {
                result.map_err(|refused| Error::kernel(format!("keep IPv6 from {name}"), &refused))
            }
        }
    }

    async fn set_up(&mut self, index: IfIndex, name: &str) -> Result<(), Error> {
        let mut message = of(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0, || format!("bring {name} up")).await
    }

    async fn set_isolated(&mut self, index: IfIndex, name: &str, on: bool) -> Result<(), Error> {
        self.request(isolated(index, on), 0, || format!("isolate port {name}")).await
    }

    /// Creates or completes the VXLAN tunnel of a bridge.
    pub(super) async fn add_vxlan(
        &mut self,
        bridge: &str,
        bridge_index: IfIndex,
        spec: &TunnelSpec,
    ) -> Result<(), Error> {
        let key = spec.key.unwrap_or_default();
        let existing = match &spec.name {
            Some(name) => self.tunnel_named(name, spec)?,
            None => self.tunnel_port(bridge_index, |tunnel| spec.matches(tunnel)),
        };
        let (name, index, created) = match existing {
            Some((name, index)) => (name, index, false),
            None => {
                let name = spec.name.clone().unwrap_or_else(|| self.vxlan_name(key));
                check_name(&name)?;
                let data = InfoData::Vxlan(vxlan_info(spec, key));
                let index = self.create(&name, Kind::Vxlan, InfoKind::Vxlan, Some(data)).await?;
                (name, index, true)
            }
        };
        let joined = self.join(bridge_index, index, &name).await?;
        if created {
            self.done.push(Action::TunnelAdded { bridge: bridge.to_owned(), name: name.clone() });
        } else if joined {
            self.done
                .push(Action::PortAdded { bridge: bridge.to_owned(), interface: name.clone() });
        }
        self.add_remotes(&name, index, &spec.remotes).await?;
        if created { self.set_up(index, &name).await } else { self.bring_up(index, &name).await }
    }

    async fn add_remotes(
        &mut self,
        name: &str,
        index: IfIndex,
        remotes: &[IpAddr],
    ) -> Result<(), Error> {
        let mut present = fdb::dump()
            .await
            .map_err(|refused| Error::kernel(format!("read the remotes of {name}"), &refused))?
            .flood(index);
        for remote in remotes {
            if present.contains(remote) {
                continue;
            }
            let entry = RouteNetlinkMessage::NewNeighbour(flood_entry(index, *remote));
            self.request(entry, NLM_F_CREATE | NLM_F_APPEND, || {
                format!("add remote {remote} to {name}")
            })
            .await?;
            self.undo.push(Undo {
                what: format!("remove remote {remote} from {name}"),
                message: RouteNetlinkMessage::DelNeighbour(flood_entry(index, *remote)),
            });
            self.done.push(Action::RemoteAdded { tunnel: name.to_owned(), remote: *remote });
            present.push(*remote);
        }
        Ok(())
    }

    /// Creates or completes the GRE tunnel of a bridge to one remote.
    pub(super) async fn add_gre(
        &mut self,
        bridge: &str,
        bridge_index: IfIndex,
        spec: &TunnelSpec,
        remote: IpAddr,
    ) -> Result<(), Error> {
        let to_remote = |tunnel: &Tunnel| {
            spec.matches(tunnel) && tunnel.remotes.iter().any(|to| to.address == remote)
        };
        if let Some((name, index)) = self.tunnel_port(bridge_index, to_remote) {
            if !self.link(&name).is_some_and(|link| link.port().isolated) {
                self.set_isolated(index, &name, true).await?;
                self.undo.push(Undo {
                    what: format!("stop isolating {name}"),
                    message: isolated(index, false),
                });
                self.done.push(Action::Isolated(name.clone()));
            }
            return self.bring_up(index, &name).await;
        }
        let kind = Kind::tunnel(Encap::Gre, remote.is_ipv6());
        let (info_kind, data) = gre_info(spec, remote);
        let name = self.gre_name(spec);
        check_name(&name)?;
        if let Some(link) = self.link(&name) {
            return Err(differs(&link.port(), spec));
        }
        let index = self.create(&name, kind, info_kind, Some(data)).await?;
        self.join(bridge_index, index, &name).await?;
        self.done.push(Action::TunnelAdded { bridge: bridge.to_owned(), name: name.clone() });
        // Before it is up, so that a full mesh never loops, not even for a moment.
        self.set_isolated(index, &name, true).await?;
        self.set_up(index, &name).await
    }

    /// `vxlan<key>`, or the first free one with a number after it.
    fn vxlan_name(&self, key: u32) -> String {
        let first = std::iter::once(format!("vxlan{key}"));
        let others = (2_u32..).map(|number| format!("vxlan{key}-{number}"));
        first.chain(others).find(|name| self.link(name).is_none()).unwrap_or_default()
    }

    /// The first free name.
    fn gre_name(&self, spec: &TunnelSpec) -> String {
        let free = |name: &String| self.link(name).is_none();
        match &spec.name {
            Some(name) if spec.remotes.len() == 1 => name.clone(),
            name => {
                let stem = name.as_deref().unwrap_or("gre-");
                (1_u32..).map(|number| format!("{stem}{number}")).find(free).unwrap_or_default()
            }
        }
    }

    /// A port of a bridge that is such a tunnel.
    fn tunnel_port(
        &self,
        bridge: IfIndex,
        is: impl Fn(&Tunnel) -> bool,
    ) -> Option<(String, IfIndex)> {
        self.links
            .iter()
            .map(links::Link::new)
            .filter(|link| link.controller == Some(bridge))
            .map(|link| link.port())
            .find(|port| matches!(&port.device, Device::Tunnel(tunnel) if is(tunnel)))
            .map(|port| (port.name, port.ifindex))
    }

    /// The tunnel of that name; an error if the name belongs to something else.
    fn tunnel_named(
        &self,
        name: &str,
        spec: &TunnelSpec,
    ) -> Result<Option<(String, IfIndex)>, Error> {
        let Some(port) = self.link(name).map(|link| link.port()) else { return Ok(None) };
        match &port.device {
            Device::Tunnel(tunnel) if spec.matches(tunnel) => Ok(Some((port.name, port.ifindex))),
            _ => Err(differs(&port, spec)),
        }
    }
}

/// The error that a device is not the tunnel whose name it has.
fn differs(port: &Port, spec: &TunnelSpec) -> Error {
    let found = match &port.device {
        Device::Tunnel(tunnel) => {
            let remote = tunnel.remotes.first().filter(|_| tunnel.encap == Encap::Gre);
            let remote = remote.map(|remote| remote.address);
            words(tunnel.encap, tunnel.key_out, tunnel.dst_port, tunnel.local, remote)
        }
        Device::Veth(_) => "a veth".to_owned(),
        Device::Ethernet => "another device".to_owned(),
        Device::Other(kind) => format!("a {kind}"),
    };
    let remote = spec.remotes.first().filter(|_| spec.encap == Encap::Gre).copied();
    let wanted = words(spec.encap, spec.key, spec.port(), spec.local, remote);
    Error::Differs { name: port.name.clone(), found, wanted }
}

fn words(
    encap: Encap,
    key: Option<u32>,
    port: u16,
    local: Option<IpAddr>,
    remote: Option<IpAddr>,
) -> String {
    let mut words = encap.name().to_owned();
    if let Some(key) = key {
        words += &format!(" key {key}");
    }
    if port != 0 {
        words += &format!(" port {port}");
    }
    if let Some(local) = local {
        words += &format!(" local {local}");
    }
    if let Some(remote) = remote {
        words += &format!(" remote {remote}");
    }
    words
}

/// As the kernel's `dev_valid_name`, and without `%`, which makes the kernel choose a number.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let bad = |byte: u8| byte.is_ascii_whitespace() || b"/:%".contains(&byte);
    if name.is_empty()
        || name.len() > LONGEST_NAME
        || name.bytes().any(bad)
        || [".", ".."].contains(&name)
    {
        return Err(Error::Name(name.to_owned()));
    }
    Ok(())
}
