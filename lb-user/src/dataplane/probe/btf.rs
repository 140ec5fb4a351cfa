//! Ids of the kernel's types by name.
//!
//! The kernel's BTF has about 150,000 types. A full parser makes a structure of each; this one walks the bytes once, for the few names
//! that are asked, and keeps nothing but the bytes. Layout: Documentation/bpf/btf.rst, in the byte order of the machine.

use std::{fs, io, path::Path};

/// Where the running kernel shows its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Magic, version, flags, and the length of the header itself.
const FIRST_BYTES: usize = 8;

/// The kinds of type that are asked for (`BTF_KIND_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A typedef.
    Typedef = 8,
    /// A function.
    Function = 12,
}

/// Type information.
#[derive(Debug, Clone)]
pub struct Types {
    bytes: Vec<u8>,
    /// Where the types start and end in `bytes`.
    table: (usize, usize),
    /// Where the strings start.
    strings: usize,
}

impl Types {
    /// The running kernel's types; `NotFound` if it shows none.
    pub fn of_kernel() -> io::Result<Self> {
        Self::read(Path::new(VMLINUX))
    }

    /// The types in a file.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::new(fs::read(path)?).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not type information (BTF)"))
    }

    fn new(bytes: Vec<u8>) -> Option<Self> {
        let magic = u16::from_ne_bytes(*bytes.first_chunk()?);
        let [header, types_at, types_length, strings_at] = [4, 8, 12, 16].map(|at| word(&bytes, at));
        let start = header? as usize;
        let types = start.checked_add(types_at? as usize)?;
        let end = types.checked_add(types_length? as usize)?;
        let strings = start.checked_add(strings_at? as usize)?;
        let fits = magic == MAGIC && start >= FIRST_BYTES && end <= bytes.len() && strings <= bytes.len();
        fits.then_some(Self { bytes, table: (types, end), strings })
    }

    /// The id of the type of that name and kind.
    #[must_use]
    pub fn id(&self, name: &str, kind: Kind) -> Option<u32> {
        let (mut at, end) = self.table;
        // Id 0 is void, which is not listed.
        let mut id = 1;
        while at < end {
            let (name_at, information) = (word(&self.bytes, at)?, word(&self.bytes, at + 4)?);
            let found = information >> 24 & 0x1f;
            if found == kind as u32 && self.is_named(name_at, name) {
                return Some(id);
            }
            at += 12 + extra_bytes(found, information & 0xffff)?;
            id += 1;
        }
        None
    }

    fn is_named(&self, name_at: u32, name: &str) -> bool {
        let stored = self.bytes.get(self.strings + name_at as usize..).unwrap_or_default();
        stored.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// What follows the twelve bytes that every type has. None for a kind that is not known: the walk cannot go on.
fn extra_bytes(kind: u32, members: u32) -> Option<usize> {
    let members = members as usize;
    Some(match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Enumeration, function prototype.
        6 | 13 => members * 8,
        // Structure, union, section, 64-bit enumeration.
        4 | 5 | 15 | 19 => members * 12,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An integer, a structure of two members, a function prototype without parameters, a function, a typedef.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0pair\0work\0word\0";
        let kind = |kind: u32, members: u32| kind << 24 | members;
        let mut types = vec![1, kind(1, 0), 4, 0x20];
        types.extend([5, kind(4, 2), 8, 0, 1, 0, 0, 1, 32]);
        types.extend([0, kind(13, 0), 1]);
        types.extend([10, kind(12, 0), 3]);
        types.extend([15, kind(8, 0), 1]);
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut bytes = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
        let lengths = [24, 0, types.len(), types.len(), strings.len()];
        bytes.extend(lengths.into_iter().flat_map(|length| u32::try_from(length).unwrap().to_ne_bytes()));
        [bytes, types, strings.to_vec()].concat()
    }

    #[test]
    fn a_type_is_found_by_its_name_and_kind() {
        let types = Types::new(sample()).unwrap();
        assert_eq!(types.id("work", Kind::Function), Some(4));
        assert_eq!(types.id("word", Kind::Typedef), Some(5));
        assert_eq!(types.id("word", Kind::Function), None, "another kind");
        assert_eq!(types.id("wor", Kind::Function), None, "a part of a name");
        assert_eq!(types.id("pair", Kind::Typedef), None);
    }

    #[test]
    fn bytes_that_are_cut_off_or_foreign_give_nothing() {
        let whole = sample();
        for length in 0..whole.len() {
            let found = Types::new(whole[..length].to_vec()).and_then(|types| types.id("word", Kind::Typedef));
            assert_eq!(found, None, "{length} bytes");
        }
        let mut foreign = whole.clone();
        foreign[0] ^= 1;
        assert!(Types::new(foreign).is_none());
        let mut unknown_kind = whole;
        unknown_kind[24 + 7] = 0x1f;
        assert_eq!(Types::new(unknown_kind).and_then(|types| types.id("word", Kind::Typedef)), None);
    }
}
