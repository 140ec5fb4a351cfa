//! The last segment of a handshake that began with a cookie: with data in it, lost, twice, in one batch with what follows, after a change
//! of keys.

use std::time::Duration;

use libtest_mimic::Trial;

use super::books::Books;
use super::scenarios::{Scenario, Server, Stage};
use crate::netns::live::maps;
use crate::support::flood::pin;
use crate::support::netns::{Namespace, Pair};
use crate::support::packet::{ACK, PSH, Packet, RST, SYN, SYN_OPTIONS, Segment};
use crate::support::raw::RawClient;
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::handshake::a_client_s_first_words_arrive_however_they_come", || {
            first_words_arrive(false);
            first_words_arrive(true);
        }),
        trial("defence::handshake::a_first_flight_in_one_batch_loses_nothing", || {
            for (v6, processors) in [(false, "0"), (false, "3"), (true, "0"), (true, "3")] {
                a_first_flight_in_one_batch_loses_nothing(v6, processors);
            }
        }),
        trial("defence::handshake::a_change_of_keys_loses_no_client_and_two_end_a_cookie", a_change_of_keys_loses_no_client),
    ]
}

/// Cookies for everybody, without a flood.
const ALWAYS: &str = "syn_defence = \"always\"";
const QUIET: Duration = Duration::from_millis(120);
/// How long an answer may take of a server that has to wait for its processor.
const PATIENCE: Duration = Duration::from_secs(5);
const FROM: u16 = 40_000;

fn stage(v6: bool, configuration: &'static str) -> Stage {
    Stage::set(&Scenario { server: Server::Workers, v6, configuration, options: &[] })
}

/// Opens as far as Weir's answer.
fn open(client: &RawClient, stage: &Stage, from: u16) -> Segment {
    let reply = client.open(from, stage.target.port(), u32::from(from).wrapping_mul(1_000_003), &SYN_OPTIONS);
    assert_eq!((reply.flags, reply.intact), (SYN | ACK, true), "{reply:?}");
    reply
}

/// A segment with so many bytes of what the client says from byte `at` on, the text being the same in each connection.
fn words(acknowledge: &Packet, reply: &Segment, at: u32, text: &[u8]) -> Packet {
    acknowledge.clone().flags(ACK | PSH).sequence(reply.acknowledgement.wrapping_add(at)).payload(text)
}

/// Panics unless the worker's line comes, and then what the client said, once.
#[track_caller]
fn assert_heard(client: &RawClient, reply: &Segment, said: &[u8]) {
    let echo = |heard: &[u8]| heard.iter().position(|byte| *byte == b'\n').map_or(0, |line| heard.len() - line - 1);
    let heard = client.hear_until(reply.sequence.wrapping_add(1), PATIENCE, |heard| echo(heard) >= said.len());
    assert!(echo(&heard) >= said.len(), "of {} bytes {} came back, of {} in all", said.len(), echo(&heard), heard.len());
    assert!(heard.ends_with(said), "something else came back");
}

/// What a client sends after the SYN-ACK, of its last ACK and that SYN-ACK.
type Sent = fn(&Packet, &Segment) -> Vec<Packet>;

fn first_words_arrive(v6: bool) {
    let stage = stage(v6, ALWAYS);
    let client = RawClient::new(&stage.pair, v6, 0);
    // How the words `onetwo` come, and how many segments of them are dropped.
    let ways: [(&str, Sent, u64); 5] = [
        ("the ACK, then data", |ack, reply| vec![ack.clone(), words(ack, reply, 0, b"one"), words(ack, reply, 3, b"two")], 0),
        ("data in the ACK, or the first data after an ACK that was lost", |ack, reply| vec![words(ack, reply, 0, b"onetwo")], 0),
        ("the ACK twice", |ack, reply| vec![ack.clone(), ack.clone(), words(ack, reply, 0, b"onetwo"), ack.clone()], 0),
        (
            "the same data twice",
            |ack, reply| vec![words(ack, reply, 0, b"one"), words(ack, reply, 0, b"one"), words(ack, reply, 3, b"two")],
            0,
        ),
        // A cookie holds the first sequence number, which only the first segment tells: the client has to send the other again.
        (
            "the second data before the first",
            |ack, reply| vec![words(ack, reply, 3, b"two"), words(ack, reply, 0, b"one"), words(ack, reply, 3, b"two")],
            1,
        ),
    ];
    for ((way, sent, dropped), from) in ways.into_iter().zip(FROM..) {
        let books = Books::read(&stage.weir, &stage.pair.server);
        let reply = open(&client, &stage, from);
        client.send(&sent(&client.reply_to(&reply), &reply));
        assert_heard(&client, &reply, b"onetwo");
        let books = books.until_now(&stage.weir, &stage.pair.server);
        println!("{way}: {:?}", books.moved());
        assert_eq!((books.reason("cookie_sent"), books.reason("cookie_accepted"), books.restored("restored")), (1, 1, 1), "{way}");
        assert_eq!(books.reason("cookie_refused") + books.reason("cookie_expired"), dropped, "{way}: {:?}", books.moved());
        let kernel = |name| books.kernel.get("Tcp", name);
        // The server sends again what this client was late to acknowledge; that tells nothing.
        assert_eq!((kernel("PassiveOpens"), kernel("OutRsts")), (1, 0), "{way}: {:?}", books.kernel.moved());
    }
}

/// Lets the stack work on the device's packets on other processors than those that they came in by (a mask; 0 is none).
fn steer(server: &Namespace, processors: &str) {
    let file = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", Pair::SERVER_DEVICE);
    // This tool mounts the namespace's own /sys.
    crate::support::netns::tool("ip", &["netns", "exec", server.name(), "sh", "-c", &format!("echo {processors} > {file}")]);
}

/// XDP sees all segments of a batch before the stack has made a connection of the first.
fn a_first_flight_in_one_batch_loses_nothing(v6: bool, processors: &str) {
    let what = format!("IPv6 {v6}, steered to {processors}");
    let on_one_processor = || {
        let stage = stage(v6, ALWAYS);
        steer(&stage.pair.server, processors);
        let client = RawClient::new(&stage.pair, v6, 1);
        // As all packets of a flow come in by one queue of a card: a veth takes each in where its sender runs. Not so the daemon and the
        // workers, which have started.
        pin(0);
        first_flights(&stage, &client, &what);
    };
    std::thread::scope(|scope| scope.spawn(on_one_processor).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// So many first flights, none of whose segments may be lost: nobody sends any of them again.
fn first_flights(stage: &Stage, client: &RawClient, what: &str) {
    const FLIGHTS: u16 = 60;
    let text: Vec<u8> = (0..1500_u32).map(|at| u8::try_from(at % 251).expect("below 251")).collect();
    let books = Books::read(&stage.weir, &stage.pair.server);
    for number in 0..FLIGHTS {
        let reply = open(client, stage, FROM + number);
        let acknowledge = client.reply_to(&reply);
        if number % 2 == 0 {
            client.send_as_segments(&words(&acknowledge, &reply, 0, &text), 500);
        } else {
            let parts = text.chunks(500).zip([0, 500, 1000]).map(|(part, at)| words(&acknowledge, &reply, at, part));
            let all: Vec<_> = [acknowledge.clone()].into_iter().chain(parts).collect();
            client.send(&all);
        }
        // Every segment of the client's has come once, since nobody sends any again.
        assert_heard(client, &reply, &text);
    }
    let books = books.until_now(&stage.weir, &stage.pair.server);
    println!("{what}: {:?}", books.moved());
    let count = u64::from(FLIGHTS);
    assert_eq!((books.reason("cookie_accepted"), books.restored("restored")), (count, count), "{books:?}");
    // What neighbours and routers say to each other is nobody's flow.
    let of_flows: Vec<_> = books.moved().into_keys().filter(|reason| !["not_transport", "not_ip"].contains(reason)).collect();
    assert_eq!(of_flows, ["cookie_accepted", "cookie_sent", "tcp_established"]);
    let kernel = |name| books.kernel.get("Tcp", name);
    // What the server sends again tells nothing: this client acknowledges when it gets to it, and an ACK that Weir drops has a reason.
    assert_eq!((kernel("OutRsts"), kernel("InErrs")), (0, 0), "{:?}", books.kernel.moved());
}

fn a_change_of_keys_loses_no_client() {
    const LIFETIME: Duration = Duration::from_secs(10);
    let stage = stage(false, "syn_defence = \"always\"\nkey_lifetime = \"10s\"");
    let client = RawClient::new(&stage.pair, false, 0);
    let key = || maps(&stage.weir).defence.live().expect("the record").key_made_at;
    let change = || {
        let before = key();
        eventually(LIFETIME + Duration::from_secs(3), || if key() == before { Err("the same key".to_owned()) } else { Ok(()) });
    };
    let [timely, late] = [FROM, FROM + 1].map(|from| open(&client, &stage, from));
    change();
    let between = open(&client, &stage, FROM + 2);
    client.send(&[words(&client.reply_to(&timely), &timely, 0, b"one")]);
    assert_heard(&client, &timely, b"one");
    change();
    client.send(&[words(&client.reply_to(&between), &between, 0, b"two")]);
    assert_heard(&client, &between, b"two");

    let books = Books::read(&stage.weir, &stage.pair.server);
    client.send(&[words(&client.reply_to(&late), &late, 0, b"one")]);
    assert_eq!(client.hear(late.sequence.wrapping_add(1), QUIET), b"");
    let books = books.until_now(&stage.weir, &stage.pair.server);
    assert_eq!(books.reason("cookie_refused") + books.reason("cookie_expired"), 1, "{:?}", books.moved());
    assert_eq!((books.resets(), RST & late.flags), (0, 0), "nobody is told");
}
