//! What holds for any cookie that comes back: the body of the fuzz target `cookie_check` and of the property tests in
//! lb-common/tests/defence.rs.

use lb_common::{
    Address, FlowKey,
    cookie::{self, Agreement},
    wire::protocol,
};

/// How many bytes say all that is varied; missing ones are 0.
pub const LENGTH: usize = 80;

/// The bytes are a key, a flow, what a client acknowledges and echoes, and what it offered. Whatever they are, a cookie is right only if it
/// is the one that is made of the same key, flow, sequence number and options; and one that was made is right.
pub fn check(bytes: &[u8]) {
    let mut all = [0; LENGTH];
    let length = bytes.len().min(LENGTH);
    all[..length].copy_from_slice(&bytes[..length]);
    let word = |at: usize| u32::from_le_bytes(all[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(all[at..at + 8].try_into().expect("eight bytes"));
    let address = |at: usize| {
        let bytes: [u8; 16] = all[at..at + 16].try_into().expect("sixteen bytes");
        if all[76] & 1 == 0 { Address::from_ipv4_network(word(at)) } else { Address::from_bytes(bytes) }
    };
    let port = |at: usize| u16::from_le_bytes([all[at], all[at + 1]]);
    let key = [long(0), long(8)];
    let flow = FlowKey::new(address(16), port(48), address(32), port(50), protocol::TCP);
    let (sequence, acknowledged, echoed) = (word(52), word(56), (all[76] & 2 == 0).then(|| word(60)));

    if let Some(agreed) = cookie::check(key, &flow, sequence, acknowledged, echoed) {
        is_made(key, &flow, sequence, agreed, acknowledged, echoed);
    }
    let agreed = Agreement {
        // 14 bits, as `Agreement::of` gives it.
        maximum_segment_size: port(64) & 0x3fff,
        window_scale: (all[76] & 4 == 0).then_some(all[66] % 15),
        selective_acknowledgement: all[76] & 8 == 0,
        congestion_notification: all[76] & 16 == 0,
        timestamps: all[76] & 32 == 0,
    };
    let parity = u32::from(all[76] >> 7);
    let (made, granted) = cookie::make(key, parity, &flow, sequence, &agreed);
    let echoed = agreed.timestamps.then_some(made.timestamp);
    assert_eq!(cookie::parity(made.sequence), parity);
    assert_eq!(cookie::check(key, &flow, sequence, made.sequence, echoed), Some(granted), "one that was made is right");
    // A bit turned in the numbers that come back: it is another cookie, right only if it is made so.
    let turned = (made.sequence ^ 1 << (all[68] % 32), echoed.map(|echoed| echoed ^ 1 << (all[69] % 32)));
    for (acknowledged, echoed) in [(turned.0, echoed), (made.sequence, turned.1), turned] {
        if (acknowledged, echoed) != (made.sequence, self::echoed(agreed, made.timestamp))
            && let Some(agreed) = cookie::check(key, &flow, sequence, acknowledged, echoed)
        {
            is_made(key, &flow, sequence, agreed, acknowledged, echoed);
        }
    }
}

fn echoed(agreed: Agreement, timestamp: u32) -> Option<u32> {
    agreed.timestamps.then_some(timestamp)
}

/// What was found right is what is made of the same.
fn is_made(key: [u64; 2], flow: &FlowKey, sequence: u32, agreed: Agreement, acknowledged: u32, echoed: Option<u32>) {
    assert_eq!(agreed.timestamps, echoed.is_some());
    let (made, granted) = cookie::make(key, cookie::parity(acknowledged), flow, sequence, &agreed);
    assert_eq!((made.sequence, granted), (acknowledged, agreed));
    assert!(echoed.is_none_or(|echoed| echoed == made.timestamp));
}
