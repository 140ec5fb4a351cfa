//! How the processes of Weir give up what they do not need: the daemon once it is ready (`daemon.rs`), its helper as soon as it is forked
//! (`listeners/helper/confine.rs`).

pub mod daemon;

use rustix::{
    io::Errno,
    thread::{CapabilitySet, CapabilitySets},
};
use seccompiler::{BackendError, BpfProgramRef, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

/// The highest capability number that a kernel could know: a set has 64 bits.
const CAPABILITIES: u32 = 64;

/// Leaves the calling thread no capability but these, for good, and nothing that a program which it starts could get more by.
pub(crate) fn keep(kept: CapabilitySet) -> Result<(), Errno> {
    rustix::thread::set_no_new_privs(true)?;
    // Only with CAP_SETPCAP; without it nothing is lost: what a program that is started may get is bounded by the line above as well.
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(one) && rustix::thread::remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
    // EINVAL from a kernel without ambient capabilities: then there is nothing to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    let permitted = rustix::thread::capabilities(None)?.permitted & kept;
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}

/// Puts the calling thread, and those that it makes from here on, under a seccomp filter.
pub(crate) fn install(filter: BpfProgramRef<'_>) -> Result<(), Errno> {
    seccompiler::apply_filter(filter).map_err(|error| {
        let errno = match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error.raw_os_error(),
            _ => None,
        };
        errno.map_or(Errno::INVAL, Errno::from_raw_os_error)
    })
}

/// That the bits `mask` of a 32-bit argument are `value`.
pub(crate) fn word(index: u8, mask: i32, value: i32) -> Result<SeccompCondition, BackendError> {
    let [mask, value] = [mask, value].map(|bits| u64::from(bits.cast_unsigned()));
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}
