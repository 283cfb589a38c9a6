//! Start, end, and several daemons on one machine.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use ovs_ebpf_tests::lab::{Lab, Loader, binary};

use super::FOLLOWED;
use crate::support::{BothWays, ovs_loader, shell};

#[test]
fn a_second_daemon_on_the_directory_refuses_and_names_the_first() -> Result<()> {
    let lab = Lab::pair()?;
    let first = Loader::start(lab.host(0))?;
    let socket = lab.host(0).files().join("second.sock");
    let socket = socket.to_string_lossy();
    let mut second = Loader::spawn(lab.host(0), None, &["--socket", &socket])?;
    let status = second.wait_exit(FOLLOWED)?;
    assert_eq!(status.code(), Some(1));
    let said = second.log();
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert!(said.contains("--takeover") && said.contains("--bpffs"), "{said}");
    // And the first is as it was.
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&first, FOLLOWED);
    traffic.arrived_whole()
}

#[test]
fn who_can_not_load_the_programs_takes_over_from_nobody() -> Result<()> {
    let lab = Lab::pair()?;
    let first = Loader::start(lab.host(0))?;
    let binary = binary()?;
    let paths = [&*binary, first.socket(), first.bpffs()];
    let [binary, socket, bpffs] = paths.map(|path| path.to_string_lossy());
    // Fewer descriptors than there are maps.
    let second = ["prlimit", "--nofile=20", &binary, "run", "--takeover"];
    let at = ["--socket", &socket, "--bpffs", &bpffs];
    let said = lab.host(0).try_exec(&[&second[..], &at].concat()).expect_err("it can't load");
    assert!(said.to_string().contains("not taking over"), "{said:#}");
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&first, FOLLOWED);
    traffic.arrived_whole()
}

#[test]
fn a_second_daemon_on_the_socket_refuses_and_leaves_the_first_alone() -> Result<()> {
    let lab = Lab::pair()?;
    let first = Loader::start(lab.host(0))?;
    let bpffs = lab.host(0).bpffs().with_file_name(format!("{}-other", lab.host(0).name()));
    let mut second = Loader::spawn(lab.host(0), None, &["--bpffs", &bpffs.to_string_lossy()])?;
    let status = second.wait_exit(FOLLOWED)?;
    assert_eq!(status.code(), Some(1));
    let said = second.log();
    assert!(said.contains("control.sock"), "{said}");
    first.status()?;
    fs::remove_dir_all(&bpffs).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    assert_eq!(programs(&lab, "v1"), 1, "what it attached is gone");
    Ok(())
}

#[test]
fn daemons_in_two_namespaces_do_not_know_of_each_other() -> Result<()> {
    let lab = Lab::pair()?;
    let loaders = [Loader::start(lab.host(0))?, Loader::start(lab.host(1))?];
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    for loader in &loaders {
        traffic.is_fast(loader, FOLLOWED);
    }
    let [first, second] = loaders;
    drop(first);
    traffic.is_fast(&second, FOLLOWED);
    traffic.arrived_whole()
}

#[test]
fn only_root_can_open_the_control_socket_and_the_pins() -> Result<()> {
    let lab = Lab::pair()?;
    let loader = Loader::start(lab.host(0))?;
    let mode = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.permissions().mode());
    assert_eq!(mode(loader.socket())? & 0o7777, 0o600);
    assert_eq!(mode(loader.bpffs())? & 0o7777, 0o700);
    Ok(())
}

/// Programs on the ingress of one of host 1's devices, by TCX or, on kernels without it, as filters.
fn programs(lab: &Lab, device: &str) -> usize {
    let tcx = lab.host(0).run_in(|| SchedClassifier::query_tcx(device, TcAttachType::Ingress));
    tcx.map_or_else(
        |_| {
            let filters = format!("tc filter show dev {device} ingress");
            shell(lab.host(0), &filters).matches("direct-action").count()
        },
        |(_, programs)| programs.len(),
    )
}

#[test]
fn sigterm_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::pair()?;
    let mut loader = Loader::start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    let managed = || shell(lab.host(0), "ip -d neigh").contains("managed");
    assert!(programs(&lab, "v1") == 1 && programs(&lab, "u0") == 1 && managed());

    ensure!(loader.sigterm()?.success(), "{}", loader.log());
    assert_eq!((programs(&lab, "v1"), programs(&lab, "u0")), (0, 0), "programs");
    assert!(!managed(), "{}", shell(lab.host(0), "ip -d neigh"));
    assert!(!lab.host(0).bpffs().exists() && !loader.socket().exists());
    traffic.arrived_whole()
}

#[test]
fn down_leaves_nothing_of_a_daemon_that_was_killed() -> Result<()> {
    let lab = Lab::pair()?;
    let mut loader = Loader::start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    loader.kill_9()?;
    let managed = || shell(lab.host(0), "ip -d neigh").contains("managed");
    assert!(managed() && programs(&lab, "v1") == 1, "what the next daemon adopts");
    loader.cli(&["down"])?;
    assert_eq!((programs(&lab, "v1"), programs(&lab, "u0")), (0, 0), "programs");
    assert!(!managed(), "{}", shell(lab.host(0), "ip -d neigh"));
    assert!(!lab.host(0).bpffs().exists());
    traffic.arrived_whole()
}

#[test]
fn down_removes_nothing_but_pins() -> Result<()> {
    let lab = Lab::pair()?;
    let other = tempfile::tempdir()?;
    let file = other.path().join("v1/somebody-s");
    fs::create_dir(other.path().join("v1"))?;
    fs::write(&file, "")?;
    let directory = other.path().to_string_lossy();
    let refused = ovs_loader(lab.host(0), &["down", "--bpffs", &directory]);
    let said = refused.expect_err("no BPF file system").to_string();
    assert!(said.contains("is not in a BPF file system"), "{said}");
    assert!(file.exists());
    Ok(())
}

#[test]
fn systemd_is_told_when_the_daemon_is_ready() -> Result<()> {
    let lab = Lab::pair()?;
    fs::create_dir_all(lab.host(0).files())?;
    let path = lab.host(0).files().join("notify");
    let notify = UnixDatagram::bind(&path)?;
    notify.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut child = (lab.host(0).command(&binary()?.to_string_lossy()))
        .args(["run", "--socket"])
        .arg(lab.host(0).files().join("control.sock"))
        .arg("--bpffs")
        .arg(lab.host(0).bpffs())
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .context("nsenter")?;
    let mut message = [0; 256];
    let received = notify.recv(&mut message);
    let ready_socket = lab.host(0).files().join("control.sock").exists();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    let said = String::from_utf8_lossy(&message[..received?]).into_owned();
    assert!(said.lines().any(|line| line == "READY=1"), "{said}");
    assert!(ready_socket, "it answers by then");
    assert!(child.wait()?.success());
    Ok(())
}
