//! Two hosts with a Docker engine each, and beside it a daemon that serves Docker's networks.

use std::{path::Path, time::Duration};

use anyhow::Result;

use super::{Encap, Engine, Host, Lab, Loader, binary, patience};

/// What a daemon may take for an answer: its own default.
const ANSWER: Duration = Duration::from_millis(900);
/// The underlay addresses of both hosts, for `-o remotes=`.
const HOSTS: &str = "192.0.2.1,192.0.2.2";

/// Engines with their daemons. The engines end first: they would wait for a daemon that has gone.
#[derive(Debug)]
pub struct Engines {
    /// The engines by host.
    pub engines: Vec<Engine>,
    /// The daemons by host.
    pub loaders: Vec<Loader>,
    /// The hosts.
    pub lab: Lab,
}

impl Engines {
    /// Starts both with the [`binary`].
    ///
    /// # Errors
    /// When an engine or a daemon does not start.
    pub fn start() -> Result<Self> {
        Self::start_on(Lab::bare()?, &binary()?)
    }

    /// Starts both on hosts that are there, with a certain build of `ovs-loader`.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_on(lab: Lab, binary: &Path) -> Result<Self> {
        let (mut engines, mut loaders) = (Vec::new(), Vec::new());
        for host in lab.hosts() {
            engines.push(Engine::start(host)?);
            loaders.push(serve(host, binary)?);
        }
        Ok(Self { engines, loaders, lab })
    }

    /// Creates one network over both hosts, 10.5.0.0/24, of which each host gives out its half, with
    /// more options for `docker network create`.
    ///
    /// # Errors
    /// With what `docker` said.
    pub fn create_network(&self, name: &str, encap: Encap, more: &str) -> Result<()> {
        let tunnel = match encap {
            Encap::Vxlan => "vxlan",
            Encap::Gre => "gre",
        };
        for (index, engine) in self.engines.iter().enumerate() {
            let words = format!(
                "network create -d ovs-ebpf --internal --ipam-driver ovs-ebpf \
                 --ipam-opt share={}/2 --subnet 10.5.0.0/24 -o remotes={HOSTS} -o tunnel={tunnel} \
                 {more} {name}",
                index + 1
            );
            engine.docker(&words.split_whitespace().collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// Starts a daemon that serves the engine of a host.
fn serve(host: &Host, binary: &Path) -> Result<Loader> {
    let docker = host.files().join("docker");
    let plugin = docker.join("run/plugins/ovs-ebpf.sock");
    let (plugin, socket) = (plugin.to_string_lossy(), docker.join("sock"));
    let socket = socket.to_string_lossy();
    let arguments = ["--docker", "--docker-plugin", &plugin, "--docker-socket", &socket];
    let answer = patience(ANSWER).as_millis();
    let configuration = format!("[docker]\nanswer_ms = {answer}\n");
    let configuration = Some(&*configuration);
    let mut loader = Loader::spawn_binary(binary.to_owned(), host, configuration, &arguments)?;
    loader.ready()?;
    Ok(loader)
}
