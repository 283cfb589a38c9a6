//! Builds the test programs and finds out from cargo where they are.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::progress::Step;

/// Where a test runs and as whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// Pure code, as the user.
    Host,
    /// The daemon's own tests, as root: some speak to the kernel.
    Loader,
    /// Programs on the running kernel and hosts in network namespaces, as root and one at a time.
    Kernel,
    /// Beside the kernel modules that this machine may lack: in a virtual machine only.
    Vm,
}

impl Tier {
    /// Those that run on this machine.
    pub(super) const LOCAL: [Self; 3] = [Self::Host, Self::Loader, Self::Kernel];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Loader => "loader",
            Self::Kernel => "kernel and namespaces",
            Self::Vm => "virtual machine",
        })
    }
}

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binary {
    /// Package and target, for people.
    pub(super) name: String,
    pub(super) target: String,
    pub(super) package_dir: PathBuf,
    pub(super) executable: PathBuf,
    integration: bool,
}

impl Binary {
    pub(super) fn tier(&self) -> Tier {
        let package = self.package_dir.file_name().and_then(|name| name.to_str());
        match package {
            Some("tests") if self.target == "vm" => Tier::Vm,
            Some("tests") => Tier::Kernel,
            Some("ovs-loader") if self.integration => Tier::Kernel,
            Some("ovs-loader") => Tier::Loader,
            _ => Tier::Host,
        }
    }

    /// Whether it runs hosts in network namespaces, for minutes.
    pub(super) fn is_long(&self) -> bool {
        self.tier() == Tier::Kernel && self.target == "netns"
    }
}

/// Builds every test program, or those that cargo's arguments select.
pub(super) fn build(selection: &[&str]) -> Result<Vec<Binary>> {
    let mut cargo = super::cargo();
    cargo
        .args(["test", "--no-run", "--message-format=json-render-diagnostics"])
        .args(selection)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut step = Step::start("building the tests");
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let messages = std::thread::spawn(move || -> Result<Vec<Binary>> {
        let mut binaries = Vec::new();
        for line in BufReader::new(stdout).lines() {
            binaries.extend(parse(&line.context("cannot read cargo's messages")?)?);
        }
        Ok(binaries)
    });
    let mut output = String::new();
    for line in BufReader::new(child.stderr.take().expect("stderr is piped")).lines() {
        let line = line.context("cannot read cargo's output")?;
        step.line(&line);
        output.push_str(&line);
        output.push('\n');
    }
    let binaries = messages.join().expect("reading messages does not panic")?;
    if !child.wait().context("cannot wait for cargo")?.success() {
        bail!("the tests do not build:\n{output}");
    }
    step.done();
    Ok(binaries)
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The test program that one of cargo's messages announces, if it does.
fn parse(line: &str) -> Result<Option<Binary>> {
    let message: Message = serde_json::from_str(line)
        .with_context(|| format!("cargo printed a message that is not understood: {line}"))?;
    let Message {
        manifest_path: Some(manifest),
        target: Some(target),
        profile: Some(Profile { test: true }),
        executable: Some(executable),
        ..
    } = message
    else {
        return Ok(None);
    };
    if message.reason != "compiler-artifact" {
        return Ok(None);
    }
    let package_dir = manifest.parent().unwrap_or(Path::new("/")).to_owned();
    let package = package_dir.file_name().unwrap_or_default().to_string_lossy();
    let kind = target.kind.join(",");
    Ok(Some(Binary {
        name: format!("{package} {} ({kind})", target.name),
        target: target.name,
        integration: kind == "test",
        package_dir,
        executable,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(dir: &str, kind: &str, test: bool) -> Option<Binary> {
        named("x", dir, kind, test)
    }

    fn named(name: &str, dir: &str, kind: &str, test: bool) -> Option<Binary> {
        let executable = if test { "\"/t/x\"" } else { "null" };
        parse(&format!(
            r#"{{"reason":"compiler-artifact","package_id":"p","manifest_path":"/w/{dir}/Cargo.toml",
            "target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},
            "executable":{executable},"fresh":true}}"#
        ))
        .unwrap()
    }

    #[test]
    fn only_test_programs_count() {
        assert_eq!(artifact("ovs-loader", "lib", false), None);
        assert_eq!(parse(r#"{"reason":"build-finished","success":true}"#).unwrap(), None);
        let binary = artifact("ovs-loader", "lib", true).unwrap();
        assert_eq!(binary.executable, Path::new("/t/x"));
        assert_eq!(binary.package_dir, Path::new("/w/ovs-loader"));
    }

    #[test]
    fn package_and_kind_decide_the_tier() {
        assert_eq!(artifact("ovs-ebpf-common", "lib", true).unwrap().tier(), Tier::Host);
        assert_eq!(artifact("xtask", "bin", true).unwrap().tier(), Tier::Host);
        assert_eq!(artifact("ovs-loader", "lib", true).unwrap().tier(), Tier::Loader);
        assert_eq!(artifact("ovs-loader", "test", true).unwrap().tier(), Tier::Kernel);
        assert_eq!(artifact("tests", "lib", true).unwrap().tier(), Tier::Kernel);
        assert_eq!(artifact("tests", "test", true).unwrap().tier(), Tier::Kernel);
        assert_eq!(named("vm", "tests", "test", true).unwrap().tier(), Tier::Vm);
    }
}
