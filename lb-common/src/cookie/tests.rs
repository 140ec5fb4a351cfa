//! Round trips, forgeries, and the chance of a guess.

use core::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::Address;

const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
const WILLING: Willing = Willing { window_scale: true, selective_acknowledgement: true, congestion_notification: true, timestamps: true };

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

fn flow(v6: bool) -> FlowKey {
    let (client, server) = if v6 { ("2001:db8::7", "2001:db8:1::1") } else { ("198.51.100.7", "192.0.2.1") };
    FlowKey::new(address(client), 40_000, address(server), 443, 6)
}

fn agreement() -> impl Strategy<Value = Agreement> {
    (536..=16_383_u16, prop::option::of(0..=14_u8), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(maximum_segment_size, window_scale, selective_acknowledgement, congestion_notification, timestamps)| Agreement {
            maximum_segment_size,
            window_scale,
            selective_acknowledgement,
            congestion_notification,
            timestamps,
        },
    )
}

fn echoed(cookie: Cookie, agreement: Agreement) -> Option<u32> {
    agreement.timestamps.then_some(cookie.timestamp)
}

/// Computed once; the layout of the hashed message is in the module's words.
#[test]
fn golden_vectors() {
    let linux = Agreement {
        maximum_segment_size: 1460,
        window_scale: Some(7),
        selective_acknowledgement: true,
        congestion_notification: false,
        timestamps: true,
    };
    let windows = Agreement { window_scale: Some(8), timestamps: false, ..linux };
    let made = [(false, &linux), (true, &linux), (false, &windows), (true, &windows)]
        .map(|(v6, agreement)| make(KEY, 1, &flow(v6), 0x0102_0304, agreement).0);
    for (cookie, timestamps, v6) in [(made[0], true, false), (made[1], true, true), (made[2], false, false), (made[3], false, true)] {
        use core::hash::Hasher;
        let mut reference = siphasher::sip::SipHasher13::new_with_keys(KEY[0], KEY[1]);
        let addresses: Vec<u8> =
            if v6 { [flow(true).source.bytes(), flow(true).destination.bytes()].concat() } else { vec![198, 51, 100, 7, 192, 0, 2, 1] };
        let options: u32 = if timestamps { 1 << 31 | 1460 << 6 | 7 << 2 | 0b10 } else { 0b11_110 };
        let tail = [&options.to_le_bytes()[..], &[0; 3]].concat();
        reference.write(&[&addresses[..], &[0x40, 0x9c, 0xbb, 0x01], &0x0102_0304_u32.to_le_bytes(), &tail].concat());
        let hash = reference.finish();
        let expected = if timestamps {
            let low = u32::try_from(hash & 0x7fff_ffff).unwrap();
            let high = u32::try_from(hash >> 32 & 0xfff).unwrap();
            Cookie { sequence: 1 << 31 | low, timestamp: (options & 0xf_ffff) << 12 | high }
        } else {
            Cookie { sequence: 1 << 31 | options << 26 | u32::try_from(hash & 0x3ff_ffff).unwrap(), timestamp: 0 }
        };
        assert_eq!(cookie, expected, "timestamps {timestamps}, IPv6 {v6}");
    }
}

#[test]
fn the_codebook_never_gives_more_than_was_offered() {
    for is_ipv4 in [true, false] {
        for segment in [536, 1219, 1220, 1299, 1300, 1360, 1420, 1439, 1440, 1459, 1460, 8960] {
            for scale in [None].into_iter().chain((0..=14).map(Some)) {
                for bits in 0..4 {
                    let offered = Agreement {
                        maximum_segment_size: segment,
                        window_scale: scale,
                        selective_acknowledgement: bits & 1 != 0,
                        congestion_notification: bits & 2 != 0,
                        timestamps: false,
                    };
                    let (code, granted) = offered.code(is_ipv4);
                    assert!(code < 32);
                    assert!(granted.maximum_segment_size <= segment.max(LEAST_SEGMENT[usize::from(!is_ipv4)]));
                    assert_eq!(granted.window_scale.is_some(), scale.is_some(), "{offered:?}");
                    assert!(granted.window_scale <= scale && granted.selective_acknowledgement <= offered.selective_acknowledgement);
                    assert!(granted.congestion_notification <= offered.congestion_notification);
                    assert_eq!(granted.selective_acknowledgement, offered.selective_acknowledgement);
                }
            }
        }
    }
}

#[test]
fn what_comes_of_a_syn() {
    let options = tcp::Options {
        maximum_segment_size: Some(65_495),
        window_scale: Some(7),
        selective_acknowledgement: true,
        timestamps: Some((1, 0)),
        ..tcp::Options::default()
    };
    let all = Agreement::of(&options, 0xc2, true, WILLING).unwrap();
    let expected = Agreement {
        maximum_segment_size: 16_383,
        window_scale: Some(7),
        selective_acknowledgement: true,
        congestion_notification: true,
        timestamps: true,
    };
    assert_eq!(all, expected);
    assert!(!Agreement::of(&options, 0x42, true, WILLING).unwrap().congestion_notification, "ECE alone offers nothing");
    let unwilling = Willing { window_scale: false, selective_acknowledgement: false, congestion_notification: false, timestamps: false };
    let none = Agreement::of(&options, 0xc2, true, unwilling).unwrap();
    assert_eq!(
        (none.window_scale, none.selective_acknowledgement, none.congestion_notification, none.timestamps),
        (None, false, false, false)
    );
    let size = |size, is_ipv4| {
        let options = tcp::Options { maximum_segment_size: size, ..options };
        Agreement::of(&options, 2, is_ipv4, WILLING).map(|agreement| agreement.maximum_segment_size)
    };
    assert_eq!([size(None, true), size(None, false)], [Some(536), Some(1220)]);
    assert_eq!([size(Some(535), true), size(Some(536), true), size(Some(1219), false)], [None, Some(536), None]);
}

/// Of 2²⁸ wrong cookies, spread over what an attacker can vary, as many pass as the hash has bits for: 2²⁸ / 2²⁶ = 4 of those without
/// timestamps, within three sigma (2 each), none of those with.
#[test]
fn guesses_pass_as_often_as_the_bits_say() {
    const TRIES: u32 = 1 << 28;
    let mut flow = flow(false);
    let mut state = 0x1234_5678_9abc_def0_u64;
    let (mut passed, mut passed_with_timestamps) = (0_u32, 0_u32);
    for number in 0..TRIES {
        // xorshift64: any numbers that are not made with the key.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        flow.source_port = u16::try_from(number >> 12).unwrap();
        let [acknowledged, sequence]: [u32; 2] = zerocopy::transmute!(state);
        passed += u32::from(check(KEY, &flow, sequence, acknowledged, None).is_some());
        passed_with_timestamps += u32::from(check(KEY, &flow, sequence, acknowledged, Some(sequence.rotate_left(9))).is_some());
    }
    let expected = f64::from(TRIES) / f64::from(1_u32 << HASH_BITS);
    let sigma = expected.sqrt();
    println!("{passed} of {TRIES} guesses without timestamps passed, {expected} expected; {passed_with_timestamps} with timestamps");
    assert!((f64::from(passed) - expected).abs() <= 3.0 * sigma, "{passed} of {TRIES} passed, {expected} expected");
    assert_eq!(passed_with_timestamps, 0);
}

proptest! {
    #[test]
    fn what_was_agreed_comes_back(agreement in agreement(), v6: bool, sequence: u32, parity in 0..2_u32, key: [u64; 2]) {
        let (cookie, granted) = make(key, parity, &flow(v6), sequence, &agreement);
        prop_assert_eq!(super::parity(cookie.sequence), parity);
        prop_assert_eq!(check(key, &flow(v6), sequence, cookie.sequence, echoed(cookie, agreement)), Some(granted));
        if agreement.timestamps {
            prop_assert_eq!(granted, agreement);
        }
    }

    #[test]
    fn a_bit_flipped_anywhere_refuses(agreement in agreement(), v6: bool, sequence: u32, parity in 0..2_u32, bit in 0..64_u32) {
        let flow = flow(v6);
        let (cookie, _) = make(KEY, parity, &flow, sequence, &agreement);
        let (mut changed, mut changed_echo) = (cookie.sequence, cookie.timestamp);
        if bit < 32 { changed ^= 1 << bit } else { changed_echo ^= 1 << (bit - 32) }
        // Without timestamps there is no echo to flip; and the top bit names the other key, which is another one.
        let key = if super::parity(changed) == parity { KEY } else { [KEY[1], KEY[0]] };
        if agreement.timestamps {
            prop_assert_eq!(check(key, &flow, sequence, changed, Some(changed_echo)), None);
            prop_assert_eq!(check(KEY, &flow, sequence, cookie.sequence, None), None, "timestamps left out");
        } else if bit < 32 {
            prop_assert_eq!(check(key, &flow, sequence, changed, None), None);
        }
    }

    #[test]
    fn another_client_s_cookie_is_refused(agreement in agreement(), v6: bool, sequence: u32, port: u16, other in 1..u32::MAX) {
        let flow = flow(v6);
        let (cookie, _) = make(KEY, 0, &flow, sequence, &agreement);
        let echo = echoed(cookie, agreement);
        let differing = [
            FlowKey { source_port: port, ..flow },
            FlowKey { destination_port: port, ..flow },
            FlowKey { source: address(if v6 { "2001:db8::8" } else { "198.51.100.8" }), ..flow },
            FlowKey { destination: address(if v6 { "2001:db8:1::2" } else { "192.0.2.2" }), ..flow },
        ];
        for differing in differing.into_iter().filter(|differing| *differing != flow) {
            prop_assert_eq!(check(KEY, &differing, sequence, cookie.sequence, echo), None);
        }
        prop_assert_eq!(check(KEY, &flow, sequence.wrapping_add(other), cookie.sequence, echo), None);
    }

    #[test]
    fn an_old_key_s_cookie_is_refused(agreement in agreement(), v6: bool, sequence: u32, key: [u64; 2]) {
        prop_assume!(key != KEY);
        let (cookie, _) = make(KEY, 1, &flow(v6), sequence, &agreement);
        prop_assert_eq!(check(key, &flow(v6), sequence, cookie.sequence, echoed(cookie, agreement)), None);
    }
}
