//! The XDP program that makes each frame of a flood from one of its templates, drawn anew for each.
//!
//! It writes the whole frame each time: the kernel gives the same page again and again, with whatever the receiver left in it.

use super::frame::Template;
use crate::dataplane::bpf::instruction::{add, call, copy, encode, exit, jump_if_greater, jump_if_not_zero, load_word, set, store_word};

const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
const GET_PRANDOM_U32: i32 = 7;
const XDP_ADJUST_TAIL: i32 = 65;

/// Registers that outlive a helper's call.
const FRAME: u8 = 6;
const SUM: u8 = 7;
const IP_SUM: u8 = 8;
const CONTEXT: u8 = 9;

/// The instructions for templates of which the longest is as long as the frames that the program is given.
pub(super) fn of(templates: &[Template]) -> Vec<u64> {
    let longest = templates.iter().map(|template| template.bytes.len()).max().expect("a template");
    let count = i32::try_from(templates.len()).expect("a few templates");
    let mut text = vec![copy(CONTEXT, 1), call(GET_PRANDOM_U32), modulo_u32(0, count)];
    for (number, template) in (0..).zip(templates) {
        let block = block(template, longest);
        text.push(jump_unless(0, number, i16::try_from(block.len()).expect("a block of a few instructions")));
        text.extend(block);
    }
    text.extend([set(0, XDP_DROP), exit()]);
    text
}

/// The instructions for one template.
///
/// The template's checksums are right with the varied bits zero, so each sum begins with the complement of the checksum, and takes
/// what is drawn. Bytes are read and stored in the machine's order, in which the sum is as right as in any other (RFC 1071).
fn block(template: &Template, longest: usize) -> Vec<u64> {
    let Template { bytes, varied, ip_checksum, checksum } = template;
    let length = |of: usize| i32::try_from(of).expect("a frame");
    let mut text = Vec::new();
    if bytes.len() < longest {
        text.extend([copy(1, CONTEXT), set(2, length(bytes.len()) - length(longest)), call(XDP_ADJUST_TAIL)]);
    }
    text.extend([
        load(FRAME, CONTEXT, 0),
        load(2, CONTEXT, 4),
        copy(3, FRAME),
        add(3, length(bytes.len())),
        // Over the two instructions that follow, when the frame is as long as it should be.
        jump_if_not_above(3, 2, 2),
        set(0, XDP_DROP),
        exit(),
    ]);
    for (chunk, at) in bytes.chunks(4).zip((0..).step_by(4)) {
        match *chunk {
            [a, b, c, d] => text.push(store_u32(FRAME, at, i32::from_ne_bytes([a, b, c, d]))),
            [a, b] => text.push(store_u16(FRAME, at, i16::from_ne_bytes([a, b]))),
            _ => text.extend(chunk.iter().zip(at..).map(|(byte, at)| store_u8(FRAME, at, *byte))),
        }
    }
    let old = |at: usize| i32::from(!u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
    text.push(set(SUM, old(*checksum)));
    text.push(set(IP_SUM, ip_checksum.map_or(0, old)));
    for one in varied {
        let fixed: [u8; 4] = std::array::from_fn(|byte| bytes[one.at + byte]);
        text.extend([call(GET_PRANDOM_U32), and_u32(0, i32::from_ne_bytes(one.bits)), add_register(SUM, 0)]);
        if one.in_ip_header {
            text.push(add_register(IP_SUM, 0));
        }
        text.extend([or_u32(0, i32::from_ne_bytes(fixed)), store_register_u32(FRAME, offset(one.at), 0)]);
    }
    text.extend(put_checksum(SUM, *checksum));
    if let Some(at) = ip_checksum {
        text.extend(put_checksum(IP_SUM, *at));
    }
    text.extend([set(0, XDP_TX), exit()]);
    text
}

/// Passes what is no IPv4 packet or goes to 10.0.0.0/8, and drops the rest.
pub(super) fn sink() -> Vec<u64> {
    let ipv4 = i32::from(u16::from_ne_bytes([8, 0]));
    vec![
        load(2, 1, 0),
        load(3, 1, 4),
        set(0, XDP_PASS),
        copy(4, 2),
        add(4, 34),
        jump_if_not_above(4, 3, 1),
        exit(),
        load_u16(4, 2, 12),
        jump_unless(4, ipv4, 3),
        load_u8(4, 2, 30),
        jump_if(4, 10, 1),
        set(0, XDP_DROP),
        exit(),
    ]
}

/// Does the same with every packet.
pub(super) fn always(action: i32) -> Vec<u64> {
    vec![set(0, action), exit()]
}

/// Looks among the kernel's sockets for that of an IPv4 packet's flow, lets go of it, and drops the packet.
pub(super) fn looking() -> Vec<u64> {
    const SKC_LOOKUP_TCP: i32 = 99;
    const SK_RELEASE: i32 = 86;
    const CURRENT_NETNS: i32 = -1;
    let end = [set(0, XDP_DROP), exit()];
    let mut text = vec![copy(CONTEXT, 1), load_word(2, 1, 0), load_word(3, 1, 4), copy(4, 2), add(4, 38)];
    // To the first end.
    text.push(jump_if_greater(4, 3, 14));
    // Addresses and ports lie in the packet as in struct bpf_sock_tuple.
    for (from, to) in [(26, -12), (30, -8), (34, -4)] {
        text.extend([load_word(4, 2, from), store_word(10, to, 4)]);
    }
    text.extend([copy(1, CONTEXT), copy(2, 10), add(2, -12), set(3, 12), set(4, CURRENT_NETNS), set(5, 0), call(SKC_LOOKUP_TCP)]);
    text.push(jump_if_not_zero(0, 2));
    text.extend(end);
    text.extend([copy(1, 0), call(SK_RELEASE)]);
    text.extend(end);
    text
}

/// Folds a sum of a few 32-bit words and stores its complement; 0 as its other form, which UDP needs and nobody minds.
fn put_checksum(sum: u8, at: usize) -> Vec<u64> {
    let mut text = Vec::new();
    for bits in [32, 16, 16, 16] {
        let keep = if bits == 32 { and_u32(sum, -1) } else { and_u32(sum, 0xffff) };
        text.extend([copy(2, sum), shift_right(2, bits), keep, add_register(sum, 2)]);
    }
    text.extend([xor(sum, 0xffff), jump_if_not_zero(sum, 1), set(sum, 0xffff)]);
    text.push(store_register_u16(FRAME, offset(at), sum));
    text
}

fn offset(at: usize) -> i16 {
    i16::try_from(at).expect("a frame")
}

/// `r(to) = *(u32 *)(r(base) + offset)`.
const fn load(to: u8, base: u8, offset: i16) -> u64 {
    encode(0x61, to, base, offset, 0)
}

/// `if r(left) <= r(right) goto` so many instructions on.
const fn jump_if_not_above(left: u8, right: u8, over: i16) -> u64 {
    encode(0xbd, left, right, over, 0)
}

/// `r(to) = *(u16 *)(r(base) + offset)`.
const fn load_u16(to: u8, base: u8, offset: i16) -> u64 {
    encode(0x69, to, base, offset, 0)
}

/// `r(to) = *(u8 *)(r(base) + offset)`.
const fn load_u8(to: u8, base: u8, offset: i16) -> u64 {
    encode(0x71, to, base, offset, 0)
}

/// `if r(register) == value goto` so many instructions on.
const fn jump_if(register: u8, value: i32, over: i16) -> u64 {
    encode(0x15, register, 0, over, value)
}

/// `if r(register) != value goto` so many instructions on.
const fn jump_unless(register: u8, value: i32, over: i16) -> u64 {
    encode(0x55, register, 0, over, value)
}

/// `*(u32 *)(r(base) + offset) = value`.
const fn store_u32(base: u8, offset: i16, value: i32) -> u64 {
    encode(0x62, base, 0, offset, value)
}

/// `*(u16 *)(r(base) + offset) = value`.
const fn store_u16(base: u8, offset: i16, value: i16) -> u64 {
    encode(0x6a, base, 0, offset, value as i32)
}

/// `*(u8 *)(r(base) + offset) = value`.
const fn store_u8(base: u8, offset: i16, value: u8) -> u64 {
    encode(0x72, base, 0, offset, value as i32)
}

/// `*(u32 *)(r(base) + offset) = r(from)`.
const fn store_register_u32(base: u8, offset: i16, from: u8) -> u64 {
    encode(0x63, base, from, offset, 0)
}

/// `*(u16 *)(r(base) + offset) = r(from)`.
const fn store_register_u16(base: u8, offset: i16, from: u8) -> u64 {
    encode(0x6b, base, from, offset, 0)
}

/// `r(to) += r(from)`.
const fn add_register(to: u8, from: u8) -> u64 {
    encode(0x0f, to, from, 0, 0)
}

/// `r(to) &= value`, of 32 bits; the upper ones become zero.
const fn and_u32(to: u8, value: i32) -> u64 {
    encode(0x54, to, 0, 0, value)
}

/// `r(to) |= value`, of 32 bits; the upper ones become zero.
const fn or_u32(to: u8, value: i32) -> u64 {
    encode(0x44, to, 0, 0, value)
}

/// `r(to) %= value`, of 32 bits; the upper ones become zero.
const fn modulo_u32(to: u8, value: i32) -> u64 {
    encode(0x94, to, 0, 0, value)
}

/// `r(to) ^= value`.
const fn xor(to: u8, value: i32) -> u64 {
    encode(0xa7, to, 0, 0, value)
}

/// `r(to) >>= bits`, of 64 bits.
const fn shift_right(to: u8, bits: i32) -> u64 {
    encode(0x77, to, 0, 0, bits)
}
