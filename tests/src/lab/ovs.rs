//! Open vSwitch on one host of a lab: its own ovsdb-server and ovs-vswitchd, in the host's network
//! namespace and with a run directory of their own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Namespace, wait::try_until};

/// How long a daemon may take to start or to end.
const LIMIT: Duration = Duration::from_secs(10);
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// Open vSwitch on a host.
#[derive(Debug)]
pub struct Ovs {
    namespace: Namespace,
    rundir: PathBuf,
    ovsdb_server: Daemon,
    vswitchd: Daemon,
}

impl Ovs {
    /// Starts both daemons with an empty database in a directory of their own.
    pub(super) fn start(namespace: &Namespace, rundir: PathBuf) -> Result<Self> {
        Self::start_with(namespace, rundir, &[])
    }

    /// As [`start`](Self::start), on a datapath that takes every interface and forwards nothing: it
    /// needs no kernel module.
    pub(super) fn start_dummy(namespace: &Namespace, rundir: PathBuf) -> Result<Self> {
        Self::start_with(namespace, rundir, &["--enable-dummy=override", "--disable-system"])
    }

    fn start_with(namespace: &Namespace, rundir: PathBuf, datapath: &[&str]) -> Result<Self> {
        fs::create_dir_all(&rundir).with_context(|| format!("cannot make {}", rundir.display()))?;
        let database = rundir.join("conf.db").to_string_lossy().into_owned();
        let socket = rundir.join("db.sock");
        let mut ovs = Self {
            ovsdb_server: Daemon {
                program: "ovsdb-server",
                arguments: vec![database.clone(), format!("--remote=punix:{}", socket.display())],
                running: None,
            },
            vswitchd: Daemon {
                program: "ovs-vswitchd",
                arguments: [&*format!("unix:{}", socket.display())]
                    .iter()
                    .chain(datapath)
                    .map(|argument| (*argument).to_owned())
                    .collect(),
                running: None,
            },
            namespace: namespace.clone(),
            rundir,
        };
        ovs.run("ovsdb-tool", &["create", &database, SCHEMA])?;
        ovs.start_ovsdb_server()?;
        ovs.start_vswitchd()?;
        Ok(ovs)
    }

    /// Where the daemons' sockets, logs and database are.
    pub fn rundir(&self) -> &Path {
        &self.rundir
    }

    /// `ovs-vsctl`, which waits until ovs-vswitchd has taken the change up.
    ///
    /// # Errors
    /// With what it said.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        self.run("ovs-vsctl", &[&["--timeout=60"], arguments].concat())
    }

    /// `ovs-appctl`, which asks ovs-vswitchd.
    ///
    /// # Errors
    /// With what it said.
    pub fn appctl(&self, arguments: &[&str]) -> Result<String> {
        self.run("ovs-appctl", &[&["--timeout=60"], arguments].concat())
    }

    /// `ovs-ofctl`.
    ///
    /// # Errors
    /// With what it said.
    pub fn ofctl(&self, arguments: &[&str]) -> Result<String> {
        self.run("ovs-ofctl", &[&["--timeout=60"], arguments].concat())
    }

    /// Any other of its programs, such as `ovs-docker`.
    ///
    /// # Errors
    /// With what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.namespace.command(program);
        command.args(arguments).envs(environment(&self.rundir));
        let output = command.output().with_context(|| format!("cannot start {program}"))?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let (shown, stderr) = (arguments.join(" "), String::from_utf8_lossy(&output.stderr));
            bail!("`{program} {shown}` failed ({}):\n{stdout}{stderr}", output.status);
        }
        Ok(stdout.into_owned())
    }

    /// Starts ovs-vswitchd and waits until it forwards as the database says.
    ///
    /// # Errors
    /// With its log.
    pub fn start_vswitchd(&mut self) -> Result<()> {
        self.vswitchd.start(&self.namespace, &self.rundir)?;
        // Only a change is waited for.
        let started = format!("external_ids:started={}", self.vswitchd.pid()?);
        self.vsctl(&["set", "Open_vSwitch", ".", &started]).map(|_| ())
    }

    /// Starts ovsdb-server on the database as it is.
    ///
    /// # Errors
    /// With its log.
    pub fn start_ovsdb_server(&mut self) -> Result<()> {
        self.ovsdb_server.start(&self.namespace, &self.rundir)
    }

    /// Ends ovs-vswitchd: SIGTERM as an upgrade does, SIGKILL as a crash.
    ///
    /// # Errors
    /// When it does not run or takes longer than 10 s.
    pub fn end_vswitchd(&mut self, signal: Signal) -> Result<()> {
        self.vswitchd.end(signal)
    }

    /// Ends ovsdb-server.
    ///
    /// # Errors
    /// When it does not run or takes longer than 10 s.
    pub fn end_ovsdb_server(&mut self, signal: Signal) -> Result<()> {
        self.ovsdb_server.end(signal)
    }
}

/// What makes each of Open vSwitch's programs use this directory alone.
fn environment(rundir: &Path) -> [(&'static str, &Path); 4] {
    ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"].map(|variable| (variable, rundir))
}

/// One of the daemons. Dropping it ends it.
#[derive(Debug)]
struct Daemon {
    program: &'static str,
    arguments: Vec<String>,
    running: Option<Child>,
}

impl Daemon {
    /// Starts it and waits until it answers.
    fn start(&mut self, namespace: &Namespace, rundir: &Path) -> Result<()> {
        let program = self.program;
        ensure!(self.running.is_none(), "{program} runs already");
        let log = rundir.join(format!("{program}.log"));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = namespace.command(program);
        command.args(&self.arguments).args(["--pidfile", "--no-chdir"]).envs(environment(rundir));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = self.running.insert(command.spawn().context("cannot start nsenter")?);
        let control = rundir.join(format!("{program}.{}.ctl", child.id()));
        try_until(LIMIT, || {
            if let Some(status) = child.try_wait().context("cannot wait for a daemon")? {
                bail!("it ended ({status})");
            }
            Ok(control.exists().then_some(()))
        })
        .with_context(|| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            format!("{program} in {} does not start:\n{log}", namespace.name())
        })
    }

    fn pid(&self) -> Result<u32> {
        let running = self.running.as_ref();
        Ok(running.with_context(|| format!("{} does not run", self.program))?.id())
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let program = self.program;
        let mut child = self.running.take().with_context(|| format!("{program} does not run"))?;
        kill(Pid::from_raw(child.id().cast_signed()), signal)
            .with_context(|| format!("cannot signal {program}"))?;
        let ended = try_until(LIMIT, || child.try_wait().context("cannot wait"));
        if ended.is_err() {
            self.running = Some(child);
        }
        ended.with_context(|| format!("{program} does not end"))?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
