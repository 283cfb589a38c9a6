//! The daemon on one host of a lab.

use std::{
    env,
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{FastPackets, Host, Namespace, wait::patience};

/// How long a daemon may take to answer or to end.
const LIMIT: Duration = Duration::from_secs(10);

/// A running `ovs-loader run`. Dropping it ends it with SIGTERM; the log goes to stderr if that
/// happens in a panic.
///
/// Its pins stay until the lab is removed, so that another daemon on the host can adopt them.
#[derive(Debug)]
pub struct Loader {
    binary: PathBuf,
    namespace: Namespace,
    socket: PathBuf,
    bpffs: PathBuf,
    log: PathBuf,
    child: Child,
    exited: Option<ExitStatus>,
    kept: bool,
}

impl Loader {
    /// Starts the daemon without a configuration and waits until it answers.
    ///
    /// # Errors
    /// With its log, when it can't be started, ends, or does not answer in time.
    pub fn start(host: &Host) -> Result<Self> {
        let mut loader = Self::spawn(host, None, &[])?;
        loader.ready()?;
        Ok(loader)
    }

    /// Starts the daemon with a configuration file of this content and waits until it answers.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_with(host: &Host, configuration: &str) -> Result<Self> {
        let mut loader = Self::spawn(host, Some(configuration), &[])?;
        loader.ready()?;
        Ok(loader)
    }

    /// Starts the [`binary`] and does not wait. Of an argument that is given here the default is left
    /// out: `--socket`, `--bpffs`, `--ovs-rundir`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(host: &Host, configuration: Option<&str>, arguments: &[&str]) -> Result<Self> {
        Self::spawn_binary(binary()?, host, configuration, arguments)
    }

    /// [`spawn`](Self::spawn) with a certain build of `ovs-loader`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn_binary(
        binary: PathBuf,
        host: &Host,
        configuration: Option<&str>,
        arguments: &[&str],
    ) -> Result<Self> {
        let directory = host.files();
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let given = |name: &str| {
            let at = arguments.iter().position(|argument| *argument == name)?;
            arguments.get(at + 1).map(PathBuf::from)
        };
        let socket = given("--socket");
        let bpffs = given("--bpffs");
        let log = directory.join(format!("log-{}", fs::read_dir(&directory)?.count()));
        let output = File::create(&log).context("cannot make the daemon's log")?;

        let mut command = host.command(&binary.to_string_lossy());
        command.arg("run").args(arguments).arg("--state-dir").arg(host.state());
        if socket.is_none() {
            command.arg("--socket").arg(directory.join("control.sock"));
        }
        if bpffs.is_none() {
            command.arg("--bpffs").arg(host.bpffs());
        }
        if let Some(ovs) = host.ovs()
            && given("--ovs-rundir").is_none()
        {
            command.arg("--ovs-rundir").arg(ovs.rundir());
        }
        if let Some(configuration) = configuration {
            let path = directory.join("config.toml");
            fs::write(&path, configuration).context("cannot write the configuration")?;
            command.arg("--config").arg(path);
        }
        command.stdout(output.try_clone()?).stderr(output).stdin(Stdio::null());
        let child = command.spawn().context("cannot start nsenter")?;
        Ok(Self {
            binary,
            namespace: (**host).clone(),
            socket: socket.unwrap_or_else(|| directory.join("control.sock")),
            bpffs: bpffs.unwrap_or_else(|| host.bpffs()),
            log,
            child,
            exited: None,
            kept: false,
        })
    }

    /// Waits until the daemon answers `ovs-loader status`.
    ///
    /// # Errors
    /// With its log, when it ends before or takes longer than 10 s.
    pub fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + patience(LIMIT);
        loop {
            if let Some(status) = self.exit_status()? {
                bail!("ovs-loader ended ({status}):\n{}", self.log());
            }
            match self.status() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    bail!("ovs-loader does not answer: {error:#}\n{}", self.log());
                }
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it pins programs and maps.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs `ovs-loader` with these arguments against this daemon and gives what it printed.
    ///
    /// # Errors
    /// With all that it printed, when it fails.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let (binary, socket) = (self.binary.to_string_lossy(), self.socket.to_string_lossy());
        let bpffs = self.bpffs.to_string_lossy();
        let command = [&binary, "--socket", &socket, "--bpffs", &bpffs];
        self.namespace.try_exec(&[&command[..], arguments].concat())
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.cli(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&output)
            .with_context(|| format!("`ovs-loader {}`: not JSON: {output}", arguments.join(" ")))
    }

    /// `ovs-loader status --json`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn status(&self) -> Result<Value> {
        self.json(&["status"])
    }

    /// `ovs-loader stats --json`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn stats(&self) -> Result<Value> {
        self.json(&["stats"])
    }

    /// `ovs-loader fdb show --json`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn fdb(&self) -> Result<Value> {
        self.json(&["fdb", "show"])
    }

    /// `ovs-loader tunnel show --json`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn tunnels(&self) -> Result<Value> {
        self.json(&["tunnel", "show"])
    }

    /// The host's packets by the path they took.
    ///
    /// # Errors
    /// When the daemon does not answer, or without these counters.
    pub fn fast_packets(&self) -> Result<FastPackets> {
        FastPackets::read(&self.stats()?)
    }

    /// `ovs-loader accelerate BRIDGE on|off`.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer.
    pub fn accelerate(&self, bridge: &str, on: bool) -> Result<()> {
        self.cli(&["accelerate", bridge, if on { "on" } else { "off" }]).map(|_| ())
    }

    /// `ovs-loader down`.
    ///
    /// # Errors
    /// When it fails.
    pub fn down(&self) -> Result<()> {
        self.cli(&["down"]).map(|_| ())
    }

    /// Ends the daemon by SIGKILL: its programs stay attached.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill_9(&mut self) -> Result<()> {
        let status = self.end(Signal::SIGKILL)?;
        if status.signal() != Some(Signal::SIGKILL as i32) {
            bail!("ovs-loader had ended by itself ({status}):\n{}", self.log());
        }
        Ok(())
    }

    /// Ends the daemon by SIGTERM and gives how it ended.
    ///
    /// # Errors
    /// When it takes longer than 10 s.
    pub fn sigterm(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        if self.exit_status()?.is_none() {
            let pid = Pid::from_raw(self.child.id().cast_signed());
            kill(pid, signal).context("cannot signal ovs-loader")?;
        }
        self.wait_exit(LIMIT)
    }

    /// Waits for the daemon to end.
    ///
    /// # Errors
    /// With its log, when it takes longer than `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience(limit);
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("ovs-loader did not end within {limit:?}:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How the daemon ended, if it has.
    fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().context("cannot wait for ovs-loader")?;
        }
        Ok(self.exited)
    }

    /// Lets the daemon run on when this value and this process end.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("ovs-loader in {} logged:\n{}", self.namespace.name(), self.log());
        }
        if !self.kept && self.sigterm().is_err() {
            // Neither can help any more, and the lab ends what is left in its namespaces.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The `ovs-loader` to run: `$OVS_LOADER`, else the one that was built with the running program.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("OVS_LOADER") {
        return Ok(PathBuf::from(path));
    }
    let program = env::current_exe().context("cannot find this program's own file")?;
    (program.ancestors().skip(1).take(2).map(|directory| directory.join("ovs-loader")))
        .find(|path| path.is_file())
        .context("there is no ovs-loader: `cargo build --bin ovs-loader`, or set OVS_LOADER")
}
