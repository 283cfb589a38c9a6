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

/// Runs apt-get with services kept from starting: what is installed here is for tests, which start
/// their own. An administrator's policy stays as it is.
const WITHOUT_SERVICES: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 1' INT TERM
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
fi
apt-get --quiet "$@"
"#;

/// Installs packages, with fresh package lists if the ones on the machine don't do.
pub(super) fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    sudo::authenticate("to install Debian packages")?;
    let title = format!("installing {}", packages.join(" "));
    let install = || {
        let mut apt = sudo::command("env");
        apt.args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", WITHOUT_SERVICES, "sh"]);
        apt.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        apt
    };
    if progress::run(&title, install()).is_ok() {
        return Ok(());
    }
    update()?;
    progress::run(title, install())?;
    Ok(())
}

/// Gets fresh package lists.
pub(crate) fn update() -> Result<()> {
    sudo::authenticate("to update the package lists")?;
    let mut update = sudo::command("apt-get");
    update.args(["--quiet", "update"]);
    progress::run("updating the package lists", update)?;
    Ok(())
}

/// Keeps a service that came with a package from starting with the machine.
pub(super) fn disable(service: &str) -> Result<()> {
    if !Path::new("/usr/bin/systemctl").is_file() {
        return Ok(());
    }
    let mut systemctl = sudo::command("systemctl");
    systemctl.args(["disable", "--quiet", service]);
    progress::run(format!("keeping {service} from starting by itself"), systemctl)?;
    Ok(())
}
