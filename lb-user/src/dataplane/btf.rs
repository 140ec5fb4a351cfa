//! What the kernel's type information (BTF) says: ids of types by name, and where in a structure a member lies.
//!
//! aya reads BTF to load programs but shows no members of structures.
//!
//! The kernel's BTF has about 150,000 types. A full parser makes a structure of each; this one keeps the bytes, where in them each type
//! begins, and the names of structures, of which a few dozen are asked for. Layout: Documentation/bpf/btf.rst, in the byte order of the
//! machine.

use std::{collections::HashMap, fs, io, path::Path};

/// Where the running kernel shows its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Magic, version, flags, and the length of the header itself.
const FIRST_BYTES: usize = 8;

/// The kinds of type that are asked for (`BTF_KIND_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A structure.
    Structure = 4,
    /// An enumeration.
    Enumeration = 6,
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
    /// Where each type starts in `bytes`, by its id less one.
    starts: Vec<usize>,
    /// The ids of the structures that have members, by name.
    structures: HashMap<Vec<u8>, u32>,
}

/// A type on the way.
#[derive(Debug, Clone, Copy)]
struct Found {
    id: u32,
    name_at: u32,
    kind: u32,
    members: u32,
    /// What it points to or stands for; the size of other kinds.
    type_id: u32,
    has_bit_fields: bool,
    /// Where it starts in the bytes.
    at: usize,
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
        let mut found = fits.then_some(Self { bytes, table: (types, end), strings, starts: Vec::new(), structures: HashMap::new() })?;
        found.starts = found.walk().map(|one| one.at).collect();
        // A forward declaration has the name, but no members. Of two of a name the first is meant, as in the kernel's own search.
        let structures = found.walk().filter(|one| one.kind == Kind::Structure as u32 && one.members > 0);
        let mut names: Vec<(Vec<u8>, u32)> = structures.map(|one| (found.name(one.name_at).to_vec(), one.id)).collect();
        names.reverse();
        found.structures = names.into_iter().collect();
        Some(found)
    }

    /// The id of the type of that name and kind.
    #[must_use]
    pub fn id(&self, name: &str, kind: Kind) -> Option<u32> {
        let found = self.walk().find(|found| found.kind == kind as u32 && self.is_named(found.name_at, name));
        found.map(|found| found.id)
    }

    /// The offset in bytes of a member of a structure; members of its unnamed parts count as its own.
    #[must_use]
    pub fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        self.offset_within(structure, &[member])
    }

    /// The offset in bytes of a member of a member, and so on.
    #[must_use]
    pub fn offset_within(&self, structure: &str, members: &[&str]) -> Option<u32> {
        let mut outer = self.found(*self.structures.get(structure.as_bytes())?)?;
        let mut offset = 0;
        for (depth, name) in members.iter().enumerate() {
            let (at, id) = self.member(&outer, name)?;
            offset += at;
            if depth + 1 < members.len() {
                outer = self.resolve(id)?;
            }
        }
        Some(offset)
    }

    /// The names and values of an enumeration of numbers of 32 bits.
    #[must_use]
    pub fn enumeration(&self, name: &str) -> Option<Vec<(String, u32)>> {
        let found = self.found(self.id(name, Kind::Enumeration)?)?;
        let value = |index: usize| {
            let at = found.at + 12 + index * 8;
            let name = String::from_utf8_lossy(self.name(word(&self.bytes, at)?)).into_owned();
            Some((name, word(&self.bytes, at + 4)?))
        };
        (0..found.members as usize).map(value).collect()
    }

    /// How many arguments a function has.
    #[must_use]
    pub fn arguments_of_function(&self, name: &str) -> Option<u32> {
        self.prototype(self.found(self.id(name, Kind::Function)?)?.type_id)
    }

    /// How many arguments a tracepoint gives, without the context that comes first in its type.
    #[must_use]
    pub fn arguments_of_tracepoint(&self, name: &str) -> Option<u32> {
        let pointer = self.found(self.id(&format!("btf_trace_{name}"), Kind::Typedef)?)?.type_id;
        self.prototype(self.found(pointer)?.type_id)?.checked_sub(1)
    }

    fn prototype(&self, id: u32) -> Option<u32> {
        self.found(id).filter(|found| found.kind == 13).map(|found| found.members)
    }

    /// The offset of a member, and the id of its type.
    fn member(&self, structure: &Found, name: &str) -> Option<(u32, u32)> {
        for index in 0..structure.members as usize {
            let at = structure.at + 12 + index * 12;
            let (name_at, id, position) = (word(&self.bytes, at)?, word(&self.bytes, at + 4)?, word(&self.bytes, at + 8)?);
            // Where there are bit fields, the upper byte holds their width.
            let bits = if structure.has_bit_fields { position & 0x00ff_ffff } else { position };
            if self.is_named(name_at, name) {
                return Some((bits / 8, id));
            }
            let unnamed = self.is_named(name_at, "").then(|| self.found(id)).flatten();
            if let Some(part) = unnamed.filter(|part| matches!(part.kind, 4 | 5))
                && let Some((offset, id)) = self.member(&part, name)
            {
                return Some((bits / 8 + offset, id));
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Found> {
        /// More than any type of the kernel has.
        const DEEP: usize = 16;
        for _ in 0..DEEP {
            let found = self.found(id)?;
            if !matches!(found.kind, 8..=11 | 18) {
                return Some(found);
            }
            id = found.type_id;
        }
        None
    }

    /// The type of an id.
    fn found(&self, id: u32) -> Option<Found> {
        let index = id.checked_sub(1)?;
        self.read_at(id, *self.starts.get(index as usize)?)
    }

    /// The types in the order of their ids, up to the first that makes no sense.
    fn walk(&self) -> impl Iterator<Item = Found> + '_ {
        let (mut at, end) = self.table;
        // Id 0 is void, which is not listed.
        let mut id = 0;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            id += 1;
            let found = self.read_at(id, at)?;
            at += 12 + extra_bytes(found.kind, found.members)?;
            Some(found)
        })
    }

    fn read_at(&self, id: u32, at: usize) -> Option<Found> {
        let [name_at, information, type_id] = [0, 4, 8].map(|offset| word(&self.bytes, at + offset));
        let (information, type_id) = (information?, type_id?);
        let (kind, members) = (information >> 24 & 0x1f, information & 0xffff);
        Some(Found { id, name_at: name_at?, kind, members, type_id, has_bit_fields: information >> 31 != 0, at })
    }

    fn name(&self, name_at: u32) -> &[u8] {
        let stored = self.bytes.get(self.strings + name_at as usize..).unwrap_or_default();
        stored.split(|byte| *byte == 0).next().unwrap_or_default()
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

    /// `struct pair { int a; struct { char b; char c; }; }`, the inner part before it.
    fn nested() -> Vec<u8> {
        let strings = b"\0char\0pair\0a\0b\0c\0";
        let kind = |kind: u32, members: u32| kind << 24 | members;
        let mut types = vec![1, kind(1, 0), 1, 8];
        types.extend([0, kind(4, 2), 2, 13, 1, 0, 15, 1, 8]);
        types.extend([6, kind(4, 2), 8, 11, 1, 0, 0, 2, 32]);
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut bytes = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
        let lengths = [24, 0, types.len(), types.len(), strings.len()];
        bytes.extend(lengths.into_iter().flat_map(|length| u32::try_from(length).unwrap().to_ne_bytes()));
        [bytes, types, strings.to_vec()].concat()
    }

    #[test]
    fn members_are_found_in_unnamed_parts_too() {
        let types = Types::new(nested()).unwrap();
        assert_eq!(["a", "b", "c", "d"].map(|member| types.offset("pair", member)), [Some(0), Some(4), Some(5), None]);
        assert_eq!(types.offset("char", "a"), None);
    }

    #[test]
    fn the_running_kernel_s_sockets_have_a_cookie() {
        // Without BTF there is nothing to ask; `weir doctor` says what that means.
        let Ok(types) = Types::of_kernel() else { return };
        assert_eq!(types.offset("sock", "__sk_common"), Some(0));
        assert!(types.offset("sock_common", "skc_cookie").is_some_and(|offset| offset > 0));
    }

    #[test]
    fn members_of_members_are_found() {
        // `struct pair { int a; struct inner { char b; char c; } in; }`
        let strings = b"\0char\0pair\0a\0b\0c\0in\0";
        let kind = |kind: u32, members: u32| kind << 24 | members;
        let mut types = vec![1, kind(1, 0), 1, 8];
        types.extend([0, kind(4, 2), 2, 13, 1, 0, 15, 1, 8]);
        types.extend([0, kind(10, 0), 2]);
        types.extend([6, kind(4, 2), 8, 11, 1, 0, 17, 3, 32]);
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut bytes = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
        let lengths = [24, 0, types.len(), types.len(), strings.len()];
        bytes.extend(lengths.into_iter().flat_map(|length| u32::try_from(length).unwrap().to_ne_bytes()));
        let types = Types::new([bytes, types, strings.to_vec()].concat()).unwrap();
        assert_eq!(["b", "c", "a"].map(|member| types.offset_within("pair", &["in", member])), [Some(4), Some(5), None]);
        assert_eq!(types.offset_within("pair", &["a", "b"]), None, "an integer has no members");
    }

    #[test]
    fn the_running_kernel_names_its_reasons_for_drops_and_its_arguments() {
        let Ok(types) = Types::of_kernel() else { return };
        let reasons = types.enumeration("skb_drop_reason").unwrap_or_default();
        assert!(reasons.contains(&("SKB_DROP_REASON_NOT_SPECIFIED".to_owned(), 2)), "{reasons:?}");
        assert!(types.arguments_of_tracepoint("kfree_skb").is_some_and(|count| count >= 3));
        assert!(matches!(types.arguments_of_function("inet_csk_accept"), Some(2 | 4)));
        assert!(types.offset_within("tcp_sock", &["rcvq_space", "time"]).is_some());
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
