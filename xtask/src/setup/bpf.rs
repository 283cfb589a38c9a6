//! The BPF toolchain: a rustc with the source of its library, and a bpf-linker on the same LLVM.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::{
    ebpf::{self, Found, Missing, Rustc},
    progress,
};

const BPF_LINKER: &str = "bpf-linker@0.13.0";
/// A current rustc, its cargo and the source of its library, as Debian builds its browsers with.
const DEBIAN_RUSTC: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Installs what the toolchain lacks.
pub(super) fn ensure() -> Result<()> {
    let missing = match ebpf::find() {
        Found::Ready(_) => return Ok(()),
        Found::Missing(missing) => missing,
    };
    for name in [ebpf::RUSTC_ENV, ebpf::CARGO_ENV, ebpf::LINKER_ENV] {
        // What is installed would not be looked at.
        if env::var_os(name).is_some() {
            bail!("{}: correct {name} or unset it", missing.what());
        }
    }
    eprintln!("the BPF programs can't be built yet: {}", missing.what());
    let rustc = match missing {
        Missing::Linker { rustc, .. } => rustc,
        Missing::Rustc => match install_rustc()? {
            // The linker was there already.
            None => return Ok(()),
            Some(rustc) => rustc,
        },
    };
    install_linker(&rustc)?;
    match ebpf::find() {
        Found::Ready(_) => Ok(()),
        Found::Missing(missing) => {
            bail!("the BPF toolchain is still incomplete: {}", missing.what())
        }
    }
}

/// Installs a compiler: the library's source for one of rustup's, else Debian's own. Returns the
/// compiler a linker is now needed for.
fn install_rustc() -> Result<Option<Rustc>> {
    let mut failures = Vec::new();
    for (title, install) in [
        ("rustup's nightly", add_rust_src as fn() -> Result<()>),
        ("Debian's rustc", install_debian_rustc),
    ] {
        if let Err(error) = install() {
            eprintln!("{title} is no option here");
            failures.push(format!("{title}: {error:#}"));
            continue;
        }
        match ebpf::find() {
            Found::Ready(_) => return Ok(None),
            Found::Missing(Missing::Linker { rustc, .. }) => return Ok(Some(rustc)),
            Found::Missing(Missing::Rustc) => failures.push(format!("{title}: too old")),
        }
    }
    bail!(
        "no rustc for BPF could be installed; install one with the source of its library \
         (`rustup toolchain install nightly --component rust-src`) or name one in {}.\n{}",
        ebpf::RUSTC_ENV,
        failures.join("\n")
    )
}

fn add_rust_src() -> Result<()> {
    let mut list = Command::new("rustup");
    list.args(["toolchain", "list"]);
    let toolchains = list.output().context("there is no rustup")?.stdout;
    if !String::from_utf8_lossy(&toolchains).lines().any(|line| line.starts_with("nightly-")) {
        bail!("it is not installed");
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
    progress::run("adding the library's source to rustup's nightly", rustup)?;
    Ok(())
}

fn install_debian_rustc() -> Result<()> {
    if !apt::is_here() {
        bail!("this is not Debian");
    }
    apt::install(&apt::missing(&DEBIAN_RUSTC))
}

/// Builds bpf-linker on the LLVM that `rustc` uses: bitcode is only sure to be read by its own
/// version.
fn install_linker(rustc: &Rustc) -> Result<()> {
    let llvm = rustc.version.llvm;
    let prefix = match env::var_os("LLVM_PREFIX") {
        Some(prefix) => PathBuf::from(prefix),
        None => {
            if apt::is_here() {
                let mut packages: Vec<String> =
                    ["llvm", "libpolly"].map(|name| format!("{name}-{llvm}-dev")).into();
                packages.push("libzstd-dev".into());
                if !on_path("cc") {
                    packages.push("gcc".into());
                    packages.push("libc6-dev".into());
                }
                apt::install(&apt::missing(&packages))
                    .with_context(|| format!("bpf-linker needs LLVM {llvm}'s libraries"))?;
            }
            PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
        }
    };
    if !prefix.join("bin/llvm-config").is_file() {
        bail!(
            "bpf-linker needs LLVM {llvm} with its headers, and {} has none: install it and name \
             its directory in LLVM_PREFIX",
            prefix.display()
        );
    }
    if !on_path("cc") {
        bail!("bpf-linker needs a C compiler's linker: install gcc or clang as `cc`");
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        // Away from the workspace, whose configuration is for its own crates.
        .current_dir("/")
        .env("LLVM_PREFIX", prefix)
        .args(["install", BPF_LINKER, "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")]);
    progress::run(format!("building {BPF_LINKER} for LLVM {llvm} (a minute or two)"), cargo)?;
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| Path::is_file(&dir.join(program)))
}
