//! HTTP, for Prometheus and for probes. Everything is read-only, by GET or HEAD; any other method is answered with 405.
//!
//! | route            | answer                                                                                           |
//! |------------------|--------------------------------------------------------------------------------------------------|
//! | `/`              | the page ([`page`])                                                                              |
//! | `/metrics`       | the metrics in Prometheus' text format ([`crate::observe::prometheus`])                          |
//! | `/healthz`       | 200 while the process lives and serves                                                           |
//! | `/readyz`        | 200 when the data plane is attached and the first scan is done; else 503 and the reason          |
//! | `/api/v1/status` | the [`Snapshot`] as JSON: the same as `weir status --json`                                       |
//! | `/api/v1/events` | what the page shows, each second, as server-sent events ([`live`])                               |
//!
//! Who may read, and whether over TLS, is for the web configuration to say ([`Access`]); without one it is everybody who reaches the
//! address.
//!
//! What a client can hold is bounded: one request a connection, [`CONNECTION_TIME`] for all of it, [`HEAD_SIZE`] for its head, and
//! [`CONNECTIONS`] at a time: for one more the oldest is let go, so that clients which never end their request, or never read the answer,
//! keep nobody out. Streams of events have [`live::STREAMS`] places of their own. One snapshot is made at a time, and made into text on a
//! thread of its own, so that the daemon's loop goes on meanwhile.

mod access;
pub mod live;
mod page;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{FromRef, State},
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinError, JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::debug;

pub use access::Access;
use access::{Rules, authorize};
use live::Live;

use super::{AskError, DaemonHandle, protocol};
use crate::observe::{prometheus, snapshot::Snapshot};

/// How long a connection may live, from the accept to the last byte of the answer.
pub const CONNECTION_TIME: Duration = Duration::from_secs(15);
/// How long a stream of events may live. Browsers then open another.
const STREAM_TIME: Duration = Duration::from_secs(3600);
/// How long what was sent may wait for the client to take it, before the kernel gives the connection up.
const UNTAKEN_TIME: Duration = Duration::from_secs(15);
/// How long a client may take to send its request's head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How large that head may be, in bytes.
pub const HEAD_SIZE: usize = 16 * 1024;
/// How many connections are served at a time.
pub const CONNECTIONS: usize = 64;
/// How long the daemon's loop may take to make a snapshot.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long answers that are under way get when the server ends.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait when no connection can be accepted, as when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` resolves, and then for at most a second what is under way.
///
/// Without `access` everybody may read, over plain HTTP.
pub async fn serve(listener: TcpListener, access: Option<Access>, daemon: DaemonHandle, shutdown: impl Future<Output = ()>) {
    let source = Source { daemon, live: Live::new(), turn: Arc::new(Semaphore::new(1)) };
    let router = router(source.clone());
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // In the order they came.
    let mut oldest: VecDeque<(AbortHandle, Arc<Connection>)> = VecDeque::new();
    let accepting = async {
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    oldest.retain(|(task, connection)| !task.is_finished() && !connection.is_stream());
                    if places.available_permits() == 0
                        && let Some((oldest, _)) = oldest.pop_front()
                    {
                        oldest.abort();
                    }
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                    let connection = Arc::new(Connection::new(place, access.as_ref().map(Access::rules)));
                    let router = router.clone().layer(Extension(Arc::clone(&connection)));
                    oldest.push_back((connections.spawn(serve_one(stream, router, Arc::clone(&connection))), connection));
                }
                // The client left before it was accepted; the next may be well.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the metrics");
                    sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = source.live.clone().watch(source) => {}
        () = shutdown => {}
    }
    // What is not done by then is dropped, and its connection closed.
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn serve_one(stream: TcpStream, router: Router, connection: Arc<Connection>) {
    // Without it a stream to a client that is gone, or reads nothing, would be kept for minutes.
    if let Err(error) = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNTAKEN_TIME)) {
        debug!(%error, "a connection to the metrics waits as long as the kernel likes");
    }
    let tls = connection.rules.as_ref().and_then(|rules| rules.tls());
    match tls {
        None => serve_http(stream, router, &connection).await,
        Some(tls) => match timeout(HEAD_TIME, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_http(stream, router, &connection).await,
            Ok(Err(error)) => debug!(%error, "a client and the metrics agree on no TLS"),
            Err(_) => debug!("a client of the metrics took too long over TLS"),
        },
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, connection: &Connection) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_SIZE).keep_alive(false);
    tokio::select! {
        ended = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)) => {
            if let Err(error) = ended {
                debug!(%error, "a connection to the metrics ended early");
            }
        }
        () = connection.life() => debug!("a connection to the metrics took too long"),
    }
}

/// What a connection holds.
#[derive(Debug)]
struct Connection {
    /// Its place among [`CONNECTIONS`]; none of a stream.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    is_stream: AtomicBool,
    rules: Option<Arc<Rules>>,
}

impl Connection {
    fn new(place: OwnedSemaphorePermit, rules: Option<Arc<Rules>>) -> Self {
        Self { place: Mutex::new(Some(place)), is_stream: AtomicBool::new(false), rules }
    }

    /// It is a stream from now on: it has a place elsewhere, and time.
    fn lives_on(&self) {
        self.is_stream.store(true, Ordering::Relaxed);
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn is_stream(&self) -> bool {
        self.is_stream.load(Ordering::Relaxed)
    }

    /// Resolves when it has lived long enough.
    async fn life(&self) {
        sleep(CONNECTION_TIME).await;
        if self.is_stream() {
            sleep(STREAM_TIME).await;
        }
    }
}

/// The routes of the module's table.
fn router(source: Source) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .route("/api/v1/events", get(live::events))
        .layer(middleware::from_fn(authorize))
        .with_state(source)
}

async fn metrics(State(source): State<Source>) -> Result<Response, Unavailable> {
    let text = source.rendered(|snapshot| prometheus::render(snapshot).map_err(Into::into)).await?;
    Ok(whole(prometheus::CONTENT_TYPE, text))
}

async fn status(State(source): State<Source>) -> Result<Response, Unavailable> {
    let text = source.rendered(|snapshot| serde_json::to_string(snapshot).map_err(Into::into)).await?;
    Ok(whole("application/json", text + "\n"))
}

async fn readyz(State(source): State<Source>) -> Result<&'static str, Unavailable> {
    source.snapshot().await?.readiness().map_err(Unavailable::NotReady)?;
    Ok("ready\n")
}

fn whole(content_type: &'static str, text: String) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), text).into_response()
}

/// Where the handlers get snapshots.
#[derive(Debug, Clone)]
struct Source {
    daemon: DaemonHandle,
    live: Live,
    /// One handler at a time: many clients do not make the loop work more than one does, nor hold many texts in memory.
    turn: Arc<Semaphore>,
}

impl FromRef<Source> for Live {
    fn from_ref(source: &Source) -> Self {
        source.live.clone()
    }
}

impl Source {
    async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        let _turn = self.turn.acquire().await.map_err(|_| AskError::Ending)?;
        self.ask().await
    }

    /// A snapshot made into text.
    async fn rendered(&self, render: fn(&Snapshot) -> anyhow::Result<String>) -> Result<String, Unavailable> {
        let _turn = self.turn.acquire().await.map_err(|_| AskError::Ending)?;
        let snapshot = self.ask().await?;
        spawn_blocking(move || render(&snapshot)).await?.map_err(Unavailable::Unwritten)
    }

    async fn ask(&self) -> Result<Snapshot, Unavailable> {
        match self.daemon.ask(protocol::Request::Status, PATIENCE).await? {
            protocol::Response::Status(snapshot) => Ok(*snapshot),
            protocol::Response::Refused { message, .. } | protocol::Response::Done { message } => Err(Unavailable::Refused(message)),
        }
    }
}

/// Why a page cannot be had: the answer is this text.
#[derive(Debug, thiserror::Error)]
enum Unavailable {
    #[error("{0}")]
    NoAnswer(#[from] AskError),
    #[error("the daemon does not show its state: {0}")]
    Refused(String),
    #[error("not ready: {0}")]
    NotReady(&'static str),
    #[error("cannot write the page: {0:#}")]
    Unwritten(anyhow::Error),
    #[error("the page's writer ended: {0}")]
    Abandoned(#[from] JoinError),
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NoAnswer(_) | Self::Refused(_) | Self::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unwritten(_) | Self::Abandoned(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, format!("{self}\n")).into_response()
    }
}

#[cfg(test)]
mod tests;
