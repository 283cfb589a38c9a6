//! A network on this host: what it is to be, making it, and taking it away.

use std::net::IpAddr;

use tokio::net::UnixStream;

use super::options::{Options, Tunnel, WayOut};
use super::protocol::{CreateNetwork, Subnet};
use super::record::Network;
use super::{Driver, Error};
use crate::bridge::model::Encap;
use crate::bridge::provision::{self, Interface, Owner, TunnelSpec};
use crate::docker::ovs::{self, NewTunnel};
use crate::docker::record::Backend;
use crate::underlay::{Uplink, uplink};

/// The MTU of Ethernet, where nothing says otherwise, in bytes.
const ETHERNET_MTU: u32 = 1500;
/// The least MTU that IPv6 works with (RFC 8200, section 5).
const IPV6_MTU: u32 = 1280;

impl Driver {
    /// What a new network is to be on this host. Changes nothing.
    pub(super) async fn plan(&self, call: &CreateNetwork) -> Result<Network, Error> {
        let options = Options::parse(&call.typed())?;
        let own = format!("ob-{}", call.network.short());
        let (bridge, nic) = match &options.flat {
            Some(nic) => self.flat(nic, options.bridge.as_deref(), &own).await?,
            None => (options.bridge.clone().unwrap_or(own), None),
        };
        let existing = self.backend_of(&bridge).await?;
        let owns_bridge = existing.is_none();
        let backend = match existing {
            Some(backend) => backend,
            None => self.backend_for_new().await?,
        };
        if let (Some(vlan), Backend::Linux) = (options.vlan, &backend) {
            check_vlans(&bridge, vlan).await?;
        }
        let (tunnel, room) = match options.tunnel {
            Some(tunnel) => self.resolve(tunnel, options.mtu.is_none()).await?,
            None => (None, None),
        };
        if let Some(tunnel) = &tunnel {
            self.check_key(tunnel, &bridge)?;
        }
        let mtu = match (options.mtu, &options.flat, room) {
            (Some(mtu), _, _) => mtu,
            (None, None, Some(room)) => room,
            (None, Some(nic), _) => mtu_of(nic).await?,
            (None, None, None) => self.room_of(&bridge, &backend, owns_bridge).await?,
        };
        if mtu < IPV6_MTU && !call.ipv6.is_empty() {
            return Err(Error::Options(format!(
                "IPv6 needs an MTU of {IPV6_MTU} bytes, and this network's is {mtu}: give -o mtu=N, \
                 or leave --ipv6 out"
            )));
        }
        let default = if options.flat.is_some() { WayOut::Network } else { WayOut::Host };
        Ok(Network {
            id: call.network.clone(),
            name: None,
            bridge,
            backend,
            owns_bridge,
            tunnel,
            nic,
            vlan: options.vlan,
            mtu,
            way_out: options.way_out.unwrap_or(default),
            internal: call.internal(),
            subnets: call.ipv4.iter().chain(&call.ipv6).cloned().collect(),
            leaving: false,
        })
    }

    /// The bridge of a NIC, and the NIC if it is still to be made a port of it.
    async fn flat(
        &self,
        nic: &str,
        asked: Option<&str>,
        own: &str,
    ) -> Result<(String, Option<String>), Error> {
        let found = provision::look(nic)
            .await?
            .ok_or_else(|| provision::Error::NoInterface(nic.to_owned()))?;
        let bridge = match found.owner {
            Owner::Port(owner) => self.bridge_of(nic).await?.unwrap_or(owner),
            Owner::Free | Owner::Absent => {
                // Its addresses would answer no more, and with them maybe this very session.
                if let Some(address) = found.addresses.first() {
                    return Err(Error::Options(format!(
                        "flat={nic}: it has this host's address {address}, which would be cut off: \
                         make a bridge of it first that has the address, and give that with \
                         -o bridge=NAME"
                    )));
                }
                return Ok((asked.unwrap_or(own).to_owned(), Some(nic.to_owned())));
            }
        };
        match asked {
            Some(asked) if asked != bridge => Err(Error::Options(format!(
                "flat={nic} is a port of {bridge}, not of {asked}: leave bridge={asked} out"
            ))),
            _ => Ok((bridge, None)),
        }
    }

    /// The Open vSwitch bridge that an interface is a port of.
    async fn bridge_of(&self, interface: &str) -> Result<Option<String>, Error> {
        for rundir in &self.places.rundirs {
            if let Some(mut switch) = ovs::connect_if_there(rundir).await?
                && let Some(bridge) = switch.bridge_of(interface).await?
            {
                return Ok(Some(bridge));
            }
        }
        Ok(None)
    }

    /// Whose a bridge is; `None` if nobody has one of that name.
    async fn backend_of(&self, bridge: &str) -> Result<Option<Backend>, Error> {
        for rundir in &self.places.rundirs {
            if let Some(backend) = Backend::of(bridge, rundir).await? {
                return Ok(Some(backend));
            }
        }
        Ok(provision::is_bridge(bridge).await?.then_some(Backend::Linux))
    }

    /// Whose a new bridge is to be: Open vSwitch's where it runs.
    async fn backend_for_new(&self) -> Result<Backend, Error> {
        for rundir in &self.places.rundirs {
            let backend = Backend::for_new(rundir).await?;
            if backend != Backend::Linux {
                return Ok(backend);
            }
        }
        Ok(Backend::Linux)
    }

    /// Two networks with one key would be one.
    fn check_key(&self, tunnel: &Tunnel, bridge: &str) -> Result<(), Error> {
        let Some(key) = tunnel.key else { return Ok(()) };
        let same = |other: &Network| {
            let theirs = other.tunnel.as_ref();
            other.bridge != bridge
                && theirs.is_some_and(|one| one.encap == tunnel.encap && one.key == tunnel.key)
        };
        match self.store.networks.load()?.iter().find(|other| same(other)) {
            Some(other) => Err(Error::Options(format!(
                "key={key}: network {} has it already, and the two would be one network: give \
                 another, or leave it out",
                other.shown()
            ))),
            None => Ok(()),
        }
    }

    /// The MTU that fits a bridge that is there already, tunnels and all.
    async fn room_of(&self, bridge: &str, backend: &Backend, owned: bool) -> Result<u32, Error> {
        let mut room = mtu_of(bridge).await?;
        let tunnels = match backend {
            _ if owned => Vec::new(),
            Backend::Linux => provision::tunnels(bridge).await?,
            Backend::Ovs { rundir } => {
                let rows = ovs::connect(rundir).await?.tunnels(bridge).await?;
                let encap = |kind: &str| match kind {
                    "vxlan" => Some(Encap::Vxlan),
                    "gre" => Some(Encap::Gre),
                    _ => None,
                };
                let read =
                    |(kind, remote): (String, String)| Some((encap(&kind)?, remote.parse().ok()?));
                rows.into_iter().filter_map(read).collect()
            }
        };
        for (encap, remote) in tunnels {
            // One without a route says nothing.
            if let Ok(Uplink { mtu, .. }) = uplink(remote).await? {
                room = room.min(mtu.saturating_sub(overhead(encap, remote)));
            }
        }
        Ok(room)
    }

    /// Tunnels to the hosts that are not this one, and the MTU that fits into them. A host that is
    /// not reached is an error only if the MTU depends on it.
    async fn resolve(
        &self,
        mut tunnel: Tunnel,
        needs_mtu: bool,
    ) -> Result<(Option<Tunnel>, Option<u32>), Error> {
        let mut remotes = Vec::new();
        let mut room: Option<u32> = None;
        for remote in &tunnel.remotes {
            match uplink(*remote).await? {
                Ok(Uplink { local, mtu, .. }) => {
                    let inner = mtu.saturating_sub(overhead(tunnel.encap, *remote));
                    room = Some(room.map_or(inner, |room| room.min(inner)));
                    if remote.is_ipv6() {
                        tunnel.local.get_or_insert(local);
                    }
                }
                // The same command does for every host.
                Err(why) if why.reason == ovs_ebpf_common::Reason::RemoteIsLocal => continue,
                Err(why) if needs_mtu => {
                    return Err(Error::Options(format!(
                        "remotes: there is no way to {}: mend the route, or give -o mtu=N and do it \
                         later",
                        why.detail
                    )));
                }
                Err(_) => {}
            }
            remotes.push(*remote);
        }
        tunnel.remotes = remotes;
        if tunnel.key.is_none() && UnixStream::connect(&self.places.engine).await.is_err() {
            return Err(Error::NoEngine(self.places.engine.clone()));
        }
        Ok((Some(tunnel), room))
    }
}

impl Network {
    /// Makes whatever of it is not there.
    pub(super) async fn ensure(&self) -> Result<(), Error> {
        let Self { bridge, backend, .. } = self;
        if self.owns_bridge && !backend.exists(bridge).await? {
            backend.create(bridge, true).await?;
        }
        if let Some(nic) = &self.nic {
            match backend {
                Backend::Linux => provision::add_port(bridge, nic).await.map(drop)?,
                Backend::Ovs { rundir } => {
                    ovs::connect(rundir).await?.add_nic(bridge, nic, true).await?;
                    provision::bring_up(nic).await?;
                }
            }
        }
        match &self.tunnel {
            Some(tunnel) => self.ensure_tunnels(tunnel).await,
            None => Ok(()),
        }
    }

    async fn ensure_tunnels(&self, tunnel: &Tunnel) -> Result<(), Error> {
        let Tunnel { encap, key: Some(key), local, remotes } = tunnel else { return Ok(()) };
        for (name, remotes) in self.devices(tunnel) {
            match &self.backend {
                Backend::Linux => {
                    let spec = TunnelSpec {
                        name: Some(name.clone()),
                        encap: *encap,
                        local: *local,
                        remotes: remotes.to_vec(),
                        key: Some(*key),
                        dst_port: None,
                    };
                    provision::add_tunnel(&self.bridge, &spec).await?;
                    // The bridge loses what is larger than the tunnel's device says.
                    if provision::owner(&name).await? != Owner::Absent {
                        provision::raise_mtu(&name, self.mtu).await?;
                    }
                }
                Backend::Ovs { rundir } => {
                    let mut switch = ovs::connect(rundir).await?;
                    if switch.tag(&name).await?.is_some() {
                        continue;
                    }
                    let remote = remotes.first().map(ToString::to_string).unwrap_or_default();
                    let (key, local) = (key.to_string(), local.map(|local| local.to_string()));
                    let mut options = vec![("remote_ip", &*remote), ("key", &*key)];
                    options.extend(local.as_deref().map(|local| ("local_ip", local)));
                    let tunnel = NewTunnel {
                        bridge: &self.bridge,
                        name: &name,
                        kind: encap.name(),
                        options: &options,
                    };
                    switch.add_tunnel(&tunnel, true).await?;
                }
            }
        }
        tracing::debug!("network {}: tunnels to {} hosts", self.id.short(), remotes.len());
        Ok(())
    }

    /// The tunnels' devices or ports by name, each with its remotes: a Linux VXLAN device has them
    /// all.
    fn devices<'a>(&self, tunnel: &'a Tunnel) -> Vec<(String, &'a [IpAddr])> {
        let stem = match tunnel.encap {
            Encap::Vxlan => "vx",
            Encap::Gre => "gr",
        };
        let name = |number| format!("{stem}-{}-{number}", self.id.first(8));
        match (tunnel.encap, &self.backend) {
            (Encap::Vxlan, Backend::Linux) if !tunnel.remotes.is_empty() => {
                vec![(name(1), &tunnel.remotes)]
            }
            _ => (1..).map(name).zip(tunnel.remotes.chunks(1)).collect(),
        }
    }

    /// Takes away whatever there is of it. Goes on after a failure, and gives them all.
    pub(super) async fn take_down(&self) -> Vec<String> {
        let Self { bridge, backend, .. } = self;
        let mut failures = Vec::new();
        let mut done = |what: &str, result: Result<(), Error>| {
            failures.extend(result.err().map(|error| format!("{what}: {}", error.chain())));
        };
        for (name, _) in self.tunnel.iter().flat_map(|tunnel| self.devices(tunnel)) {
            done("a tunnel", remove(backend, &name).await);
        }
        if let Some(nic) = &self.nic {
            done("the NIC", release(backend, bridge, nic).await);
        }
        if self.owns_bridge {
            let deleted = backend.delete_if_empty(bridge).await;
            done("the bridge", deleted.map_err(Error::from));
        }
        failures
    }

    /// As people know it.
    pub(super) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or(self.id.short())
    }

    /// The gateways of IPv4 and IPv6 that containers are given.
    pub(super) fn gateways(&self) -> (Option<IpAddr>, Option<IpAddr>) {
        if self.internal || self.way_out == WayOut::Host {
            return (None, None);
        }
        let mut routers = self.subnets.iter().filter_map(Subnet::router);
        (routers.clone().find(IpAddr::is_ipv4), routers.find(IpAddr::is_ipv6))
    }
}

/// Deletes a tunnel.
async fn remove(backend: &Backend, name: &str) -> Result<(), Error> {
    match backend {
        Backend::Linux => provision::del_interface(name).await.map(drop)?,
        Backend::Ovs { .. } => backend.detach(name).await?,
    }
    Ok(())
}

/// Gives a NIC back, if it is a port of the bridge.
async fn release(backend: &Backend, bridge: &str, nic: &str) -> Result<(), Error> {
    if !backend.has(bridge, nic).await? {
        return Ok(());
    }
    match backend {
        Backend::Linux => provision::del_port(bridge, nic).await.map(drop)?,
        Backend::Ovs { .. } => backend.detach(nic).await?,
    }
    Ok(())
}

/// A Linux bridge has to know of VLANs.
async fn check_vlans(bridge: &str, vlan: u16) -> Result<(), Error> {
    match provision::look(bridge).await? {
        Some(Interface { vlan_filtering: true, .. }) => Ok(()),
        Some(_) => Err(provision::Error::NoVlans { bridge: bridge.to_owned(), vlan }.into()),
        None => Err(Error::Options(format!(
            "vlan={vlan}: a bridge that is made for the network has no VLANs; make one with `ip link \
             add NAME up type bridge vlan_filtering 1`, and give it with -o bridge=NAME"
        ))),
    }
}

async fn mtu_of(interface: &str) -> Result<u32, Error> {
    Ok(provision::look(interface).await?.map_or(ETHERNET_MTU, |found| found.mtu))
}

/// What a tunnel's headers take of a packet, in bytes: outer IP, then UDP and VXLAN (RFC 7348) or
/// GRE with a key (RFC 2890), and the inner Ethernet header. Linux adds 8 bytes of options to GRE
/// over IPv6 (`ip6_tnl_encap_limit`).
fn overhead(encap: Encap, remote: IpAddr) -> u32 {
    const ETHERNET: u32 = 14;
    let ip = if remote.is_ipv4() { 20 } else { 40 };
    ETHERNET
        + ip
        + match encap {
            Encap::Vxlan => 8 + 8,
            Encap::Gre if remote.is_ipv4() => 8,
            Encap::Gre => 8 + 8,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overheads_are_those_that_linux_subtracts_from_its_devices() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(overhead(Encap::Vxlan, v4), 50);
        assert_eq!(overhead(Encap::Vxlan, v6), 70);
        assert_eq!(overhead(Encap::Gre, v4), 42);
        assert_eq!(overhead(Encap::Gre, v6), 70);
    }
}
