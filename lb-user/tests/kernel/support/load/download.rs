//! A large download that goes on while other things happen, and what it gets of the line and the processors meanwhile.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::cpu::{self, Processors};
use crate::support::netns::Entrance;
use crate::support::servers::source_role;
use crate::support::tcp::TcpInfo;
use crate::support::wait::eventually;

/// A download under way: one connection, from a server process of its own.
#[derive(Debug)]
pub struct Download {
    server: Child,
    stream: TcpStream,
    reader: Option<JoinHandle<Result<(), String>>>,
    thread: i32,
    received: Arc<AtomicU64>,
    wanted: u64,
    begin: Moment,
}

/// What a download has got in some time, and what the processors did in it.
#[derive(Clone, Debug)]
pub struct Progress {
    pub bytes: u64,
    pub elapsed: Duration,
    /// The processor time of the server process.
    pub server: Duration,
    /// The processor time of the client's thread; 0 if it has ended.
    pub client: Duration,
    pub processors: Processors,
}

#[derive(Clone, Debug)]
struct Moment {
    at: Instant,
    bytes: u64,
    server: Duration,
    client: Duration,
    processors: Processors,
}

impl Download {
    /// Starts a server of `bytes` bytes at `address` (a group of one socket, which Weir takes for a service) and connects to it.
    pub fn start(client: &Entrance, server: &Entrance, address: SocketAddr, bytes: u64) -> Self {
        let binary = std::env::current_exe().expect("the path of this binary");
        let plan = source_role::SourcePlan { address, bytes };
        let mut server = server
            .command(binary)
            .args(["--role", source_role::NAME, &serde_json::to_string(&plan).expect("a plan is plain data")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the server of a download");
        let mut said = String::new();
        let heard = BufReader::new(server.stdout.take().expect("piped")).read_line(&mut said);
        assert!(heard.is_ok() && said == source_role::READY, "the server of a download said {said:?}");

        let stream = client.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(5))).expect("connect for a download");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set a timeout");
        let received = Arc::new(AtomicU64::new(0));
        let (say, hear) = std::sync::mpsc::channel();
        let reader = {
            let (received, stream) = (Arc::clone(&received), stream.try_clone().expect("one more descriptor"));
            std::thread::spawn(move || {
                say.send(nix::unistd::gettid().as_raw()).expect("somebody waits for it");
                read_to_end(stream, bytes, &received)
            })
        };
        let thread = hear.recv().expect("the thread says who it is");
        let begin = Moment::now(server.id(), thread, 0);
        Self { server, stream, reader: Some(reader), thread, received, wanted: bytes, begin }
    }

    /// Bytes that have come so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The client's end of the connection.
    pub fn tcp_info(&self) -> TcpInfo {
        TcpInfo::of_socket(&self.stream)
    }

    /// The client's address and the server's.
    pub fn flow(&self) -> [SocketAddr; 2] {
        [self.stream.local_addr(), self.stream.peer_addr()].map(|address| address.expect("a connected socket has both"))
    }

    /// What came in the next so much time.
    pub fn measure(&self, period: Duration) -> Progress {
        let before = self.now();
        std::thread::sleep(period);
        self.now().since(&before)
    }

    /// Waits for the rest and returns what the whole took; panics when it breaks off, or takes longer than `patience` from now.
    pub fn finish(mut self, patience: Duration) -> Progress {
        let reader = self.reader.take().expect("it runs until it is finished");
        eventually(patience, || {
            let left = self.wanted - self.received();
            if left == 0 || reader.is_finished() { Ok(()) } else { Err(format!("{left} bytes of {} are still to come", self.wanted)) }
        });
        let progress = self.now().since(&self.begin);
        let ended = reader.join().expect("the reader does not panic");
        assert_eq!(ended, Ok(()), "the download of {} bytes, after {} of them", self.wanted, progress.bytes);
        progress
    }

    fn now(&self) -> Moment {
        Moment::now(self.server.id(), self.thread, self.received())
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Moment {
    fn now(server: u32, client: i32, bytes: u64) -> Self {
        let (server, client) = (cpu::of_process(server), cpu::of_thread(client).unwrap_or_default());
        Self { at: Instant::now(), bytes, server, client, processors: Processors::read() }
    }

    fn since(&self, before: &Self) -> Progress {
        Progress {
            bytes: self.bytes - before.bytes,
            elapsed: self.at.duration_since(before.at),
            server: self.server.saturating_sub(before.server),
            client: self.client.saturating_sub(before.client),
            processors: self.processors.since(&before.processors),
        }
    }
}

impl Progress {
    /// Bytes a second.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }

    /// Bytes for each second of a processor that the two ends had or could have had: what others took, a flood's packets among them, is
    /// not counted, and time that the connection only waited is.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    pub fn rate_of_what_is_left(&self) -> f64 {
        let idle: Duration = self.processors.0.iter().map(|processor| processor.idle).sum();
        self.bytes as f64 / (self.server + self.client + idle).as_secs_f64()
    }

    /// The share of one processor that the server process had, 0 to 1.
    pub fn server_share(&self) -> f64 {
        self.server.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [rate, left] = [self.rate(), self.rate_of_what_is_left()].map(|rate| rate / 1e6);
        write!(
            formatter,
            "{rate:.0} MB/s, {left:.0} MB for each second of a processor, the server on {:.0} % of one, ",
            100.0 * self.server_share()
        )?;
        let busy: Vec<_> = self.processors.0.iter().map(|processor| format!("{:.0}", 100.0 * processor.busy())).collect();
        write!(formatter, "processors busy {} %", busy.join(", "))
    }
}

/// Reads `wanted` bytes and the end after them.
fn read_to_end(mut stream: TcpStream, wanted: u64, received: &AtomicU64) -> Result<(), String> {
    let mut buffer = vec![0; 256 * 1024];
    let mut so_far = 0;
    while so_far < wanted {
        match stream.read(&mut buffer) {
            Ok(0) => return Err("end of file".to_owned()),
            Ok(more) => so_far += more as u64,
            Err(error) => return Err(super::cause(&error)),
        }
        received.store(so_far, Ordering::Relaxed);
    }
    Ok(())
}
