//! Debian's packages.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{progress, sudo};

/// Whether this machine has apt.
pub(super) fn is_here() -> bool {
    Path::new("/usr/bin/apt-get").is_file()
}

/// Those of `packages` that are not installed.
pub(super) fn missing<S: AsRef<str>>(packages: &[S]) -> Vec<String> {
    let installed = |package: &str| {
        Command::new("dpkg-query")
            .args(["--show", "--showformat=${Status}", package])
            .output()
            .is_ok_and(|output| output.stdout.ends_with(b" installed"))
    };
    packages.iter().map(AsRef::as_ref).filter(|name| !installed(name)).map(Into::into).collect()
}

/// Installs packages, with fresh package lists if the ones on the machine don't do.
pub(super) fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    sudo::authenticate("to install Debian packages")?;
    let title = format!("installing {}", packages.join(" "));
    let install = || {
        let mut apt = apt_get();
        apt.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        apt
    };
    if progress::run(&title, install()).is_ok() {
        return Ok(());
    }
    let mut update = apt_get();
    update.arg("update");
    progress::run("updating the package lists", update)?;
    progress::run(title, install())?;
    Ok(())
}

fn apt_get() -> Command {
    let mut apt = sudo::command("env");
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]);
    apt
}
