//! `cargo xtask lint`: formatting, clippy and documentation, with every warning an error.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{ebpf, progress};

/// Runs every lint, also after one has failed, so that one run shows all there is to mend.
///
/// # Errors
/// When a lint finds something.
pub fn run() -> Result<()> {
    // The kernel programs too: their crate compiles for the host, where clippy is installed.
    let lints: [(&str, &[&str]); 4] = [
        ("checking the formatting", &["fmt", "--all", "--check"]),
        (
            "checking the fuzz targets' formatting",
            &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"],
        ),
        (
            "checking clippy's lints",
            &["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"],
        ),
        ("checking the documentation", &["doc", "--workspace", "--no-deps", "--quiet"]),
    ];
    let mut failed = 0;
    for (title, args) in lints {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(ebpf::workspace()).args(args).env("RUSTDOCFLAGS", "--deny warnings");
        if let Err(error) = progress::run(title, cargo) {
            eprintln!("{error:#}");
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("{failed} of {} lints failed", lints.len());
    }
    println!("{} lints passed", lints.len());
    Ok(())
}
