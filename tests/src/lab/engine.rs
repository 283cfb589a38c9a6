//! Docker's engine on one host of a lab: a `dockerd` of its own in the host's network namespace, with
//! one image that is made on the spot.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Host, Namespace, wait::try_until};

/// How long the engine may take to start or to end.
const LIMIT: Duration = Duration::from_secs(30);
/// Another `docker` earlier on PATH may be a client without an engine.
const CLIENT: &str = "/usr/bin/docker";
/// The image that every container is made of: busybox.
const IMAGE: &str = "box";

/// An engine that runs. Its containers and itself end with it.
#[derive(Debug)]
pub struct Engine {
    namespace: Namespace,
    directory: PathBuf,
    child: Option<Child>,
}

impl Engine {
    /// Starts an engine on a host.
    ///
    /// # Errors
    /// With its log, where it can't be started or does not answer.
    pub fn start(host: &Host) -> Result<Self> {
        let directory = host.files().join("docker");
        for sub in ["run", "image/bin"] {
            let path = directory.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let mut engine = Self { namespace: (**host).clone(), directory, child: None };
        engine.start_again()?;
        engine.make_image()?;
        Ok(engine)
    }

    /// Starts the engine that [`stop`](Self::stop) has ended.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_again(&mut self) -> Result<()> {
        let directory = self.directory.display();
        // Plugins' sockets are in /run/docker, whatever the options say. No --storage-driver but vfs
        // works wherever the tests do, and the image is small.
        let script = format!(
            "mkdir -p /run/docker && mount --bind {directory}/run /run/docker && exec dockerd \
             --data-root={directory}/data --exec-root={directory}/exec \
             --pidfile={directory}/pid -H unix://{directory}/sock --iptables=false --bridge=none \
             --ip-forward=false --storage-driver=vfs"
        );
        let log = File::options().create(true).append(true).open(self.directory.join("log"))?;
        let mut command = self.namespace.command("unshare");
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("cannot start dockerd of package docker.io")?);
        try_until(LIMIT, || Ok(self.docker(&["version"]).ok())).map(drop).with_context(|| {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            format!("dockerd does not answer:\n{log}")
        })
    }

    /// Ends the engine, and with it its containers, as a host's shutdown does.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // SIGTERM alone would wait 10 s for each container, where nobody listens to it.
        if let Ok(running) = self.docker(&["ps", "--quiet"]) {
            for id in running.split_whitespace() {
                // One that has just ended by itself is as good.
                let _ = self.docker(&["kill", id]);
            }
        }
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        let ended = try_until(LIMIT, || child.try_wait().context("cannot wait for dockerd"));
        if ended.is_err() {
            let _ = child.kill();
        }
        ended.map(drop).context("dockerd does not end")
    }

    fn make_image(&self) -> Result<()> {
        let image = self.directory.join("image");
        fs::copy("/bin/busybox", image.join("bin/busybox"))
            .context("cannot copy /bin/busybox of package busybox-static")?;
        for applet in ["sh", "sleep", "ip", "ping"] {
            symlink("busybox", image.join("bin").join(applet))?;
        }
        let archive = self.directory.join("image.tar").display().to_string();
        self.namespace.try_exec(&["tar", "-C", &image.to_string_lossy(), "-cf", &archive, "."])?;
        self.docker(&["import", &archive, IMAGE]).map(drop)
    }

    /// Runs `docker` with these arguments and gives what it printed.
    ///
    /// # Errors
    /// With what it said, when it fails.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        let socket = format!("unix://{}", self.socket().display());
        self.namespace.try_exec(&[&[CLIENT, "-H", &socket], arguments].concat())
    }

    /// Starts a container without any network, and gives its full id.
    ///
    /// # Errors
    /// With what `docker` said.
    pub fn run(&self, name: &str) -> Result<String> {
        self.run_with(name, &[])
    }

    /// As [`run`](Self::run), with more options for `docker run`.
    ///
    /// # Errors
    /// With what `docker` said.
    pub fn run_with(&self, name: &str, options: &[&str]) -> Result<String> {
        let start = ["run", "--detach", "--name", name, "--network", "none"];
        let command = [IMAGE, "sleep", "100000"];
        let id = self.docker(&[&start[..], options, &command].concat())?;
        Ok(id.trim().to_owned())
    }

    /// The network namespace of a running container, under a name. It is the lab's, as its others are.
    ///
    /// # Errors
    /// When the container does not run.
    pub fn namespace(&self, container: &str) -> Result<Namespace> {
        let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", container])?;
        Namespace::attach(format!("{}-{container}", self.namespace.name()), pid.trim())
    }

    /// Runs a command in a container and gives what it printed.
    ///
    /// # Errors
    /// With what it said, when it fails.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<String> {
        self.docker(&[&["exec", container], command].concat())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("sock")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}
