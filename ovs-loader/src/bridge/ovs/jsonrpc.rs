//! JSON-RPC 1.0 as Open vSwitch speaks it on its unix sockets: objects back to back, without framing.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// Larger messages are no answer of Open vSwitch's: a million FDB entries take 40 MB.
const LARGEST: usize = 256 << 20;

/// The other end could not be talked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("cannot connect to {}: is Open vSwitch running?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to {} broke", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What came is no JSON-RPC.
    #[error("{} answers with what is no JSON-RPC message: {problem}", path.display())]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No answer in time.
    #[error("{} did not answer {method} within {} ms", path.display(), limit.as_millis())]
    Late {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        method: String,
        /// How long it had.
        limit: Duration,
    },
    /// The answer is an error; the text is the other end's own.
    #[error("{method}: {error}")]
    Refused {
        /// What was asked.
        method: String,
        /// What was answered.
        error: String,
    },
}

/// A connection to one of Open vSwitch's daemons.
///
/// Methods may be dropped at any time: what was sent or received in part is continued by the next
/// call. An answer that nobody waits for any more is dropped when it comes.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    stream: UnixStream,
    incoming: Objects,
    outgoing: Vec<u8>,
    last_id: u64,
}

/// What the other end sends unasked.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// What of.
    pub method: String,
    /// With what.
    pub params: Value,
}

impl Connection {
    /// Connects to a unix socket.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| Error::Connect { path: path.to_owned(), source })?;
        let path = path.to_owned();
        Ok(Self { path, stream, incoming: Objects::default(), outgoing: Vec::new(), last_id: 0 })
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks and waits for the answer. Notifications that come before it are handed to `notified`.
    ///
    /// # Errors
    /// As [`Error`] says, all but [`Error::Connect`].
    pub async fn call(
        &mut self,
        method: &str,
        params: Value,
        limit: Duration,
        mut notified: impl FnMut(Notification),
    ) -> Result<Value, Error> {
        self.last_id += 1;
        let id = self.last_id;
        self.queue(&json!({ "id": id, "method": method, "params": params }));
        let answer = async {
            loop {
                match self.receive().await? {
                    Message::Notification(notification) => notified(notification),
                    Message::Answer { id: answered, outcome } if answered == id => {
                        return Ok(outcome);
                    }
                    Message::Answer { .. } => {}
                }
            }
        };
        let outcome = timeout(limit, answer).await.unwrap_or_else(|_| {
            Err(Error::Late { path: self.path.clone(), method: method.to_owned(), limit })
        })?;
        outcome.map_err(|error| Error::Refused { method: method.to_owned(), error })
    }

    /// Waits for the next notification.
    ///
    /// # Errors
    /// [`Error::Broken`] and [`Error::Malformed`].
    pub async fn notification(&mut self) -> Result<Notification, Error> {
        loop {
            if let Message::Notification(notification) = self.receive().await? {
                return Ok(notification);
            }
        }
    }

    fn queue(&mut self, message: &Value) {
        self.outgoing.extend(message.to_string().bytes());
    }

    /// The next message that is not an echo request, which is answered here.
    async fn receive(&mut self) -> Result<Message, Error> {
        loop {
            self.send_what_can_be()?;
            while let Some(text) = self.incoming.next() {
                let message: Value =
                    serde_json::from_slice(&text).map_err(|error| self.malformed(error))?;
                if let Some(message) = self.sort(message)? {
                    return Ok(message);
                }
            }
            self.send_what_can_be()?;
            let interest = match self.outgoing.is_empty() {
                true => Interest::READABLE,
                false => Interest::READABLE | Interest::WRITABLE,
            };
            let ready = self.stream.ready(interest).await.map_err(|error| self.broken(error))?;
            if ready.is_readable() {
                self.read()?;
            }
        }
    }

    fn sort(&mut self, mut message: Value) -> Result<Option<Message>, Error> {
        if let Some(method) = message.get("method").and_then(Value::as_str) {
            let method = method.to_owned();
            let (id, params) = (message["id"].take(), message["params"].take());
            if method == "echo" {
                self.queue(&json!({ "id": id, "result": params, "error": null }));
                return Ok(None);
            }
            return Ok(Some(Message::Notification(Notification { method, params })));
        }
        let Some(id) = message.get("id").and_then(Value::as_u64) else {
            return Err(self.malformed("neither a method nor an id"));
        };
        let outcome = match message["error"].take() {
            Value::Null => Ok(message["result"].take()),
            Value::String(text) => Err(text),
            other => Err(other.to_string()),
        };
        Ok(Some(Message::Answer { id, outcome }))
    }

    fn read(&mut self) -> Result<(), Error> {
        let mut chunk = vec![0; CHUNK];
        match self.stream.try_read(&mut chunk) {
            Ok(0) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) if self.incoming.bytes.len() > LARGEST => {
                Err(self.malformed(format!("a message larger than {LARGEST} bytes")))
            }
            Ok(len) => {
                self.incoming.bytes.extend_from_slice(&chunk[..len]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn send_what_can_be(&mut self) -> Result<(), Error> {
        while !self.outgoing.is_empty() {
            match self.stream.try_write(&self.outgoing) {
                Ok(len) => drop(self.outgoing.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Broken { path: self.path.clone(), source }
    }

    fn malformed(&self, problem: impl ToString) -> Error {
        Error::Malformed { path: self.path.clone(), problem: problem.to_string() }
    }
}

enum Message {
    Notification(Notification),
    Answer { id: u64, outcome: Result<Value, String> },
}

/// Cuts a stream of bytes into JSON objects. Every byte is looked at once.
#[derive(Debug, Default)]
struct Objects {
    bytes: Vec<u8>,
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Objects {
    /// The next whole object, if it has arrived.
    fn next(&mut self) -> Option<Vec<u8>> {
        while let Some(byte) = self.bytes.get(self.scanned) {
            self.scanned += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        let rest = self.bytes.split_off(self.scanned);
                        self.scanned = 0;
                        return Some(std::mem::replace(&mut self.bytes, rest));
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_cut_wherever_the_bytes_are_split() {
        let texts = [r#"{"a":"}\"{"}"#, r#"{"b":[{},"\\"]}"#, "{}"];
        let stream = texts.concat();
        for split in 0..=stream.len() {
            let mut objects = Objects::default();
            let mut found = Vec::new();
            for part in [&stream[..split], &stream[split..]] {
                objects.bytes.extend(part.bytes());
                found.extend(std::iter::from_fn(|| objects.next()));
            }
            let found: Vec<_> =
                found.iter().map(|text| std::str::from_utf8(text).unwrap()).collect();
            assert_eq!(found, texts);
        }
    }

    /// A connection, and the other end with what it has heard so far.
    async fn pair() -> (tempfile::TempDir, Connection, UnixStream) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (connection, accepted) = tokio::join!(Connection::open(&path), listener.accept());
        (directory, connection.unwrap(), accepted.unwrap().0)
    }

    async fn heard(stream: &UnixStream) -> Value {
        let mut objects = Objects::default();
        loop {
            stream.readable().await.unwrap();
            let mut bytes = [0; 4096];
            let len = stream.try_read(&mut bytes).unwrap_or(0);
            objects.bytes.extend_from_slice(&bytes[..len]);
            if let Some(text) = objects.next() {
                return serde_json::from_slice(&text).unwrap();
            }
        }
    }

    fn say(stream: &UnixStream, message: Value) {
        let text = message.to_string();
        assert_eq!(stream.try_write(text.as_bytes()).unwrap(), text.len());
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn an_answer_is_found_among_notifications_and_echoes_are_answered() {
        let (_directory, mut connection, other) = pair().await;
        let mut notified = Vec::new();
        let call = connection.call("list", json!([1]), LIMIT, |n| notified.push(n));
        let server = async {
            let request = heard(&other).await;
            assert_eq!(request, json!({ "id": 1, "method": "list", "params": [1] }));
            say(&other, json!({ "id": "echo", "method": "echo", "params": ["x"] }));
            say(&other, json!({ "id": null, "method": "update", "params": [2] }));
            let echo = heard(&other).await;
            assert_eq!(echo, json!({ "id": "echo", "result": ["x"], "error": null }));
            say(&other, json!({ "id": 1, "result": "done", "error": null }));
        };
        let (answer, ()) = tokio::join!(call, server);
        assert_eq!(answer.unwrap(), json!("done"));
        assert_eq!(notified, [Notification { method: "update".into(), params: json!([2]) }]);
    }

    #[tokio::test]
    async fn the_answer_to_a_call_that_was_given_up_is_not_taken_for_another_ones() {
        let (_directory, mut connection, other) = pair().await;
        let late = connection.call("slow", json!([]), Duration::from_millis(1), |_| ()).await;
        assert!(matches!(late, Err(Error::Late { .. })), "{late:?}");
        say(&other, json!({ "id": 1, "result": "slow", "error": null }));
        let call = connection.call("quick", json!([]), LIMIT, |_| ());
        let server = async {
            heard(&other).await;
            say(&other, json!({ "id": 2, "result": "quick", "error": null }));
        };
        let (answer, ()) = tokio::join!(call, server);
        assert_eq!(answer.unwrap(), json!("quick"));
    }

    #[tokio::test]
    async fn an_error_keeps_the_other_ends_words() {
        let (_directory, mut connection, other) = pair().await;
        say(&other, json!({ "id": 1, "result": null, "error": "no such bridge" }));
        let refused = connection.call("fdb/show", json!(["x"]), LIMIT, |_| ()).await.unwrap_err();
        assert_eq!(refused.to_string(), "fdb/show: no such bridge");
        drop(other);
        let broken = connection.call("fdb/show", json!(["x"]), LIMIT, |_| ()).await;
        assert!(matches!(broken, Err(Error::Broken { .. })), "{broken:?}");
    }
}
