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
    start_for(None, daemon).await
}

async fn start_for(access: Option<Access>, daemon: DaemonHandle) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, access, daemon, async {
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
    for (path, says) in [("/", "<title>Weir</title>"), ("/healthz", "ok\n"), ("/readyz", "ready\n")] {
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
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/status", "/api/v1/events"] {
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

/// Sends a request for the stream and reads its head and what follows until `enough`.
async fn open_stream(address: SocketAddr, enough: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: weir\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let mut piece = vec![0; 1 << 16];
    while !text.contains(enough) {
        let count = timeout(Duration::from_secs(10), stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(count > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    (stream, text)
}

#[tokio::test]
async fn the_page_holds_all_it_needs_and_may_run_nothing_else() {
    let (address, _end, _server) = start(daemon_that_shows(sample::small())).await;
    let (head, body) = get(address, "/").await;
    let policy = head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).expect("a policy");
    for part in ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{part} is not in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http:") && !policy.contains('*'), "{policy}");
    for header in ["x-content-type-options: nosniff", "referrer-policy: no-referrer", "content-type: text/html; charset=utf-8"] {
        assert!(head.contains(header), "{header} is not in {head}");
    }
    assert!(!head.to_lowercase().contains("set-cookie"));
    // The hashes are those of what the page holds; nothing else would run.
    let between = |start: &str, end: &str| body.split_once(start).unwrap().1.split_once(end).unwrap().0;
    for text in [between("<script>", "</script>"), between("<style>", "</style>")] {
        assert!(text.len() > 1_000 && policy.contains(&page::hash(text)));
    }
    assert_eq!((body.matches("<script").count(), body.matches("<style").count()), (1, 1));
    for foreign in ["src=", "@import", "url(", "innerHTML", "eval(", "document.cookie", "localStorage", " style=", " onclick="] {
        assert!(!body.contains(foreign), "the page has {foreign}");
    }
    // Apart from names of namespaces it names no other host.
    let rest = body.replace("http://www.w3.org/2000/svg", "");
    assert!(!rest.contains("http://") && !rest.contains("https://"));
}

#[tokio::test]
async fn a_stream_begins_with_the_past_and_goes_on() {
    let (address, _end, _server) = start(daemon_that_shows(sample::small())).await;
    let (_stream, text) = open_stream(address, "event: moment\ndata: {").await;
    let (head, events) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/event-stream"), "{head}");
    assert!(events.contains("event: opening\ndata: {") && events.contains("\"history\":{"), "{events}");
}

#[tokio::test]
async fn streams_are_bounded_and_keep_nobody_from_the_metrics() {
    let (address, _end, _server) = start(daemon_that_shows(sample::small())).await;
    let mut streams = Vec::new();
    for _ in 0..live::STREAMS {
        streams.push(open_stream(address, "event: ").await.0);
    }
    let (head, body) = get(address, "/api/v1/events").await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: ") && body.contains("32 pages"), "{head}\n{body}");
    // They are not among the connections, of which the oldest makes room.
    let mut idle = Vec::new();
    for _ in 0..=CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(get(address, "/healthz").await.0.starts_with("HTTP/1.1 200 "));
    let mut piece = vec![0; 1 << 16];
    for stream in &mut streams {
        let count = timeout(Duration::from_secs(5), stream.read(&mut piece)).await.expect("the stream stands still").unwrap();
        assert!(count > 0, "the stream was closed");
    }
    // A reader that leaves gives its place back.
    drop(streams.pop());
    let again = async {
        while !get_head(address, "/api/v1/events").await.starts_with("HTTP/1.1 200 ") {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), again).await.expect("the place was kept");
}

/// The head alone of what is answered.
async fn get_head(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: weir\r\n\r\n").as_bytes()).await.unwrap();
    let mut piece = [0; 256];
    let count = stream.read(&mut piece).await.unwrap();
    String::from_utf8_lossy(&piece[..count]).into_owned()
}
