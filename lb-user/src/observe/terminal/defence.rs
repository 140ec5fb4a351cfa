//! The line about a service's SYN defence: nothing in calm, unless there is something to know.

use lb_common::Action;

use super::duration;
use crate::{
    api::protocol::Order,
    observe::{
        rates::action,
        snapshot::{Defence, ReasonCount, ServiceDefence},
    },
};

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Without the words `SYN defence` in front.
    pub text: String,
    /// Whether it is about something that goes on and is no peace.
    pub is_warning: bool,
}

/// `flood for 1 min 23 s: SYNs are answered with Weir's own cookies, which keep all TCP options`
pub(crate) fn line(of_service: &ServiceDefence, defence: &Defence) -> Option<Line> {
    let ServiceDefence { order, mode, flood_seconds, .. } = of_service;
    let ordered = if *order == Order::Auto { String::new() } else { format!(" (ordered {})", order.label()) };
    let lasted = flood_seconds.map(|seconds| format!(" for {}", whole(seconds))).unwrap_or_default();
    let (text, is_warning) = match mode.as_str() {
        "flood" => (format!("flood{lasted}{ordered}: {}", answer(of_service, defence)), true),
        "lingering" => {
            let lasted = flood_seconds.map(|seconds| format!(" after {}", whole(seconds))).unwrap_or_default();
            (format!("the flood is over{lasted}{ordered}: SYNs pass to the kernel, cookies sent before are still honoured"), false)
        }
        _ if *order == Order::Auto => return None,
        _ => (format!("calm{ordered}"), false),
    };
    Some(Line { text, is_warning })
}

/// What becomes of SYNs in a flood.
fn answer(of_service: &ServiceDefence, defence: &Defence) -> &'static str {
    match defence.scheme.as_str() {
        _ if !of_service.answers_syns => "segments of no connection are refused; SYNs pass, since it is not they that come in a flood",
        _ if !defence.live => "SYNs pass to the kernel, because no daemon renews the defence's record",
        _ if of_service.is_unsafe => "SYNs pass to the kernel, because a connection that begins with a cookie would be lost on this host",
        "own" if !of_service.kernels_only => "SYNs are answered with Weir's own cookies, which keep all TCP options",
        "kernel" | "own" => "SYNs are answered with the kernel's cookies, which keep the MSS and no other TCP option",
        _ => "SYNs pass to the kernel, because it would refuse cookies",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a flood of more than 2^53 seconds is not shown to the second")]
fn whole(seconds: u64) -> String {
    duration(seconds as f64)
}

/// Whether the packets under a reason were dropped.
pub(super) fn is_refused(count: &ReasonCount) -> bool {
    action(&count.reason) == Some(Action::Drop)
}
