//! Docker's networks by the driver `ovs-ebpf`: on real engines, and by calls such as an engine makes.

mod calls;
mod errors;
mod life;
mod ovs;
mod reach;
mod recovery;
mod unit;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use ovs_ebpf_tests::lab::{Engine, Host, Loader, binary, wait_until};
use serde_json::Value;

use crate::support::{State, ovs_loader, shell};

/// How soon what an engine or the daemon does afterwards is done.
const SOON: Duration = Duration::from_secs(10);

/// Where the engine of a host looks for the driver.
fn plugin(host: &Host) -> PathBuf {
    host.files().join("docker/run/plugins/ovs-ebpf.sock")
}

/// A daemon that serves the engine of a host. Start it before the engine, so that it ends after it: an
/// engine whose driver is gone waits for it.
fn serve(host: &Host) -> Result<Loader> {
    serve_by(binary()?, host)
}

/// The same by a certain build of `ovs-loader`.
fn serve_by(binary: PathBuf, host: &Host) -> Result<Loader> {
    let (plugin, socket) = (plugin(host), host.files().join("docker/sock"));
    let (plugin, socket) = (plugin.to_string_lossy(), socket.to_string_lossy());
    let arguments = ["--docker", "--docker-plugin", &plugin, "--docker-socket", &socket];
    let mut loader = Loader::spawn_binary(binary, host, None, &arguments)?;
    loader.ready()?;
    Ok(loader)
}

/// A host's state once its veths have their carriers, which takes the kernel a moment.
fn settled(host: &Host) -> State<'_> {
    wait_until(SOON, "the carriers of all veths", || {
        let waiting = shell(host, "ip -o link show type veth | grep NO-CARRIER || true");
        waiting.is_empty().then_some(())
    });
    State::of(host)
}

/// `docker …` with the words of a line.
fn docker(engine: &Engine, words: &str) -> Result<String> {
    engine.docker(&words.split_whitespace().collect::<Vec<_>>())
}

/// Starts a container that does nothing.
fn run(engine: &Engine, name: &str, options: &str) -> Result<()> {
    docker(engine, &format!("run -d --name {name} {options} box sleep 100000")).map(drop)
}

/// What `docker` complains of.
#[track_caller]
fn refused(engine: &Engine, words: &str) -> String {
    match docker(engine, words) {
        Ok(said) => panic!("{words} should have failed, but said: {said}"),
        Err(error) => format!("{error:#}"),
    }
}

/// `ovs-loader network list --json`.
fn list(host: &Host) -> Result<Vec<Value>> {
    let listing: Value = serde_json::from_str(&ovs_loader(host, &["network", "list", "--json"])?)?;
    Ok(listing["networks"].as_array().context("a list of networks")?.clone())
}

/// Runs a closure in a container's network namespace.
fn inside<T: Send>(engine: &Engine, container: &str, body: impl FnOnce() -> T + Send) -> Result<T> {
    let pid = docker(engine, &format!("inspect -f {{{{.State.Pid}}}} {container}"))?;
    let path = format!("/proc/{}/ns/net", pid.trim());
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    Ok(thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("a network namespace");
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }))
}

/// One call as Docker makes it: the status and the answer.
fn call(host: &Host, method: &str, body: &Value) -> Result<(u16, Value)> {
    call_with(host, method, &body.to_string())
}

/// As [`call`], with any body.
fn call_with(host: &Host, method: &str, body: &str) -> Result<(u16, Value)> {
    let mut stream = UnixStream::connect(plugin(host)).context("cannot connect to the plugin")?;
    stream.set_read_timeout(Some(SOON))?;
    // What dockerd 20.10 sends.
    let question = format!(
        "POST /{method} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: {}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer of HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = serde_json::from_str(body).with_context(|| format!("not JSON: {answer}"))?;
    Ok((status.context("no status")?, body))
}
