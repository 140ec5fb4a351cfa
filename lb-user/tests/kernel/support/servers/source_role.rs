//! The server of a large download: a process that sends so many bytes to the first client and then waits to be ended, its times to be read.

use std::io::{Read as _, Write as _, stdin, stdout};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// The role's name on the command line.
pub const NAME: &str = "source";
/// What it says once it listens.
pub const READY: &str = "listening\n";

/// Where it listens, and how much it sends.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SourcePlan {
    pub address: SocketAddr,
    pub bytes: u64,
}

/// Plays the role: `plan` is a [`SourcePlan`] as JSON.
pub fn play(plan: &str) -> ExitCode {
    let plan: SourcePlan = serde_json::from_str(plan).expect("the plan the test wrote");
    match serve(&plan) {
        Ok(()) => {
            // Until the test lets go of the other end.
            let _ = stdin().read(&mut [0]);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("source: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(plan: &SourcePlan) -> std::io::Result<()> {
    let listening = Socket::new(Domain::for_address(plan.address), Type::STREAM, Some(Protocol::TCP))?;
    listening.set_reuse_address(true)?;
    listening.set_reuse_port(true)?;
    listening.bind(&plan.address.into())?;
    listening.listen(16)?;
    print!("{READY}");
    stdout().flush()?;
    let mut client = TcpStream::from(listening.accept()?.0);
    let chunk = vec![0x5a; 256 * 1024];
    let mut left = plan.bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        client.write_all(&chunk[..part])?;
        left -= part as u64;
    }
    client.shutdown(std::net::Shutdown::Write)
}
