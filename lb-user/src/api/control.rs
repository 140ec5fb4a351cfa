//! The control socket: root's command line asks the daemon, one line of JSON each way and one question a connection.

use std::{
    fs::{DirBuilder, FileType, Permissions},
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{UnixListener as StdListener, UnixStream as StdStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
    process::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    DaemonHandle,
    protocol::{Request, Response},
};
use crate::exit::Exit;

/// The longest request, in bytes, its newline included.
pub const REQUEST_SIZE: u64 = 64 * 1024;
/// How long a client may take to send its request, and to read each part of the answer.
const CLIENT_TIME: Duration = Duration::from_secs(5);
/// How long the daemon may take to do what is asked: `stop` and a reload of thousands of workers take the longest.
const DAEMON_TIME: Duration = Duration::from_secs(60);
/// How many clients are served at a time; those beyond wait in the listener's queue.
const CLIENTS: usize = 16;
/// How long answers that are under way get when the server ends.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait when no client can be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// The listener's queue.
const BACKLOG: i32 = 64;

/// The listening control socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: StdListener,
    file: SocketFile,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers on it.
    #[error("another daemon answers on {}", .0.display())]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("{} exists and is no socket", .0.display())]
    NotASocket(PathBuf),
    /// The system says no.
    #[error("cannot listen on {}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why the daemon did not answer a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no daemon answers on {}", .0.display())]
    NotRunning(PathBuf),
    /// Only root and the daemon's own user may ask.
    #[error("{} is not open to this user", .0.display())]
    Denied(PathBuf),
    /// The connection failed on the way.
    #[error("the daemon at {} did not answer", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The answer is not of this version's protocol.
    #[error("the daemon at {} gave an answer that this version of weir does not know", path.display())]
    Unknown {
        /// The socket.
        path: PathBuf,
        /// Where it went wrong.
        source: serde_json::Error,
    },
}

impl ControlSocket {
    /// Listens on `path` with mode 0600, and makes its directory (0755) if it is not there. The file that a killed daemon left behind
    /// is replaced; call this only with the instance's lock held, so that two daemons do not replace each other's.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let system = |source| BindError::System { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(system)?;
        }
        let listener = match listen(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let file = path.symlink_metadata().map_err(system)?;
                if !FileType::is_socket(&file.file_type()) {
                    return Err(BindError::NotASocket(path.to_owned()));
                }
                match StdStream::connect(path) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(source) => return Err(system(source)),
                    Ok(_) => return Err(BindError::InUse(path.to_owned())),
                }
                std::fs::remove_file(path).map_err(system)?;
                listen(path).map_err(system)?
            }
            other => other.map_err(system)?,
        };
        let file = SocketFile { path: path.to_owned(), inode: path.symlink_metadata().map_err(system)?.ino() };
        Ok(Self { listener, file })
    }

    /// Answers until `shutdown` resolves, and then for at most a second what is under way. The answer to [`Request::Stop`] reaches
    /// its client only if this is awaited to its end.
    pub async fn serve(self, daemon: DaemonHandle, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { listener, file: _file } = self;
        let listener = UnixListener::from_std(listener)?;
        let places = Arc::new(Semaphore::new(CLIENTS));
        let mut clients = JoinSet::new();
        let accepting = async {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                while clients.try_join_next().is_some() {}
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let daemon = daemon.clone();
                        clients.spawn(async move {
                            if let Err(error) = serve_one(stream, &daemon).await {
                                debug!(%error, "a client of the control socket got no answer");
                            }
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a client of the control socket");
                        sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = shutdown => {}
        }
        // What is not done by then is dropped, and its connection closed.
        let _ = timeout(GRACE, async { while clients.join_next().await.is_some() {} }).await;
        Ok(())
    }
}

/// The mode is set before the socket has a name: what `bind(2)` makes takes it from the socket (Linux's `unix_bind`), and there is no
/// moment at which others can connect.
fn listen(path: &Path) -> io::Result<StdListener> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    // The umask of the process may have taken bits away.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// The name in the file system, removed when the server ends, unless somebody has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.path.symlink_metadata().is_ok_and(|found| found.ino() == self.inode) {
            // If it stays, the next daemon replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn serve_one(stream: UnixStream, daemon: &DaemonHandle) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    let response = if may_ask(peer.uid()) {
        let mut line = Vec::new();
        let mut reader = BufReader::new(reader.take(REQUEST_SIZE));
        timeout(CLIENT_TIME, reader.read_until(b'\n', &mut line)).await??;
        answer(&line, daemon).await
    } else {
        let message = format!("user {} may not control this daemon", peer.uid());
        refused(Exit::Permission, message, "run the command as root")
    };
    let mut text = serde_json::to_vec(&response)?;
    text.push(b'\n');
    for part in text.chunks(64 * 1024) {
        timeout(CLIENT_TIME, writer.write_all(part)).await??;
    }
    timeout(CLIENT_TIME, writer.shutdown()).await?
}

/// Root, and the user that the daemon itself runs as.
fn may_ask(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

async fn answer(line: &[u8], daemon: &DaemonHandle) -> Response {
    if line.last() != Some(&b'\n') {
        let what = if line.len() as u64 == REQUEST_SIZE { "is longer than 64 KiB" } else { "does not end with a newline" };
        return refused(Exit::Unexpected, format!("the request {what}"), "use the weir of the daemon's version");
    }
    let request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => {
            return refused(Exit::Unexpected, format!("the request is not understood: {error}"), "use the weir of the daemon's version");
        }
    };
    match daemon.ask(request, DAEMON_TIME).await {
        Ok(response) => response,
        Err(error) => refused(Exit::Unexpected, error.to_string(), "look at the daemon's log, and try again"),
    }
}

fn refused(exit: Exit, message: impl Into<String>, remedy: &str) -> Response {
    Response::Refused { code: exit.code(), message: message.into(), remedy: remedy.to_owned() }
}

/// A connection to a daemon, for one question.
#[derive(Debug)]
pub struct Client {
    stream: StdStream,
    path: PathBuf,
}

impl Client {
    /// Connects to the control socket `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        match StdStream::connect(path) {
            Ok(stream) => Ok(Self { stream, path: path.to_owned() }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(path.to_owned()),
                io::ErrorKind::PermissionDenied => ClientError::Denied(path.to_owned()),
                _ => ClientError::Broken { path: path.to_owned(), source: error },
            }),
        }
    }

    /// The daemon's process, if this process can see it.
    #[must_use]
    pub fn daemon(&self) -> Option<Pid> {
        // Not by rustix: a daemon in a namespace of process IDs that this process cannot see is 0, which its type does not hold.
        let credentials = getsockopt(&self.stream, PeerCredentials).ok()?;
        Pid::from_raw(credentials.pid())
    }

    /// Asks, and waits for the answer.
    pub fn ask(mut self, request: &Request) -> Result<Response, ClientError> {
        let Self { stream, path } = &mut self;
        let broken = |source| ClientError::Broken { path: path.clone(), source };
        let unknown = |source| ClientError::Unknown { path: path.clone(), source };
        stream.set_read_timeout(Some(DAEMON_TIME + CLIENT_TIME)).map_err(broken)?;
        stream.set_write_timeout(Some(CLIENT_TIME)).map_err(broken)?;
        let mut line = serde_json::to_vec(request).map_err(unknown)?;
        line.push(b'\n');
        // A daemon that refuses this user answers without reading: the answer is what matters.
        let written = stream.write_all(&line);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        if answer.last() != Some(&b'\n') {
            written.and(read).map_err(broken)?;
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice(&answer).map_err(unknown)
    }
}

/// Asks the daemon at `path` one question.
pub fn ask(path: &Path, request: &Request) -> Result<Response, ClientError> {
    Client::connect(path)?.ask(request)
}

#[cfg(test)]
mod tests;
