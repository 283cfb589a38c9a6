//! Becoming root, only where it is needed.

use std::{
    env,
    ffi::OsStr,
    io,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Error, Result, bail};
use nix::unistd::geteuid;

/// Whether this process is root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// A command that runs as root, with this environment: through sudo where this process is not root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    // sudo replaces PATH even with -E.
    let path = env::var("PATH").unwrap_or_default();
    sudo.args(["-E", "env", &format!("PATH={path}")]).arg(program);
    sudo
}

/// Asks for the password now, if one is needed, rather than under a spinner.
///
/// # Errors
/// Says why root is needed, where sudo is absent or refuses.
pub fn authenticate(why: &str) -> Result<()> {
    if is_root() || sudo(&["-n", "true"])? {
        return Ok(());
    }
    eprintln!("root is needed {why}");
    if !sudo(&["-v"])? {
        bail!("root is needed {why}, and sudo refused: run this as root");
    }
    Ok(())
}

fn sudo(args: &[&str]) -> Result<bool> {
    let quiet = args.contains(&"-n");
    let mut sudo = Command::new("sudo");
    sudo.args(args);
    if quiet {
        sudo.stdin(Stdio::null()).stderr(Stdio::null());
    }
    match sudo.status() {
        Ok(status) => Ok(status.success()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("root is needed and there is no sudo: run this as root")
        }
        Err(error) => Err(error).context("cannot start sudo"),
    }
}

/// Makes sure that this process is root: otherwise replaces it by itself under sudo, with the same
/// environment and arguments, and these after them.
///
/// # Errors
/// Where sudo is absent or refuses.
pub fn reexec_as_root(arguments: &[&OsStr]) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    authenticate("for network namespaces and BPF programs")?;
    let program = env::current_exe().context("cannot find this program's own file")?;
    let error = command(program).args(env::args_os().skip(1)).args(arguments).exec();
    Err(Error::from(error).context("cannot start sudo"))
}
