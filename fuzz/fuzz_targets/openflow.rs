//! What a bridge's OpenFlow socket sends: any bytes give ports or an error.

#![no_main]

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use libfuzzer_sys::fuzz_target;
use ovs_loader::bridge::ovs::openflow::OpenFlow;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixListener,
    runtime::{Builder, Runtime},
    time::timeout,
};

/// Longer than reading takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Switch {
    runtime: Runtime,
    listener: UnixListener,
    socket: PathBuf,
    _directory: TempDir,
}

static SWITCH: LazyLock<Switch> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("br.mgmt");
    let listener = runtime.block_on(async { UnixListener::bind(&socket) }).expect("a socket");
    Switch { runtime, listener, socket, _directory: directory }
});

fuzz_target!(|bytes: &[u8]| {
    let switch = &*SWITCH;
    let asked = async {
        let (client, accepted) =
            tokio::join!(OpenFlow::open(&switch.socket), switch.listener.accept());
        let (mut client, mut other) = (client.expect("a peer"), accepted.expect("a peer").0);
        other.write_all(bytes).await.expect("a socket takes that much");
        other.shutdown().await.expect("a connection");
        // Three requests: what came for one must not answer the next.
        for _ in 0..3 {
            let Ok(ports) = client.ports().await else { break };
            for port in [0, 1, 2, u32::MAX] {
                assert!(ports.restrictions(port).all(|word| !word.is_empty()));
            }
        }
    };
    switch.runtime.block_on(async { timeout(PATIENCE, asked).await }).expect("an end");
});
