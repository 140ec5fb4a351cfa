//! Where the kernel keeps its fields: offsets from the kernel's own type information.
//!
//! aya reads BTF to load programs but shows no members of structures, so this walks the bytes itself: a header, then types one after
//! the other, each of a length that its kind tells (Documentation/bpf/btf.rst in the kernel's source). Nothing is kept of it.

use std::{fs, io, path::Path};

use thiserror::Error;

/// The kernel's type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Why an offset could not be found.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("cannot read {VMLINUX}")]
    Read(#[from] io::Error),
    /// It is not what the format says.
    #[error("{VMLINUX} is not in the format that is known")]
    Malformed,
    /// The kernel has no such structure or no such member.
    #[error("the kernel has no `{member}` in `struct {structure}`")]
    NoMember {
        /// The structure.
        structure: &'static str,
        /// The member.
        member: &'static str,
    },
}

/// A kernel's type information, as read.
pub struct Btf {
    bytes: Vec<u8>,
    types: usize,
    types_end: usize,
    strings: usize,
}

struct Type<'a> {
    name: &'a [u8],
    kind: u32,
    count: u32,
    /// Whether members carry a bit field's size in the upper byte of their offset.
    has_bitfields: bool,
    /// Where what follows the type's 12 bytes starts.
    body: usize,
}

impl Btf {
    /// Reads the running kernel's.
    pub fn of_kernel() -> Result<Self, BtfError> {
        Self::parse(fs::read(Path::new(VMLINUX))?)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let mut btf = Self { bytes, types: 0, types_end: 0, strings: 0 };
        let word = |at| btf.word(at).map(|word| word as usize);
        if btf.bytes.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(BtfError::Malformed);
        }
        let header = word(4)?;
        let (types, length, strings) = (word(8)?, word(12)?, word(16)?);
        if header < HEADER {
            return Err(BtfError::Malformed);
        }
        (btf.types, btf.types_end, btf.strings) = (header + types, header + types + length, header + strings);
        Ok(btf)
    }

    /// The offset in bytes of a member of a structure, looked for in its unnamed parts as well.
    pub fn offset(&self, structure: &'static str, member: &'static str) -> Result<u32, BtfError> {
        let missing = || BtfError::NoMember { structure, member };
        for found in self.iter() {
            let found = found?;
            // A forward declaration has the name but no members.
            if found.kind == KIND_STRUCT && found.count > 0 && found.name == structure.as_bytes() {
                return self.member(&found, member.as_bytes())?.ok_or_else(missing);
            }
        }
        Err(missing())
    }

    fn member(&self, structure: &Type<'_>, name: &[u8]) -> Result<Option<u32>, BtfError> {
        for index in 0..structure.count as usize {
            let at = structure.body + index * 12;
            let (member, id, offset) = (self.string(self.word(at)?)?, self.word(at + 4)?, self.word(at + 8)?);
            let bits = if structure.has_bitfields { offset & 0x00ff_ffff } else { offset };
            if member == name {
                return Ok(Some(bits / 8));
            }
            if member.is_empty()
                && let Some(inner) = self.iter().nth((id as usize).saturating_sub(1)).transpose()?
                && matches!(inner.kind, KIND_STRUCT | KIND_UNION)
                && let Some(offset) = self.member(&inner, name)?
            {
                return Ok(Some(bits / 8 + offset));
            }
        }
        Ok(None)
    }

    /// The types in the order of their numbers, which begin at 1.
    fn iter(&self) -> impl Iterator<Item = Result<Type<'_>, BtfError>> {
        let mut at = self.types;
        std::iter::from_fn(move || {
            if at >= self.types_end {
                return None;
            }
            let next = self.type_at(at);
            at = match &next {
                Ok((_, next)) => *next,
                Err(_) => self.types_end,
            };
            Some(next.map(|(found, _)| found))
        })
    }

    fn type_at(&self, at: usize) -> Result<(Type<'_>, usize), BtfError> {
        let (name, info) = (self.string(self.word(at)?)?, self.word(at + 4)?);
        let (kind, count) = ((info >> 24) & 0x1f, info & 0xffff);
        let body = at + 12;
        let length = match kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count as usize,
            KIND_ENUM | KIND_FUNC_PROTO => 8 * count as usize,
            _ => 0,
        };
        Ok((Type { name, kind, count, has_bitfields: info >> 31 != 0, body }, body + length))
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        let bytes = self.bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(BtfError::Malformed)?;
        Ok(u32::from_ne_bytes(*bytes))
    }

    fn string(&self, offset: u32) -> Result<&[u8], BtfError> {
        let rest = self.bytes.get(self.strings + offset as usize..).ok_or(BtfError::Malformed)?;
        rest.split(|byte| *byte == 0).next().ok_or(BtfError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct pair { int a; struct { char b; char c; }; }` as a compiler would describe it.
    fn pair() -> Vec<u8> {
        let strings = b"\0int\0char\0pair\0a\0b\0c\0";
        let (int, char, pair, a, b, c) = (1, 5, 10, 15, 17, 19);
        let of = |kind: u32, count: u32| kind << 24 | count;
        let types: &[u32] = &[
            int,
            of(KIND_INT, 0),
            4,
            32, // 1
            char,
            of(KIND_INT, 0),
            1,
            8, // 2
            0,
            of(KIND_STRUCT, 2),
            2,
            b,
            2,
            0,
            c,
            2,
            8, // 3
            pair,
            of(KIND_STRUCT, 2),
            8,
            a,
            1,
            0,
            0,
            3,
            32, // 4
        ];
        let length = u32::try_from(types.len() * 4).unwrap();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0]);
        let strings_length = u32::try_from(strings.len()).unwrap();
        for word in [24, 0, length, length, strings_length].iter().chain(types) {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(strings);
        bytes
    }

    #[test]
    fn members_are_found_in_unnamed_parts_too() {
        let btf = Btf::parse(pair()).unwrap();
        assert_eq!(btf.offset("pair", "a").unwrap(), 0);
        assert_eq!(btf.offset("pair", "b").unwrap(), 4);
        assert_eq!(btf.offset("pair", "c").unwrap(), 5);
        assert!(matches!(btf.offset("pair", "d"), Err(BtfError::NoMember { .. })));
        assert!(matches!(btf.offset("int", "a"), Err(BtfError::NoMember { .. })));
    }

    #[test]
    fn cut_short_anywhere_it_is_an_error_and_no_panic() {
        let bytes = pair();
        for length in 0..bytes.len() {
            if let Ok(btf) = Btf::parse(bytes[..length].to_vec()) {
                let _ = btf.offset("pair", "c");
            }
        }
    }

    #[test]
    fn the_running_kernel_has_a_first_member_at_zero() {
        // Without BTF there is nothing to ask; `weir doctor` says what that means.
        let Ok(btf) = Btf::of_kernel() else { return };
        assert_eq!(btf.offset("sock", "__sk_common").unwrap(), 0);
        assert!(btf.offset("sock_common", "skc_cookie").unwrap() > 0);
    }
}
