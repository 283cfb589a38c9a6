//! `cargo xtask build-ebpf`.

use std::fs;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::ebpf::{self, Found, Options};

/// Arguments of `cargo xtask build-ebpf`.
#[derive(Args)]
pub struct BuildArgs {
    /// Compile in logging of each packet's verdict: slow, for debugging only
    #[arg(long)]
    log: bool,
}

/// Builds the object and prints its path, its size and its programs.
///
/// # Errors
/// Without a toolchain, or with the compiler's output when the programs do not build.
pub fn run(args: &BuildArgs) -> Result<()> {
    let toolchain = match ebpf::find() {
        Found::Ready(toolchain) => toolchain,
        Found::Missing(missing) => bail!("{missing}"),
    };
    let options = Options { log: args.log, ..Options::host() };
    let built = ebpf::build(&toolchain, &options, |line| eprintln!("{line}"))?;
    let path = built.path.display();
    let bytes = fs::read(&built.path).with_context(|| format!("cannot read {path}"))?;
    println!("{path}: {} bytes", bytes.len());

    let object = aya_obj::Object::parse(&bytes)
        .with_context(|| format!("{path} is not a BPF object that aya can load"))?;
    let mut names: Vec<&String> = object.programs.keys().collect();
    names.sort();
    for name in names {
        println!("  {name} ({:?})", object.programs[name].section);
    }
    Ok(())
}
