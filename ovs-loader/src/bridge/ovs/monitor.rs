//! The database, live: `monitor_cond_since` and its `update3` notifications (ovsdb-server(7)).

use std::path::Path;

use serde_json::{Value, json};

use super::db::{Client, DATABASE, Error};
use super::jsonrpc::Notification;
use super::tables::{Schema, Tables};
use super::value::Malformed;

/// A standalone server has no history: it always tells everything.
const FROM_THE_START: &str = "00000000-0000-0000-0000-000000000000";

/// A connection that is told of every change.
#[derive(Debug)]
pub struct Monitor {
    client: Client,
    tables: Tables,
}

impl Monitor {
    /// Connects to `<rundir>/db.sock` and reads everything.
    ///
    /// # Errors
    /// Where nobody listens, or what answers is no ovsdb-server with Open vSwitch's database.
    pub async fn open(rundir: &Path) -> Result<Self, Error> {
        let mut client = Client::connect(rundir).await?;
        let schema = Schema::from_json(&client.call("get_schema", json!([DATABASE])).await?)?;
        let request = json!([DATABASE, "ovs-ebpf", schema.requests(), FROM_THE_START]);
        let answer = client.call("monitor_cond_since", request).await?;
        let mut tables = Tables::new(schema);
        tables.update(part(&answer)?)?;
        Ok(Self { client, tables })
    }

    /// The rows as of the last call.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Waits for the next change and takes it up. May be dropped at any time.
    ///
    /// # Errors
    /// Where the connection broke or what came is no update: open another one.
    pub async fn changed(&mut self) -> Result<(), Error> {
        loop {
            let Notification { method, params } = self.client.notification().await?;
            match method.as_str() {
                "update3" => {
                    self.tables.update(part(&params)?)?;
                    return Ok(());
                }
                // The server has dropped the database, or has it in another form.
                "monitor_canceled" => return Err(Malformed::new("update3", &json!(method)).into()),
                _ => {}
            }
        }
    }
}

/// The tables are the third of three, in the answer as in the notification.
fn part(message: &Value) -> Result<&Value, Malformed> {
    message.get(2).ok_or_else(|| Malformed::new("monitor's message", message))
}
