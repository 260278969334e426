//! The guard against mass deletions: how many rows may be deleted within an hour, and the checksum
//! with which a person approves more.

use std::fmt::Write;

/// The limits of `[deletes]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeleteLimits {
    /// Up to this many deletions are never held.
    pub min_count: u64,
    /// More than this many are held.
    pub max_count: u64,
    /// More than this part of the mirror, in percent, is held.
    pub max_percent: f64,
}

impl DeleteLimits {
    /// Returns how many more of a mirror's `rows` may be deleted if `lately` were deleted within
    /// the last hour.
    pub fn room(&self, lately: u64, rows: u64) -> u64 {
        let part = (rows as f64 * self.max_percent / 100.0) as u64;
        self.max_count.min(part).max(self.min_count).saturating_sub(lately)
    }

    /// Whether `deletions` of a mirror of `rows` rows must wait for a person.
    pub fn hold(&self, deletions: u64, rows: u64) -> bool {
        deletions > self.min_count
            && (deletions > self.max_count || deletions as f64 > rows as f64 * self.max_percent / 100.0)
    }
}

/// The checksum of a set of deletions: of the ids in byte order, so that it depends on the set
/// alone.
#[derive(Debug, Default)]
pub struct Checksum {
    hasher: blake3::Hasher,
    any: bool,
}

impl Checksum {
    /// Adds the next id, in byte order.
    pub fn add(&mut self, id: &str) {
        self.hasher.update(id.as_bytes());
        self.hasher.update(b"\n");
        self.any = true;
    }

    /// Returns twelve hexadecimal digits; `None` for no deletions.
    pub fn finish(&self) -> Option<String> {
        self.any.then(|| {
            let hash = self.hasher.finalize();
            hash.as_bytes()[..6].iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        })
    }

    /// Returns the checksum of ids in any order.
    pub fn of(ids: &[String]) -> Option<String> {
        let mut ids: Vec<_> = ids.iter().collect();
        ids.sort_unstable();
        let mut checksum = Self::default();
        ids.into_iter().for_each(|id| checksum.add(id));
        checksum.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_above_the_minimum_and_either_limit() {
        let limits = DeleteLimits {
            min_count: 10,
            max_count: 500,
            max_percent: 20.0,
        };
        let check = |deletions, users, held| assert_eq!(limits.hold(deletions, users), held, "{deletions} of {users}");
        check(0, 0, false);
        check(10, 10, false);
        check(11, 11, true);
        check(11, 55, false);
        check(11, 54, true);
        check(500, 1_000_000, false);
        check(501, 1_000_000, true);
    }

    #[test]
    fn the_room_is_what_is_not_held() {
        for (min_count, max_count, max_percent) in [
            (10, 500, 20.0),
            (0, 500, 20.0),
            (10, 5, 20.0),
            (0, 0, 0.0),
            (3, 10, 33.3),
        ] {
            let limits = DeleteLimits {
                min_count,
                max_count,
                max_percent,
            };
            for users in [0, 1, 10, 49, 50, 51, 99, 1_000, 100_000] {
                for lately in [0, 1, 7, 10, 100, 500] {
                    let room = limits.room(lately, users);
                    assert!(
                        room == 0 || !limits.hold(lately + room, users),
                        "{limits:?} {lately} of {users}"
                    );
                    assert!(limits.hold(lately + room + 1, users), "{limits:?} {lately} of {users}");
                }
            }
        }
    }

    #[test]
    fn the_checksum_is_of_the_set() {
        let ids = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(Checksum::of(&[]), None);
        assert_eq!(Checksum::of(&ids(&["a", "b"])), Checksum::of(&ids(&["b", "a"])));
        assert_ne!(Checksum::of(&ids(&["a", "b"])), Checksum::of(&ids(&["ab"])));
        assert_eq!(Checksum::of(&ids(&["a"])).unwrap().len(), 12);
    }
}
