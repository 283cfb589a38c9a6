//! ovs-vswitchd's control socket: what `ovs-appctl` asks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::jsonrpc::{self, Connection};

/// How long ovs-vswitchd has for an answer: a large table takes it a second.
const LIMIT: Duration = Duration::from_secs(10);

/// ovs-vswitchd can't be asked, or refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not run, or keeps its files elsewhere.
    #[error("cannot read {}: is ovs-vswitchd running?", path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection, or what ovs-vswitchd says no with.
    #[error(transparent)]
    Connection(#[from] jsonrpc::Error),
}

/// A connection to the control socket.
#[derive(Debug)]
pub struct Control {
    connection: Connection,
}

impl Control {
    /// Connects to `<rundir>/ovs-vswitchd.<pid>.ctl`.
    ///
    /// # Errors
    /// Where there is no pid file, or nobody listens.
    pub async fn open(rundir: &Path) -> Result<Self, Error> {
        let path = rundir.join("ovs-vswitchd.pid");
        let pid =
            std::fs::read_to_string(&path).map_err(|source| Error::PidFile { path, source })?;
        let socket = rundir.join(format!("ovs-vswitchd.{}.ctl", pid.trim()));
        Ok(Self { connection: Connection::open(&socket).await? })
    }

    /// Gives what `ovs-appctl COMMAND ARGUMENT` prints.
    ///
    /// # Errors
    /// Where ovs-vswitchd refuses or does not answer.
    pub async fn ask(&mut self, command: &str, argument: &str) -> Result<String, Error> {
        let answer = self.connection.call(command, json!([argument]), LIMIT, |_| ()).await?;
        match answer {
            Value::String(text) => Ok(text),
            other => Err(jsonrpc::Error::Malformed {
                path: self.connection.path().to_owned(),
                problem: other.to_string(),
            }
            .into()),
        }
    }
}
