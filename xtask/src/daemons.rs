//! `ovs-loader run` on every host of a lab, as the demo and the benchmark have it.

use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ovs_ebpf_tests::lab::{self, FastPackets, Lab, Loader, Namespace, patience, traffic};

use crate::{ebpf, progress};

/// How long the slow or the fast path may take to know the containers.
const LIMIT: Duration = Duration::from_secs(15);

/// Builds the release `ovs-loader` into this program's target directory.
pub(crate) fn build() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let target = program.ancestors().nth(2).context("this program is in no target directory")?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(ebpf::workspace());
    cargo.args(["build", "--release", "--bin", "ovs-loader", "--target-dir"]).arg(target);
    progress::run("building ovs-loader", cargo)?;
    Ok(target.join("release/ovs-loader"))
}

/// Starts the daemon on every host, without a configuration.
pub(crate) fn start(lab: &Lab, binary: &Path) -> Result<Vec<Loader>> {
    let mut loaders = Vec::new();
    for host in lab.hosts() {
        let mut loader = Loader::spawn_binary(binary.to_owned(), host, None, &[])?;
        loader.ready()?;
        loaders.push(loader);
    }
    Ok(loaders)
}

/// Waits until the hosts' first containers reach each other by the bridges.
///
/// # Errors
/// When they do not.
pub(crate) fn wait_until_reachable(lab: &Lab) -> Result<()> {
    let (from, to) = (lab.container(0), lab.container(1));
    lab::try_until(LIMIT, || {
        let ping = traffic::ping(from, to.ipv4(), 56, 1, Duration::from_millis(10));
        Ok(ping.is_ok_and(|ping| ping.received == 1).then_some(()))
    })
    .with_context(|| {
        format!(
            "{} has no echo of {}, without the fast path: does a firewall of this machine forbid it?",
            from.name(),
            to.ipv4()
        )
    })
}

/// Sends echoes from container to container until both hosts forward them by the fast path in both directions.
pub(crate) fn wait_until_fast(loaders: &[Loader], from: &Namespace, to: IpAddr) -> Result<()> {
    let start: Vec<FastPackets> =
        loaders.iter().map(Loader::fast_packets).collect::<Result<_>>()?;
    let deadline = Instant::now() + patience(LIMIT);
    loop {
        traffic::ping(from, to, 56, 1, Duration::from_millis(10))?;
        let mut fast = true;
        for (loader, start) in loaders.iter().zip(&start) {
            let forwarded = loader.fast_packets()? - *start;
            fast &= forwarded.sent > 0 && forwarded.received > 0;
        }
        if fast {
            return Ok(());
        }
        if Instant::now() > deadline {
            let status = loaders.iter().map(|loader| loader.cli(&["status"]));
            let status = status.collect::<Result<Vec<_>>>()?.join("\n");
            bail!("the fast path takes no packets after {LIMIT:?}:\n{status}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The packets of all hosts together.
pub(crate) fn packets(loaders: &[Loader]) -> Result<FastPackets> {
    let mut sum = FastPackets::default();
    for loader in loaders {
        sum = sum + loader.fast_packets()?;
    }
    Ok(sum)
}
