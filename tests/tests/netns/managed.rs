//! The managed plugin, as `cargo xtask docker-plugin` makes it, in a real engine.

use std::{fs, os::unix::fs::symlink, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::lab::{Engine, Lab, binary, wait_until};

use crate::support::shell;

#[test]
fn a_managed_plugin_serves_networks_and_goes_without_a_trace() -> Result<()> {
    let lab = Lab::bare()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    let docker = |words: &str| engine.docker(&words.split_whitespace().collect::<Vec<_>>());
    let directory = host.files().join("plugin");
    let loader = binary()?;
    let made = Command::new(loader.with_file_name("xtask"))
        .arg("docker-plugin")
        .arg(&directory)
        .arg("--loader")
        .arg(&loader)
        .output()
        .context("cannot start xtask: `cargo build -p xtask`")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    // What a host has in /run is here elsewhere.
    let run = host.files().join("docker");
    symlink("sock", run.join("docker.sock"))?;
    fs::create_dir_all(host.bpffs())?;
    docker(&format!("plugin create ovs-ebpf {}", directory.display()))?;
    let (run, bpffs) = (run.display(), host.bpffs());
    docker(&format!("plugin set ovs-ebpf run.source={run} bpffs.source={}", bpffs.display()))?;
    docker("plugin enable ovs-ebpf")?;
    docker("network create -d ovs-ebpf --internal --ipam-driver ovs-ebpf net")?;
    for name in ["web", "db"] {
        docker(&format!("run -d --name {name} --network net box sleep 1000"))?;
    }
    let format = "{{.NetworkSettings.Networks.net.IPAddress}}";
    let address = engine.docker(&["inspect", "--format", format, "db"])?;
    assert_eq!(address.trim(), "10.224.0.3", "the default subnet, after gateway and web");
    engine.exec("web", &["ping", "-c1", "-W5", address.trim()])?;

    // Programs and the control socket are the host's.
    let socket = format!("{run}/ovs-ebpf/control.sock");
    let status = host.try_exec(&[&loader.to_string_lossy(), "--socket", &socket, "status"])?;
    assert!(status.contains("ob-"), "{status}");
    // What is known outlives the plugin's runs.
    docker("rm -f db")?;
    docker("plugin disable -f ovs-ebpf")?;
    docker("plugin enable ovs-ebpf")?;
    docker("run -d --name db --network net box sleep 1000")?;
    let address = engine.docker(&["inspect", "--format", format, "db"])?;
    assert_eq!(address.trim(), "10.224.0.4");
    engine.exec("web", &["ping", "-c1", "-W5", address.trim()])?;

    docker("rm -f web db")?;
    docker("network rm net")?;
    docker("plugin disable ovs-ebpf")?;
    docker("plugin rm ovs-ebpf")?;
    wait_until(Duration::from_secs(5), "no interface is left", || {
        shell(host, "ip -o link | grep -v -e ': lo:' -e ': u0@' || true").is_empty().then_some(())
    });
    Ok(())
}
