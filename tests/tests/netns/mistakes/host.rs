//! What the host lacks.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ovs_ebpf_tests::lab::{Lab, Loader, binary, wait_until};

use super::complaint;
use crate::support::{State, ovs_loader};

#[test]
fn without_root_one_line_says_so() -> Result<()> {
    let lab = Lab::pair()?;
    let loader = Loader::start(lab.host(1))?;
    let before = State::of(lab.host(0));
    // Where nobody may read it, unlike the build directory perhaps.
    let copy = tempfile::Builder::new().prefix("ovs-loader-").tempdir_in("/run")?;
    fs::set_permissions(copy.path(), Permissions::from_mode(0o755))?;
    let program = copy.path().join("ovs-loader");
    fs::copy(binary()?, &program)?;
    let nobody = |arguments: &[&str]| -> Result<String> {
        let become_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let program = program.to_string_lossy();
        let error = lab.host(0).try_exec(&[&become_nobody, &[&*program][..], arguments].concat());
        let said = format!("{:#}", error.err().context("it succeeded")?);
        let (_, said) = said.split_once('\n').context("its words")?;
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        Ok(said.to_owned())
    };
    let run = nobody(&["run"])?;
    assert!(run.contains("must run as root") && run.contains("sudo"), "{run}");
    let socket = loader.socket().to_string_lossy().into_owned();
    let status = nobody(&["--socket", &socket, "status"])?;
    assert!(status.contains("no permission") && status.contains("sudo"), "{status}");
    let bridge = nobody(&["bridge", "add", "br-new"])?;
    assert!(bridge.contains("root"), "{bridge}");
    before.is_unchanged();
    Ok(())
}

#[test]
fn a_bpf_file_system_that_is_not_mounted_is_mounted() -> Result<()> {
    let lab = Lab::pair()?;
    fs::create_dir_all(lab.host(0).files())?;
    let socket = lab.host(0).files().join("control.sock").to_string_lossy().into_owned();
    let script =
        format!("umount -l /sys/fs/bpf; exec {} --socket {socket} run", binary()?.display());
    let mut child = (lab.host(0).command("unshare"))
        .args(["--mount", "sh", "-ec", &script])
        .stderr(Stdio::null())
        .spawn()?;
    let status = ["--socket", &socket, "status"];
    wait_until(Duration::from_secs(10), "a daemon that answers", || {
        ovs_loader(lab.host(0), &status).ok()
    });
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", child.id()))?;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
    assert!(child.wait()?.success());
    assert!(mounts.lines().any(|mount| mount.starts_with("bpf /sys/fs/bpf bpf ")), "{mounts}");
    Ok(())
}

#[test]
fn a_directory_in_no_bpf_file_system_is_refused_with_what_to_do() -> Result<()> {
    let lab = Lab::pair()?;
    let before = State::of(lab.host(0));
    let said = complaint(lab.host(0), &["--bpffs", "/run/ovs-ebpf-pins", "run"]);
    assert!(said.contains("/run/ovs-ebpf-pins") && said.contains("mount -t bpf"), "{said}");
    before.is_unchanged();
    Ok(())
}
