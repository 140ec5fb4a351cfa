//! Calls of the kernel's own functions, which aya 0.14 has no relocation for.
//!
//! A helper has a number that is the same on all kernels; such a function has the number of its type in the running kernel's BTF. So the
//! object calls a helper that does not exist, and here each such call becomes one of the function, before aya sees the object.

use lb_common::abi::ASSIGN_PLACEHOLDER;
use object::{Object as _, ObjectSection as _, SectionKind};
use zerocopy::IntoBytes as _;

use super::btf::{Kind, Types};

/// The placeholders, and the kernel functions that they stand for.
const FUNCTIONS: [(u32, &str); 1] = [(ASSIGN_PLACEHOLDER, "bpf_sk_assign_tcp_reqsk")];

/// `BPF_JMP | BPF_CALL`, with an immediate.
const CALL: u8 = 0x85;
/// What tells a call of a kernel function from one of a helper: `BPF_PSEUDO_KFUNC_CALL` as its source register, none as its destination.
const OF_FUNCTION: u8 = 2 << 4;

/// Why the object cannot call the kernel's functions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel shows no types.
    #[error("{0}")]
    NoTypes(String),
    /// The kernel has no such function.
    #[error("the kernel has no function `{0}` (Linux 6.9 has)")]
    Missing(&'static str),
    /// The object could not be read.
    #[error("cannot read the kernel object ({0})")]
    Unreadable(String),
    /// The object calls no such function: it was built from something else than this daemon.
    #[error("the kernel object does not call `{0}`")]
    Uncalled(&'static str),
}

/// An object whose calls are those of the running kernel.
#[derive(Debug, Clone)]
pub struct Image {
    /// Words, because the bytes of an ELF file must be aligned to be read.
    words: Vec<u64>,
    length: usize,
}

impl Image {
    /// The object with each placeholder's calls turned into calls of its function.
    pub fn with_kernel_functions(object: &[u8], types: Result<&Types, &str>) -> Result<Self, Error> {
        let types = types.map_err(|error| Error::NoTypes(error.to_owned()))?;
        let mut image = Self { words: vec![0; object.len().div_ceil(8)], length: object.len() };
        image.words.as_mut_bytes()[..object.len()].copy_from_slice(object);
        let code = image.code()?;
        for (placeholder, name) in FUNCTIONS {
            let id = types.id(name, Kind::Function).ok_or(Error::Missing(name))?;
            if image.replace(&code, placeholder, id) == 0 {
                return Err(Error::Uncalled(name));
            }
        }
        Ok(image)
    }

    /// The object's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.length]
    }

    /// Where the sections with programs lie: start and length in bytes.
    fn code(&self) -> Result<Vec<(usize, usize)>, Error> {
        let file = object::File::parse(self.bytes()).map_err(|error| Error::Unreadable(error.to_string()))?;
        let ranges = file.sections().filter(|section| section.kind() == SectionKind::Text).filter_map(|section| section.file_range());
        Ok(ranges.filter_map(|(start, length)| Some((usize::try_from(start).ok()?, usize::try_from(length).ok()?))).collect())
    }

    /// Turns the calls of a placeholder into calls of a function, and counts them.
    fn replace(&mut self, code: &[(usize, usize)], placeholder: u32, function: u32) -> usize {
        let (length, bytes) = (self.length, &mut self.words.as_mut_bytes());
        let mut replaced = 0;
        for (start, size) in code {
            let section = bytes[..length].get_mut(*start..start + size).unwrap_or_default();
            for instruction in section.as_chunks_mut::<8>().0 {
                let [code, registers, _, _, immediate @ ..] = instruction;
                // The second half of an instruction of 16 bytes has the code 0.
                if (*code, *registers, u32::from_ne_bytes(*immediate)) == (CALL, 0, placeholder) {
                    *registers = OF_FUNCTION;
                    *immediate = function.to_ne_bytes();
                    replaced += 1;
                }
            }
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::OBJECT;

    #[test]
    fn every_call_of_the_placeholder_is_replaced_and_nothing_else() {
        let call = |number: u32, registers: u8| {
            let [a, b, c, d] = number.to_ne_bytes();
            u64::from_ne_bytes([CALL, registers, 0, 0, a, b, c, d])
        };
        let others = [call(1, 0), call(ASSIGN_PLACEHOLDER, 1 << 4), u64::from_ne_bytes([0x18, 1, 0, 0, 1, 0, 0xff, 0x7f])];
        let words = [others.as_slice(), &[call(ASSIGN_PLACEHOLDER, 0); 2], &others, &[call(ASSIGN_PLACEHOLDER, 0)]].concat();
        let mut image = Image { length: words.len() * 8, words };
        // The last instruction lies in no section of code, and a section that ends behind the object is no section.
        assert_eq!(image.replace(&[(0, 64), (64, 16)], ASSIGN_PLACEHOLDER, 700), 2);
        let expected = [others.as_slice(), &[call(700, OF_FUNCTION); 2], &others, &[call(ASSIGN_PLACEHOLDER, 0)]].concat();
        assert_eq!(image.words, expected);
    }

    #[test]
    fn the_object_of_this_build_calls_the_function_once() {
        // Without a toolchain for it there is no object; without BTF the kernel has no number for the function.
        let Ok(types) = Types::of_kernel() else { return };
        if OBJECT.is_empty() || types.id("bpf_sk_assign_tcp_reqsk", Kind::Function).is_none() {
            return;
        }
        let image = Image::with_kernel_functions(OBJECT, Ok(&types)).unwrap();
        assert_eq!(image.bytes().len(), OBJECT.len());
        let differences = image.bytes().iter().zip(OBJECT).filter(|(now, before)| now != before).count();
        assert!((2..=5).contains(&differences), "registers and immediate of one call, not {differences} bytes");
    }

    #[test]
    fn what_is_lacking_is_told() {
        let error = |object, types| Image::with_kernel_functions(object, types).unwrap_err();
        assert_eq!(error(&[], Err("no types")), Error::NoTypes("no types".to_owned()));
        if let Ok(types) = Types::of_kernel() {
            assert!(matches!(error(b"no object", Ok(&types)), Error::Unreadable(_)));
        }
    }
}
