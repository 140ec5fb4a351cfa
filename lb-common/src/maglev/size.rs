//! How large a table is.

/// A step of the ladder that [`size_for`] climbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Entries of the table: a prime, and one less than a multiple of three.
    pub entries: u32,
    /// The most backends that it is meant for.
    pub backends: u32,
}

/// The sizes that [`size_for`] chooses from. The steps are few because a group that grows over one gets another table, in which all its
/// flows are dealt anew; `size_for(backends).max(current)` keeps them where they are at least when it shrinks again. In an array map of 8 bytes an entry they take 64 KiB, 512 KiB, 2 MiB and 8 MiB.
///
/// Each is good for the paper's 100 entries a backend, which keeps every share within 1 %. The smallest stops at 200, because fewer
/// entries also move more: what changes hands between the backends that stay when one of equal weight leaves (or joins: it is the same
/// pair of tables) came to, in 200 draws each, as a share of the table's entries:
///
/// | entries | backends | mean | worst | | entries | backends | mean | worst |
/// |--:|--:|--:|--:|---|--:|--:|--:|--:|
/// | 8,171 | 4 | 0.39 % | 0.70 % | | 65,537 | 100 | 0.57 % | 0.64 % |
/// | 8,171 | 16 | 1.01 % | 1.36 % | | 65,537 | 400 | 0.95 % | 1.03 % |
/// | 8,171 | 40 | 1.40 % | 1.76 % | | 65,537 | 655 | 0.78 % | 0.85 % |
/// | 8,171 | 81 | 1.79 % | 2.13 % | | 262,139 | 1,000 | 0.50 % | 0.54 % |
///
/// The worst of 85,000 draws, over every number of backends from 2 to 655 and some up to 2,621, was 1.81 % (at 36). So when a member
/// leaves, its own flows move, and less than 2 % of all flows besides. To print the figures:
/// `cargo run --release -p lb-common --example maglev_figures`.
pub const SIZES: [Size; 4] = [
    Size { entries: 8_171, backends: 40 },
    Size { entries: 65_537, backends: 655 },
    Size { entries: 262_139, backends: 2_621 },
    Size { entries: 1_048_571, backends: 10_485 },
];

/// The largest table that [`fill`](super::fill) takes, in entries.
pub const MAX_SIZE: u32 = 1 << 24;

const _: () = {
    let mut step = 0;
    while step < SIZES.len() {
        assert!(is_size(SIZES[step].entries), "fill() must take every size of the ladder");
        assert!(SIZES[step].entries / 100 >= SIZES[step].backends, "at least 100 entries a backend");
        step += 1;
    }
};

/// The entries of the table for a group of this many backends: the first of [`SIZES`] that is meant for so many, or else the last.
#[must_use]
pub const fn size_for(backends: usize) -> u32 {
    let mut step = 0;
    while step + 1 < SIZES.len() && backends > SIZES[step].backends as usize {
        step += 1;
    }
    SIZES[step].entries
}

/// Whether [`fill`](super::fill) can fill a table of this many entries: a prime, one less than a multiple of three, at most [`MAX_SIZE`].
#[must_use]
pub const fn is_size(size: u32) -> bool {
    size <= MAX_SIZE && size % 3 == 2 && is_prime(size)
}

/// Whether the number is a prime, by trial division.
#[must_use]
pub const fn is_prime(number: u32) -> bool {
    let mut divisor = 2;
    while divisor <= number / divisor {
        if number.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    number > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_and_sizes() {
        let primes: Vec<u32> = (0..30).filter(|&number| is_prime(number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(u32::MAX - 4) && !is_prime(u32::MAX) && !is_prime(65_521 * 65_521));
        assert!(is_size(11) && !is_size(13) && !is_size(35) && !is_size(0) && !is_size(16_777_259));
        assert_eq!(
            [0, 1, 40, 41, 655, 656, 2_621, 2_622, 65_536].map(size_for),
            [8_171, 8_171, 8_171, 65_537, 65_537, 262_139, 262_139, 1_048_571, 1_048_571]
        );
    }
}
