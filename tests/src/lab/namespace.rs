//! A network namespace and ways to do something in it.

use std::{
    fs::File,
    io::Write as _,
    panic,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// A named network namespace, as `ip netns` knows it. It ends with its lab, not with this value.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(super) fn create(name: String) -> Result<Self> {
        ip(&[], &format!("netns add {name}\n"))?;
        let namespace = Self { name };
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// Names the namespace of a process.
    pub(super) fn attach(name: String, pid: &str) -> Result<Self> {
        ip(&[], &format!("netns attach {name} {pid}\n"))?;
        Ok(Self { name })
    }

    /// Its name for `ip -n NAME` and `nsenter --net=/run/netns/NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in the namespace. `nsenter` becomes it, so the child's process id is
    /// the command's own.
    ///
    /// Not `ip netns exec`: that one mounts another /sys, which hides the BPF file system.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command in the namespace and gives what it printed to stdout.
    ///
    /// # Errors
    /// With all that it printed, when it can't be started or fails.
    pub fn try_exec(&self, command: &[&str]) -> Result<String> {
        let (program, arguments) = command.split_first().context("no command to run")?;
        let shown = command.join(" ");
        let output = (self.command(program).args(arguments).output())
            .with_context(|| format!("cannot start `{shown}` in {}", self.name))?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("`{shown}` in {} failed ({}):\n{stdout}{stderr}", self.name, output.status);
        }
        Ok(stdout.into_owned())
    }

    /// [`try_exec`](Self::try_exec) for a command that has to succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn exec(&self, command: &[&str]) -> String {
        self.try_exec(command).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs `ip` commands, one a line, in one process; the first that fails ends it.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn ip(&self, batch: &str) -> Result<()> {
        ip(&["-n", &self.name], batch)
    }

    /// Runs a closure on a thread of its own in the namespace: sockets opened there stay there.
    ///
    /// # Panics
    /// When the namespace is gone, and with the closure's own panic.
    pub fn run_in<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter().unwrap_or_else(|error| panic!("{error:#}"));
                body()
            });
            thread.join().unwrap_or_else(|reason| panic::resume_unwind(reason))
        })
    }

    /// Moves the calling thread into the namespace for the rest of its life.
    ///
    /// # Errors
    /// When the namespace is gone or the caller is not root.
    pub fn enter(&self) -> Result<()> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))
    }
}

/// Runs `ip` commands, one a line, with options before each.
pub(super) fn ip(options: &[&str], batch: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip` of package iproute2")?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // An `ip` that ends early says why on stderr.
    let written = stdin.write_all(batch.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {} failed: {said}{batch}", options.join(" "));
    written.context("cannot write to ip")
}
