//! Ids like Clerk's: a prefix and a KSUID in base 62 (27 characters).
//!
//! A KSUID is a time in seconds and 16 random bytes. Written by hand, because it is a dozen lines.

use rand::{Rng, RngExt};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The epoch of KSUIDs, in Unix seconds.
const KSUID_EPOCH: i64 = 1_400_000_000;

/// Makes an id for a time in Unix milliseconds.
pub(crate) fn id(prefix: &str, at: i64, rng: &mut impl Rng) -> String {
    let seconds = u32::try_from(at.div_euclid(1000) - KSUID_EPOCH).unwrap_or(0);
    let mut number = [seconds, rng.random(), rng.random(), rng.random(), rng.random()];
    let mut digits = [0; 27];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0;
        for word in &mut number {
            let value = (rest << 32) | u64::from(*word);
            *word = u32::try_from(value / 62).expect("the rest is below 62, so the quotient fits a word");
            rest = value % 62;
        }
        *digit = ALPHABET[usize::try_from(rest).expect("a digit is below 62")];
    }
    let mut id = String::with_capacity(prefix.len() + digits.len());
    id.push_str(prefix);
    id.extend(digits.iter().map(|digit| char::from(*digit)));
    id
}

/// Makes a trace id, as in `clerk_trace_id`.
pub(crate) fn trace_id(rng: &mut impl Rng) -> String {
    format!("{:032x}", rng.random::<u128>())
}
