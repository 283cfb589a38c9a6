//! What ovsdb-server sends: a stream of JSON objects, of which the updates change the tables. Any
//! bytes give rows or an error, and rows are what they were written as.

#![no_main]

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use libfuzzer_sys::fuzz_target;
use ovs_loader::bridge::ovs::{
    jsonrpc::{Connection, Notification},
    tables::{Schema, Tables},
    value::Row,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixListener,
    runtime::{Builder, Runtime},
    time::timeout,
};

/// Longer than reading takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    runtime: Runtime,
    listener: UnixListener,
    socket: PathBuf,
    _directory: TempDir,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("db.sock");
    let listener = runtime.block_on(async { UnixListener::bind(&socket) }).expect("a socket");
    Server { runtime, listener, socket, _directory: directory }
});

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let columns = json!({ "columns": {
        "name": { "type": "string" },
        "bridges": { "type": { "key": "uuid", "min": 0, "max": "unlimited" } },
        "ports": { "type": { "key": "uuid", "min": 0, "max": "unlimited" } },
        "tag": { "type": { "key": "integer", "min": 0, "max": 1 } },
        "trunks": { "type": { "key": "integer", "min": 0, "max": 4096 } },
        "options": { "type": { "key": "string", "value": "string", "max": "unlimited" } },
    }});
    let tables = ["Open_vSwitch", "Bridge", "Port", "Interface", "Mirror", "QoS"];
    let tables: Value =
        tables.map(|table| (table.to_owned(), columns.clone())).into_iter().collect();
    Schema::from_json(&json!({ "tables": tables })).expect("a schema")
});

fuzz_target!(|bytes: &[u8]| {
    let server = &*SERVER;
    let read = async {
        let (connection, accepted) =
            tokio::join!(Connection::open(&server.socket), server.listener.accept());
        let (mut connection, mut other) =
            (connection.expect("a peer"), accepted.expect("a peer").0);
        other.write_all(bytes).await.expect("a socket takes that much");
        other.shutdown().await.expect("a connection");
        let mut tables = Tables::new(SCHEMA.clone());
        // The end of the stream is an error at last.
        while let Ok(Notification { method, params }) = connection.notification().await {
            if method == "update3" && tables.update(&params[2]).is_err() {
                break;
            }
            tables.bridges().for_each(|(_, bridge)| check(bridge, &tables));
        }
    };
    server.runtime.block_on(async { timeout(PATIENCE, read).await }).expect("an end");
});

fn check(row: &Row, tables: &Tables) {
    assert_eq!(Row::from_json(&row.to_json()).as_ref(), Ok(row));
    for (uuid, port) in tables.named("Port", row, "ports") {
        assert_eq!(tables.row("Port", uuid), Some(port));
    }
}
