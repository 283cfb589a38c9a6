//! Distribution kernels from Debian's packages: unpacked into the user's cache, never installed.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::{progress, setup::apt};

/// A kernel series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// Debian 12's: clsact, no TCX.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 12's newer one: TCX.
    #[value(name = "6.12")]
    V6_12,
}

impl Series {
    /// The package that depends on the newest kernel of the series.
    fn package(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-amd64",
            Self::V6_12 => "linux-image-6.12-amd64",
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// To boot from.
    pub(super) image: PathBuf,
    /// With `modules.dep`.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// Finds the kernel in the cache, or downloads it.
    ///
    /// The cache is the user's, not the target directory: several checkouts share it, and `cargo
    /// clean` doesn't cost 200 MB of download. One that is there is used for good, so that a test
    /// run doesn't change its kernel by itself; remove the directory to get the newest.
    pub(super) fn obtain(series: Series) -> Result<Self> {
        ensure!(
            env::consts::ARCH == "x86_64",
            "the virtual machine runs this machine's programs on Debian's amd64 kernels, and this \
             machine is {}",
            env::consts::ARCH
        );
        let directory = cache()?.join(format!("linux-{series}"));
        if !directory.is_dir() && download(series, &directory).is_err() {
            // The package lists are missing or name a package that is gone.
            apt::update()?;
            download(series, &directory)?;
        }
        Self::open(&directory).with_context(|| {
            format!("{} is no whole kernel: remove it to get it again", directory.display())
        })
    }

    fn open(directory: &Path) -> Result<Self> {
        let modules = only_entry(&directory.join("lib/modules"))?;
        let release = modules.file_name().expect("an entry has a name").to_string_lossy();
        let image = directory.join(format!("boot/vmlinuz-{release}"));
        ensure!(image.is_file(), "there is no {}", image.display());
        ensure!(modules.join("modules.dep").is_file(), "its modules are not indexed");
        Ok(Self { image, modules })
    }
}

/// `$XDG_CACHE_HOME/ovs-ebpf`.
fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("ovs-ebpf"))
}

fn download(series: Series, directory: &Path) -> Result<()> {
    let package = versioned(series)?;
    // Beside its place and then renamed: what is there is whole.
    let partial = directory.with_extension(format!("partial-{}", std::process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let unpacked = unpack(&package, &partial)
        .and_then(|()| fs::rename(&partial, directory).context("cannot rename it"));
    if unpacked.is_err() {
        // Another process may have been faster.
        let _ = fs::remove_dir_all(&partial);
    }
    if directory.is_dir() { Ok(()) } else { unpacked }
}

/// The package of the newest kernel, which the series' own depends on.
fn versioned(series: Series) -> Result<String> {
    let meta = series.package();
    let mut command = Command::new("apt-cache");
    command.args(["depends", "--important", meta]).env("LC_ALL", "C");
    let output = command.output().context("cannot start apt-cache: kernels come from Debian")?;
    parse_depends(&String::from_utf8_lossy(&output.stdout)).with_context(|| {
        format!(
            "apt knows no {meta}: Linux {series} comes from Debian 12 or its security updates; add \
             them to apt's sources"
        )
    })
}

/// Reads `  Depends: linux-image-6.1.0-56-amd64`.
fn parse_depends(output: &str) -> Option<String> {
    let names = output.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(str::to_owned).find(|name| name.starts_with("linux-image-"))
}

fn unpack(package: &str, directory: &Path) -> Result<()> {
    let mut get = Command::new("apt-get");
    get.current_dir(directory).args(["download", package]);
    progress::run(format!("downloading {package}"), get)?;
    let archive = only_entry(directory)?;
    let mut dpkg = Command::new("dpkg");
    dpkg.arg("--extract").arg(&archive).arg(directory);
    progress::run(format!("unpacking {package}"), dpkg)?;
    fs::remove_file(&archive).context("cannot remove the archive")?;
    let modules = only_entry(&directory.join("lib/modules"))?;
    let mut depmod = Command::new("/sbin/depmod");
    depmod.arg("--basedir").arg(directory).arg(modules.file_name().expect("it has a name"));
    progress::run("indexing its modules", depmod)?;
    Ok(())
}

/// The one entry of a directory.
fn only_entry(directory: &Path) -> Result<PathBuf> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    match &paths[..] {
        [path] => Ok(path.clone()),
        _ => bail!("{} should have one entry: {paths:?}", directory.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_what_the_series_depends_on() {
        let output = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(parse_depends(output).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(parse_depends("N: Unable to locate package linux-image-amd64"), None);
    }
}
