//! The SYN defence with real sockets: what it must never harm, and what it must hold back.

mod ground;

use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    [ground::tests()].into_iter().flatten().collect()
}
