//! The sysctl settings that change what Weir can do.

use super::{Check, State};

/// What Linux 5.4 and later start with.
const USUAL_SOMAXCONN: u32 = 4096;

/// Makes a check of a setting's name and value.
type Classify = fn(&str, &str) -> Check;

const SETTINGS: [(&str, Classify); 4] = [
    ("net.ipv4.tcp_migrate_req", migrate_req),
    ("net.ipv4.tcp_syncookies", syncookies),
    ("net.ipv4.tcp_timestamps", timestamps),
    ("net.core.somaxconn", somaxconn),
];

/// `read` gives a setting by its name.
pub(super) fn checks(read: impl Fn(&str) -> Option<String>) -> Vec<Check> {
    let check = |(name, classify): (&str, Classify)| match read(name) {
        Some(value) => classify(name, &value),
        None => Check::ok(name, "cannot be read", "Whether it limits Weir is not known.")
            .with_remedy(State::Unknown, "mount /proc, and allow reading /proc/sys"),
    };
    SETTINGS.map(check).into()
}

/// Linux 5.14. Off, the kernel itself resets what waits in the queue of a listener that closes.
fn migrate_req(name: &str, value: &str) -> Check {
    match value {
        "0" => Check::ok(
            name,
            "0",
            "Groups that Weir steers need no more: its program moves queued connections when a listener closes. Other groups lose them.",
        ),
        _ => Check::ok(name, value, "Queued connections move when a listener closes, in groups that Weir does not steer too."),
    }
}

fn syncookies(name: &str, value: &str) -> Check {
    match value {
        "0" => Check::ok(name, "0", "A full SYN queue drops SYNs, and no cookie is taken: the SYN defence stays off.")
            .with_remedy(State::Limited, format!("sysctl -w {name}=1")),
        "2" => {
            Check::ok(name, "2", "Every connection is made by a cookie: each is selected twice, and loses TCP options without timestamps.")
                .with_remedy(State::Limited, format!("sysctl -w {name}=1"))
        }
        _ => Check::ok(name, value, "Cookies are made when a SYN queue is full."),
    }
}

fn timestamps(name: &str, value: &str) -> Check {
    match value {
        "0" => Check::ok(name, "0", "Connections made by a cookie of the kernel have no window scaling and no SACK.")
            .with_remedy(State::Limited, format!("sysctl -w {name}=1")),
        _ => Check::ok(name, value, "Connections made by a cookie keep their TCP options if the client sends timestamps."),
    }
}

fn somaxconn(name: &str, value: &str) -> Check {
    if value.parse::<u32>().is_ok_and(|most| most < USUAL_SOMAXCONN) {
        return Check::ok(name, value, "Accept queues are cut to this length: bursts overflow them.")
            .with_remedy(State::Limited, format!("sysctl -w {name}={USUAL_SOMAXCONN}, then restart the servers"));
    }
    Check::ok(name, value, "Accept queues are as long as the servers ask for, up to this.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, value: &str) -> State {
        let checks = checks(|asked| (asked == name).then(|| value.to_owned()));
        assert_eq!(checks.iter().filter(|check| check.state == State::Unknown).count(), 3, "the other three cannot be read");
        checks.into_iter().find(|check| check.name == name).unwrap().state
    }

    #[test]
    fn settings_that_cost_something_are_limits() {
        for (name, value, expected) in [
            ("net.ipv4.tcp_migrate_req", "0", State::Ok),
            ("net.ipv4.tcp_migrate_req", "1", State::Ok),
            ("net.ipv4.tcp_syncookies", "0", State::Limited),
            ("net.ipv4.tcp_syncookies", "1", State::Ok),
            ("net.ipv4.tcp_syncookies", "2", State::Limited),
            ("net.ipv4.tcp_timestamps", "0", State::Limited),
            ("net.ipv4.tcp_timestamps", "1", State::Ok),
            ("net.ipv4.tcp_timestamps", "2", State::Ok),
            ("net.core.somaxconn", "128", State::Limited),
            ("net.core.somaxconn", "4096", State::Ok),
        ] {
            assert_eq!(state(name, value), expected, "{name}={value}");
        }
    }
}
