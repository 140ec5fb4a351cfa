//! Limits that an operator sets: prefixes that are allowed or denied, and how much one source prefix may open or send.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::{
    FlowKey, Reason,
    abi::{Case, PrefixKey, Purpose, policy_flags, prefix_action},
    limiter::Bucket,
};

use super::now;
use crate::{
    maps::{DEFENCE, PREFIX_BUCKETS, PREFIXES, SETTINGS},
    verdict::Answer,
};

/// Admits a SYN or a datagram to a service with limits or lists, or ends it. Answers an [`Answer`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn admit_new(case: *const Case) -> u32 {
    // SAFETY: the verifier knows the size of what the pointer is to, and wants to see that it is none.
    let Some(case) = (unsafe { case.as_ref() }) else { return Answer::PLAIN.0 };
    admit(case).0
}

#[inline(always)]
fn admit(case: &Case) -> Answer {
    let Some(policy) = DEFENCE.get(case.service) else { return Reason::MapMiss.into() };
    if policy.flags & policy_flags::HAS_PREFIXES != 0 {
        match listed(case) {
            Some(prefix_action::ALLOW) => return Answer::PLAIN,
            Some(prefix_action::DENY) => return Reason::DeniedSource.into(),
            _ => {}
        }
    }
    let now = now();
    let within = |purpose, rate, amount| rate == 0 || take(&case.key, purpose as u32 | case.service, now, rate, amount);
    if case.flags().is_some() {
        let within = within(Purpose::NewConnection, policy.new_connections, 1);
        return if within { Answer::PLAIN } else { Reason::NewFlowsOverLimit.into() };
    }
    #[expect(clippy::cast_possible_truncation, reason = "a packet has less than 4 GiB")]
    let bytes = case.length as u32;
    if within(Purpose::Datagram, policy.datagrams, 1) && within(Purpose::DatagramBytes, policy.datagram_bytes, bytes) {
        return Answer::PLAIN;
    }
    Reason::DatagramsOverLimit.into()
}

/// What the service's lists say of the source, by the longest prefix.
#[inline(always)]
fn listed(case: &Case) -> Option<u32> {
    let key = Key::new(PrefixKey::SERVICE_BITS + 128, PrefixKey::new(case.service, case.key.source));
    PREFIXES.get(&key).copied()
}

/// Takes so many tokens from the bucket that the source's prefix has for a purpose. `rate` is per second, and what a second gives can be
/// taken at once.
#[inline(always)]
pub fn take(key: &FlowKey, purpose: u32, now: u64, rate: u32, amount: u32) -> bool {
    // A limit that cannot be looked up limits nobody.
    bucket(key, purpose, now, rate).is_none_or(|bucket| bucket.take_many(now, rate, rate, amount))
}

/// The bucket that the source's prefix has for a purpose.
#[inline(always)]
pub fn bucket<'a>(key: &FlowKey, purpose: u32, now: u64, rate: u32) -> Option<&'a mut Bucket> {
    let settings = SETTINGS.get(0)?;
    let place = settings.tag_key.of_prefix(key.source, purpose);
    let slot = PREFIX_BUCKETS.get_ptr_mut(place.slot & settings.prefix_bucket_mask)?;
    // SAFETY: the pointer is to this CPU's own value, and XDP alone writes it.
    Some(unsafe { (*slot).of(place.tag, now, rate) })
}
