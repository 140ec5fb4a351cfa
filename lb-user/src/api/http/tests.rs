//! HTTP over real connections on loopback.
use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::{api::tests::daemon_that_shows, observe::sample};

async fn start(daemon: DaemonHandle) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, daemon, async {
        let _ = ended.await;
    }));
    (address, end, server)
}

/// Sends `request` and reads until the server closes: the head and the body of what it said.
async fn exchange(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: weir\r\n\r\n")).await
}

#[tokio::test]
async fn every_route_answers_and_the_answer_ends_the_connection() {
    let snapshot = sample::small();
    let (address, _end, _server) = start(daemon_that_shows(snapshot.clone())).await;
    for (path, says) in [("/", "/metrics"), ("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let (head, body) = get(address, path).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.contains(says), "{path}: {head}\n{body}");
    }
    let (head, body) = get(address, "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(body, prometheus::render(&snapshot).unwrap());
    let (head, body) = get(address, "/api/v1/status").await;
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(serde_json::from_str::<Snapshot>(&body).unwrap(), snapshot);
    assert!(get(address, "/secret").await.0.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let (address, _end, _server) = start(daemon_that_shows(sample::small())).await;
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/status"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let (head, _) = exchange(address, &format!("{method} {path} HTTP/1.1\r\nHost: weir\r\nContent-Length: 0\r\n\r\n")).await;
            assert!(head.starts_with("HTTP/1.1 405 "), "{method} {path}: {head}");
        }
        let (head, body) = exchange(address, &format!("HEAD {path} HTTP/1.1\r\nHost: weir\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{path}: {head}\n{body}");
    }
}

#[tokio::test]
async fn not_ready_says_why() {
    let mut scanning = sample::small();
    scanning.daemon.as_mut().unwrap().last_scan = None;
    let mut detached = sample::small();
    detached.dataplane.interfaces[0].mode = "gone".to_owned();
    for (snapshot, why) in [(scanning, "not ready: the first scan"), (detached, "not ready: no interface")] {
        let (address, _end, _server) = start(daemon_that_shows(snapshot)).await;
        let (head, body) = get(address, "/readyz").await;
        assert!(head.starts_with("HTTP/1.1 503 ") && body.starts_with(why), "{head}\n{body}");
        assert!(get(address, "/healthz").await.0.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_loop_that_has_ended_is_503_and_the_process_is_still_healthy() {
    let (handle, questions) = DaemonHandle::new();
    drop(questions);
    let (address, _end, _server) = start(handle).await;
    for path in ["/metrics", "/readyz", "/api/v1/status"] {
        let (head, body) = get(address, path).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && body == "the daemon is ending\n", "{path}: {head}\n{body}");
    }
    assert!(get(address, "/healthz").await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let (address, _end, _server) = start(daemon_that_shows(sample::small())).await;
    let request = format!("GET / HTTP/1.1\r\nHost: weir\r\nX-Long: {}\r\n\r\n", "x".repeat(HEAD_SIZE));
    let (head, _) = exchange(address, &request).await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_let_go() {
    let (address, _end, _server) = start(daemon_that_shows(sample::small())).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let begin = Instant::now();
    let mut answer = Vec::new();
    // A connection that is reset has ended too.
    let _ = timeout(HEAD_TIME * 2, stream.read_to_end(&mut answer)).await.expect("the connection was kept");
    assert!(begin.elapsed() + Duration::from_millis(100) > HEAD_TIME, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn beyond_the_cap_the_oldest_makes_room() {
    let (address, _end, _server) = start(daemon_that_shows(sample::small())).await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let (head, _) = timeout(HEAD_TIME / 2, get(address, "/healthz")).await.expect("nobody made room");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut rest = Vec::new();
    let gone = timeout(HEAD_TIME / 2, idle[0].read_to_end(&mut rest)).await;
    assert!(gone.is_ok() && rest.is_empty(), "the oldest was kept");
    assert!(timeout(Duration::from_millis(100), idle[1].read_to_end(&mut rest)).await.is_err(), "more than one were let go");
}

#[tokio::test]
async fn the_end_lets_go_of_the_listener_and_of_idle_clients() {
    let (address, end, server) = start(daemon_that_shows(sample::small())).await;
    let _idle = TcpStream::connect(address).await.unwrap();
    assert!(get(address, "/healthz").await.0.starts_with("HTTP/1.1 200 "));
    end.send(()).unwrap();
    timeout(GRACE + Duration::from_secs(1), server).await.unwrap().unwrap();
    // Another test may just be forking a child, which holds this listener for a moment.
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(2), refused).await.unwrap();
}
