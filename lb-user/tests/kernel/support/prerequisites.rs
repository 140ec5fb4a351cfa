//! Root and the tools the tests call, looked for once at the start and named all together.

/// The tools, each with the Debian package that brings it.
const TOOLS: [(&str, &str); 20] = [
    ("chromium", "chromium"),
    ("ethtool", "ethtool"),
    ("haproxy", "haproxy"),
    ("hping3", "hping3"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nginx", "nginx-light"),
    ("nsenter", "util-linux"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("script", "bsdutils"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("ss", "iproute2"),
    ("systemd-analyze", "systemd"),
    ("tc", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("trafgen", "netsniff-ng"),
    ("tshark", "tshark"),
    ("wrk", "wrk"),
];

/// Says in one message all that is missing and the one command that brings it, and widens this process' limit of open files.
pub fn check() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the kernel tests load programs and make network namespaces: run them as root".to_owned());
    }
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| !is_in_path(tool)).collect();
    if !missing.is_empty() {
        let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
        let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        return Err(format!(
            "the kernel tests need {}, which PATH does not hold: apt-get install --no-install-recommends {}",
            tools.join(", "),
            packages.join(" ")
        ));
    }
    raise_open_file_limit();
    Ok(())
}

/// Raises the limit of open files to what the system allows: a test holds tens of thousands of connections.
pub fn raise_open_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const WANTED: u64 = 200_000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    if soft < WANTED && setrlimit(Resource::RLIMIT_NOFILE, WANTED, hard.max(WANTED)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit up to the hard limit");
    }
}

fn is_in_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}
