//! What the kernel drops of the packets that go to our services, by its own reason.
//!
//! The tracepoint sees every drop of the machine, so what is not ours leaves early: first by the reason, then by the port.

use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::{bpf_map_lookup_elem, bpf_map_update_elem},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use lb_common::{
    Address,
    abi::{DROP_REASONS as REASONS, DropKey, NO_SLOT, ServiceKey},
    wire::protocol,
};

use super::{
    memory::{increment, read},
    tag,
};
use crate::{
    classify,
    maps::{BACKEND_TIMES, DROP_REASONS, DROPS_FOLDED, KERNEL_DROPS, SERVICES},
};

// Offsets: see `memory`.
#[unsafe(no_mangle)]
static OFFSET_SKB_HEAD: Global<u32> = Global::new(0xbaf5);
#[unsafe(no_mangle)]
static OFFSET_SKB_NETWORK: Global<u32> = Global::new(0xbaf7);
#[unsafe(no_mangle)]
static OFFSET_SKB_INTERFACE: Global<u32> = Global::new(0xbaf9);
#[unsafe(no_mangle)]
static OFFSET_SKB_DEVICE: Global<u32> = Global::new(0xbafb);
#[unsafe(no_mangle)]
static OFFSET_DEVICE_NAMESPACE: Global<u32> = Global::new(0xbafd);
#[unsafe(no_mangle)]
static OFFSET_NAMESPACE_INODE: Global<u32> = Global::new(0xbaff);
/// The network namespace that Weir works in, by its inode.
#[unsafe(no_mangle)]
static NAMESPACE: Global<u32> = Global::new(0xbb01);
/// Whether the tracepoint says which socket the packet was for: 1 or 0.
#[unsafe(no_mangle)]
static DROPS_HAVE_SOCKET: Global<u32> = Global::new(0xbb03);

/// `kfree_skb(skb, location, reason, rx_sk)`: a packet is dropped. Linux 6.1 has no `rx_sk`.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kernel_drop(ctx: BtfTracePointContext) -> i32 {
    let (skb, reason): (*const u8, u32) = (ctx.arg(0), ctx.arg(2));
    // Reasons of subsystems, which have numbers of their own, are none of those that are counted.
    if reason >= REASONS || DROP_REASONS.get(reason).is_none_or(|counted| *counted == 0) {
        return 0;
    }
    let Some(target) = target(skb) else { return 0 };
    if classify::is_served(target.protocol, target.port) != Some(true) {
        return 0;
    }
    let backend = if DROPS_HAVE_SOCKET.load() == 1 { backend(ctx.arg(3)) } else { None };
    let service = match backend {
        Some(DropKey { service, .. }) => service,
        None => match service(skb, &target) {
            Some(service) => service,
            None => return 0,
        },
    };
    count(&DropKey { service, slot: NO_SLOT, generation: 0, reason });
    if let Some(key) = backend {
        count(&DropKey { reason, ..key });
    }
    0
}

/// Where a packet goes.
struct Target {
    address: Address,
    protocol: u8,
    port: u16,
}

/// Reads it from the packet's headers; none for what has no port, such as a later fragment.
#[inline(always)]
fn target(skb: *const u8) -> Option<Target> {
    let head: *const u8 = read(skb, OFFSET_SKB_HEAD.load())?;
    let network: u16 = read(skb, OFFSET_SKB_NETWORK.load())?;
    let header = head.wrapping_add(network.into());
    let first: u8 = read(header, 0)?;
    let (address, protocol, length) = match first >> 4 {
        4 => {
            let fragment: u16 = read(header, 6)?;
            // All but the flags: how far in its packet the fragment lies.
            if u16::from_be(fragment) & 0x1fff != 0 {
                return None;
            }
            (Address::from_ipv4_network(read(header, 16)?), read(header, 9)?, u32::from(first & 0xf) * 4)
        }
        6 => (Address::from_network_words(read(header, 24)?), read(header, 6)?, 40),
        _ => return None,
    };
    if !matches!(protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let port: u16 = read(header, length + 2)?;
    Some(Target { address, protocol, port: u16::from_be(port) })
}

/// The backend whose socket, or whose connection, the packet was for.
#[inline(always)]
fn backend(sk: *mut c_void) -> Option<DropKey> {
    if sk.is_null() {
        return None;
    }
    let tag = tag::of(sk)?;
    let service = BACKEND_TIMES.get(tag.slot)?.service;
    Some(DropKey { service, slot: tag.slot, generation: tag.generation, reason: 0 })
}

/// The service whose entry the packet matches, as XDP has matched it. A packet that has left its device (a connection's) counts by what it
/// says alone; any other must be of Weir's namespace.
#[inline(always)]
fn service(skb: *const u8, target: &Target) -> Option<u32> {
    let interface: u32 = read(skb, OFFSET_SKB_INTERFACE.load())?;
    let device: *const u8 = read(skb, OFFSET_SKB_DEVICE.load())?;
    if !device.is_null() {
        let namespace: *const u8 = read(device, OFFSET_DEVICE_NAMESPACE.load())?;
        let inode: u32 = read(namespace, OFFSET_NAMESPACE_INODE.load())?;
        if inode != NAMESPACE.load() {
            return None;
        }
    }
    let key = ServiceKey::new(target.address, target.port, target.protocol, interface);
    // SAFETY: one number is copied; that of a record which is replaced meanwhile is a service's all the same.
    unsafe { SERVICES.get(key) }.map(|record| record.service)
}

/// Adds one to a row. The table of rows is bounded; what finds it full is counted by itself.
#[inline(always)]
fn count(key: &DropKey) {
    /// `BPF_NOEXIST`
    const NEW: u64 = 1;
    let map = core::ptr::from_ref(&KERNEL_DROPS).cast_mut().cast();
    let key = core::ptr::from_ref(key).cast();
    // SAFETY: the map is this object's, and the key is as long as the map's keys.
    let mut row = unsafe { bpf_map_lookup_elem(map, key) };
    if row.is_null() {
        let zero = 0_u64;
        // SAFETY: as above, for the value too. That another CPU was first is as good.
        unsafe { bpf_map_update_elem(map, key, core::ptr::from_ref(&zero).cast(), NEW) };
        // SAFETY: as above.
        row = unsafe { bpf_map_lookup_elem(map, key) };
    }
    let row = if row.is_null() { DROPS_FOLDED.get_ptr_mut(0) } else { Some(row.cast::<u64>()) };
    if let Some(row) = row {
        // SAFETY: an aligned number of this CPU's. Atomic because an interrupt may drop a packet while this one is counted.
        unsafe { increment(row, 1) };
    }
}
