//! Who serves a socket, and when it counts as unserved. Pure: the sightings and the time are arguments.
//!
//! A socket with holders and no poller for one second is unserved: no new connections, and shown so. Taking a socket out by mistake
//! is worse than leaving a dead one in for a while, and epoll is not the only way to serve, so the absence of a poller counts only if
//! all of this holds:
//! - the socket has a holder that is known;
//! - epoll is how this socket is served: it was seen in an epoll instance before, or one of its holders now has another socket of the
//!   same group in one (so it is with nginx, where every worker keeps the sockets of all);
//! - no holder has a thread blocked in accept, recv, poll or select, and none has an `io_uring`.
//!
//! Servers that never use epoll (blocking accept in each worker, poll, select, `io_uring`) therefore stay `Unknown` and are left alone.

use std::time::Duration;

/// How long a socket has to be without a poller until it counts as unserved.
pub const UNSERVED_AFTER: Duration = Duration::from_secs(1);

/// Who serves a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// This process does.
    Known(u32),
    /// Several processes poll the socket and share it.
    Shared {
        /// The lowest of their pids.
        lowest: u32,
        /// How many they are.
        count: usize,
    },
    /// It cannot be told, and nothing speaks against the socket being served.
    Unknown,
    /// It has holders, and none of them serves it.
    Nobody,
}

/// What was seen of one socket in one scan. All are pids, in any order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sighting<'a> {
    /// Processes that hold the socket.
    pub holders: &'a [u32],
    /// Processes that have it in an epoll instance.
    pub pollers: &'a [u32],
    /// Processes that have any socket of its group in an epoll instance.
    pub group_pollers: &'a [u32],
    /// Processes that may serve it in another way ([`Waits::may_serve`](super::helper::Waits::may_serve)).
    pub other_means: &'a [u32],
    /// The process that was last seen accepting from it, if any.
    pub last_accepting: Option<u32>,
}

/// Whether a socket is served, after [`UNSERVED_AFTER`] has had its say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// By somebody, or nothing is known against it.
    Served,
    /// Nobody polls it, but not for long enough yet. Look again at this time.
    Doubtful {
        /// When it becomes unserved if nothing changes, on the caller's clock.
        until: Duration,
    },
    /// Nobody has polled it for [`UNSERVED_AFTER`].
    Unserved {
        /// Since when it has had no poller, on the caller's clock.
        since: Duration,
    },
}

/// What is remembered of one socket between scans. Keep it by cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    polled: bool,
    nobody_since: Option<Duration>,
}

impl Watch {
    /// Takes in one scan, made at `now` on any clock that does not go back.
    pub fn observe(&mut self, sighting: &Sighting<'_>, now: Duration) -> (Server, Serving) {
        let server = server(sighting, self.polled);
        self.polled |= !sighting.pollers.is_empty();
        if server != Server::Nobody {
            self.nobody_since = None;
            return (server, Serving::Served);
        }
        let since = *self.nobody_since.get_or_insert(now);
        let until = since.saturating_add(UNSERVED_AFTER);
        (server, if now < until { Serving::Doubtful { until } } else { Serving::Unserved { since } })
    }
}

/// Judges one sighting; `polled_before` says whether the socket was ever seen in an epoll instance.
#[must_use]
pub fn server(sighting: &Sighting<'_>, polled_before: bool) -> Server {
    let Sighting { holders, pollers, group_pollers, other_means, last_accepting } = *sighting;
    match (pollers, pollers.iter().min()) {
        (&[pid], _) => return Server::Known(pid),
        (_, Some(&lowest)) => return Server::Shared { lowest, count: pollers.len() },
        (_, None) => {}
    }
    let holds = |pid: &u32| holders.contains(pid);
    let by_epoll = polled_before || group_pollers.iter().any(holds);
    if by_epoll && !holders.is_empty() && !other_means.iter().any(holds) {
        return Server::Nobody;
    }
    last_accepting.filter(holds).map_or(Server::Unknown, Server::Known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn servers_are_judged_by_what_was_seen() {
        let nginx = Sighting { holders: &[100, 101, 102], group_pollers: &[101, 102], ..Sighting::default() };
        let alone = Sighting { holders: &[100], ..Sighting::default() };
        let rows = [
            ("its worker polls it", Sighting { pollers: &[102], ..nginx }, false, Server::Known(102)),
            ("two poll it", Sighting { pollers: &[102, 101], ..nginx }, false, Server::Shared { lowest: 101, count: 2 }),
            ("its worker died, the others keep it open", nginx, false, Server::Nobody),
            ("only the master is left, and it was polled before", alone, true, Server::Nobody),
            ("a worker of its own that blocks in accept", alone, false, Server::Unknown),
            ("independent workers, one of them not on epoll", Sighting { group_pollers: &[101], ..alone }, false, Server::Unknown),
            ("a holder blocks in accept", Sighting { other_means: &[101], ..nginx }, false, Server::Unknown),
            ("a stranger blocks in accept", Sighting { other_means: &[7], ..nginx }, false, Server::Nobody),
            ("seen accepting, never on epoll", Sighting { last_accepting: Some(100), ..alone }, false, Server::Known(100)),
            ("the one seen accepting is gone", Sighting { last_accepting: Some(99), ..alone }, false, Server::Unknown),
            ("the one seen accepting polls it no more", Sighting { last_accepting: Some(101), ..nginx }, true, Server::Nobody),
            ("no holder is known", Sighting { holders: &[], ..nginx }, true, Server::Unknown),
        ];
        for (name, sighting, polled_before, expected) in rows {
            assert_eq!(server(&sighting, polled_before), expected, "{name}");
        }
    }

    #[test]
    fn a_socket_is_unserved_after_a_second_without_a_poller() {
        let served = Sighting { holders: &[1, 2], pollers: &[2], ..Sighting::default() };
        let dead = Sighting { holders: &[1], ..Sighting::default() };
        let start = Duration::from_secs(50);
        let mut watch = Watch::default();
        assert_eq!(watch.observe(&served, start), (Server::Known(2), Serving::Served));
        let until = start + MILLISECOND + UNSERVED_AFTER;
        assert_eq!(watch.observe(&dead, start + MILLISECOND), (Server::Nobody, Serving::Doubtful { until }));
        assert_eq!(watch.observe(&dead, start + UNSERVED_AFTER), (Server::Nobody, Serving::Doubtful { until }));
        assert_eq!(watch.observe(&dead, until), (Server::Nobody, Serving::Unserved { since: start + MILLISECOND }));
        assert_eq!(watch.observe(&served, until + MILLISECOND), (Server::Known(2), Serving::Served));
        let again = until + MILLISECOND * 2;
        assert_eq!(
            watch.observe(&dead, again),
            (Server::Nobody, Serving::Doubtful { until: again + UNSERVED_AFTER }),
            "the second starts anew"
        );
    }

    #[test]
    fn a_server_without_epoll_is_never_unserved() {
        let blocking = Sighting { holders: &[1], ..Sighting::default() };
        let mut watch = Watch::default();
        for second in 0..100 {
            assert_eq!(watch.observe(&blocking, Duration::from_secs(second)), (Server::Unknown, Serving::Served));
        }
    }
}
