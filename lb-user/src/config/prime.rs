//! Primes: the sizes that a Maglev table may have, so that every step of a backend's walk reaches every entry.

/// Smallest table.
pub(super) const LEAST: u32 = 101;
/// Largest table: the largest prime below 2^20.
pub(super) const MOST: u32 = 1_048_573;

/// By trial division: at most 512 of them up to [`MOST`].
pub(super) fn is_prime(n: u32) -> bool {
    n == 2 || (n > 2 && !n.is_multiple_of(2) && (3..).step_by(2).take_while(|d| *d <= n / d).all(|d| !n.is_multiple_of(d)))
}

/// The next prime below and above, as far as a table may have them.
pub(super) fn neighbours(n: u32) -> impl Iterator<Item = u32> {
    let below = (LEAST..n).rev().find(|n| is_prime(*n));
    let above = (n.saturating_add(1)..=MOST).find(|n| is_prime(*n));
    below.into_iter().chain(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_agree_with_a_sieve() {
        let mut sieve = vec![true; MOST as usize + 4];
        sieve[0] = false;
        sieve[1] = false;
        for d in 2..1100 {
            (d * d..sieve.len()).step_by(d).for_each(|multiple| sieve[multiple] = false);
        }
        for n in 0..MOST + 4 {
            assert_eq!(is_prime(n), sieve[n as usize], "{n}");
        }
        assert!(is_prime(LEAST) && is_prime(MOST) && (MOST + 1..1 << 20).all(|n| !is_prime(n)));
    }

    #[test]
    fn neighbours_are_the_next_primes_within_the_bounds() {
        assert_eq!(neighbours(65_536).collect::<Vec<_>>(), [65_521, 65_537]);
        assert_eq!(neighbours(102).collect::<Vec<_>>(), [101, 103]);
        assert_eq!(neighbours(MOST - 1).last(), Some(MOST));
    }
}
