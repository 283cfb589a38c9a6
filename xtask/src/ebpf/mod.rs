//! Builds BPF objects: the one way shared by `cargo build`, `cargo xtask build-ebpf`, the tests and the
//! benchmark.

mod toolchain;

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

pub use toolchain::{
    CARGO_ENV, Found, LINKER_ENV, Linker, Missing, RUSTC_ENV, Rustc, Toolchain, Version, find,
};

/// What the product's object is built from, relative to the workspace root.
pub const SOURCES: [&str; 6] = [
    "ovs-ebpf/src",
    "ovs-ebpf/Cargo.toml",
    "ovs-ebpf-common/src",
    "ovs-ebpf-common/Cargo.toml",
    "Cargo.toml",
    "Cargo.lock",
];

/// The package of the product's programs.
pub const PACKAGE: &str = "ovs-ebpf";

/// Which programs, the machine whose kernel will run them, and what is compiled in.
#[derive(Debug, Clone)]
pub struct Options {
    /// The package to build; its object has the same name.
    pub package: &'static str,
    /// Architecture as `std::env::consts::ARCH` names it: the layout of `pt_regs` and the like.
    pub arch: String,
    /// Whether that machine is big-endian; BPF programs have the byte order of their host.
    pub big_endian: bool,
    /// Compile in logging of each packet's verdict (feature `log` of [`PACKAGE`]).
    pub log: bool,
}

impl Options {
    /// The product's programs for the machine this runs on, without logging.
    pub fn host() -> Self {
        Self {
            package: PACKAGE,
            arch: env::consts::ARCH.to_owned(),
            big_endian: cfg!(target_endian = "big"),
            log: false,
        }
    }

    fn target(&self) -> &'static str {
        if self.big_endian { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
    }
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// A finished build.
#[derive(Debug)]
pub struct Object {
    /// The ELF object, in `target/bpf` of the workspace.
    pub path: PathBuf,
    /// What cargo printed, warnings included.
    pub output: String,
}

/// Builds the object, calling `progress` with each line cargo prints. Does nothing when the object
/// is up to date.
///
/// The build has a target directory of its own: a build script that shared its parent's would wait
/// for that cargo's lock for ever.
///
/// # Errors
/// With the compiler's output, when compiling or linking fails.
pub fn build(
    toolchain: &Toolchain,
    options: &Options,
    mut progress: impl FnMut(&str),
) -> Result<Object> {
    let target_dir = workspace().join("target/bpf");
    let mut cargo = command(toolchain, options, "build");
    cargo.arg("--target-dir").arg(&target_dir);
    let mut child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", toolchain.rustc.cargo.display()))?;

    let mut output = String::new();
    for line in BufReader::new(child.stderr.take().expect("stderr is piped")).lines() {
        let line = line.context("cannot read cargo's output")?;
        progress(&line);
        output.push_str(&line);
        output.push('\n');
    }
    if !child.wait().context("cannot wait for cargo")?.success() {
        bail!("the BPF programs do not build (with {toolchain}):\n{output}");
    }
    let directory = target_dir.join(options.target()).join("release");
    Ok(Object { path: directory.join(options.package), output })
}

/// `cargo SUBCOMMAND` on the package for the BPF target, with nothing inherited from an outer cargo.
fn command(toolchain: &Toolchain, options: &Options, subcommand: &str) -> Command {
    let Toolchain { rustc, linker } = toolchain;
    let target = options.target();
    let mut cargo = Command::new(&rustc.cargo);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_build_setting) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(workspace())
        .env("RUSTC", &rustc.path)
        .env(format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_")), linker)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&options.arch))
        .args([subcommand, "--package", options.package, "--release"])
        .args(["--target", target, "-Z", "build-std=core"]);
    if !rustc.version.nightly {
        // `-Z` on a stable compiler.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    if options.log {
        cargo.args(["--features", "log"]);
    }
    cargo
}

/// BTF is made from DWARF, so full debug information is needed; the kernel never sees it.
fn rustflags(arch: &str) -> String {
    [&format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\x1f")
}

/// Whether an environment variable changes what cargo builds, as those do that an outer cargo sets
/// for a build script or for `cargo run`. Where cargo finds its home, registries and network stays.
fn is_build_setting(name: &str) -> bool {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "RUSTUP_HOME",
    ];
    const DROPPED: [&str; 5] = ["CARGO", "RUST", "CLIPPY_", "MAKEFLAGS", "MFLAGS"];
    DROPPED.iter().any(|prefix| name.starts_with(prefix))
        && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_an_outer_cargo_are_dropped_and_its_home_and_registries_kept() {
        for name in ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_MAKEFLAGS"] {
            assert!(is_build_setting(name), "{name}");
        }
        for name in ["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
            assert!(is_build_setting(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "PATH", "HOME"] {
            assert!(!is_build_setting(name), "{name}");
        }
    }

    #[test]
    fn rustflags_name_the_architecture_and_ask_for_btf() {
        assert_eq!(
            rustflags("aarch64").split('\x1f').collect::<Vec<_>>(),
            ["--cfg=bpf_target_arch=\"aarch64\"", "-Cdebuginfo=2", "-Clink-arg=--btf"]
        );
    }

    #[test]
    fn byte_order_picks_the_target() {
        let little = Options { arch: "x86_64".into(), big_endian: false, ..Options::host() };
        let big = Options { arch: "s390x".into(), big_endian: true, ..Options::host() };
        assert_eq!(little.target(), "bpfel-unknown-none");
        assert_eq!(big.target(), "bpfeb-unknown-none");
    }
}
