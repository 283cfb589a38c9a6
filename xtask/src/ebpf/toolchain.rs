//! Finds what compiles for BPF: a rustc that has the source of `core`, and a bpf-linker built on
//! the same LLVM.

use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Environment variable naming the rustc to use, ahead of any that would be found.
pub const RUSTC_ENV: &str = "OVS_EBPF_RUSTC";
/// Environment variable naming the cargo that goes with [`RUSTC_ENV`]; default: the one beside it.
pub const CARGO_ENV: &str = "OVS_EBPF_CARGO";
/// Environment variable naming the bpf-linker to use, ahead of any that would be found.
pub const LINKER_ENV: &str = "OVS_EBPF_LINKER";

/// The oldest rustc that compiles the workspace, as Cargo.toml states it.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// What `rustc -vV` says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `release:`, for example `1.96.0` or `1.97.0-nightly`.
    pub release: String,
    /// Whether unstable options work without more ado.
    pub nightly: bool,
    /// Major number of `LLVM version:`.
    pub llvm: u32,
}

impl Version {
    fn parse(verbose: &str) -> Option<Self> {
        let field = |name| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:")?.to_owned();
        let llvm = major(field("LLVM version:")?)?;
        let nightly = release.contains("-nightly") || release.contains("-dev");
        Some(Self { release, nightly, llvm })
    }

    fn is_at_least(&self, oldest: &str) -> bool {
        fn numbers(release: &str) -> Option<(u32, u32)> {
            let mut parts = release.split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        }
        numbers(&self.release) >= numbers(oldest)
    }
}

/// A compiler for the BPF target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rustc {
    /// The compiler.
    pub path: PathBuf,
    /// The cargo that goes with it: `-Z build-std` wants the two from one release.
    pub cargo: PathBuf,
    /// What it says of itself.
    pub version: Version,
}

/// A bpf-linker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// Major version of the LLVM it was built on.
    pub llvm: u32,
}

/// A compiler and a linker that fit each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: Rustc,
    /// The bpf-linker.
    pub linker: PathBuf,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rustc, linker } = self;
        let Version { release, llvm, .. } = &rustc.version;
        write!(f, "rustc {release} ({}), {}, LLVM {llvm}", rustc.path.display(), linker.display())
    }
}

/// What keeps the BPF programs from being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// No rustc that has the source of `core` beside it and is new enough.
    Rustc,
    /// No bpf-linker that reads what this rustc writes.
    Linker {
        /// The compiler it has to fit.
        rustc: Rustc,
        /// Those found, all built on another LLVM.
        unfit: Vec<Linker>,
    },
}

impl Missing {
    /// What is missing, without what to do.
    pub fn what(&self) -> String {
        match self {
            Self::Rustc => match env::var_os(RUSTC_ENV) {
                Some(path) => format!(
                    "{} ({RUSTC_ENV}) is not a rustc {OLDEST} or newer with the source of its \
                     library and a cargo beside it (or in {CARGO_ENV})",
                    path.display()
                ),
                None => format!("there is no rustc {OLDEST} or newer with its library's source"),
            },
            Self::Linker { rustc, unfit } => {
                let Version { release, llvm, .. } = &rustc.version;
                let mut what =
                    format!("there is no bpf-linker for LLVM {llvm}, which rustc {release} uses");
                if let Some(path) = env::var_os(LINKER_ENV) {
                    what.push_str(&format!("; {LINKER_ENV} names {}", path.display()));
                }
                for Linker { path, llvm } in unfit {
                    what.push_str(&format!("; {} is for LLVM {llvm}", path.display()));
                }
                what
            }
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: run `cargo xtask setup`, then build again", self.what())
    }
}

/// The result of looking for a toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A toolchain that builds the programs.
    Ready(Toolchain),
    /// What is missing first.
    Missing(Missing),
}

/// Looks for a toolchain on this machine: what the environment names, rustup's nightly, rustup's
/// other toolchains, then the system's compiler, and the first of them that a linker fits.
pub fn find() -> Found {
    choose(rustcs(), linkers())
}

/// Picks the first compiler that a linker fits, since the first of either may lack its partner.
fn choose(rustcs: Vec<Rustc>, linkers: Vec<Linker>) -> Found {
    let fitting = |rustc: &Rustc| linkers.iter().find(|linker| linker.llvm == rustc.version.llvm);
    if let Some((rustc, linker)) = rustcs.iter().find_map(|rustc| Some((rustc, fitting(rustc)?))) {
        let toolchain = Toolchain { rustc: rustc.clone(), linker: linker.path.clone() };
        return Found::Ready(toolchain);
    }
    Found::Missing(match rustcs.into_iter().next() {
        Some(rustc) => Missing::Linker { rustc, unfit: linkers },
        None => Missing::Rustc,
    })
}

/// Every usable compiler, best first; the one the environment names stands alone.
fn rustcs() -> Vec<Rustc> {
    if let Some(rustc) = env::var_os(RUSTC_ENV) {
        let rustc = PathBuf::from(rustc);
        let cargo =
            env::var_os(CARGO_ENV).map_or_else(|| rustc.with_file_name("cargo"), Into::into);
        return inspect(rustc, cargo).into_iter().collect();
    }
    let rustup = rustup_toolchains().into_iter().map(|toolchain| toolchain.join("bin"));
    let system = ["/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    rustup.chain(system).filter_map(|bin| inspect(bin.join("rustc"), bin.join("cargo"))).collect()
}

/// The directories of rustup's toolchains that have the library's source, nightly first. Read from
/// the disk: asking rustup for a toolchain may make it install one.
fn rustup_toolchains() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| home(".rustup"));
    let Some(Ok(entries)) = home.map(|home| fs::read_dir(home.join("toolchains"))) else {
        return Vec::new();
    };
    let mut toolchains: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|dir| has_library_source(dir)).collect();
    toolchains.sort_by_cached_key(|dir| rank(dir.file_name().unwrap_or_default()));
    toolchains
}

/// Sorts `nightly-HOST` before dated nightlies before the rest.
fn rank(toolchain: &OsStr) -> (u8, String) {
    let name = toolchain.to_string_lossy().into_owned();
    let class = match name.strip_prefix("nightly-") {
        Some(rest) if !rest.starts_with("20") => 0,
        Some(_) => 1,
        None => 2,
    };
    (class, name)
}

/// The compiler at `path`, when it is there, new enough and has its library's source.
fn inspect(path: PathBuf, cargo: PathBuf) -> Option<Rustc> {
    let version = Version::parse(&stdout(&path, &["-vV"])?)?;
    let sysroot = stdout(&path, &["--print", "sysroot"])?;
    let usable = version.is_at_least(OLDEST)
        && has_library_source(Path::new(sysroot.trim()))
        && cargo.is_file();
    usable.then_some(Rustc { path, cargo, version })
}

fn has_library_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

/// Every bpf-linker, best first; the one the environment names stands alone.
fn linkers() -> Vec<Linker> {
    let paths: Vec<PathBuf> = match env::var_os(LINKER_ENV) {
        Some(path) => vec![path.into()],
        None => {
            let cargo_home =
                env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| home(".cargo"));
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path)
                .chain(cargo_home.map(|home| home.join("bin")))
                .map(|dir| dir.join("bpf-linker"))
                .filter(|path| path.is_file())
                .collect()
        }
    };
    let mut linkers: Vec<Linker> = Vec::new();
    for path in paths {
        if linkers.iter().any(|linker| linker.path == path) {
            continue;
        }
        if let Some(llvm) = linker_llvm(&path) {
            linkers.push(Linker { path, llvm });
        }
    }
    linkers
}

/// Asks a bpf-linker for its LLVM. Its own `--version` does not tell; LLVM's option parser behind
/// `--llvm-args` answers before any input is read.
fn linker_llvm(path: &Path) -> Option<u32> {
    let answer = stdout(path, &["--llvm-args=--version", "--output=/dev/null", "/dev/null"])?;
    let (_, version) = answer.split_once("LLVM version ")?;
    major(version)
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.trim().parse().ok()
}

fn home(sub: &str) -> Option<PathBuf> {
    env::var_os("HOME").map(|home| Path::new(&home).join(sub))
}

/// What a program prints, when it runs and succeeds.
fn stdout(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)
binary: rustc
commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96
host: x86_64-unknown-linux-gnu
release: 1.96.0
LLVM version: 22.1.8
";

    fn rustc(name: &str, llvm: u32) -> Rustc {
        let version = Version { release: "1.96.0".into(), nightly: false, llvm };
        Rustc { path: name.into(), cargo: "cargo".into(), version }
    }

    fn linker(name: &str, llvm: u32) -> Linker {
        Linker { path: name.into(), llvm }
    }

    #[test]
    fn rustc_tells_its_release_channel_and_llvm() {
        let stable = Version { release: "1.96.0".into(), nightly: false, llvm: 22 };
        assert_eq!(Version::parse(STABLE), Some(stable));
        let nightly = STABLE.replace("1.96.0\n", "1.97.0-nightly\n");
        assert!(Version::parse(&nightly).unwrap().nightly);
        assert_eq!(Version::parse("gcc 12.2.0"), None);
    }

    #[test]
    fn a_release_is_compared_by_number_not_by_text() {
        let version = Version::parse(STABLE).unwrap();
        assert!(version.is_at_least("1.90"));
        assert!(version.is_at_least("1.96"));
        assert!(!version.is_at_least("1.100"));
        assert!(version.is_at_least("1.9"));
    }

    #[test]
    fn the_first_compiler_that_a_linker_fits_is_chosen() {
        let rustcs = vec![rustc("nightly", 23), rustc("system", 22)];
        let Found::Ready(toolchain) = choose(rustcs, vec![linker("a", 21), linker("b", 22)]) else {
            panic!("nothing chosen");
        };
        assert_eq!(toolchain.rustc.path, Path::new("system"));
        assert_eq!(toolchain.linker, Path::new("b"));
    }

    #[test]
    fn a_linker_on_another_llvm_is_named() {
        let Found::Missing(missing) = choose(vec![rustc("nightly", 23)], vec![linker("old", 22)])
        else {
            panic!("an unfit linker was chosen");
        };
        let text = missing.to_string();
        assert!(text.contains("LLVM 23") && text.contains("old is for LLVM 22"), "{text}");
        assert!(text.contains("cargo xtask setup"), "{text}");
    }

    #[test]
    fn without_a_compiler_the_linker_does_not_matter() {
        assert_eq!(choose(vec![], vec![linker("a", 22)]), Found::Missing(Missing::Rustc));
    }

    #[test]
    fn the_current_nightly_goes_before_dated_ones_and_stable() {
        let mut names = [
            "stable-x86_64-unknown-linux-gnu",
            "nightly-2026-01-01-x86_64-unknown-linux-gnu",
            "nightly-x86_64-unknown-linux-gnu",
        ];
        names.sort_by_cached_key(|name| rank(OsStr::new(name)));
        assert!(names[0].starts_with("nightly-x86"));
        assert!(names[2].starts_with("stable"));
    }
}
