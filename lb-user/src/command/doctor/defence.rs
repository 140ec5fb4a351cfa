//! How the SYN defence would answer here, and what that costs a client.

use super::{Check, State};
use crate::dataplane::probe::{Feature, Support};

const NAME: &str = "syn cookies";

/// The scheme that `scheme = "auto"` would take, by what was tried of the kernel and by net.ipv4.tcp_syncookies.
pub(super) fn scheme(tried: &[(Feature, Support)], syncookies: Option<&str>) -> Check {
    let works = |wanted: Feature| tried.iter().any(|(feature, support)| *feature == wanted && *support == Support::Yes);
    if syncookies == Some("0") {
        let effect = "The kernel refuses every cookie, so that XDP answers no SYN and a flood reaches the kernel.";
        return Check::ok(NAME, "none", effect).with_remedy(State::Limited, "sysctl -w net.ipv4.tcp_syncookies=1");
    }
    if works(Feature::AssignRequest) {
        return Check::ok(NAME, "own", "A client that connects in a flood keeps all its TCP options: it costs it nothing.");
    }
    if works(Feature::GenSyncookie) && works(Feature::RawCheckSyncookie) {
        let effect = "A client that connects in a flood keeps its MSS and loses window scale, SACK, timestamps and ECN.";
        return Check::ok(NAME, "the kernel's", effect).with_remedy(State::Limited, "use Linux 6.9 or later");
    }
    let effect = "XDP answers no SYN, and a flood reaches the kernel; the other floods are held back all the same.";
    Check::ok(NAME, "none", effect).with_remedy(State::Limited, "use Linux 6.1 or later; see the lines above for what this kernel lacks")
}

/// Whether connection tracking, if it is loaded, takes up a connection whose SYN it has not seen.
pub(super) fn loose_tracking(value: Option<&str>) -> Check {
    const TRACKING: &str = "net.netfilter.nf_conntrack_tcp_loose";
    match value {
        None => Check::ok(TRACKING, "no connection tracking", "Nothing stands in the way of a connection that begins with a cookie."),
        Some("0") => {
            let effect = "Tracking takes a connection that begins with a cookie for invalid: where a rule drops such, XDP answers no SYN.";
            Check::ok(TRACKING, "0", effect).with_remedy(State::Limited, format!("sysctl -w {TRACKING}=1"))
        }
        Some(value) => Check::ok(TRACKING, value, "Tracking takes up a connection that begins with a cookie."),
    }
}

/// Whether what XDP sends back by a veth in native mode arrives; none if it cannot be seen.
pub(super) fn other_end(interface: &str, runs_program: Option<bool>) -> Check {
    let name = format!("{interface}: other end of the veth");
    let found = match runs_program {
        Some(true) => return Check::ok(name, "runs an XDP program", "It takes what XDP sends back in native mode: SYNs can be answered."),
        Some(false) => "has no XDP program",
        None => "cannot be seen",
    };
    let effect = "In native mode it takes nothing that XDP sends back unless it runs a program itself: XDP answers no SYN here.";
    Check::ok(name, found, effect)
        .with_remedy(State::Limited, "run with --mode generic, or attach a program that passes everything to it, in native mode")
}

/// What nobody can tell before a flood: the driver's program only.
pub(super) fn metadata(interface: &str) -> Check {
    let effect = "The SYN defence hands a client's options on beside the packet: where a driver has no room for them, SYNs pass and are \
                  counted under no_metadata.";
    Check::ok(format!("{interface}: packet metadata"), "shows in operation", effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(works: &[Feature]) -> Vec<(Feature, Support)> {
        Feature::ALL.map(|feature| (feature, if works.contains(&feature) { Support::Yes } else { Support::No })).into()
    }

    #[test]
    fn the_scheme_is_the_best_that_works_with_its_price() {
        let [generates, checks, assigns] = [Feature::GenSyncookie, Feature::RawCheckSyncookie, Feature::AssignRequest];
        for (works, syncookies, found, state, says) in [
            (&[generates, checks, assigns][..], "1", "own", State::Ok, "costs it nothing"),
            (&[generates, checks], "1", "the kernel's", State::Limited, "loses window scale, SACK, timestamps and ECN"),
            (&[generates], "1", "none", State::Limited, "no SYN"),
            (&[generates, checks, assigns], "0", "none", State::Limited, "refuses every cookie"),
        ] {
            let check = scheme(&tried(works), Some(syncookies));
            assert_eq!((check.found.as_str(), check.state), (found, state), "{check}");
            assert!(check.effect.contains(says), "{check}");
        }
    }

    #[test]
    fn strict_tracking_is_a_limit() {
        assert_eq!(loose_tracking(None).state, State::Ok);
        assert_eq!(loose_tracking(Some("1")).state, State::Ok);
        assert_eq!(loose_tracking(Some("0")).state, State::Limited);
    }

    #[test]
    fn a_veth_needs_a_program_at_its_other_end() {
        let of = |runs_program| other_end("v0", runs_program);
        assert_eq!([of(Some(true)).state, of(Some(false)).state, of(None).state], [State::Ok, State::Limited, State::Limited]);
        assert!(of(None).remedy.unwrap().contains("--mode generic"));
        assert_eq!(metadata("v0").state, State::Ok);
    }
}
