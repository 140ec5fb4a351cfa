//! A daemon that shows snapshots which another has taken, by the servers of a real one: so that all who look see the same instant.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::thread::JoinHandle;

use lb_user::api::control::ControlSocket;
use lb_user::api::protocol::{Request, Response};
use lb_user::api::{DaemonHandle, http};
use lb_user::observe::snapshot::Snapshot;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The control socket and the HTTP address of a daemon that there is not. Each shows every snapshot once, in their order, and has no answer
/// after the last, so that what is shown then stays.
#[derive(Debug)]
pub struct Replay {
    directory: TempDir,
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The instance's name.
const INSTANCE: &str = "replay";

impl Replay {
    /// Shows these.
    pub fn start(snapshots: &[Snapshot]) -> Self {
        let directory = tempfile::Builder::new().prefix("weirt-").tempdir().expect("make a temporary directory");
        let control = ControlSocket::bind(&directory.path().join(format!("{INSTANCE}.sock"))).expect("the control socket");
        let listener = StdListener::bind("127.0.0.1:0").expect("a port for HTTP");
        listener.set_nonblocking(true).expect("a socket for tokio");
        let address = listener.local_addr().expect("its address");
        let (end, ended) = oneshot::channel::<()>();
        let snapshots = snapshots.to_vec();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a socket of tokio's");
                tokio::select! {
                    ended = control.serve(daemon(snapshots.clone()), std::future::pending()) => ended.expect("serve the control socket"),
                    () = http::serve(listener, None, daemon(snapshots), std::future::pending()) => {}
                    // Its owner says nothing: it is gone.
                    _ = ended => {}
                }
            });
        });
        Self { directory, address, end: Some(end), thread: Some(thread) }
    }

    /// Where it serves HTTP.
    pub fn http_address(&self) -> SocketAddr {
        self.address
    }

    /// The arguments by which a command finds it.
    pub fn identity(&self) -> [String; 4] {
        ["--instance".to_owned(), INSTANCE.to_owned(), "--run-dir".to_owned(), self.directory.path().display().to_string()]
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been shown, and who looked has seen nothing.
            let _ = thread.join();
        }
    }
}

fn daemon(snapshots: Vec<Snapshot>) -> DaemonHandle {
    let (handle, mut questions) = DaemonHandle::new();
    tokio::spawn(async move {
        let mut left = snapshots.into_iter();
        while let Some((request, answer)) = questions.recv().await {
            let next = if request == Request::Status { left.next() } else { None };
            let refused = || Response::Refused { code: 1, message: "that was all".to_owned(), remedy: "nothing to be done".to_owned() };
            // Who asked may have left.
            let _ = answer.send(next.map_or_else(refused, |snapshot| Response::Status(Box::new(snapshot))));
        }
    });
    handle
}
