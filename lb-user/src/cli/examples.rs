//! What stands below the help of each command. Every line that begins with `  weir ` is parsed by a test.

pub(super) const EXAMPLES: &str = "\
Examples:
  weir run --iface eth0                     balance every TCP SO_REUSEPORT group reachable through eth0
  weir run --config /etc/weir/weir.toml     balance the services that the file names
  weir config check /etc/weir/weir.toml     all faults of a file, with line and remedy
  weir status                               interfaces, services, backends
  weir top                                  the same, live: rates, queues, drops
  weir drain web 3                          no new connections for backend 3 of service web
  weir defence web on                       answer every SYN to service web by cookie, flood or not
  weir doctor --iface eth0                  what this kernel and this card allow
  weir explain tcp 192.0.2.7:40000 198.51.100.1:443
                                            which worker this connection goes to, and why";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  weir run --iface eth0 --discover udp      TCP groups and UDP groups
  weir run --config weir.toml --iface eth1  the file's services, on eth1 instead of the file's interfaces
  weir run --iface v0 --netns blue --instance blue
                                            inside the namespace blue, beside other instances

`weir config example` prints a file to start from; `weir --help` lists the exit codes.";

pub(super) const EXPLAIN_EXAMPLES: &str = "\
Examples:
  weir explain tcp 192.0.2.7:40000 198.51.100.1:443
  weir explain udp [2001:db8::7]:40000 [2001:db8::1]:443 --without 3";

pub(super) const STOP_EXAMPLES: &str = "\
Examples:
  weir stop                                 the data plane goes too; a mere SIGTERM to the daemon leaves it
  weir stop --instance blue                 that of another instance";

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  weir status
  weir status --json | jq '.services[] | {name, backends: (.backends | length)}'";

pub(super) const TOP_EXAMPLES: &str = "\
Examples:
  weir top                                  services, their workers, queues and drops, each second
  weir top --interval 5                     each five seconds
  weir top --instance blue                  of another instance

`?` shows the keys and what the columns mean: s sorts, Tab goes to the workers, d and u drain and undrain the chosen one, q quits.
It needs a terminal of 80 columns and 20 rows; NO_COLOR is respected.";

pub(super) const DRAIN_EXAMPLES: &str = "\
Examples:
  weir drain web 3                          backend 3 of service web, as `weir status` numbers them
  weir drain tcp/0.0.0.0:80 0               of a service that was discovered";

pub(super) const UNDRAIN_EXAMPLES: &str = "\
Examples:
  weir undrain web 3";

pub(super) const DEFENCE_EXAMPLES: &str = "\
Examples:
  weir defence web on                       before a flood that is announced, or to try it out
  weir defence tcp/0.0.0.0:22 off           of a service that was discovered: its SYNs pass, whatever comes
  weir defence web auto                     back to what the configuration says

`auto` is how every service begins: Weir tells a flood by itself, answers its SYNs by cookie and ends that when it is over. The order
goes to the running daemon; what is to hold for good stands in the file as `syn_defence`. `weir status` shows the state.";

pub(super) const RELOAD_EXAMPLES: &str = "\
Examples:
  weir reload                               the same as SIGHUP, and waits for what comes of it
  weir config check /etc/weir/weir.toml && weir reload";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  weir doctor                               the kernel and its settings
  weir doctor --iface eth0                  the card too";

pub(super) const TRACE_EXAMPLES: &str = "\
Examples:
  weir trace --reason drop                  what is refused, and why
  weir trace --service web --src 192.0.2.0/24 --count 20
                                            the next 20 packets of these clients
  weir trace --reason cookie_sent --reason cookie_accepted
  weir trace --reason drop --pcap drops.pcapng --count 1000
                                            for tshark and Wireshark, each packet with its verdict as comment

The programs write what is asked for at a bounded rate while the command runs; without it this costs a packet one branch. A SYN that was
answered is shown as its answer, which is written over it. The reasons are in docs/metrics.md, under weir_packets_total.";

pub(super) const CONFIG_EXAMPLES: &str = "\
Examples:
  weir config example > weir.toml           a file to start from
  weir config check weir.toml               every fault, with line and remedy
  weir config show --config weir.toml       what holds, with all defaults";
