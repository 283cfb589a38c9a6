//! The daemon with no more rights than `docs/ovs-loader.service` gives it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use ovs_ebpf_tests::lab::{Engine, Host, Lab, binary};

use super::life::CREATE;
use super::{docker, run, serve_by};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ovs-loader.service");

/// A script that starts `ovs-loader` with the unit's capabilities and no others.
fn bounded(host: &Host) -> Result<PathBuf> {
    let unit = fs::read_to_string(Path::new(UNIT)).context("the unit file")?;
    let setting = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let set: String = setting
        .context("its capabilities")?
        .split_whitespace()
        .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let binary = binary()?.display().to_string();
    let script = format!(
        "#!/bin/sh\nexec setpriv --no-new-privs --bounding-set=-all{set} {binary} \"$@\"\n"
    );
    let path = host.files().join("ovs-loader");
    fs::create_dir_all(host.files())?;
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn the_unit_s_rights_are_enough_for_containers_on_docker_networks() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let loader = serve_by(bounded(host)?, host)?;
    let engine = Engine::start(host)?;
    docker(&engine, &format!("{CREATE} net"))?;
    for (name, address) in [("web", "10.5.0.11"), ("db", "10.5.0.12")] {
        run(&engine, name, &format!("--network net --ip {address}"))?;
    }
    engine.exec("web", &["ping", "-c2", "-W5", "10.5.0.12"])?;
    docker(&engine, "restart -t 0 db")?;
    let before = loader.fast_packets()?;
    engine.exec("web", &["ping", "-c5", "-W5", "10.5.0.12"])?;
    let taken = loader.fast_packets()? - before;
    assert!(taken.sent + taken.received > 0, "{taken:?} {}", loader.status()?);
    Ok(())
}
