//! Embeds the BPF object: builds it and leaves it in `OUT_DIR` as `ovs-ebpf.o`.
//!
//! Without a BPF toolchain the object is empty, so that `cargo check` and `cargo clippy` work
//! anywhere; the daemon refuses to load an empty object.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use xtask::ebpf::{self, CARGO_ENV, Found, LINKER_ENV, Options, RUSTC_ENV};

fn main() -> Result<()> {
    let object = PathBuf::from(variable("OUT_DIR")?).join("ovs-ebpf.o");
    for name in [RUSTC_ENV, CARGO_ENV, LINKER_ENV] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    match ebpf::find() {
        Found::Ready(toolchain) => {
            for path in ebpf::SOURCES {
                println!("cargo:rerun-if-changed={}", ebpf::workspace().join(path).display());
            }
            for path in [&toolchain.rustc.path, &toolchain.linker] {
                println!("cargo:rerun-if-changed={}", path.display());
            }
            let options = Options {
                arch: variable("CARGO_CFG_TARGET_ARCH")?,
                big_endian: variable("CARGO_CFG_TARGET_ENDIAN")? == "big",
                log: env::var_os("CARGO_FEATURE_LOG").is_some(),
                ..Options::host()
            };
            let built = ebpf::build(&toolchain, &options, |_| ())?;
            fs::copy(&built.path, &object).with_context(|| {
                format!("cannot copy {} to {}", built.path.display(), object.display())
            })?;
        }
        Found::Missing(missing) => {
            println!("cargo:warning=built without the BPF programs: {missing}");
            // A file that is never there: look for a toolchain again at the next build.
            println!("cargo:rerun-if-changed={}", object.with_extension("never").display());
            fs::write(&object, []).with_context(|| format!("cannot write {}", object.display()))?;
        }
    }
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}
