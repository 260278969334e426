//! What generated objects have in common.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// 2026-06-01T00:00:00Z in Unix milliseconds. All times of generated objects are before it, so that
/// the objects stay the same from run to run.
pub(crate) const EPOCH: i64 = 1_780_272_000_000;
/// A day in milliseconds.
pub(crate) const DAY: i64 = 24 * 60 * 60 * 1000;
/// The time before the epoch in which objects were created, in milliseconds.
pub(crate) const SPAN: i64 = 3 * 365 * DAY;

/// The random numbers of the n-th object of a seed. Each purpose has its own.
pub(crate) fn rng(seed: u64, n: u64, purpose: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (part, value) in key.chunks_exact_mut(8).zip([seed, n, purpose]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
