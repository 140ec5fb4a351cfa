//! A small HTTP/1.1 client that checks what it gets: one GET, the whole body.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A response, complete by its Content-Length (or, without one, by the end of the stream).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// Why there is no whole response.
#[derive(Debug)]
pub enum Broken {
    /// The request could not be sent.
    Send(io::Error),
    /// The stream failed, or ended (`UnexpectedEof`), after so many bytes of the response.
    Receive { received: usize, error: io::Error },
    /// The bytes are no HTTP response.
    Malformed(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => write!(formatter, "send: {error}"),
            Self::Receive { received, error } => write!(formatter, "receive, after {received} bytes: {error}"),
            Self::Malformed(text) => write!(formatter, "no HTTP response: {text}"),
        }
    }
}

/// Sends a GET and reads the response; `last` asks the server to close the connection after it.
pub fn get(stream: &mut (impl Read + Write), path: &str, last: bool) -> Result<Response, Broken> {
    let connection = if last { "close" } else { "keep-alive" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(Broken::Send)?;
    receive(stream)
}

/// GET over a connection of its own, from the namespace of the calling thread.
pub fn get_once(address: SocketAddr, path: &str, timeout: Duration) -> Result<Response, String> {
    let open = || {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        Ok(stream)
    };
    let mut stream = open().map_err(|error: io::Error| format!("connect to {address}: {error}"))?;
    get(&mut stream, path, true).map_err(|broken| broken.to_string())
}

fn receive(stream: &mut impl Read) -> Result<Response, Broken> {
    let mut bytes = Vec::with_capacity(4096);
    let mut chunk = [0_u8; 16_384];
    let mut head: Option<(usize, Response, Option<usize>)> = None;
    loop {
        if head.is_none()
            && let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let response = parse_head(&bytes[..end])?;
            let length = response.header("content-length").map(str::parse).transpose();
            let length = length.map_err(|error| Broken::Malformed(format!("Content-Length: {error}")))?;
            head = Some((end + 4, response, length));
        }
        if let Some((start, response, Some(length))) = &mut head
            && bytes.len() - *start >= *length
        {
            response.body = bytes[*start..*start + *length].to_vec();
            return Ok(response.clone());
        }
        match stream.read(&mut chunk) {
            Ok(0) => {
                return match head {
                    Some((start, response, None)) => {
                        let chunked = response.header("transfer-encoding") == Some("chunked");
                        let body = if chunked { joined(&bytes[start..])? } else { bytes[start..].to_vec() };
                        Ok(Response { body, ..response })
                    }
                    _ => Err(Broken::Receive { received: bytes.len(), error: io::ErrorKind::UnexpectedEof.into() }),
                };
            }
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Broken::Receive { received: bytes.len(), error }),
        }
    }
}

/// The body that was sent in chunks, each behind its length in hexadecimal digits.
fn joined(mut chunks: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::with_capacity(chunks.len());
    loop {
        let broken = || Broken::Malformed("a body in chunks that breaks off".to_owned());
        let end = chunks.windows(2).position(|window| window == b"\r\n").ok_or_else(broken)?;
        let digits = std::str::from_utf8(&chunks[..end]).unwrap_or_default();
        let length = usize::from_str_radix(digits.split(';').next().unwrap_or_default(), 16);
        let length = length.map_err(|error| Broken::Malformed(format!("a chunk's length: {error}")))?;
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(chunks.get(end + 2..end + 2 + length).ok_or_else(broken)?);
        chunks = chunks.get(end + 4 + length..).ok_or_else(broken)?;
    }
}

fn parse_head(head: &[u8]) -> Result<Response, Broken> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (true, Some(status)) = (first.starts_with("HTTP/1."), status) else { return Err(Broken::Malformed(first.to_owned())) };
    let headers = lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Ok(Response { status, headers: headers.collect(), body: Vec::new() })
}
