//! Hosts as network namespaces: an underlay, and on each host a bridge `br-ex` with a kernel tunnel
//! port and containers. All of it is made by `ip` and `bridge`, or by `ovs-vsctl` where the bridge is
//! one of Open vSwitch, as an operator would.
//!
//! ```text
//! container 11        host 1                                 host 2        container 21
//! eth0 10.0.0.11 ---- v1 br-ex vxlan0 . u0 192.0.2.1 ---- 192.0.2.2 u0 . vxlan0 br-ex v1 ---- eth0
//! ```
//!
//! Whatever a lab made is removed when it is dropped, on SIGINT and SIGTERM, and at the start of the
//! next process that makes a lab if this one was killed. Labs need root.

mod capture;
pub mod counters;
mod engine;
mod engines;
mod fast_packets;
mod fdb_writer;
mod host;
mod loader;
mod namespace;
mod ovs;
mod registry;
pub mod traffic;
mod wait;

use std::{env, net::Ipv4Addr, thread};

use anyhow::{Context as _, Result};

pub use self::{
    capture::Capture,
    engine::Engine,
    engines::Engines,
    fast_packets::FastPackets,
    fdb_writer::FdbWriter,
    host::{CONTAINER_MTU, Container, Host},
    loader::{Loader, binary},
    namespace::Namespace,
    ovs::Ovs,
    registry::remove_kept,
    wait::{patience, try_until, wait_until},
};

/// The tunnels between the bridges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encap {
    /// One kernel vxlan port per host, VNI 42, UDP port 4789.
    #[default]
    Vxlan,
    /// One gretap port per remote, key 42.
    Gre,
}

impl Encap {
    /// `$LAB_ENCAP`, `gre` or `vxlan`, for tests that either does for; VXLAN without it.
    fn of_this_run() -> Self {
        match env::var("LAB_ENCAP").as_deref() {
            Ok("gre") => Self::Gre,
            Ok("vxlan") | Err(_) => Self::Vxlan,
            Ok(other) => panic!("LAB_ENCAP is gre or vxlan, not {other}"),
        }
    }
}

/// Key of every tunnel: VNI or GRE key.
pub const KEY: u32 = 42;

/// Hosts that are joined by an underlay and by tunnels between their bridges.
#[derive(Debug)]
pub struct Lab {
    name: String,
    hosts: Vec<Host>,
    kept: bool,
}

impl Lab {
    /// One container on each of two hosts, joined by VXLAN, or by what `$LAB_ENCAP` says.
    ///
    /// # Errors
    /// See [`build`](Self::build).
    pub fn pair() -> Result<Self> {
        Self::build(Encap::of_this_run(), &[1, 1])
    }

    /// Builds a lab with so many containers on each host: `[2, 1]` is two hosts with three
    /// containers. Two hosts have one link between them, more have a switch.
    ///
    /// # Errors
    /// Without root, and where the kernel lacks a device type: the error names its module.
    ///
    /// # Panics
    /// With fewer than two hosts or more than 24, or more than 9 containers on one: addresses are
    /// 10.0.0.HOST·10+CONTAINER.
    pub fn build(encap: Encap, containers: &[u8]) -> Result<Self> {
        Self::with(containers, |host, underlays| host.add_bridge(encap, underlays))
    }

    /// Builds a lab whose bridges are Open vSwitch's. `options` are those of the tunnels' interfaces
    /// for ovs-vsctl: `options:key=42 options:ttl=9`. A tunnel's port is `gre-N` or `vxlan-N` for host N.
    ///
    /// # Errors
    /// Without root, and where Open vSwitch or its kernel module is missing.
    ///
    /// # Panics
    /// See [`build`](Self::build).
    pub fn build_ovs(encap: Encap, options: &str, containers: &[u8]) -> Result<Self> {
        Self::with(containers, |host, underlays| host.add_ovs_bridge(encap, options, underlays))
    }

    /// Builds a lab without tunnels: the uplinks are ports of the hosts' Linux bridges.
    ///
    /// # Errors
    /// Without root.
    ///
    /// # Panics
    /// See [`build`](Self::build).
    pub fn build_flat(containers: &[u8]) -> Result<Self> {
        Self::with(containers, |host, _| host.add_flat_bridge())
    }

    /// Two hosts with nothing but their uplinks.
    ///
    /// # Errors
    /// Without root.
    pub fn bare() -> Result<Self> {
        Self::with(&[0, 0], |_, _| Ok(()))
    }

    /// Builds a lab whose bridges have their containers as ports and nothing else.
    ///
    /// # Errors
    /// Without root.
    ///
    /// # Panics
    /// See [`build`](Self::build).
    pub fn build_unjoined(containers: &[u8]) -> Result<Self> {
        Self::with(containers, |host, _| host.add_unjoined_bridge())
    }

    /// Builds a lab with bridges that `add_bridge` makes, given the underlay's addresses.
    fn with(
        containers: &[u8],
        add_bridge: impl Fn(&mut Host, &[Ipv4Addr]) -> Result<()> + Sync,
    ) -> Result<Self> {
        assert!((2..=24).contains(&containers.len()), "2 to 24 hosts");
        let mut lab = Self { name: registry::register()?, hosts: Vec::new(), kept: false };
        for number in 1..=u8::try_from(containers.len()).expect("at most 24") {
            lab.hosts.push(Host::create(&lab.name, number)?);
        }
        lab.join()?;
        let underlays: Vec<Ipv4Addr> = lab.hosts.iter().map(Host::underlay).collect();
        // At once: Open vSwitch takes its time to start.
        let furnish = |host: &mut Host, count| -> Result<()> {
            add_bridge(host, &underlays)?;
            (0..count).try_for_each(|_| host.add_container())
        };
        thread::scope(|scope| {
            let hosts = lab.hosts.iter_mut().zip(containers);
            let threads: Vec<_> =
                hosts.map(|(host, count)| scope.spawn(|| furnish(host, *count))).collect();
            let results = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            results.collect::<Result<Vec<()>>>()
        })?;
        Ok(lab)
    }

    /// Joins the hosts' uplinks, `u0` on each.
    fn join(&self) -> Result<()> {
        if let [one, other] = &self.hosts[..] {
            namespace::ip(
                &[],
                &format!(
                    "link add name u0 netns {} type veth peer name u0 netns {}\n",
                    one.name(),
                    other.name()
                ),
            )?;
        } else {
            let switch = Namespace::create(format!("{}-switch", self.name))?;
            switch.ip("link add sw0 up type bridge\n")?;
            for (index, host) in self.hosts.iter().enumerate() {
                switch.ip(&format!(
                    "link add name p{index} up master sw0 type veth peer name u0 netns {}\n",
                    host.name()
                ))?;
            }
        }
        for host in &self.hosts {
            host.ip(&format!("addr add {}/24 dev u0\nlink set u0 up\n", host.underlay()))?;
        }
        Ok(())
    }

    /// Its name, with which the names of its namespaces begin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host, counted from 0.
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// A host, counted from 0, to change it.
    pub fn host_mut(&mut self, index: usize) -> &mut Host {
        &mut self.hosts[index]
    }

    /// The first container of a host, counted from 0.
    pub fn container(&self, host: usize) -> &Container {
        self.hosts[host].container(0)
    }

    /// Moves a container to another host with its MAC and addresses, as a migration would: its old
    /// port is gone at once, its new one is the last of `to`. It says nothing by itself.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn move_container(&mut self, from: usize, container: usize, to: usize) -> Result<()> {
        let container = self.hosts[from].release_container(container)?;
        self.hosts[to].adopt_container(container)
    }

    /// Lets the lab outlive this process, with the daemons that are kept too.
    ///
    /// # Errors
    /// When the lab can't be marked as kept; it is removed then.
    pub fn keep(mut self) -> Result<()> {
        registry::keep(&self.name).context("the lab is removed")?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.kept {
            registry::unregister(&self.name);
        }
    }
}
