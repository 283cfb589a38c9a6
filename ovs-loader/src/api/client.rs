//! The client of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::report::{FdbReport, Stats, Status, TunnelReport};
use super::routes::{Problem, Switch};
use super::shown;

/// How long the daemon has for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error(
        "no ovs-loader daemon answers at {0}: start one with `ovs-loader run`, or name its socket \
         with --socket"
    )]
    NoDaemon(String),
    /// The socket is root's.
    #[error("no permission to open {0}: run as root, for example with sudo")]
    Permission(String),
    /// The daemon takes too long.
    #[error(
        "the daemon at {path} did not answer within {} s: it may be at work, and do what it was asked later; \
         see its log", timeout.as_secs()
    )]
    Hung {
        /// The socket.
        path: String,
        /// How long it had.
        timeout: Duration,
    },
    /// The daemon says no; the text is its own.
    #[error("{0}")]
    Refused(String),
    /// What came is no answer of an ovs-loader daemon.
    #[error("what listens at {path} does not answer like this version of ovs-loader: {problem}")]
    Protocol {
        /// The socket.
        path: String,
        /// What is wrong with the answer.
        problem: String,
    },
}

/// A daemon by its socket. Every call connects anew.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    timeout: Duration,
}

impl Client {
    /// The daemon that listens at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), timeout: TIMEOUT }
    }

    /// What is accelerated.
    ///
    /// # Errors
    /// As all calls: no daemon, no permission, no answer in time, or a refusal.
    pub async fn status(&self) -> Result<Status, Error> {
        self.get("/v1/status").await
    }

    /// The counters.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn stats(&self) -> Result<Stats, Error> {
        self.get("/v1/stats").await
    }

    /// The FDB of one bridge or all.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn fdb(&self, bridge: Option<&str>) -> Result<FdbReport, Error> {
        self.get(&selecting("/v1/fdb", bridge)).await
    }

    /// The tunnels of one bridge or all.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn tunnels(&self, bridge: Option<&str>) -> Result<TunnelReport, Error> {
        self.get(&selecting("/v1/tunnels", bridge)).await
    }

    /// Switches the fast path of one bridge.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn accelerate(&self, bridge: &str, on: bool) -> Result<(), Error> {
        let switch = Switch { bridge: bridge.to_owned(), on };
        self.post("/v1/accelerate", &serde_json::json!(switch)).await
    }

    /// Has the daemon detach everything, remove its pins and exit.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn down(&self) -> Result<(), Error> {
        self.post("/v1/down", &Value::Null).await
    }

    /// Has the daemon exit and leave its programs and maps attached.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn handover(&self) -> Result<(), Error> {
        self.post("/v1/handover", &Value::Null).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(), Error> {
        let _: Value = self.call(Method::POST, path, body.to_string().into()).await?;
        Ok(())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Error> {
        let hung = || Error::Hung { path: shown(&self.path), timeout: self.timeout };
        tokio::time::timeout(self.timeout, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| Err(hung()))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Error> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.refused(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.protocol(&error))?;
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.protocol(&error))?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            Ok::<_, hyper::Error>((status, answer.into_body().collect().await?.to_bytes()))
        };
        // The connection moves the bytes; it ends with the exchange, which has its errors too.
        let mut exchange = std::pin::pin!(exchange);
        let exchanged = tokio::select! {
            biased;
            exchanged = &mut exchange => exchanged,
            _ = connection => exchange.await,
        };
        let (status, body) = exchanged.map_err(|error| self.protocol(&error))?;
        if !status.is_success() {
            let problem = serde_json::from_slice::<Problem>(&body);
            return Err(match problem {
                Ok(problem) => Error::Refused(problem.error),
                Err(_) => self.protocol(&format!("HTTP {status}")),
            });
        }
        serde_json::from_slice(&body).map_err(|error| self.protocol(&error))
    }

    fn refused(&self, error: &io::Error) -> Error {
        let path = shown(&self.path);
        match error.kind() {
            io::ErrorKind::PermissionDenied => Error::Permission(path),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NoDaemon(path),
            _ => self.protocol(error),
        }
    }

    fn protocol(&self, problem: &impl ToString) -> Error {
        Error::Protocol { path: shown(&self.path), problem: problem.to_string() }
    }
}

/// A path with the bridge as its query. Any byte that is not plain is escaped (RFC 3986).
fn selecting(path: &str, bridge: Option<&str>) -> String {
    let Some(bridge) = bridge else { return path.to_owned() };
    let mut query = format!("{path}?bridge=");
    for byte in bridge.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            query.push(char::from(byte));
        } else {
            query.push_str(&format!("%{byte:02X}"));
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_name_is_escaped_in_the_query() {
        assert_eq!(selecting("/v1/fdb", Some("br-ex")), "/v1/fdb?bridge=br-ex");
        assert_eq!(selecting("/v1/fdb", Some("a&b=ü")), "/v1/fdb?bridge=a%26b%3D%C3%BC");
        assert_eq!(selecting("/v1/fdb", None), "/v1/fdb");
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_answer_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let client = Client { path, timeout: Duration::from_millis(50) };
        assert!(matches!(client.status().await, Err(Error::Hung { .. })));
    }
}
