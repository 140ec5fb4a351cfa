//! One traced packet, for people and for machines.

use std::net::SocketAddr;

use lb_common::{
    Action, FlowKey, Reason,
    abi::TraceRecord,
    packet::Window,
    wire::{self, Kind, protocol, tcp::flags},
};
use serde::Serialize;

/// What is shown of a packet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Packet {
    /// When it came: seconds since 1970.
    pub time: f64,
    /// By which interface.
    pub interface: String,
    /// The service; none if it is no service's.
    pub service: Option<String>,
    /// `lb_common::Action::label`.
    pub verdict: &'static str,
    /// `lb_common::Reason::label`.
    pub reason: &'static str,
    /// Who sent it; none if its headers name nobody. Of an answered SYN: whom the answer goes to.
    pub source: Option<SocketAddr>,
    /// Whom it was for.
    pub destination: Option<SocketAddr>,
    /// `tcp`, `udp`, or the number of another protocol.
    pub protocol: Option<String>,
    /// What it is: the flags of a segment (`SYN ACK`), `datagram`, `fragment` or `icmp error`. Of an answered SYN: of the answer.
    pub kind: Option<String>,
    /// How many bytes the frame has.
    pub length: u32,
}

/// The bytes of a record that are the frame's.
#[must_use]
pub fn frame(record: &TraceRecord) -> &[u8] {
    let captured = usize::try_from(record.captured).unwrap_or(usize::MAX).min(record.bytes.len());
    &record.bytes[..captured]
}

impl Packet {
    /// Of a record; none if the record's reason is one that this version does not know.
    #[must_use]
    pub fn new(record: &TraceRecord, time: f64, interface: String, service: Option<String>) -> Option<Self> {
        let reason = *Reason::ALL.get(usize::try_from(record.reason).ok()?)?;
        let flow = wire::flow(&Window::of(frame(record))).ok();
        let ends = flow.map(|flow| {
            let FlowKey { source, destination, source_port, destination_port, .. } = flow.key;
            (SocketAddr::new(source.to_ip(), source_port), SocketAddr::new(destination.to_ip(), destination_port))
        });
        let ends = match (ends, reason.action()) {
            (Some((from, to)), Action::Transmit) => Some((to, from)),
            (ends, _) => ends,
        };
        Some(Self {
            time,
            interface,
            service,
            verdict: reason.action().label(),
            reason: reason.label(),
            source: ends.map(|(source, _)| source),
            destination: ends.map(|(_, destination)| destination),
            protocol: flow.map(|flow| match flow.key.protocol_number() {
                protocol::TCP => "tcp".to_owned(),
                protocol::UDP => "udp".to_owned(),
                other => other.to_string(),
            }),
            kind: flow.map(|flow| kind(flow.kind)),
            length: record.length,
        })
    }

    /// One line: `12:04:05.123456Z eth0 tcp 192.0.2.1:40000 > 198.51.100.1:80 SYN 74 B  web  answer  cookie_sent`.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { time, interface, service, verdict, reason, source, destination, protocol, kind, length } = self;
        let whom = match (source, destination, protocol, kind) {
            (Some(source), Some(destination), Some(protocol), Some(kind)) => {
                let kind = if *verdict == Action::Transmit.label() { format!("SYN, answered {kind}") } else { kind.clone() };
                format!("{protocol} {source} > {destination} {kind}")
            }
            _ => "no flow".to_owned(),
        };
        let service = service.as_deref().unwrap_or("-");
        format!("{} {interface} {whom} {length} B  {service}  {verdict}  {reason}", of_day(*time))
    }
}

fn kind(kind: Kind) -> String {
    const NAMES: [(u8, &str); 8] = [
        (flags::SYN, "SYN"),
        (flags::FIN, "FIN"),
        (flags::RST, "RST"),
        (flags::PSH, "PSH"),
        (flags::ACK, "ACK"),
        (flags::URG, "URG"),
        (flags::ECE, "ECE"),
        (flags::CWR, "CWR"),
    ];
    match kind {
        Kind::Segment(0) => "no flags".to_owned(),
        Kind::Segment(bits) => NAMES.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect::<Vec<_>>().join(" "),
        Kind::Datagram => "datagram".to_owned(),
        Kind::FirstFragment => "fragment".to_owned(),
        Kind::Error => "icmp error".to_owned(),
    }
}

/// The time of day in UTC, to the microsecond.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970, in microseconds far below 2^63")]
fn of_day(time: f64) -> String {
    let microseconds = (time * 1e6) as u64 % (86_400 * 1_000_000);
    let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    format!("{:02}:{:02}:{:02}.{rest:06}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use lb_common::abi::TRACE_BYTES;

    use super::*;

    /// Ethernet, IPv4, TCP: 192.0.2.1:40000 to 198.51.100.1:80.
    fn record(bits: u8, reason: Reason) -> TraceRecord {
        let mut bytes = [0; TRACE_BYTES];
        bytes[12..14].copy_from_slice(&[8, 0]);
        bytes[14..34].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1]);
        bytes[34..38].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        (bytes[46], bytes[47]) = (0x50, bits);
        TraceRecord { time: 0, service: 1, reason: reason as u32, interface: 2, length: 54, captured: 54, padding: 0, bytes }
    }

    fn packet(record: &TraceRecord) -> Packet {
        Packet::new(record, 86_400.0 * 3.0 + 3_661.25, "eth0".to_owned(), Some("web".to_owned())).unwrap()
    }

    #[test]
    fn a_line_says_who_whom_what_and_why() {
        let line = packet(&record(flags::SYN, Reason::TcpOpened)).line();
        assert_eq!(line, "01:01:01.250000Z eth0 tcp 192.0.2.1:40000 > 198.51.100.1:80 SYN 54 B  web  pass  tcp_opened");
        let line = packet(&record(0, Reason::NullFlags)).line();
        assert!(line.ends_with("no flags 54 B  web  drop  null_flags"), "{line}");
    }

    #[test]
    fn an_answer_is_told_by_who_asked() {
        let packet = packet(&record(flags::SYN | flags::ACK, Reason::CookieSent));
        assert_eq!(packet.source, Some("198.51.100.1:80".parse().unwrap()), "the frame is the answer, and goes to whom it names");
        assert!(packet.line().contains("198.51.100.1:80 > 192.0.2.1:40000 SYN, answered SYN ACK 54 B  web  answer  cookie_sent"));
    }

    #[test]
    fn what_has_no_flow_is_shown_all_the_same() {
        let nothing = TraceRecord { captured: 3, ..record(0, Reason::NotIp) };
        let packet = Packet::new(&nothing, 0.0, "eth0".to_owned(), None).unwrap();
        assert_eq!((packet.source, packet.kind.as_deref()), (None, None));
        assert_eq!(packet.line(), "00:00:00.000000Z eth0 no flow 54 B  -  pass  not_ip");
        let beyond = TraceRecord { captured: u32::MAX, ..nothing };
        assert_eq!(frame(&beyond).len(), TRACE_BYTES);
        assert_eq!(Packet::new(&TraceRecord { reason: 63, ..beyond }, 0.0, String::new(), None), None);
    }
}
