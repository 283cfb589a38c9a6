use std::os::unix::fs::PermissionsExt;

use super::super::client::{Client, Error};
use super::super::report::{FdbReport, Status};
use super::super::{Refusal, Request};
use super::*;

/// A socket in a directory of its own with a main loop that answers what it is asked.
struct Daemon {
    directory: tempfile::TempDir,
    guard: ServerGuard,
}

impl Daemon {
    fn path(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("run/control.sock")
    }

    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (sender, mut requests) = mpsc::channel(4);
        let guard = serve(&Self::path(&directory), sender).unwrap();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                answer(request);
            }
        });
        Self { directory, guard }
    }

    fn client(&self) -> Client {
        Client::new(&Self::path(&self.directory))
    }
}

fn answer(request: Request) {
    let unknown =
        |name: String| Refusal::UnknownBridge { name, known: vec!["br-a".into(), "br-b".into()] };
    match request {
        Request::Status(reply) => {
            reply.send(Ok(Status { version: "7".into(), ..Status::default() })).unwrap();
        }
        Request::Fdb { bridge: Some(bridge), reply } => reply.send(Err(unknown(bridge))).unwrap(),
        Request::Fdb { bridge: None, reply } => reply.send(Ok(FdbReport::default())).unwrap(),
        Request::Accelerate { bridge, on: true, reply } if bridge == "br-a" => {
            reply.send(Ok(())).unwrap();
        }
        Request::Accelerate { reply, .. } => {
            reply.send(Err(Refusal::Failed("map is full".into()))).unwrap();
        }
        // Dropped without an answer, as by a main loop that ends.
        _ => {}
    }
}

#[tokio::test]
async fn only_root_can_open_the_socket() {
    let daemon = Daemon::start();
    let mode = fs::metadata(Daemon::path(&daemon.directory)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_request_reaches_the_main_loop_and_its_answer_the_client() {
    let daemon = Daemon::start();
    assert_eq!(daemon.client().status().await.unwrap().version, "7");
    assert_eq!(daemon.client().fdb(None).await.unwrap(), FdbReport::default());
    daemon.client().accelerate("br-a", true).await.unwrap();
}

#[tokio::test]
async fn a_refusal_reaches_the_client_in_the_daemons_words() {
    let daemon = Daemon::start();
    let error = daemon.client().fdb(Some("a b")).await.unwrap_err();
    assert_eq!(error.to_string(), "no bridge named a b: this host has br-a, br-b");
    let error = daemon.client().accelerate("br-a", false).await.unwrap_err();
    assert_eq!(error.to_string(), "map is full");
    let error = daemon.client().down().await.unwrap_err();
    assert_eq!(error.to_string(), "the daemon is shutting down");
}

#[tokio::test]
async fn a_socket_where_a_daemon_answers_is_not_taken() {
    let daemon = Daemon::start();
    let (sender, _requests) = mpsc::channel(1);
    let error = serve(&Daemon::path(&daemon.directory), sender).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    daemon.client().status().await.unwrap();
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let (sender, _requests) = mpsc::channel(1);
    let _guard = serve(&path, sender).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_socket_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    fs::write(&path, "precious").unwrap();
    let (sender, _requests) = mpsc::channel(1);
    assert!(matches!(serve(&path, sender), Err(BindError::NotSocket { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn shutdown_removes_the_socket() {
    let Daemon { directory, guard } = Daemon::start();
    guard.shutdown().await;
    assert!(!Daemon::path(&directory).exists());
    let error = Client::new(&Daemon::path(&directory)).status().await.unwrap_err();
    assert!(matches!(error, Error::NoDaemon(_)), "{error}");
}

#[tokio::test]
async fn a_successors_socket_is_left_alone() {
    let Daemon { directory, guard } = Daemon::start();
    let path = Daemon::path(&directory);
    fs::rename(&path, directory.path().join("moved")).unwrap();
    let _successor = UnixListener::bind(&path).unwrap();
    guard.shutdown().await;
    assert!(path.exists());
}
