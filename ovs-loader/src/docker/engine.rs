//! Docker's API on its socket, as far as it is needed: one container or network, and what happens to
//! them.
//!
//! Paths carry no version, so that the engine answers in its newest; the fields read here have been
//! there since version 1.21.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::Error;

/// How long the engine has for an answer.
const LIMIT: Duration = Duration::from_secs(20);

/// `{"type":["container"],"event":["start","die","destroy"]}`
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C\
    %22event%22%3A%5B%22start%22%2C%22die%22%2C%22destroy%22%5D%7D";

/// `{"type":["network","container"],"event":["create","connect","disconnect","destroy","rename"]}`
const NETWORK_EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22network%22%2C%22container%22%5D\
    %2C%22event%22%3A%5B%22create%22%2C%22connect%22%2C%22disconnect%22%2C%22destroy%22%2C\
    %22rename%22%5D%7D";

/// An engine by its socket. Every question connects anew.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: PathBuf,
    limit: Duration,
}

/// A container as the engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The full id.
    pub id: String,
    /// Its present name.
    pub name: String,
    /// How it runs, if it does.
    pub run: Option<Run>,
    /// What the engine says it does (`running`, `exited`, …).
    pub state: String,
}

/// One run of a container, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its first process.
    pub pid: i32,
    /// When it started, in the engine's words.
    pub started: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    state: State,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    running: bool,
    pid: i32,
    started_at: String,
}

/// A network as the engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNetwork {
    /// Its name.
    pub name: String,
    /// The containers' names by their endpoints' ids.
    pub containers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedNetwork {
    name: String,
    containers: BTreeMap<String, InspectedEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedEndpoint {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
}

#[derive(Deserialize)]
struct Problem {
    message: String,
}

impl Engine {
    /// The engine that listens at a socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), limit: LIMIT }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A container by its name or the beginning of its id; `None` if there is none.
    ///
    /// # Errors
    /// The engine does not answer, or not like one.
    pub async fn inspect(&self, container: &str) -> Result<Option<Container>, Error> {
        if !is_reference(container) {
            return Ok(None);
        }
        let path = format!("/containers/{container}/json");
        let Some(Inspected { id, name, state }) = self.ask(&path).await? else { return Ok(None) };
        let run = Run { pid: state.pid, started: state.started_at };
        Ok(Some(Container {
            id,
            name: name.trim_start_matches('/').to_owned(),
            run: (state.running && run.pid > 0).then_some(run),
            state: state.status,
        }))
    }

    /// A network by its id; `None` if there is none.
    ///
    /// # Errors
    /// The engine does not answer, or not like one.
    pub async fn network(&self, id: &str) -> Result<Option<KnownNetwork>, Error> {
        let network: Option<InspectedNetwork> = self.ask(&format!("/networks/{id}")).await?;
        Ok(network.map(|InspectedNetwork { name, containers }| KnownNetwork {
            name,
            containers: containers.into_values().map(|one| (one.endpoint, one.name)).collect(),
        }))
    }

    /// Asks for one thing; `None` if the engine has no such.
    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        let answer = async {
            let (response, _connection) = self.get(path).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| self.failed(error))?;
            Ok::<_, Error>((status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(self.limit, answer)
            .await
            .unwrap_or_else(|_| Err(self.failed("no answer in time")))?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => {
                serde_json::from_slice(&body).map(Some).map_err(|error| self.failed(error))
            }
            status => {
                let problem = serde_json::from_slice::<Problem>(&body);
                Err(self.failed(match problem {
                    Ok(Problem { message }) => message,
                    Err(_) => format!("HTTP {status}"),
                }))
            }
        }
    }

    /// What happens to containers from now on.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn events(&self) -> Result<Events, Error> {
        self.listen(EVENTS).await
    }

    /// What happens to networks and to the names of containers from now on.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn network_events(&self) -> Result<Events, Error> {
        self.listen(NETWORK_EVENTS).await
    }

    async fn listen(&self, path: &str) -> Result<Events, Error> {
        let (response, connection) = tokio::time::timeout(self.limit, self.get(path))
            .await
            .unwrap_or_else(|_| Err(self.failed("no answer in time")))?;
        match response.status() {
            StatusCode::OK => Ok(Events { body: response.into_body(), _connection: connection }),
            status => Err(self.failed(format!("HTTP {status}"))),
        }
    }

    async fn get(&self, path: &str) -> Result<(Response<Incoming>, Connection), Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.failed(error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(error))?;
        // It moves the bytes; what goes wrong with it goes wrong with the answer.
        let connection = Connection(tokio::spawn(async { drop(connection.await) }));
        let request = Request::get(path)
            .header(header::HOST, "docker")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.failed(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.failed(error))?;
        Ok((response, connection))
    }

    fn failed(&self, problem: impl ToString) -> Error {
        Error::Engine { socket: self.socket.clone(), problem: problem.to_string() }
    }
}

/// A connection that ends with its answer.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A stream of what happens. That something did is all that matters: whoever hears it
/// asks how things are.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    _connection: Connection,
}

impl Events {
    /// Waits until something happens; false when the engine has gone.
    pub async fn next(&mut self) -> bool {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) if frame.is_data() => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }
}

/// Docker's `RestrictedNamePattern`: what can name a container.
fn is_reference(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// An engine that gives one answer, and what it was asked.
    async fn answered(status: &str, body: &str) -> (Result<Option<Container>, Error>, String) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; 1024];
            let length = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let container = Engine::new(&socket).inspect("web").await;
        (container, server.join().unwrap())
    }

    fn inspected(running: bool, pid: i32) -> String {
        format!(
            r#"{{"Id":"3f2a","Name":"/web","Image":"x","State":{{"Status":"s","Running":{running},
            "Pid":{pid},"StartedAt":"2026-01-02T03:04:05Z"}}}}"#
        )
    }

    #[tokio::test]
    async fn a_running_container_has_a_process_and_a_stopped_one_has_none() {
        let (container, asked) = answered("200 OK", &inspected(true, 7)).await;
        assert!(asked.starts_with("GET /containers/web/json HTTP/1.1\r\n"), "{asked}");
        let run = Run { pid: 7, started: "2026-01-02T03:04:05Z".to_owned() };
        let web = Container {
            id: "3f2a".to_owned(),
            name: "web".to_owned(),
            run: Some(run),
            state: "s".to_owned(),
        };
        assert_eq!(container.unwrap(), Some(web.clone()));
        let (container, _) = answered("200 OK", &inspected(false, 0)).await;
        assert_eq!(container.unwrap(), Some(Container { run: None, ..web }));
    }

    #[tokio::test]
    async fn a_missing_container_is_no_error_and_what_the_engine_says_is_passed_on() {
        let (container, _) = answered("404 Not Found", r#"{"message":"No such container"}"#).await;
        assert_eq!(container.unwrap(), None);
        let (error, _) = answered("500 Oops", r#"{"message":"out of cheese"}"#).await;
        assert!(error.expect_err("500").to_string().contains("out of cheese"));
        let (error, _) = answered("200 OK", "{}").await;
        assert!(error.expect_err("not Docker").to_string().contains("cannot ask Docker"));
    }

    #[tokio::test]
    async fn an_engine_that_hangs_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let _listener = UnixListener::bind(&socket).unwrap();
        let engine = Engine { limit: Duration::from_millis(50), ..Engine::new(&socket) };
        assert!(matches!(engine.inspect("web").await, Err(Error::Engine { .. })));
        assert!(matches!(engine.events().await, Err(Error::Engine { .. })));
    }

    #[tokio::test]
    async fn what_cannot_name_a_container_is_not_asked_for() {
        let engine = Engine::new(Path::new("/nonexistent"));
        for text in ["", "../images", "a b", "-a", "a?b", "a/b"] {
            assert_eq!(engine.inspect(text).await.unwrap(), None, "{text}");
        }
        assert!(engine.inspect("web-1.a_b").await.is_err(), "nobody listens");
    }
}
