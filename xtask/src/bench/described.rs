//! The `ovs-ebpf-gre` path where the kernel has no gretap: programs that a test fixture tells of the
//! tunnel, `tests/examples/described_gre.rs`.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::lab::{Host, Lab};

use crate::{ebpf, progress};

/// What a reader of the figures has to know.
pub(super) const NOTE: &str = "this kernel has no gretap: a fixture describes the tunnel to the programs, \
                               neighbours are static, and there is no slow path";

/// Builds the fixture.
///
/// # Errors
/// With the compiler's output.
pub(super) fn build() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(ebpf::workspace());
    cargo.args(["build", "--release", "--package", "ovs-ebpf-tests", "--example", "described_gre"]);
    progress::run("building the fixture for GRE", cargo).map(|_| ())
}

/// The fixture on one host. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Fixture(Child);

/// Joins two hosts.
///
/// # Errors
/// When the fixture is not built or does not start.
pub(super) fn join(lab: &Lab) -> Result<Vec<Fixture>> {
    let pairs = [(lab.host(0), lab.host(1)), (lab.host(1), lab.host(0))];
    pairs.into_iter().map(|(host, other)| start(host, other)).collect()
}

fn start(host: &Host, other: &Host) -> Result<Fixture> {
    let (own, far) = (host.container(0), other.container(0));
    own.ip(&format!("neigh replace {} lladdr {} dev eth0\n", far.ipv4(), far.mac()))?;
    let mut command = host.command(&program()?.to_string_lossy());
    command.args([own.port(), own.mac(), far.mac()]);
    command.args([host.underlay().to_string(), other.underlay().to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut fixture = Fixture(command.spawn().context("cannot start the fixture for GRE")?);
    let stdout = fixture.0.stdout.take().expect("stdout is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("cannot read of the fixture")?;
    ensure!(line == "attached\n", "the fixture for GRE did not attach its programs");
    Ok(fixture)
}

fn program() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let target = program.ancestors().nth(2).context("this program is in no target directory")?;
    Ok(target.join("release/examples/described_gre"))
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
