//! Random changes of users at Clerk.

use std::time::Instant;

use clerk_sim::Sim;
use fastrand::Rng;

use crate::events::EventKind;

/// The seed of the changes. They are the same in every run.
const SEED: u64 = 1;

/// Updates per hundred changes. The rest are creations and deletions.
const UPDATES: u32 = 60;
/// Creations per hundred changes.
const CREATES: u32 = 20;

/// A change of a user.
pub struct Change {
    pub user: String,
    pub kind: EventKind,
    /// The time before the change, so that the time that the simulator takes counts, too.
    pub at: Instant,
}

/// Changes users at random.
///
/// No user is chosen twice, so that it is certain which change an event belongs to.
pub struct Changes {
    rng: Rng,
    untouched: Vec<String>,
    made: u64,
}

impl Changes {
    pub fn new(sim: &Sim) -> Self {
        Self {
            rng: Rng::with_seed(SEED),
            untouched: sim.user_ids(),
            made: 0,
        }
    }

    /// A user at random that was not chosen before.
    fn untouched_user(&mut self) -> String {
        let index = self.rng.usize(..self.untouched.len());
        self.untouched.swap_remove(index)
    }

    pub fn make(&mut self, sim: &Sim) -> Change {
        self.made += 1;
        let roll = self.rng.u32(..100);
        if roll < UPDATES {
            self.update(sim)
        } else if roll < UPDATES + CREATES {
            create(sim)
        } else {
            self.delete(sim)
        }
    }

    fn update(&mut self, sim: &Sim) -> Change {
        let user = self.untouched_user();
        let name = format!("Freshly {}", self.made);
        let at = Instant::now();
        assert!(
            sim.update(&user, |user| user["first_name"] = name.into()),
            "there is no user {user}"
        );
        let kind = EventKind::Updated;
        Change { user, kind, at }
    }

    pub fn delete(&mut self, sim: &Sim) -> Change {
        let user = self.untouched_user();
        let at = Instant::now();
        assert!(sim.delete(&user), "there is no user {user}");
        let kind = EventKind::Deleted;
        Change { user, kind, at }
    }
}

fn create(sim: &Sim) -> Change {
    let at = Instant::now();
    let user = sim.create_random();
    let kind = EventKind::Created;
    Change { user, kind, at }
}
