//! `weir trace`: packets with their verdicts, as they come.

mod packet;
mod pcap;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_common::{
    Address, Reason,
    abi::{ABI_VERSION, TraceFilter, TraceRecord},
};
use nix::fcntl::{Flock, FlockArg};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::interval,
};

use self::{packet::Packet, pcap::Capture};
use super::{offline, print, print_json, snapshot};
use crate::{
    cli::{GlobalArgs, TraceArgs, TracedReason},
    config::Prefix,
    daemon,
    dataplane::{Trace, monotonic_time},
    exit::{Exit, Failure, OrFail as _, fail},
    observe::snapshot::Interface,
    plan::Plan,
};

/// How often the programs are told that somebody still reads.
const RENEW: Duration = Duration::from_secs(1);

/// Shows packets until so many have been shown, or a signal ends it. It needs no daemon: the programs write, and this reads.
pub fn run(global: &GlobalArgs, arguments: &TraceArgs) -> Result<Exit, Failure> {
    let (pins, _, plan) = offline::open(global)?;
    let interfaces = snapshot(global)?.map(|snapshot| snapshot.dataplane.interfaces).unwrap_or_default();
    let _only_one = lock(global)?;
    let filter = filter(arguments, &plan)?;
    let capture = arguments.pcap.as_ref().map(|path| {
        let file = File::create(path).or_fail(Exit::Usage, "name a file that can be written with --pcap")?;
        Capture::new(BufWriter::new(file)).or_fail(Exit::Unexpected, "name a file that can be written with --pcap")
    });
    let capture = capture.transpose()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build().or_fail(Exit::Unexpected, "see the cause")?;
    runtime.block_on(async {
        let trace = Trace::open(&pins, ABI_VERSION).map_err(daemon::failure)?;
        Show { global, capture, names: Names::new(&plan, interfaces), shown: 0 }.all(trace, filter, arguments.count).await
    })
}

/// Where the packets go.
struct Show<'a> {
    global: &'a GlobalArgs,
    capture: Option<Capture<BufWriter<File>>>,
    names: Names,
    shown: u64,
}

impl Show<'_> {
    async fn all(mut self, mut trace: Trace, filter: TraceFilter, count: Option<u64>) -> Result<Exit, Failure> {
        let ends = |kind| signal(kind).or_fail(Exit::Unexpected, "see the cause");
        let (mut interrupt, mut terminate) = (ends(SignalKind::interrupt())?, ends(SignalKind::terminate())?);
        let mut renew = interval(RENEW);
        while count.is_none_or(|count| self.shown < count) {
            tokio::select! {
                _ = renew.tick() => trace.want(filter).map_err(daemon::failure)?,
                record = trace.next() => self.one(&record.or_fail(Exit::Unexpected, "see the cause")?)?,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        let (above_rate, no_room) = trace.missed().map_err(daemon::failure)?;
        drop(trace);
        let Self { shown, .. } = self;
        if above_rate + no_room > 0 {
            tracing::warn!("{shown} packets shown; {above_rate} more were above --rate, and {no_room} came faster than they were read");
        } else {
            tracing::info!("{shown} packets shown, none left out");
        }
        Ok(Exit::Success)
    }

    fn one(&mut self, record: &TraceRecord) -> Result<(), Failure> {
        let (interface, service) = (self.names.interface(record.interface), self.names.services.get(&record.service).cloned());
        let Some(packet) = Packet::new(record, wall_clock(record.time), interface, service) else { return Ok(()) };
        self.shown += 1;
        if let Some(capture) = &mut self.capture {
            capture.write(&packet, packet::frame(record)).or_fail(Exit::Unexpected, "look at the file that --pcap names")?;
        }
        if self.global.json { print_json(&packet) } else { print(&(packet.line() + "\n")) }.map(drop)
    }
}

/// What the records' numbers stand for.
struct Names {
    services: HashMap<u32, String>,
    interfaces: HashMap<u32, String>,
}

impl Names {
    /// The daemon knows the interfaces of its network namespace, which may be another than this command's.
    fn new(plan: &Plan, interfaces: Vec<Interface>) -> Self {
        let services = plan.services.iter().map(|service| (service.index, service.name.clone())).collect();
        Self { services, interfaces: interfaces.into_iter().map(|interface| (interface.index, interface.name)).collect() }
    }

    fn interface(&mut self, index: u32) -> String {
        let name = || nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok());
        self.interfaces.entry(index).or_insert_with(|| name().unwrap_or_else(|| format!("if{index}"))).clone()
    }
}

/// What is to be seen, for the programs.
fn filter(arguments: &TraceArgs, plan: &Plan) -> Result<TraceFilter, Failure> {
    let TraceArgs { service, source, reasons, rate, .. } = arguments;
    let service = match service {
        None => TraceFilter::ANY,
        Some(name) => plan.services.iter().find(|service| service.name == *name).map(|service| service.index).ok_or_else(|| {
            let names: Vec<&str> = plan.services.iter().map(|service| service.name.as_str()).take(20).collect();
            fail(Exit::NotFound, format!("there is no service `{name}`"), format!("the services are {}", names.join(", ")))
        })?,
    };
    let (address, mask) = source.as_ref().map_or((Address::UNSPECIFIED, Address::UNSPECIFIED), network);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(TraceFilter {
        until: 0,
        reasons: bits(reasons),
        address,
        mask,
        service,
        rate: rate.div_ceil(u32::try_from(cpus).unwrap_or(u32::MAX)),
    })
}

/// A bit for each reason; all if none is named.
fn bits(reasons: &[TracedReason]) -> u64 {
    let is_wanted = |reason: Reason| {
        reasons.iter().any(|wanted| match wanted {
            TracedReason::One(one) => *one == reason,
            TracedReason::All(action) => *action == reason.action(),
        })
    };
    let all = Reason::ALL.into_iter().filter(|reason| reasons.is_empty() || is_wanted(*reason));
    all.fold(0, |bits, reason| bits | 1 << reason.index())
}

/// The address of a network and the mask of its bits.
fn network(prefix: &Prefix) -> (Address, Address) {
    /// The bits before an IPv4 address.
    const MAPPED: u32 = 96;
    let length = u32::from(prefix.length) + if prefix.address.is_ipv4() { MAPPED } else { 0 };
    let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    (Address::from(prefix.address), Address::from_bytes(mask.to_be_bytes()))
}

/// Seconds since 1970 of a time of CLOCK_MONOTONIC.
#[expect(clippy::cast_precision_loss, reason = "to the microsecond")]
fn wall_clock(time: u64) -> f64 {
    let ago = Duration::from_nanos(monotonic_time().saturating_sub(time));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(ago).as_micros() as f64 / 1e6
}

/// The programs have one filter, and so there is one trace at a time.
fn lock(global: &GlobalArgs) -> Result<Flock<File>, Failure> {
    let path = global.run_dir.join(format!("{}.trace", global.instance));
    let file = File::create(&path).or_fail(Exit::Permission, "run the command as root")?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        let what = format!("another `weir trace` of instance `{}` is running: {}", global.instance, io::Error::from(errno));
        fail(Exit::AlreadyRunning, what, "end that one first; the programs have one filter")
    })
}

#[cfg(test)]
mod tests {
    use lb_common::Action;

    use super::*;

    #[test]
    fn reasons_are_named_alone_or_by_what_they_do() {
        let all = bits(&[]);
        assert_eq!(all.count_ones() as usize, Reason::ALL.len());
        assert_eq!(bits(&[TracedReason::One(Reason::Land)]), 1 << Reason::Land.index());
        let by_action = [Action::Pass, Action::Drop, Action::Transmit].map(|action| bits(&[TracedReason::All(action)]));
        assert_eq!(by_action.into_iter().fold(0, |sum, bits| sum ^ bits), all, "each reason does one thing");
        assert_eq!(by_action[2], 1 << Reason::CookieSent.index());
    }

    #[test]
    fn a_network_is_an_address_and_a_mask() {
        let of = |text: &str| network(&text.parse().unwrap());
        let (address, mask) = of("192.0.2.0/24");
        assert_eq!(address.to_string(), "192.0.2.0");
        assert_eq!(mask.bytes(), [[0xff; 15].as_slice(), &[0]].concat()[..]);
        assert_eq!(of("2001:db8::/32").1.bytes()[..5], [0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(of("::/0").1, Address::UNSPECIFIED);
    }
}
