//! Docker's networks by the driver `ovs-ebpf`, on real engines.

mod life;

use std::path::PathBuf;

use anyhow::Result;
use ovs_ebpf_tests::lab::{Engine, Host, Loader};

/// Where the engine of a host looks for the driver.
fn plugin(host: &Host) -> PathBuf {
    host.files().join("docker/run/plugins/ovs-ebpf.sock")
}

/// A daemon that serves the engine of a host.
fn serve(host: &Host) -> Result<Loader> {
    let (plugin, socket) = (plugin(host), host.files().join("docker/sock"));
    let (plugin, socket) = (plugin.to_string_lossy(), socket.to_string_lossy());
    let arguments = ["--docker", "--docker-plugin", &plugin, "--docker-socket", &socket];
    let mut loader = Loader::spawn(host, None, &arguments)?;
    loader.ready()?;
    Ok(loader)
}

/// `docker …` with the words of a line.
fn docker(engine: &Engine, words: &str) -> Result<String> {
    engine.docker(&words.split_whitespace().collect::<Vec<_>>())
}

/// Starts a container that does nothing, and gives its address in a network.
fn run(engine: &Engine, name: &str, options: &str) -> Result<()> {
    docker(engine, &format!("run -d --name {name} {options} box sleep 100000")).map(drop)
}
