//! The binary as a user meets it: help, messages, exit status, output.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use ovs_ebpf_common::Reason;
use ovs_loader::api::report::{
    BridgeStatus, Fast, FdbEntry, FdbReport, Stats, Status, Traffic, Tunnel, TunnelReport, Why,
};
use ovs_loader::api::{Refusal, Request, serve};
use ovs_loader::bridge::model;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// A daemon that gives the same answers to everyone, on a thread of its own.
struct Canned {
    directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Canned {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let (sender, requests) = mpsc::channel(1);
                let guard = serve(&path, sender).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = answer_all(requests) => {}
                    _ = stopped => {}
                }
                guard.shutdown().await;
            });
        });
        is_ready.recv().unwrap();
        Self { directory, stop: Some(stop), thread: Some(thread) }
    }

    fn run(&self, args: &[&str]) -> Output {
        ovs_loader(&self.directory.path().join("s"), args)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&success(&self.run(args))).unwrap()
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn answer_all(mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        answer(request);
    }
}

fn answer(request: Request) {
    let why = vec![Why::from(&model::Why::new(Reason::NoRoute, "192.0.2.2"))];
    match request {
        Request::Status(reply) => {
            let slow = BridgeStatus { name: "br-slow".into(), why, ..BridgeStatus::default() };
            let fast =
                BridgeStatus { name: "br-fast".into(), accelerated: true, ..Default::default() };
            let bridges = vec![slow, fast];
            reply.send(Ok(Status { bridges, ..Status::default() })).unwrap();
        }
        Request::Stats(reply) => {
            let port_ingress = Traffic { packets: 99, bytes: 9900 };
            let fast = Fast { port_ingress, ..Fast::default() };
            let reasons = [("multicast", 1), ("not_tunnel", 7)];
            let reasons = reasons.map(|(name, count)| (name.to_owned(), count)).into();
            reply.send(Ok(Stats::new(fast, reasons))).unwrap();
        }
        Request::Fdb { bridge: None, reply } => {
            let entry = FdbEntry { mac: "02:00:00:00:00:01".into(), ..FdbEntry::default() };
            // Enough to fill a pipe that nobody reads.
            reply.send(Ok(FdbReport { entries: vec![entry; 5000] })).unwrap();
        }
        Request::Tunnels { reply, .. } => {
            reply.send(Ok(TunnelReport { tunnels: vec![Tunnel::default()] })).unwrap();
        }
        Request::Fdb { bridge: Some(name), reply } => {
            let known = vec!["br-fast".into(), "br-slow".into()];
            reply.send(Err(Refusal::UnknownBridge { name, known })).unwrap();
        }
        Request::Accelerate { reply, .. } => reply.send(Ok(())).unwrap(),
        Request::Down(reply) | Request::Handover(reply) => reply.send(Ok(())).unwrap(),
    }
}

fn command(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ovs-loader"));
    command.arg("--socket").arg(socket).args(args);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn ovs_loader(socket: &Path, args: &[&str]) -> Output {
    command(socket, args).output().unwrap()
}

fn nowhere() -> &'static Path {
    Path::new("/nonexistent/control.sock")
}

#[track_caller]
fn success(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command that fails with this exit status says on stderr.
#[track_caller]
fn failure(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_names_every_command_and_teaches_by_example() {
    let help = success(&ovs_loader(nowhere(), &["--help"]));
    for command in [
        "run",
        "check",
        "status",
        "fdb",
        "tunnel",
        "stats",
        "accelerate",
        "bridge",
        "port",
        "docker",
        "network",
        "down",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing:\n{help}");
    }
    assert!(help.contains("ovs-loader accelerate br-ex off"));
    assert!(success(&ovs_loader(nowhere(), &["run", "--help"])).contains("[[bridge]]"));
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["statu"][..],
        &["accelerate", "br-ex", "maybe"],
        &["tunnel", "add", "br-ex", "t0", "--type", "vxlan", "--remote", "192.0.2.2"],
        &["tunnel", "add", "br-ex", "t0", "--type", "gre", "--remote", "192.0.2"],
        &["tunnel", "add", "br-ex", "t0", "--type", "gre"],
    ] {
        failure(&ovs_loader(nowhere(), args), 2);
    }
}

#[test]
fn without_a_daemon_one_line_says_how_to_start_one() {
    let message = failure(&ovs_loader(nowhere(), &["status"]), 1);
    assert_eq!(
        message,
        "ovs-loader: no ovs-loader daemon answers at /nonexistent/control.sock: start one with \
         `ovs-loader run`, or name its socket with --socket\n"
    );
}

#[test]
fn a_mistake_in_the_configuration_is_shown_with_file_line_and_remedy() {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(b"[accelerate]\nlease_second = 30\n").unwrap();
    let path = file.path().to_str().unwrap();
    for command in ["run", "check"] {
        let message = failure(&ovs_loader(nowhere(), &[command, "--config", path]), 1);
        // Long paths are wrapped.
        let name = file.path().file_name().unwrap().to_str().unwrap();
        for part in [name, ":2: ", "lease_second = 30", "did you mean `lease_seconds`?"] {
            assert!(message.contains(part), "{part:?} is missing:\n{message}");
        }
    }
}

#[test]
fn a_missing_configuration_is_one_line() {
    let message = failure(&ovs_loader(nowhere(), &["run", "--config", "/nonexistent.toml"]), 1);
    assert_eq!(
        message,
        "ovs-loader: cannot read the configuration /nonexistent.toml: no such file: give the path \
         of a TOML file\n"
    );
}

#[test]
fn status_has_the_documented_shape() {
    let status = Canned::start().json(&["status", "--json"]);
    for key in ["version", "pid", "abi", "lease_seconds", "warnings", "xdp", "bridges"] {
        assert!(status.get(key).is_some(), "{key} is missing");
    }
    let fast = &status["bridges"][1];
    for key in ["name", "ifindex", "kind", "ports", "tunnels"] {
        assert!(fast.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(fast["accelerated"], true);
    assert_eq!(fast["why"], serde_json::json!([]));
    assert_eq!(fast["fdb"], serde_json::json!({"entries": 0, "accelerated": 0}));
    assert_eq!(
        status["bridges"][0]["why"],
        serde_json::json!([
            {"reason": "no_route", "detail": "192.0.2.2", "help": "no route to the remote"}
        ])
    );
}

#[test]
fn stats_have_the_documented_shape() {
    let stats = Canned::start().json(&["stats", "--json"]);
    assert_eq!(
        stats,
        serde_json::json!({
            "fast": {
                "port_ingress": {"packets": 99, "bytes": 9900},
                "uplink_ingress": {"packets": 0, "bytes": 0},
            },
            "reasons": {"multicast": 1, "not_tunnel": 7},
            "discarded": {},
            "sources": [],
            "fast_share": 0.99,
        })
    );
}

#[test]
fn a_tunnel_is_one_flat_object() {
    let report = Canned::start().json(&["tunnel", "show", "--json"]);
    let tunnel = &report["tunnels"][0];
    for key in [
        "bridge",
        "id",
        "name",
        "encap",
        "local",
        "remote",
        "key",
        "dst_port",
        "uplink",
        "next_hop",
        "mtu",
        "accelerated",
        "why",
        "tx",
        "rx",
    ] {
        assert!(tunnel.get(key).is_some(), "{key} is missing");
    }
}

#[test]
fn tables_say_yes_or_why_not() {
    let daemon = Canned::start();
    let status = success(&daemon.run(&["status"]));
    assert!(status.contains("br-fast (): accelerated: yes\n"), "{status}");
    assert!(
        status.contains("br-slow (): accelerated: no: no route to the remote: 192.0.2.2\n"),
        "{status}"
    );
    let stats = success(&daemon.run(&["stats"]));
    let (other, multicast) = (stats.find("not_tunnel"), stats.find("multicast"));
    assert!(other.unwrap() < multicast.unwrap(), "not sorted by count:\n{stats}");
    assert!(stats.contains("share of the fast path: 99.00 %"), "{stats}");
    assert!(!stats.contains('\x1b'));
}

#[test]
fn the_daemons_refusal_is_the_message() {
    let message = failure(&Canned::start().run(&["fdb", "show", "br-x"]), 1);
    assert_eq!(message, "ovs-loader: no bridge named br-x: this host has br-fast, br-slow\n");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let daemon = Canned::start();
    let mut child = command(&daemon.directory.path().join("s"), &["fdb", "show", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}
