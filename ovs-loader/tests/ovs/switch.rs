//! An Open vSwitch in a directory of its own.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// How long a daemon has to start or end.
const DEADLINE: Duration = Duration::from_secs(20);

/// ovsdb-server, and ovs-vswitchd where it is started. Both end with it.
pub(crate) struct Switch {
    directory: tempfile::TempDir,
    database: Option<Child>,
    vswitchd: Option<Child>,
}

impl Switch {
    /// With a database that has its one row of Open_vSwitch, and no ovs-vswitchd.
    pub(crate) fn database_only() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut this = Self { directory, database: None, vswitchd: None };
        this.empty_database();
        this.start_database();
        this.vsctl("--no-wait init");
        this
    }

    /// Makes the database anew, without a row, for an ovsdb-server that is yet to be started.
    pub(crate) fn empty_database(&self) {
        let conf = self.rundir().join("conf.db");
        let _ = std::fs::remove_file(&conf);
        run(Command::new("ovsdb-tool").arg("create").arg(&conf).arg(SCHEMA));
    }

    /// With an ovs-vswitchd on the dummy datapath.
    pub(crate) fn new() -> Self {
        let mut this = Self::database_only();
        this.start_vswitchd();
        this
    }

    /// Where the sockets are.
    pub(crate) fn rundir(&self) -> &Path {
        self.directory.path()
    }

    /// ovs-vswitchd's control socket.
    pub(crate) fn control(&self) -> PathBuf {
        let process = self.vswitchd.as_ref().expect("ovs-vswitchd").id();
        self.rundir().join(format!("ovs-vswitchd.{process}.ctl"))
    }

    /// Starts ovsdb-server.
    pub(crate) fn start_database(&mut self) {
        let socket = self.rundir().join("db.sock");
        let mut command = Command::new("ovsdb-server");
        command.arg(self.rundir().join("conf.db"));
        command.arg(format!("--remote=punix:{}", socket.display()));
        command.arg(format!("--unixctl={}", self.rundir().join("ovsdb-server.ctl").display()));
        self.database = Some(self.start(command));
        poll_until(|| UnixStream::connect(&socket).is_ok(), "ovsdb-server listens");
    }

    /// Starts ovs-vswitchd.
    pub(crate) fn start_vswitchd(&mut self) {
        let pid_file = self.pid_file();
        let mut command = Command::new("ovs-vswitchd");
        command.arg(format!("unix:{}", self.rundir().join("db.sock").display()));
        command.args(["--enable-dummy=override", "--disable-system"]);
        command.arg(format!("--pidfile={}", pid_file.display()));
        self.vswitchd = Some(self.start(command));
        poll_until(|| pid_file.exists(), "ovs-vswitchd runs");
    }

    /// Kills ovsdb-server, as a crash would.
    pub(crate) fn kill_database(&mut self) {
        end(self.database.take());
        let _ = std::fs::remove_file(self.rundir().join("db.sock"));
    }

    /// Kills ovs-vswitchd, as a crash would.
    pub(crate) fn kill_vswitchd(&mut self) {
        end(self.vswitchd.take());
        let _ = std::fs::remove_file(self.pid_file());
    }

    /// Runs ovs-vsctl with these words.
    pub(crate) fn vsctl(&self, words: &str) -> String {
        run(self.tool("ovs-vsctl").args(words.split_whitespace()))
    }

    /// Runs ovs-appctl with these words.
    pub(crate) fn appctl(&self, words: &str) -> String {
        run(self.tool("ovs-appctl").args(words.split_whitespace()))
    }

    /// Runs one of the tools by its name, with its words.
    pub(crate) fn tool_words(&self, command: &str) -> String {
        let (tool, words) = command.split_once(' ').expect("words");
        run(self.tool(tool).args(words.split_whitespace()))
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("OVS_RUNDIR", self.rundir()).env("OVS_DBDIR", self.rundir());
        command
    }

    fn start(&self, mut command: Command) -> Child {
        command.env("OVS_RUNDIR", self.rundir()).env("OVS_DBDIR", self.rundir());
        command.args(["--no-chdir", "-vconsole:off"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn pid_file(&self) -> PathBuf {
        self.rundir().join("ovs-vswitchd.pid")
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        end(self.vswitchd.take());
        end(self.database.take());
    }
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        child.kill().and_then(|()| child.wait()).expect("a daemon that ends");
    }
}

fn poll_until(fact: impl Fn() -> bool, words: &str) {
    let deadline = Instant::now() + DEADLINE;
    while !fact() {
        assert!(Instant::now() < deadline, "not true in time: {words}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command that must succeed, and gives what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}
