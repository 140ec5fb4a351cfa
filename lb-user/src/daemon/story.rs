//! What goes on at a service whose defence is not calm: from its first to its last moment, and the lines in the log about it.

use std::{collections::BTreeMap, time::Duration};

use lb_common::{
    Reason,
    abi::{DefencePolicy, LiveState, Scheme, Stance, policy_flags},
    flood::Mode,
};

use super::host::{Cookies, HostFacts};
use crate::{dataplane::ServiceTotals, plan::Service};

/// What goes on at a service.
#[derive(Debug, Clone)]
pub(super) struct Story {
    /// What its defence does.
    pub mode: Mode,
    /// Since when: nanoseconds of CLOCK_MONOTONIC.
    pub since: u64,
    began: u64,
    before: Figures,
    last: (u64, Figures),
}

/// Packets of a flood so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Figures {
    syns: u64,
    sent: u64,
    accepted: u64,
    refused: u64,
}

impl Figures {
    fn of(totals: &ServiceTotals) -> Self {
        let packets = |reason: Reason| totals.by_reason[reason.index()].packets;
        let refused = Reason::ALL.into_iter().filter(|reason| reason.action() == lb_common::Action::Drop).map(packets).sum();
        Self { syns: totals.syns(), sent: packets(Reason::CookieSent), accepted: packets(Reason::CookieAccepted), refused }
    }

    fn since(self, before: Self) -> Self {
        Self {
            syns: self.syns.saturating_sub(before.syns),
            sent: self.sent.saturating_sub(before.sent),
            accepted: self.accepted.saturating_sub(before.accepted),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

/// A look at a service's defence.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// When: nanoseconds of CLOCK_MONOTONIC.
    pub now: u64,
    /// What the programs were told.
    pub policy: DefencePolicy,
    /// What they do.
    pub mode: Mode,
    /// Whether it is SYNs that come in a flood.
    pub answers_syns: bool,
    /// Which cookies may be sent.
    pub cookies: Cookies,
    /// The service's counters.
    pub totals: ServiceTotals,
}

impl Story {
    /// Takes a look at a service's defence into its story, and logs where it has turned.
    pub fn go_on(stories: &mut BTreeMap<u32, Self>, service: &Service, look: &Look, live: &LiveState, host: &HostFacts) {
        let (now, figures) = (look.now, Figures::of(&look.totals));
        let begin = || Self { mode: Mode::Calm, since: now, began: now, before: figures, last: (now, figures) };
        let story = stories.entry(service.index).or_insert_with(begin);
        let last = std::mem::replace(&mut story.last, (now, figures));
        let was = std::mem::replace(&mut story.mode, look.mode);
        if was == look.mode {
            return;
        }
        story.since = now;
        let name = &service.name;
        match (was, look.mode) {
            (Mode::Calm, Mode::Flood) => {
                (story.began, story.before) = (now, last.1);
                let rate = rate(figures.since(last.1).syns, now.saturating_sub(last.0));
                tracing::warn!("service {name}: flood, {}: {rate}; {}", cause(&look.policy, now), answer(look, live, host));
            }
            (Mode::Lingering, Mode::Flood) => tracing::warn!("service {name}: flood again; {}", answer(look, live, host)),
            (_, Mode::Lingering) => {
                tracing::warn!("service {name}: the flood is over; {}; SYNs pass to the kernel again", told(story, figures, now));
            }
            (_, Mode::Calm) => tracing::info!("service {name}: calm; {}", told(story, figures, now)),
            (Mode::Flood, Mode::Flood) => {}
        }
    }
}

/// Who or what began the flood.
fn cause(policy: &DefencePolicy, now: u64) -> String {
    if policy.stance == Stance::Always as u32 {
        "as ordered or configured".to_owned()
    } else if now < policy.full_until {
        "its SYN queue is full".to_owned()
    } else {
        let per_second = |window: u32| u64::from(window) * u64::from(lb_common::flood::WINDOWS_PER_SECOND);
        let (syns, strays) = (per_second(policy.thresholds.syns), per_second(policy.thresholds.strays));
        format!("more than {syns} SYNs or {strays} segments of no connection a second")
    }
}

fn rate(syns: u64, nanoseconds: u64) -> String {
    let per_second = u128::from(syns) * 1_000_000_000 / u128::from(nanoseconds.max(1));
    format!("{per_second} SYNs a second lately")
}

/// What is done about it.
fn answer(look: &Look, live: &LiveState, host: &HostFacts) -> String {
    let Look { policy, cookies, .. } = *look;
    if !look.answers_syns {
        return "segments of no connection are refused, and SYNs pass to the kernel, since it is not they that come in a flood".to_owned();
    }
    if let Cookies::None(why) = cookies {
        return format!("SYNs pass to the kernel: {why}");
    }
    if policy.flags & policy_flags::HAS_LISTENER == 0 {
        return "SYNs pass to the kernel: nobody listens".to_owned();
    }
    let scheme = if cookies == Cookies::Kernels { Scheme::Kernel } else { host.scheme };
    let answer = match scheme {
        Scheme::None => "SYNs pass to the kernel: it would refuse cookies",
        Scheme::Own => "SYNs are answered in XDP with cookies that keep all options",
        Scheme::Kernel if live.syncookies_before == 0 && host.syncookies == 1 => {
            "SYNs are answered in XDP with the kernel's cookies while its SYN queue is full"
        }
        Scheme::Kernel => "SYNs are answered in XDP with the kernel's cookies",
    };
    answer.to_owned()
}

fn told(story: &Story, figures: Figures, now: u64) -> String {
    let Figures { syns, sent, accepted, refused } = figures.since(story.before);
    let lasted = Duration::from_nanos(now.saturating_sub(story.began)).as_secs();
    format!("in {lasted} s {syns} SYNs, {sent} cookies sent, {accepted} came back right, {refused} packets refused")
}
