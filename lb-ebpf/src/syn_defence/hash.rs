//! The hash of cookies, as a function that the verifier walks once: it is hundreds of instructions in a row.

use lb_common::{abi::Case, cookie};

/// The hash that proves a cookie of the case's flow ([`cookie::hash`]). `message` has the client's sequence number in its upper and the
/// cookie's options in its lower half.
#[inline(always)]
pub fn of(case: &Case, key: [u64; 2], sequence: u32, options: u32) -> u64 {
    cookie_hash(case, key[0], key[1], u64::from(sequence) << 32 | u64::from(options))
}

/// [`of`], for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
pub extern "C" fn cookie_hash(case: *const Case, first: u64, second: u64, message: u64) -> u64 {
    // SAFETY: the verifier knows the size of what the pointer is to, and wants to see that it is none.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    cookie::hash([first, second], &case.key, (message >> 32) as u32, message as u32)
}
