//! From one look at a socket to the next: what rose, and which queue it was that was full.

use std::time::Duration;

use lb_common::abi::SocketQueues;

use super::snapshot::{Overflows, Queue, Queues};

/// What is known of a watched socket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watched {
    /// What the last look saw.
    pub seen: SocketQueues,
    overflows: Overflows,
    /// In seconds.
    waited: f64,
}

/// What one look needs to know of the others.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// How long ago the last one was.
    pub since_last: Duration,
    /// Whether the kernel answers with cookies when a SYN queue is full, and drops nothing.
    pub cookies: bool,
}

impl Watched {
    /// What is known after a look, by what was known before.
    #[must_use]
    pub fn after(before: Option<&Self>, seen: SocketQueues, look: Look) -> Self {
        // The count before the first look is of no known cause, unless there is only one.
        let none = SocketQueues { drops: 0, ..seen };
        let (was, mut overflows, mut waited) =
            before.map_or((none, Overflows::default(), 0.0), |before| (before.seen, before.overflows, before.waited));
        *cause(&mut overflows, [&was, &seen], before.is_some(), look.cookies) += u64::from(seen.drops.wrapping_sub(was.drops));
        if before.is_some() {
            waited += f64::from(was.accept_length.midpoint(seen.accept_length)) * look.since_last.as_secs_f64();
        }
        Self { seen, overflows, waited }
    }

    /// As it is shown. `now` is nanoseconds of CLOCK_MONOTONIC.
    #[must_use]
    pub fn queues(&self, now: u64) -> Queues {
        let Self { seen, overflows, waited } = self;
        if !is_tcp(seen) {
            let receive_queue = Some(Queue { length: seen.received, limit: seen.receive_buffer });
            return Queues { receive_queue, overflows: Some(*overflows), ..Queues::default() };
        }
        // The head is read without a lock: it may have left since the length was read.
        let waits = seen.accept_length > 0 && (1..=now).contains(&seen.head_since);
        Queues {
            accept_queue: Some(Queue { length: seen.accept_length, limit: seen.accept_limit }),
            syn_queue: Some(Queue { length: seen.syn_length, limit: seen.accept_limit }),
            receive_queue: None,
            oldest_wait: waits.then(|| Duration::from_nanos(now - seen.head_since).as_secs_f64()),
            waited: Some(*waited),
            overflows: Some(*overflows),
        }
    }
}

/// No UDP socket is without a receive buffer.
fn is_tcp(seen: &SocketQueues) -> bool {
    seen.receive_buffer == 0
}

/// The count that a rise belongs to.
fn cause<'a>(overflows: &'a mut Overflows, looks: [&SocketQueues; 2], seen_before: bool, cookies: bool) -> &'a mut u64 {
    let [was, now] = looks;
    if !is_tcp(now) {
        return &mut overflows.receive_queue;
    }
    if cookies {
        return &mut overflows.accept_queue;
    }
    // The kernel takes one more than the limit into either queue.
    let accept_full = [was, now].iter().any(|look| look.accept_length > look.accept_limit);
    let syn_full = [was, now].iter().any(|look| look.syn_length >= look.accept_limit);
    match (seen_before, accept_full, syn_full) {
        (true, true, false) => &mut overflows.accept_queue,
        (true, false, true) => &mut overflows.syn_queue,
        _ => &mut overflows.unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Look = Look { since_last: Duration::from_secs(1), cookies: false };

    fn listener(syn: u32, accept: u32, drops: u32) -> SocketQueues {
        SocketQueues { syn_length: syn, accept_length: accept, accept_limit: 64, drops, ..SocketQueues::default() }
    }

    fn overflows(looks: &[SocketQueues], look: Look) -> Overflows {
        let last = looks.iter().fold(None, |before: Option<Watched>, seen| Some(Watched::after(before.as_ref(), *seen, look)));
        last.unwrap().queues(0).overflows.unwrap()
    }

    #[test]
    fn a_rise_is_of_the_queue_that_was_full() {
        let none = Overflows::default();
        let quiet = listener(0, 0, 0);
        assert_eq!(overflows(&[quiet, listener(3, 65, 7)], SECOND), Overflows { accept_queue: 7, ..none });
        assert_eq!(overflows(&[quiet, listener(64, 3, 7)], SECOND), Overflows { syn_queue: 7, ..none });
        assert_eq!(overflows(&[quiet, listener(64, 65, 7)], SECOND), Overflows { unknown: 7, ..none }, "either");
        assert_eq!(overflows(&[quiet, listener(63, 64, 7)], SECOND), Overflows { unknown: 7, ..none }, "neither");
        assert_eq!(overflows(&[quiet, listener(0, 65, 0), listener(0, 0, 7)], SECOND), Overflows { accept_queue: 7, ..none }, "before");
    }

    #[test]
    fn with_cookies_a_full_syn_queue_drops_nothing() {
        let look = Look { cookies: true, ..SECOND };
        let none = Overflows::default();
        assert_eq!(overflows(&[listener(0, 0, 0), listener(65, 1, 7)], look), Overflows { accept_queue: 7, ..none });
        assert_eq!(overflows(&[listener(0, 0, 5)], look), Overflows { accept_queue: 5, ..none });
        assert_eq!(overflows(&[listener(0, 0, 5)], SECOND), Overflows { unknown: 5, ..none }, "before the first look");
    }

    #[test]
    fn the_count_of_drops_wraps_and_that_of_datagrams_is_their_own() {
        let socket = |drops| SocketQueues { received: 1, receive_buffer: 2304, drops, ..SocketQueues::default() };
        let shown = overflows(&[socket(u32::MAX), socket(1)], SECOND);
        assert_eq!(shown, Overflows { receive_queue: u64::from(u32::MAX) + 2, ..Overflows::default() });
    }

    #[test]
    fn what_waits_adds_up() {
        let first = Watched::after(None, listener(0, 10, 0), SECOND);
        let second = Watched::after(Some(&first), listener(0, 20, 0), SECOND);
        assert_eq!(first.queues(0).waited, Some(0.0));
        assert_eq!(second.queues(0).waited, Some(15.0));
    }

    #[test]
    fn the_oldest_waits_since_the_head_was_established() {
        let seen = |length, head_since| SocketQueues { head_since, ..listener(0, length, 0) };
        let shown = |seen| Watched::after(None, seen, SECOND).queues(3_000_000_000).oldest_wait;
        assert_eq!(shown(seen(1, 1_000_000_000)), Some(2.0));
        assert_eq!(shown(seen(0, 1_000_000_000)), None, "it has left");
        assert_eq!((shown(seen(1, 0)), shown(seen(1, 4_000_000_000))), (None, None), "not noted yet, or another's");
    }
}
