//! The fuzzer of lb-common starts from packets of the table: one file for each kind of packet, and the same bytes.

use std::{fs, path::Path};

use super::rows;

/// The rows, one for each way through the parser.
const SEEDS: &[&str] = &[
    "ethernet: ARP request",
    "ethernet: VLAN, SYN over IPv6",
    "ethernet: QinQ, SYN over IPv4",
    "ethernet: three tags",
    "ipv4: SYN",
    "ipv4: segment",
    "ipv4: router alert",
    "ipv4: 40 bytes of options",
    "ipv4: first fragment of UDP",
    "ipv4: later fragment that looks like a SYN",
    "ipv6: SYN",
    "ipv6: segment",
    "ipv6: each kind of extension header",
    "ipv6: 7 extension headers",
    "ipv6: first fragment behind destination options",
    "ipv6: atomic fragment",
    "tcp: SYN with an MD5 signature",
    "udp: datagram of a new flow",
    "udp: datagram of a known flow, IPv6",
    "quic: short header naming worker 1",
    "icmp: fragmentation needed, quoting 8 bytes",
    "icmp: quoting a header with options",
    "icmp: port unreachable, quoting UDP",
    "icmpv6: packet too big",
    "icmpv6: quoting extension headers",
    "icmpv6: neighbour solicitation",
];

/// The files are those, byte for byte. `WEIR_WRITE_SEEDS=1` writes them.
pub fn are_rows() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-common/fuzz/seeds/parse_packet");
    let expected: Vec<_> = SEEDS.iter().map(|name| (file_name(name), rows::by_name(name).frame())).collect();
    if std::env::var_os("WEIR_WRITE_SEEDS").is_some() {
        fs::create_dir_all(&directory).expect("the directory of the seeds");
        for (file, frame) in &expected {
            fs::write(directory.join(file), frame).expect("a seed");
        }
    }
    for (file, frame) in &expected {
        let bytes = fs::read(directory.join(file)).unwrap_or_else(|error| panic!("{file}: {error}; WEIR_WRITE_SEEDS=1 writes it"));
        assert!(bytes == *frame, "{file} is not its row; WEIR_WRITE_SEEDS=1 writes it anew");
    }
    let files = fs::read_dir(&directory).expect("the directory of the seeds").count();
    assert_eq!(files, expected.len(), "{} holds other files", directory.display());
}

/// `ipv4: 40 bytes of options` -> `ipv4_40_bytes_of_options.bin`.
fn file_name(row: &str) -> String {
    let words: Vec<_> = row.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    format!("{}.bin", words.join("_").to_lowercase())
}
