//! The options of a segment, read by a function of its own: the ways through 16 options are many, and would be walked for each way on.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Case, Offered},
    wire::tcp,
};

use crate::parse;

/// Reads the options of the segment.
#[inline(always)]
pub fn read(ctx: *mut xdp_md, case: &Case, offered: &mut Offered) -> tcp::Options {
    let start = parse::opaque::<0xfff>(case.transport) as usize + tcp::LENGTH;
    if let Some(options) = tcp::usual_options(&parse::window(ctx), start, case.header_length as usize) {
        return options;
    }
    read_options(ctx, case, &raw mut *offered);
    (*offered).into()
}

/// Writes the options of the segment to `offered`. Answers 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_options(ctx: *mut xdp_md, case: *const Case, offered: *mut Offered) -> u32 {
    // SAFETY: the verifier knows the sizes of what the pointers are to, and wants to see that they are none.
    if let (Some(case), Some(offered)) = (unsafe { case.as_ref() }, unsafe { offered.as_mut() }) {
        *offered = Offered::default();
        let (mut at, end) = (case.options() as u64, case.data() as u64);
        for _ in 0..tcp::MAX_OPTION_STEPS {
            at = read_option(ctx, at, end, &raw mut *offered);
            if at == 0 {
                break;
            }
        }
    }
    0
}

/// Adds the option at `at` to those `offered`. Answers where the next one starts, or 0 if there is none.
///
/// A function of its own, with what has been read in memory: the verifier of Linux 6.1 takes each set of options that may have been read
/// for another state, and would walk what follows for all of them, sixteen times over ("BPF program is too large").
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "a position in a packet")]
pub extern "C" fn read_option(ctx: *mut xdp_md, at: u64, end: u64, offered: *mut Offered) -> u64 {
    // SAFETY: as above.
    let Some(offered) = (unsafe { offered.as_mut() }) else { return 0 };
    let mut options = tcp::Options::from(*offered);
    let next = options.step(&parse::window(ctx), at as usize, end as usize);
    *offered = options.into();
    next.map_or(0, |next| next as u64)
}

/// The timestamps of a segment that is no SYN: value and echo reply. Nearly all stacks put them first, behind two NOPs (RFC 7323,
/// appendix A): that is read at once, anything else option by option.
#[inline(always)]
pub fn timestamps(ctx: *mut xdp_md, case: &Case, offered: &mut Offered) -> Option<(u32, u32)> {
    let window = parse::window(ctx);
    match tcp::usual_timestamps(&window, parse::opaque::<0xfff>(case.transport) as usize + tcp::LENGTH, case.data()) {
        Some(found) => Some(found),
        None if case.data() == case.options() => None,
        None => read(ctx, case, offered).timestamps,
    }
}
