//! A service's table: an array map of `u32`, swapped whole.
//!
//! | index | what |
//! |---|---|
//! | 0 | the size of the Maglev table, so that a reader never mixes one table's size with another's entries |
//! | 1 to 256 | the slot of the worker with index 0 to 255, for QUIC connection IDs; [`NO_SLOT`] if there is none |
//! | 257 on | the Maglev table: one slot for each entry |

pub use crate::maglev::NO_SLOT;

use crate::maglev;

/// How many workers a QUIC connection ID can name with its one byte.
pub const QUIC_WORKERS: u32 = 256;
/// How many elements stand before the Maglev table.
pub const TABLE_HEADER: u32 = 1 + QUIC_WORKERS;

/// How far from its own place in the table a flow may go to find a socket that takes new flows. The daemon swaps in a table without
/// the closed and the draining within milliseconds; until then a flow finds none only if all of these places are closed to it, in a
/// group where half are: once in 65,536.
pub const MAX_STEPS: u32 = 16;

/// The elements before the Maglev table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableHeader;

impl TableHeader {
    /// The element with the size of the Maglev table.
    pub const SIZE: u32 = 0;

    /// The element with the slot of a worker.
    #[inline(always)]
    #[must_use]
    pub const fn worker(index: u8) -> u32 {
        1 + index as u32
    }
}

/// The element that a flow's hash falls on, `step` places further on in a Maglev table of this size.
#[inline(always)]
#[must_use]
pub const fn entry_index(hash: u64, size: u32, step: u32) -> u32 {
    let place = maglev::index(hash, size) + step;
    TABLE_HEADER + if place >= size { place - size } else { place }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_cover_the_table_and_wrap() {
        assert_eq!(entry_index(0, 101, 0), TABLE_HEADER);
        assert_eq!(entry_index(u64::MAX, 101, 0), TABLE_HEADER + 100);
        assert_eq!(entry_index(u64::MAX, 101, 1), TABLE_HEADER);
        assert_eq!(entry_index(u64::MAX, 101, 16), TABLE_HEADER + 15);
    }
}
