//! How large a service's table is.

use lb_common::maglev;

use super::{Note, notes};

/// The paper's number of entries for each backend, which keeps every share within 1 % (Eisenbud et al., NSDI 2016, section 5.3).
const ENTRIES_PER_BACKEND: u32 = 100;

/// The size of the table for so many backends: the configured one, or else the larger of what so many need and what the service has.
pub(super) fn choose(configured: Option<u32>, backends: usize, current: u32) -> (u32, Option<Note>) {
    let count = u32::try_from(backends).unwrap_or(u32::MAX);
    let Some(wanted) = configured else {
        let needed = maglev::size_for(backends);
        return (if maglev::is_size(current) { needed.max(current) } else { needed }, None);
    };
    let least = wanted.max(count);
    let size = (least..=maglev::MAX_SIZE).find(|size| maglev::is_size(*size)).unwrap_or_else(|| maglev::size_for(backends));
    let note = if size != wanted {
        Some(notes::table_size_changed(wanted, size))
    } else if count.saturating_mul(ENTRIES_PER_BACKEND) > size {
        Some(notes::table_is_small(size, backends))
    } else {
        None
    };
    (size, note)
}
