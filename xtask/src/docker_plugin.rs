//! `cargo xtask docker-plugin`: a directory of which `docker plugin create` makes a managed plugin.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::{daemons, ebpf, setup, setup::Purpose};

/// Where the host's /run is in the plugin: Docker's socket, Open vSwitch's, and the daemon's own.
const HOST_RUN: &str = "/host/run";
/// Docker keeps it when the plugin is disabled, enabled or upgraded.
const STATE: &str = "/var/lib/ovs-ebpf";

/// Arguments of `cargo xtask docker-plugin`.
#[derive(Args)]
pub struct PluginArgs {
    /// The directory to make [default: target/docker-plugin]
    directory: Option<PathBuf>,
    /// Pack this ovs-loader instead of building one
    #[arg(long, value_name = "FILE")]
    loader: Option<PathBuf>,
}

/// Makes the directory and says what to do with it.
///
/// # Errors
/// When `ovs-loader` does not build, or the directory is there already and is none of this command's.
pub fn run(args: &PluginArgs) -> Result<()> {
    let loader = match &args.loader {
        Some(loader) => loader.clone(),
        None => {
            setup::ensure(Purpose::Demo)?;
            daemons::build()?
        }
    };
    let default = || ebpf::workspace().join("target/docker-plugin");
    let directory = args.directory.clone().unwrap_or_else(default);
    assemble(&loader, &directory)?;
    println!(
        "{directory} is ready. As root, on each host:\n  \
         docker plugin create ovs-ebpf {directory}\n  \
         docker plugin enable ovs-ebpf\n  \
         docker network create -d ovs-ebpf -o remotes=192.0.2.1,192.0.2.2 net",
        directory = directory.display()
    );
    Ok(())
}

/// Makes the directory: config.json, and a root file system of the program and its libraries.
fn assemble(loader: &Path, directory: &Path) -> Result<()> {
    let config = directory.join("config.json");
    let root = directory.join("rootfs");
    if directory.exists() {
        ensure!(
            config.is_file() || fs::read_dir(directory).is_ok_and(|mut all| all.next().is_none()),
            "{} is there already and is no plugin: name another directory",
            directory.display()
        );
        let removed = fs::remove_dir_all(&root);
        ensure!(removed.is_ok() || !root.exists(), "cannot remove {}", root.display());
    }
    for made in
        ["bin", "proc", "dev", "sys", "tmp", &HOST_RUN[1..], &STATE[1..], "run/docker/plugins"]
    {
        make(&root.join(made))?;
    }
    copy(loader, &root.join("bin/ovs-loader"))?;
    for library in libraries(loader)? {
        let inside = library.strip_prefix("/").context("a library without a full path")?;
        copy(&library, &root.join(inside))?;
    }
    let content = serde_json::to_vec_pretty(&configuration())?;
    fs::write(&config, content).with_context(|| format!("cannot write {}", config.display()))
}

/// The plugin's configuration (<https://docs.docker.com/engine/extend/config/>).
fn configuration() -> Value {
    let run = |path: &str| format!("{HOST_RUN}/{path}");
    json!({
        "description": "Networks over several hosts, accelerated by BPF",
        "documentation": "docs/docker.md",
        "interface": {
            "types": ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"],
            "socket": "ovs-ebpf.sock",
        },
        "entrypoint": [
            "/bin/ovs-loader", "run", "--docker",
            "--docker-plugin", "/run/docker/plugins/ovs-ebpf.sock",
            "--docker-socket", run("docker.sock"),
            "--socket", run("ovs-ebpf/control.sock"),
            "--ovs-rundir", run("openvswitch"),
            "--state-dir", STATE,
        ],
        "workdir": "/",
        // Bridges, tunnels and programs are the host's.
        "network": { "type": "host" },
        "linux": {
            // Not CAP_SYS_RESOURCE: since 5.11 BPF's memory is no locked memory.
            "capabilities": ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON"],
            "allowAllDevices": false,
            "devices": null,
        },
        "mounts": [
            bind("run", "/run", HOST_RUN),
            bind("bpffs", "/sys/fs/bpf", "/sys/fs/bpf"),
        ],
        "propagatedMount": STATE,
        "env": [{
            "name": "RUST_LOG",
            "description": "What is logged, by Docker's daemon",
            "settable": ["value"],
            "value": "info",
        }],
        "args": { "name": "args", "description": "", "settable": null, "value": [] },
    })
}

fn bind(name: &str, source: &str, destination: &str) -> Value {
    json!({
        "name": name,
        "description": "",
        "source": source,
        "destination": destination,
        "type": "bind",
        "options": ["rbind", "rw"],
        "settable": ["source"],
    })
}

/// The libraries that a program loads, and what loads them, by their full paths.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    let said = String::from_utf8_lossy(&output.stdout);
    // A static program has none.
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return if why.contains("not a dynamic executable") {
            Ok(Vec::new())
        } else {
            bail!("ldd: {why}")
        };
    }
    if let Some(line) = said.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library: {}", program.display(), line.trim());
    }
    Ok(said.lines().filter_map(|line| paths(line).next()).collect())
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or the loader, which has no arrow.
fn paths(line: &str) -> impl Iterator<Item = PathBuf> {
    line.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from)
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make(to.parent().context("no directory")?)?;
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_with_their_loader_and_without_the_kernels_own() {
        let said = "\tlinux-vdso.so.1 (0x00007f0258895000)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0256e1e000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f0258897000)\n";
        let found: Vec<_> = said.lines().flat_map(paths).collect();
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
