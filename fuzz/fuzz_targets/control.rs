//! The control socket: whatever a client writes, the daemon gets whole requests only, answers each
//! with a status, and serves the next client.

#![no_main]

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use ovs_loader::api::{
    self, Refusal, Request, ServerGuard,
    client::Client,
    report::{FdbReport, Stats, Status, TunnelReport},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::timeout,
};

/// Longer than any answer takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Daemon {
    runtime: Runtime,
    socket: PathBuf,
    _directory: TempDir,
    _guard: ServerGuard,
}

static DAEMON: LazyLock<Daemon> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("control.sock");
    let guard = runtime.block_on(async {
        let (sender, mut requests) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                answer(request);
            }
        });
        api::serve(&socket, sender).expect("the control socket opens")
    });
    Daemon { runtime, socket, _directory: directory, _guard: guard }
});

fuzz_target!(|bytes: &[u8]| {
    let daemon = &*DAEMON;
    daemon.runtime.block_on(async {
        let answers = timeout(PATIENCE, send(&daemon.socket, bytes)).await.expect("an answer");
        if !answers.is_empty() {
            let head = String::from_utf8_lossy(&answers[..answers.len().min(64)]);
            assert!(head.starts_with("HTTP/1."), "{head}");
        }
        let status = timeout(PATIENCE, Client::new(&daemon.socket).status()).await;
        status.expect("an answer").expect("the next client is served");
    });
});

/// Everything that the daemon says to these bytes before it closes.
async fn send(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.expect("the daemon listens");
    let mut answers = Vec::new();
    // It may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut answers).await;
    answers
}

/// Answers as the daemon's main loop would. A reply whose client has gone is dropped.
fn answer(request: Request) {
    let unknown = |name| Refusal::UnknownBridge { name, known: vec!["br-ex".to_owned()] };
    match request {
        Request::Status(reply) => drop(reply.send(Ok(Status::default()))),
        Request::Stats(reply) => drop(reply.send(Ok(Stats::default()))),
        Request::Fdb { bridge: None, reply } => drop(reply.send(Ok(FdbReport::default()))),
        Request::Fdb { bridge: Some(name), reply } => drop(reply.send(Err(unknown(name)))),
        Request::Tunnels { bridge: None, reply } => drop(reply.send(Ok(TunnelReport::default()))),
        Request::Tunnels { bridge: Some(name), reply } => drop(reply.send(Err(unknown(name)))),
        Request::Accelerate { bridge, reply, .. } => drop(reply.send(Err(unknown(bridge)))),
        Request::Down(reply) | Request::Handover(reply) => drop(reply.send(Ok(()))),
    }
}
