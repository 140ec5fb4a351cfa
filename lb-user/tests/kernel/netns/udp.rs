//! Tables swapped under load, drained workers, killed workers.
use libtest_mimic::Trial;
pub fn tests() -> Vec<Trial> {
    vec![]
}
