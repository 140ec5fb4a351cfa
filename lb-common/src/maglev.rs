//! Maglev tables with weights: which backend takes a flow, and how few flows move when a backend comes or goes.
//!
//! A table of a prime number of entries is dealt out among the backends: in turn, each takes the next entry of its own preference list
//! that nobody has yet. Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4.
//!
//! # What differs from the paper, and why
//!
//! **The preference list.** The paper walks `offset + j * skip`, a straight line modulo the size. Two backends whose skips happen to be
//! in a simple ratio then run side by side, and when one leaves, the shift is handed on along the line. With 7 backends in 4091
//! entries we measured 0.9 % of the entries changing hands between backends that stayed in the mean of 400 draws, but 17 % in the
//! worst. Here the walk is `offset + scale * (start + j)³`, which is also a permutation because the size is a prime that leaves
//! the remainder 2 when divided by 3 (3 is then coprime to `size - 1`, so every number has one cube root). Its steps come from three
//! additions, so it costs no division either. In the same test it gives 1.0 % and 1.4 %; truly random lists
//! give 1.0 % and 1.3 %. [`SIZES`] has the figures.
//!
//! **The weights.** The paper leaves open how often a backend of some weight takes its turn. In each round a backend earns credit in
//! proportion to its weight and takes an entry when it has earned a whole one. What a whole one is follows from the largest weight
//! alone, rounded up to a power of two, so that a member that leaves seldom changes the order in which the others take their turns.
//!
//! # What holds
//!
//! With equal weights any two backends' counts differ by at most one, so at one hundred entries a backend or more no share is off by
//! more than 1 %. With weights, a count is within two entries plus 1 % of the exact share. A weight that is worth less than half an
//! entry gets none. The table depends on the set of backends only, not on their order.
#![expect(clippy::cast_possible_truncation, reason = "positions are less than the size of the table, and that is at most MAX_SIZE")]

mod size;

use core::fmt;

pub use size::{MAX_SIZE, SIZES, Size, is_prime, is_size, size_for};

use crate::siphash::sip13;

/// The entry of a table without backends. It is no slot number.
pub const NO_SLOT: u32 = u32::MAX;

/// The key under which ids are hashed into walks. It is no secret, and must not change: all tables would. It reads "Weir's Maglev 01".
const WALK_KEY: [u64; 2] = [u64::from_le_bytes(*b"Weir's M"), u64::from_le_bytes(*b"aglev 01")];

/// One member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Names the member for as long as it lives: the same id always prefers the same entries. Two members with one id share a
    /// preference list: the table is still even, but more flows move than need to when one of them leaves.
    pub id: u64,
    /// What the table's entries say: the slot of its socket. Not [`NO_SLOT`].
    pub slot: u32,
    /// Its share, relative to the others'. 0: no entries (draining).
    pub weight: u32,
}

/// Why a table could not be filled. The table is untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillError {
    /// The table's length is no size: see [`is_size`].
    Size(usize),
    /// There are more backends than entries in the table, or than turns in the scratch space.
    TooMany(usize),
    /// A backend's slot is [`NO_SLOT`]; its id is given.
    NoSlot(u64),
}

impl fmt::Display for FillError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(formatter, "{size} entries are no table: it takes a prime one less than a multiple of three"),
            Self::TooMany(count) => write!(formatter, "{count} backends do not fit into the table or its scratch space"),
            Self::NoSlot(id) => write!(formatter, "backend {id:#x} has no slot"),
        }
    }
}

impl core::error::Error for FillError {}

/// Scratch space for [`fill`], one for each backend: where a backend stands in its walk. `Turn::default()` is as good as any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    id: u64,
    credit: u64,
    slot: u32,
    weight: u32,
    /// The entry it wants next.
    position: u32,
    /// How far the walk goes from there to the next entry, and the differences of that: the third of a cubic is constant.
    first: u32,
    second: u32,
    third: u32,
}

impl Turn {
    /// At the start of the backend's walk through a table of `size` entries. Half an entry of credit in advance rounds the counts to
    /// the nearest number instead of down.
    fn new(backend: &Backend, size: u32, unit: u64) -> Self {
        let size = u64::from(size);
        let hash = |use_of_it: u64| sip13(WALK_KEY, [backend.id, use_of_it]);
        let (offset, scale, start) = (hash(0) % size, hash(1) % (size - 1) + 1, hash(2) % size);
        let at = |step: u64| {
            let x = (start + step) % size;
            (offset + scale * (x * x % size * x % size)) % size
        };
        let difference = |step: u64| at(step + 1) + size - at(step);
        let first = difference(0) % size;
        Self {
            id: backend.id,
            credit: unit / 2,
            slot: backend.slot,
            weight: backend.weight,
            position: at(0) as u32,
            first: first as u32,
            second: ((difference(1) + size - first) % size) as u32,
            third: (6 * scale % size) as u32,
        }
    }

    /// One step along the walk.
    fn advance(&mut self, size: u32) {
        let add = |a: u32, b: u32| if a + b >= size { a + b - size } else { a + b };
        self.position = add(self.position, self.first);
        self.first = add(self.first, self.second);
        self.second = add(self.second, self.third);
    }
}

/// Fills `table` with the slots of `backends` in proportion to their weights.
///
/// `table.len()` must satisfy [`is_size`], best as [`size_for`] chooses it; `scratch` must be at least as long as `backends`, and what
/// is in it does not matter. Without backends, or with weights that are all 0, every entry is [`NO_SLOT`].
///
/// It takes about `size * ln(size)` steps, and `size` times the ratio of the largest to the mean weight: 3 ms for 1,000 equal backends
/// at 65,537 entries (release build; `cargo run --release -p lb-common --example maglev_figures`).
pub fn fill(table: &mut [u32], backends: &[Backend], scratch: &mut [Turn]) -> Result<(), FillError> {
    let size = u32::try_from(table.len()).ok().filter(|&size| is_size(size)).ok_or(FillError::Size(table.len()))?;
    let turns = match scratch.get_mut(..backends.len()) {
        Some(turns) if backends.len() <= table.len() => turns,
        _ => return Err(FillError::TooMany(backends.len())),
    };
    if let Some(backend) = backends.iter().find(|backend| backend.slot == NO_SLOT) {
        return Err(FillError::NoSlot(backend.id));
    }
    table.fill(NO_SLOT);
    let Some(unit) = backends.iter().map(|backend| u64::from(backend.weight)).max().filter(|&weight| weight > 0) else {
        return Ok(());
    };
    let unit = unit.next_power_of_two();

    for (turn, backend) in turns.iter_mut().zip(backends) {
        *turn = Turn::new(backend, size, unit);
    }
    turns.sort_unstable_by_key(|turn| (turn.id, turn.slot, turn.weight));
    let mut empty = size;
    loop {
        for turn in turns.iter_mut() {
            turn.credit += u64::from(turn.weight);
            if turn.credit < unit {
                continue;
            }
            turn.credit -= unit;
            while table[turn.position as usize] != NO_SLOT {
                turn.advance(size);
            }
            table[turn.position as usize] = turn.slot;
            empty -= 1;
            if empty == 0 {
                return Ok(());
            }
        }
    }
}

/// The entry of a table of `size` entries that a flow with this hash belongs to; less than `size` unless that is 0.
///
/// The upper half of the hash is scaled down (Lemire, "Fast Random Integer Generation in an Interval", 2019): one multiplication where
/// a remainder would be a division for each packet. Each entry gets `2³² / size` of the upper halves, rounded up or down, so with a
/// uniform hash no entry is off by more than `size / 2³²` of its share: 0.0015 % at 65,537.
#[inline(always)]
#[must_use]
pub const fn index(hash: u64, size: u32) -> u32 {
    (((hash >> 32) * size as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Backends of these weights in slots 0, 1, 2 ..; `seed` decides their ids.
    fn group(seed: u64, weights: &[u32]) -> Vec<Backend> {
        (0..).zip(weights).map(|(slot, &weight)| Backend { id: sip13([seed, 0], [slot.into()]), slot, weight }).collect()
    }

    fn table(size: u32, backends: &[Backend]) -> Vec<u32> {
        // What was there before must not matter.
        let mut table = vec![0xa5a5; size as usize];
        fill(&mut table, backends, &mut vec![Turn::default(); backends.len()]).unwrap();
        table
    }

    /// Entries of each of `slots` slots; fails on an entry that names none of them.
    fn counts(table: &[u32], slots: usize) -> Vec<u32> {
        let mut counts = vec![0; slots];
        for &slot in table {
            counts[slot as usize] += 1;
        }
        counts
    }

    /// Entries that changed hands between two backends other than `leaver`, in percent of all.
    fn moved_between_others(with: &[u32], without: &[u32], leaver: u32) -> f64 {
        let moved: f64 = with.iter().zip(without).map(|(with, without)| f64::from(with != without && *with != leaver)).sum();
        100.0 * moved / f64::from(u32::try_from(with.len()).unwrap())
    }

    #[test]
    fn what_cannot_be_filled_is_refused_and_left_alone() {
        let two = group(1, &[1, 1]);
        let mut scratch = [Turn::default(); 6];
        let mut refused = |size: usize, backends: &[Backend], turns: usize| {
            let mut table = vec![7; size];
            let error = fill(&mut table, backends, &mut scratch[..turns]).unwrap_err();
            assert!(table.iter().all(|&slot| slot == 7));
            error
        };
        assert_eq!(refused(0, &two, 2), FillError::Size(0));
        assert_eq!(refused(12, &two, 2), FillError::Size(12));
        assert_eq!(refused(13, &two, 2), FillError::Size(13));
        assert_eq!(refused(11, &two, 1), FillError::TooMany(2));
        assert_eq!(refused(5, &group(1, &[1; 6]), 6), FillError::TooMany(6));
        assert_eq!(refused(11, &[Backend { id: 9, slot: NO_SLOT, weight: 1 }], 1), FillError::NoSlot(9));
    }

    #[test]
    fn nobody_to_serve_leaves_every_entry_empty() {
        assert!(table(8_171, &[]).iter().all(|&slot| slot == NO_SLOT));
        assert!(table(8_171, &group(1, &[0, 0, 0])).iter().all(|&slot| slot == NO_SLOT));
    }

    /// Two versions of this project must fill the same table, or an upgrade would move flows. The values were computed apart from this
    /// code, from the formula for the walk and lists of all positions.
    #[test]
    fn a_table_never_changes() {
        let backends = [(1, 10, 1), (2, 11, 2), (3, 12, 1)].map(|(id, slot, weight)| Backend { id, slot, weight });
        assert_eq!(table(11, &backends), [11, 11, 12, 10, 10, 12, 10, 11, 12, 11, 11]);
        let digest = table(8_171, &backends).iter().fold(0, |digest, &slot| sip13([digest, 0], [slot.into()]));
        assert_eq!(digest, 0x9e03_5410_1004_0690);
    }

    #[test]
    fn a_hundred_thousand_flows_spread_evenly_and_stay() {
        for (workers, expected) in [(4, 25_000.0), (7, 14_285.7)] {
            let backends = group(7, &vec![1; workers]);
            let (with, without) = (table(8_171, &backends), table(8_171, &backends[1..]));
            let flows: Vec<u32> = (0..100_000).map(|flow| index(sip13([3, 4], [flow, 80]), 8_171)).collect();
            let pick = |table: &[u32]| -> Vec<u32> { flows.iter().map(|&entry| table[entry as usize]).collect() };
            let (with, without) = (pick(&with), pick(&without));
            for count in counts(&with, workers) {
                assert!((f64::from(count) / expected - 1.0).abs() < 0.05, "{count} flows of {expected}");
            }
            assert!(moved_between_others(&with, &without, 0) < 2.0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_walk_visits_every_entry_once(id: u64, size in prop::sample::select(vec![2_u32, 5, 11, 17, 1_019, 8_171])) {
            let mut turn = Turn::new(&Backend { id, slot: 0, weight: 1 }, size, 1);
            let mut seen = vec![false; size as usize];
            for _ in 0..size {
                prop_assert!(!core::mem::replace(&mut seen[turn.position as usize], true));
                turn.advance(size);
            }
        }

        #[test]
        fn an_index_is_an_entry(hash: u64, size in 1..=MAX_SIZE) {
            prop_assert!(index(hash, size) < size);
            prop_assert_eq!(index(0, size), 0);
            prop_assert_eq!(index(u64::MAX, size), size - 1);
        }

        #[test]
        fn equal_weights_get_equal_shares(seed: u64, count in 1..=655_usize, weight in 1..=u32::MAX) {
            let backends = group(seed, &vec![weight; count]);
            let counts = counts(&table(65_537, &backends), count);
            let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
            prop_assert!(most - least <= 1);
            let exact = 65_537.0 / f64::from(u32::try_from(count).unwrap());
            prop_assert!(f64::from(most) <= exact * 1.01 && f64::from(least) >= exact * 0.99);
        }

        #[test]
        fn shares_are_proportional_to_weights(seed: u64, weights in vec(0..=1_000_u32, 1..=40)) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let backends = group(seed, &weights);
            let whole = f64::from(weights.iter().sum::<u32>());
            for (count, weight) in counts(&table(8_171, &backends), weights.len()).into_iter().zip(weights) {
                let exact = 8_171.0 * f64::from(weight) / whole;
                prop_assert!((f64::from(count) - exact).abs() <= 2.0 + exact / 100.0, "{} entries, exact {}", count, exact);
                prop_assert!(weight > 0 || count == 0);
            }
        }

        #[test]
        fn one_that_leaves_or_joins_moves_little_else(
            seed: u64,
            weights in prop_oneof![vec(1..=1_000_u32, 2..=40), vec(Just(1), 2..=40), vec(Just(1), 41..=655)],
        ) {
            let (size, backends) = (size_for(weights.len()), group(seed, &weights));
            let moved = moved_between_others(&table(size, &backends), &table(size, &backends[1..]), 0);
            prop_assert!(moved < 2.0, "{} % of {} entries moved between {} backends that stayed", moved, size, weights.len() - 1);
        }

        #[test]
        fn the_order_of_the_backends_does_not_matter(
            (ordered, shuffled) in (any::<u64>(), vec(0..=9_u32, 1..=40))
                .prop_map(|(seed, weights)| group(seed, &weights))
                .prop_flat_map(|backends| (Just(backends.clone()), Just(backends).prop_shuffle()))
        ) {
            prop_assert_eq!(table(8_171, &ordered), table(8_171, &shuffled));
        }
    }
}
