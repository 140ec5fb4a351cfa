//! The control socket from both ends, in a directory of its own.
use std::time::Instant;

use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use super::*;
use crate::{
    api::{protocol::Order, tests::daemon_that_shows},
    observe::sample,
};

struct Server {
    path: PathBuf,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
    _directory: tempfile::TempDir,
}

fn start() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/weir/default.sock");
    let socket = ControlSocket::bind(&path).unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let task = tokio::spawn(socket.serve(daemon_that_shows(sample::small()), async {
        let _ = ended.await;
    }));
    Server { path, end: Some(end), task, _directory: directory }
}

/// The client blocks, as it does in the command line.
async fn asked(path: &Path, request: Request) -> Result<Response, ClientError> {
    let path = path.to_owned();
    spawn_blocking(move || ask(&path, &request)).await.unwrap()
}

/// What the server says to these bytes.
async fn said(path: &Path, bytes: Vec<u8>) -> Response {
    let path = path.to_owned();
    let answer = spawn_blocking(move || {
        let mut stream = StdStream::connect(path).unwrap();
        // The server may answer before it has read everything.
        let _ = stream.write_all(&bytes);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    });
    serde_json::from_slice(&answer.await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_question_is_answered_and_a_refusal_carries_its_code() {
    let server = start();
    let response = asked(&server.path, Request::Status).await.unwrap();
    assert_eq!(response, Response::Status(Box::new(sample::small())));
    let drain = Request::Drain { service: "web".to_owned(), backend: 3, drain: false };
    assert_eq!(asked(&server.path, drain).await.unwrap(), Response::Done { message: "web 3 false".to_owned() });
    let defence = Request::Defence { service: "web".to_owned(), order: Order::On };
    assert_eq!(asked(&server.path, defence).await.unwrap(), Response::Done { message: "web on".to_owned() });
    let Response::Refused { code, .. } = asked(&server.path, Request::Reload).await.unwrap() else { panic!() };
    assert_eq!(code, Exit::Configuration.code());
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_the_directory_for_all_to_see() {
    let server = start();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server.path), 0o600);
    assert_eq!(mode(server.path.parent().unwrap()), 0o755);
}

#[tokio::test]
async fn a_client_learns_the_daemons_process() {
    let server = start();
    let path = server.path.clone();
    let daemon = spawn_blocking(move || Client::connect(&path).unwrap().daemon()).await.unwrap();
    assert_eq!(daemon, Some(rustix::process::getpid()));
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_server_goes_on() {
    let server = start();
    let long = [vec![b' '; 70_000], b"{\"request\":\"status\"}\n".to_vec()].concat();
    for (bytes, says) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not understood"),
        (b"{\"request\":\"explode\"}\n".to_vec(), "not understood"),
        (b"{\"request\":\"status\"}".to_vec(), "newline"),
        (Vec::new(), "newline"),
        (long, "64 KiB"),
        (vec![0xff, b'\n'], "not understood"),
    ] {
        let Response::Refused { message, .. } = said(&server.path, bytes).await else { panic!("{says}") };
        assert!(message.contains(says), "{message}");
    }
    assert!(matches!(asked(&server.path, Request::Status).await, Ok(Response::Status(_))));
}

#[tokio::test]
async fn a_client_that_says_nothing_keeps_nobody_waiting_and_is_let_go() {
    let server = start();
    let path = server.path.clone();
    let silent = spawn_blocking(move || {
        let mut stream = StdStream::connect(path).unwrap();
        let begin = Instant::now();
        let ended = stream.read_to_end(&mut Vec::new());
        (ended.unwrap(), begin.elapsed())
    });
    assert!(matches!(asked(&server.path, Request::Status).await, Ok(Response::Status(_))));
    let (read, waited) = silent.await.unwrap();
    assert!(read == 0 && waited < CLIENT_TIME * 2, "{read} {waited:?}");
}

#[tokio::test]
async fn the_end_finishes_what_is_under_way_and_takes_the_file_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.sock");
    let (handle, mut questions) = DaemonHandle::new();
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(ControlSocket::bind(&path).unwrap().serve(handle, async {
        let _ = ended.await;
    }));
    let client = tokio::spawn({
        let path = path.clone();
        async move { asked(&path, Request::Stop).await }
    });
    let (request, answer) = questions.recv().await.unwrap();
    assert_eq!(request, Request::Stop);
    end.send(()).unwrap();
    answer.send(Response::Done { message: "all is gone".to_owned() }).unwrap();
    assert_eq!(client.await.unwrap().unwrap(), Response::Done { message: "all is gone".to_owned() });
    server.await.unwrap().unwrap();
    assert!(!path.exists());
    assert!(matches!(asked(&path, Request::Status).await, Err(ClientError::NotRunning(_))));
}

#[tokio::test]
async fn a_socket_that_is_served_is_not_taken() {
    let mut server = start();
    assert!(matches!(ControlSocket::bind(&server.path), Err(BindError::InUse(_))));
    assert!(matches!(asked(&server.path, Request::Status).await, Ok(Response::Status(_))));
    server.end.take().unwrap().send(()).unwrap();
    server.task.await.unwrap().unwrap();
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_replaced_and_another_file_is_not() {
    let _no_forks = crate::listeners::no_forks();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.sock");
    let first = ControlSocket::bind(&path).unwrap();
    // What a process leaves that is killed: the name without a listener.
    drop(first.listener);
    std::mem::forget(first.file);
    assert!(matches!(ask(&path, &Request::Status), Err(ClientError::NotRunning(_))));
    drop(ControlSocket::bind(&path).unwrap());
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(ControlSocket::bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x".repeat(200));
    assert!(matches!(ControlSocket::bind(&path), Err(BindError::System { .. })));
}

#[test]
fn only_root_and_the_daemons_user_may_ask() {
    let own = rustix::process::geteuid().as_raw();
    assert!(may_ask(0) && may_ask(own));
    assert!(!may_ask(own + 1) && !may_ask(65_534));
}

#[test]
fn another_user_is_denied_by_the_files_mode() {
    if !rustix::process::geteuid().is_root() {
        // Only root can become another user; CI runs this as root.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("weir.sock");
    let _socket = ControlSocket::bind(&path).unwrap();
    let denied = std::thread::spawn(move || {
        // Of this thread alone, and with it its power over files.
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        ask(&path, &Request::Status)
    });
    assert!(matches!(denied.join().unwrap(), Err(ClientError::Denied(_))));
}
