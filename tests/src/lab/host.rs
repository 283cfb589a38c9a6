//! A host with its bridge and containers.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::Deref,
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{Encap, KEY, Namespace, Ovs, registry};

/// MTU of containers: leaves room for the outer headers in the underlay's 1500 bytes.
pub const CONTAINER_MTU: u32 = 1450;

/// A host: a namespace with the uplink `u0` and the bridge `br-ex`.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    lab: String,
    number: u8,
    next_port: u8,
    containers: Vec<Container>,
    ovs: Option<Ovs>,
}

/// A container: a namespace with `eth0`, the other end of which is a port of a host's bridge.
#[derive(Debug)]
pub struct Container {
    namespace: Namespace,
    mac: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    port: String,
}

impl Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Deref for Container {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Host {
    pub(super) fn create(lab: &str, number: u8) -> Result<Self> {
        let namespace = Namespace::create(format!("{lab}-h{number}"))?;
        Ok(Self {
            namespace,
            lab: lab.to_owned(),
            number,
            next_port: 1,
            containers: Vec::new(),
            ovs: None,
        })
    }

    /// Its address in the underlay, 192.0.2.0/24.
    pub fn underlay(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, self.number)
    }

    /// Its bridge.
    pub fn bridge(&self) -> &'static str {
        "br-ex"
    }

    /// Its Open vSwitch; `None` where the bridge is a Linux bridge.
    pub fn ovs(&self) -> Option<&Ovs> {
        self.ovs.as_ref()
    }

    /// Its Open vSwitch, to start and end its daemons.
    pub fn ovs_mut(&mut self) -> Option<&mut Ovs> {
        self.ovs.as_mut()
    }

    /// `ovs-vsctl` on a host with Open vSwitch.
    ///
    /// # Errors
    /// With what it said, and where the bridge is a Linux bridge.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        self.ovs().context("this host has no Open vSwitch")?.vsctl(arguments)
    }

    /// Where its daemon pins programs and maps.
    pub fn bpffs(&self) -> PathBuf {
        registry::pins(&self.lab).join(format!("h{}", self.number))
    }

    /// Where its daemon's socket, log and configuration are.
    pub fn files(&self) -> PathBuf {
        registry::files(&self.lab).join(format!("h{}", self.number))
    }

    /// Where its daemon keeps what is known of attached containers.
    pub fn state(&self) -> PathBuf {
        self.files().join("state")
    }

    /// A network namespace without any interface but `lo`, as a container has it that nobody has
    /// attached yet. It ends with the lab.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn add_namespace(&self, name: &str) -> Result<Namespace> {
        Namespace::create(format!("{}-n{}-{name}", self.lab, self.number))
    }

    /// Starts an Open vSwitch beside the host's bridge, whose datapath forwards nothing.
    ///
    /// # Errors
    /// With what its daemons said.
    pub fn add_dummy_ovs(&mut self) -> Result<()> {
        let rundir = self.files().join("ovs");
        self.ovs = Some(Ovs::start_dummy(&self.namespace, rundir)?);
        Ok(())
    }

    /// Its containers in the order in which they came.
    pub fn containers(&self) -> &[Container] {
        &self.containers
    }

    /// A container, counted from 0.
    pub fn container(&self, index: usize) -> &Container {
        &self.containers[index]
    }

    /// Adds `br-ex` with a tunnel to every other of the underlay's addresses.
    pub(super) fn add_bridge(&self, encap: Encap, underlays: &[Ipv4Addr]) -> Result<()> {
        self.add_unjoined_bridge()?;
        let local = self.underlay();
        let remotes: Vec<&Ipv4Addr> = underlays.iter().filter(|other| **other != local).collect();
        let (added, kind, module) = match encap {
            Encap::Vxlan => (self.add_vxlan(local, &remotes), "vxlan", "vxlan"),
            Encap::Gre => (self.add_gretap(local, &remotes), "gretap", "ip_gre"),
        };
        added.map_err(|error| match error.to_string() {
            said if said.contains("Unknown device type") => {
                anyhow!(
                    "this kernel lacks the module {module}, which makes {kind} ports: install it"
                )
            }
            _ => error.context("cannot make the tunnel's port"),
        })
    }

    /// Adds `br-ex` without a port.
    pub(super) fn add_unjoined_bridge(&self) -> Result<()> {
        self.ip("link add br-ex up type bridge\n")
    }

    /// Adds `br-ex` with the uplink as its port.
    pub(super) fn add_flat_bridge(&self) -> Result<()> {
        self.add_unjoined_bridge()?;
        self.ip("link set u0 master br-ex\n")
    }

    fn add_vxlan(&self, local: Ipv4Addr, remotes: &[&Ipv4Addr]) -> Result<()> {
        let remote = match remotes {
            [remote] => format!("remote {remote}"),
            _ => String::new(),
        };
        self.ip(&format!(
            "link add vxlan0 type vxlan id {KEY} local {local} {remote} dstport 4789\n\
             link set vxlan0 master br-ex up\n"
        ))?;
        if remotes.len() > 1 {
            for remote in remotes {
                let entry = ["00:00:00:00:00:00", "dev", "vxlan0", "dst", &remote.to_string()];
                self.try_exec(&[&["bridge", "fdb", "append"], &entry[..]].concat())?;
            }
        }
        Ok(())
    }

    fn add_gretap(&self, local: Ipv4Addr, remotes: &[&Ipv4Addr]) -> Result<()> {
        for remote in remotes {
            let device = format!("gre-{}", remote.octets()[3]);
            self.ip(&format!(
                "link add {device} type gretap key {KEY} local {local} remote {remote}\n\
                 link set {device} master br-ex up\n"
            ))?;
            // A full mesh has no loop if tunnels don't forward to one another.
            self.try_exec(&["bridge", "link", "set", "dev", &device, "isolated", "on"])?;
        }
        Ok(())
    }

    /// Starts Open vSwitch and adds `br-ex` with a tunnel to every other of the underlay's addresses,
    /// as an operator would. `options` are ovs-vsctl's for the tunnels: `options:key=42`.
    pub(super) fn add_ovs_bridge(
        &mut self,
        encap: Encap,
        options: &str,
        underlays: &[Ipv4Addr],
    ) -> Result<()> {
        let rundir = self.files().join("ovs");
        let ovs = self.ovs.insert(Ovs::start(&self.namespace, rundir)?);
        let kind = match encap {
            Encap::Vxlan => "vxlan",
            Encap::Gre => "gre",
        };
        let mut commands = String::from("add-br br-ex");
        for remote in underlays.iter().filter(|other| other.octets()[3] != self.number) {
            let port = format!("{kind}-{}", remote.octets()[3]);
            commands += &format!(
                " -- add-port br-ex {port} -- set interface {port} type={kind} \
                 options:remote_ip={remote} {options}"
            );
            // A full mesh has no loop if tunnels don't forward to one another.
            if underlays.len() > 2 {
                commands += &format!(" -- set port {port} protected=true");
            }
        }
        ovs.vsctl(&commands.split_whitespace().collect::<Vec<_>>())?;
        self.namespace.try_exec(&["ip", "link", "show", "dev", "br-ex"]).context(
            "Open vSwitch made no bridge: does this kernel lack the module openvswitch?",
        )?;
        // What ovs-vswitchd could not do is in the database and nowhere else.
        let errors = ovs.vsctl(&["--columns=name,error", "find", "interface", "error!=[]"])?;
        ensure!(errors.is_empty(), "Open vSwitch in {} says:\n{errors}", self.namespace.name());
        Ok(())
    }

    /// Adds a container: MAC 02:00:00:00:HOST:N, 10.0.0.X/24 and fd00::X/64 with X = HOST·10 + N.
    ///
    /// # Errors
    /// With what `ip` said.
    ///
    /// # Panics
    /// If this would be the host's tenth.
    pub fn add_container(&mut self) -> Result<()> {
        let number = self.next_port;
        assert!(number <= 9, "at most 9 containers over a host's life");
        let station = self.number * 10 + number;
        let namespace = Namespace::create(format!("{}-c{station}", self.lab))?;
        let container = Container {
            namespace,
            mac: format!("02:00:00:00:{:02x}:{number:02x}", self.number),
            ipv4: Ipv4Addr::new(10, 0, 0, station),
            ipv6: format!("fd00::{station}").parse().context("an IPv6 address")?,
            port: String::new(),
        };
        self.adopt_container(container)
    }

    /// Removes a container, counted from 0, with its port.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn remove_container(&mut self, index: usize) -> Result<()> {
        let container = self.release_container(index)?;
        super::namespace::ip(&[], &format!("netns del {}\n", container.name()))
    }

    pub(super) fn adopt_container(&mut self, mut container: Container) -> Result<()> {
        container.port = format!("v{}", self.next_port);
        self.next_port += 1;
        let Container { namespace, mac, ipv4, ipv6, port } = &container;
        self.ip(&format!(
            "link add {port} mtu {CONTAINER_MTU} type veth peer name eth0 mtu {CONTAINER_MTU} \
             address {mac} netns {}\nlink set {port} up\n",
            namespace.name()
        ))?;
        match &self.ovs {
            Some(ovs) => ovs.vsctl(&["add-port", "br-ex", port]).map(|_| ())?,
            None => self.ip(&format!("link set {port} master br-ex\n"))?,
        }
        namespace.ip(&format!(
            "addr add {ipv4}/24 brd + dev eth0\naddr add {ipv6}/64 dev eth0 nodad\n\
             link set eth0 up\nroute add 224.0.0.0/4 dev eth0\n"
        ))?;
        self.containers.push(container);
        Ok(())
    }

    pub(super) fn release_container(&mut self, index: usize) -> Result<Container> {
        let container = self.containers.remove(index);
        if let Some(ovs) = &self.ovs {
            ovs.vsctl(&["del-port", "br-ex", &container.port])?;
        }
        self.ip(&format!("link del {}\n", container.port))?;
        Ok(container)
    }
}

impl Container {
    /// MAC of its `eth0`.
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// Its address in 10.0.0.0/24.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.ipv4
    }

    /// Its address in fd00::/64.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.ipv6
    }

    /// The port of its host's bridge that it is behind.
    pub fn port(&self) -> &str {
        &self.port
    }
}
