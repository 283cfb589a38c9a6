//! A client of ovsdb-server (RFC 7047) for the database `Open_vSwitch`.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::jsonrpc::{self, Connection, Notification};
use super::value::{Datum, Malformed, Row, Uuid};

/// The database.
pub(super) const DATABASE: &str = "Open_vSwitch";

/// How long ovsdb-server has for an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A transaction failed, or the database can't be talked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection.
    #[error(transparent)]
    Connection(#[from] jsonrpc::Error),
    /// The database refused the transaction, in its own words; nothing of it has been done.
    #[error("OVSDB refused {operation}: {error}{}{details}", if details.is_empty() { "" } else { ": " })]
    Refused {
        /// Which operation, or that it was the whole.
        operation: String,
        /// RFC 7047's name of the error, such as `constraint violation`.
        error: String,
        /// What the server adds.
        details: String,
    },
    /// An answer that does not fit the question.
    #[error("ovsdb-server's answer is not understood")]
    Malformed(#[from] Malformed),
    /// ovs-vswitchd did not do what the database says.
    #[error(
        "ovs-vswitchd did not take up the change within {} ms: see its log; the database has it",
        limit.as_millis()
    )]
    NotTakenUp {
        /// How long it had.
        limit: Duration,
    },
}

/// A connection to ovsdb-server.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects to `<rundir>/db.sock`.
    ///
    /// # Errors
    /// Where nobody listens.
    pub async fn connect(rundir: &Path) -> Result<Self, Error> {
        Self::connect_to(&rundir.join("db.sock")).await
    }

    /// Connects to a socket.
    ///
    /// # Errors
    /// Where nobody listens.
    pub async fn connect_to(socket: &Path) -> Result<Self, Error> {
        Ok(Self { connection: Connection::open(socket).await? })
    }

    /// Does all of a transaction or nothing; gives one outcome per operation.
    ///
    /// # Errors
    /// Where the database refuses, or can't be reached.
    pub async fn transact(&mut self, transaction: Transaction) -> Result<Vec<Outcome>, Error> {
        self.transact_within(transaction, LIMIT).await
    }

    /// As [`Self::transact`], and then waits until ovs-vswitchd has configured what changed, as
    /// ovs-vsctl does. What it made of it stands in the rows (`Interface.error`, `ofport`).
    ///
    /// # Errors
    /// As [`Self::transact`]; [`Error::NotTakenUp`] when `limit` has passed. The transaction is done
    /// then, and ovs-vswitchd takes it up when it can.
    pub async fn transact_and_wait(
        &mut self,
        transaction: Transaction,
        limit: Duration,
    ) -> Result<Vec<Outcome>, Error> {
        let asked = transaction.mutate(DATABASE, &[], &[Mutation::add("next_cfg", 1)]).select(
            DATABASE,
            &[],
            &["next_cfg"],
        );
        let mut outcomes = self.transact(asked).await?;
        let row = outcomes.pop().and_then(|outcome| outcome.rows.into_iter().next());
        outcomes.pop();
        let wanted = row.and_then(|row| row.integer("next_cfg")).ok_or_else(|| Malformed {
            expected: "number next_cfg",
            found: "no row of the table Open_vSwitch".to_owned(),
        })?;
        let behind = [Condition::less("cur_cfg", wanted)];
        let wait = Transaction::new().wait_for_rows(DATABASE, &behind, &["cur_cfg"], &[], limit);
        match self.transact_within(wait, limit + LIMIT).await {
            Ok(_) => Ok(outcomes),
            Err(Error::Refused { error, .. }) if error == "timed out" => {
                Err(Error::NotTakenUp { limit })
            }
            Err(error) => Err(error),
        }
    }

    /// Asks anything else.
    pub(super) async fn call(&mut self, method: &str, params: Value) -> Result<Value, Error> {
        Ok(self.connection.call(method, params, LIMIT, |_| ()).await?)
    }

    /// Waits for the next notification.
    pub(super) async fn notification(&mut self) -> Result<Notification, Error> {
        Ok(self.connection.notification().await?)
    }

    async fn transact_within(
        &mut self,
        transaction: Transaction,
        limit: Duration,
    ) -> Result<Vec<Outcome>, Error> {
        let count = transaction.operations.len();
        let names: Vec<_> = transaction.operations.iter().map(words).collect();
        let mut params = vec![json!(DATABASE)];
        params.extend(transaction.operations);
        let answer = self.connection.call("transact", Value::Array(params), limit, |_| ()).await?;
        let results =
            answer.as_array().ok_or_else(|| Malformed::new("list of results", &answer))?;
        for (index, result) in results.iter().enumerate() {
            if let Some(error) = result.get("error").and_then(Value::as_str) {
                let operation = names.get(index).cloned().unwrap_or("the transaction".to_owned());
                let details = result.get("details").and_then(Value::as_str).unwrap_or_default();
                return Err(Error::Refused {
                    operation,
                    error: error.to_owned(),
                    details: details.to_owned(),
                });
            }
        }
        if results.len() < count {
            return Err(Malformed::new("result of every operation", &answer).into());
        }
        results.iter().map(|result| Ok(Outcome::from_json(result)?)).collect()
    }
}

/// What an operation is about, for messages.
fn words(operation: &Value) -> String {
    let word = |key| operation.get(key).and_then(Value::as_str).unwrap_or_default();
    format!("{} of table {}", word("op"), word("table"))
}

/// What an operation gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The rows of a `select`.
    pub rows: Vec<Row>,
    /// The row of an `insert`.
    pub uuid: Option<Uuid>,
    /// How many rows an `update`, `mutate` or `delete` was about.
    pub count: u64,
}

impl Outcome {
    fn from_json(result: &Value) -> Result<Self, Malformed> {
        let rows = result.get("rows").and_then(Value::as_array).map(Vec::as_slice);
        let uuid = match result.get("uuid").and_then(Value::as_array).map(Vec::as_slice) {
            Some([_, Value::String(uuid)]) => Some(Uuid(uuid.clone())),
            _ => None,
        };
        Ok(Self {
            rows: rows.unwrap_or_default().iter().map(Row::from_json).collect::<Result<_, _>>()?,
            uuid,
            count: result.get("count").and_then(Value::as_u64).unwrap_or(0),
        })
    }
}

/// Which rows an operation is about: all conditions must hold.
#[derive(Clone, Debug)]
pub struct Condition(Value);

impl Condition {
    /// The column has this value.
    pub fn equal(column: &str, value: impl Into<Datum>) -> Self {
        Self(json!([column, "==", value.into().to_json()]))
    }

    /// The column's set or map has these members, and maybe others.
    pub fn includes(column: &str, value: impl Into<Datum>) -> Self {
        Self(json!([column, "includes", value.into().to_json()]))
    }

    /// The number is less.
    #[must_use]
    pub fn less(column: &str, value: i64) -> Self {
        Self(json!([column, "<", value]))
    }

    /// The row itself.
    #[must_use]
    pub fn row(uuid: &Uuid) -> Self {
        Self::equal("_uuid", uuid.clone())
    }
}

/// A change of a column relative to what it has.
#[derive(Clone, Debug)]
pub struct Mutation(Value);

impl Mutation {
    /// Adds to a number.
    #[must_use]
    pub fn add(column: &str, value: i64) -> Self {
        Self(json!([column, "+=", value]))
    }

    /// Adds members to a set or a map. A key that the map has already keeps its value.
    pub fn insert(column: &str, value: impl Into<Datum>) -> Self {
        Self(json!([column, "insert", value.into().to_json()]))
    }

    /// Removes members of a set, or pairs of a map; a set of keys removes these from a map.
    pub fn delete(column: &str, value: impl Into<Datum>) -> Self {
        Self(json!([column, "delete", value.into().to_json()]))
    }
}

/// Operations to be done all or none, in this order.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Transaction {
    operations: Vec<Value>,
}

impl Transaction {
    /// Without operations yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives these columns of the rows.
    pub fn select(self, table: &str, rows: &[Condition], columns: &[&str]) -> Self {
        self.and(json!({
            "op": "select", "table": table, "where": conditions(rows), "columns": columns,
        }))
    }

    /// Adds a row.
    pub fn insert(self, table: &str, row: &Row) -> Self {
        self.and(json!({ "op": "insert", "table": table, "row": row.to_json() }))
    }

    /// Adds a row that other operations of this transaction name with [`super::value::Atom::Named`].
    /// `name` consists of letters, digits and `_`.
    pub fn insert_named(self, table: &str, row: &Row, name: &str) -> Self {
        self.and(json!({
            "op": "insert", "table": table, "row": row.to_json(), "uuid-name": name,
        }))
    }

    /// Sets columns.
    pub fn update(self, table: &str, rows: &[Condition], row: &Row) -> Self {
        self.and(json!({
            "op": "update", "table": table, "where": conditions(rows), "row": row.to_json(),
        }))
    }

    /// Changes columns relative to what they have.
    pub fn mutate(self, table: &str, rows: &[Condition], mutations: &[Mutation]) -> Self {
        let mutations: Vec<_> = mutations.iter().map(|mutation| &mutation.0).collect();
        self.and(json!({
            "op": "mutate", "table": table, "where": conditions(rows), "mutations": mutations,
        }))
    }

    /// Removes rows. Rows of most tables go by themselves when nothing names them any more.
    pub fn delete(self, table: &str, rows: &[Condition]) -> Self {
        self.and(json!({ "op": "delete", "table": table, "where": conditions(rows) }))
    }

    /// Waits until these columns of the rows are exactly `expected`, for at most `limit`; the
    /// transaction fails with `timed out` otherwise. With a `limit` of 0 it is a check.
    pub fn wait_for_rows(
        self,
        table: &str,
        rows: &[Condition],
        columns: &[&str],
        expected: &[Row],
        limit: Duration,
    ) -> Self {
        self.and(json!({
            "op": "wait", "table": table, "where": conditions(rows), "columns": columns,
            "until": "==", "rows": expected.iter().map(Row::to_json).collect::<Vec<_>>(),
            "timeout": u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    /// Says in the database's log what the transaction is for.
    pub fn comment(self, text: &str) -> Self {
        self.and(json!({ "op": "comment", "comment": text }))
    }

    fn and(mut self, operation: Value) -> Self {
        self.operations.push(operation);
        self
    }
}

fn conditions(conditions: &[Condition]) -> Vec<&Value> {
    conditions.iter().map(|condition| &condition.0).collect()
}
