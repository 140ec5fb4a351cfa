//! Elements of maps, as bytes: aya's own maps want to be borrowed for writing, which the tests that share one data plane cannot.

use std::{io, os::fd::BorrowedFd};

use super::{address, call, descriptor, number};

const LOOKUP_ELEM: libc::c_long = 1;
const UPDATE_ELEM: libc::c_long = 2;
const UPDATE_BATCH: libc::c_long = 26;

/// `union bpf_attr` of the commands on one element.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` of the commands on many.
#[repr(C)]
pub(super) struct Batch {
    pub begin: u64,
    pub next: u64,
    pub keys: u64,
    pub values: u64,
    pub count: u32,
    pub map: u32,
    pub element_flags: u64,
    pub flags: u64,
}

/// Puts a value; of a per-CPU map, one for each CPU, each padded to 8 bytes.
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut element = Element { map: descriptor(map), padding: 0, key: address(key), value: address(value), flags: 0 };
    call(UPDATE_ELEM, &mut element).map(drop)
}

/// Reads the value of an array's element into `words`: of a per-CPU array, those of all CPUs.
pub fn lookup(map: BorrowedFd<'_>, index: u32, words: &mut [u64]) -> io::Result<()> {
    let key = [index];
    let value = words.as_mut_ptr().expose_provenance() as u64;
    call(LOOKUP_ELEM, &mut Element { map: descriptor(map), padding: 0, key: address(&key), value, flags: 0 }).map(drop)
}

/// Puts zeros into the first `count` elements of an array whose values are `words` words long (of a per-CPU array: of all CPUs).
pub fn clear(map: BorrowedFd<'_>, count: u32, words: usize) -> io::Result<()> {
    let keys: Vec<u32> = (0..count).collect();
    let values = vec![0_u64; keys.len() * words];
    let mut batch = Batch {
        begin: 0,
        next: 0,
        keys: address(&keys),
        values: address(&values),
        count: number(keys.len()),
        map: descriptor(map),
        element_flags: 0,
        flags: 0,
    };
    call(UPDATE_BATCH, &mut batch).map(drop)
}
