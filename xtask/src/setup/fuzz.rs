//! The fuzzer.

use std::{env, process::Command};

use anyhow::Result;

use crate::progress;

/// The version that is known to work.
const CARGO_FUZZ: &str = "cargo-fuzz@0.13.2";

/// Installs cargo-fuzz, where cargo does not know it yet.
pub(super) fn ensure() -> Result<()> {
    let cargo = || {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Away from the workspace, whose configuration is for its own crates.
        cargo.current_dir("/");
        cargo
    };
    if cargo().args(["fuzz", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    let mut install = cargo();
    install.args(["install", "--locked", CARGO_FUZZ]);
    progress::run(format!("building {CARGO_FUZZ} (a minute)"), install)?;
    Ok(())
}
