//! Changes at Clerk.

use std::time::Instant;

use clerk_sim::Sim;
use fastrand::Rng;

use crate::events::Kind;

/// The same changes in every run.
const SEED: u64 = 1;

/// Of a hundred changes so many update, and so many create; the rest delete.
const UPDATES: u32 = 60;
const CREATES: u32 = 20;

/// Something that was done to a user.
pub struct Change {
    pub user: String,
    pub kind: Kind,
    /// Taken before it was done: what the simulator takes for it counts as well.
    pub at: Instant,
}

/// Makes changes to users at random. Nobody is chosen twice, so that it is beyond doubt which change an event tells of.
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

    /// Somebody who was not chosen before.
    pub fn somebody(&mut self) -> String {
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
        let user = self.somebody();
        let name = format!("Freshly {}", self.made);
        let at = Instant::now();
        assert!(
            sim.update(&user, |user| user["first_name"] = name.into()),
            "{user} is not there"
        );
        let kind = Kind::Updated;
        Change { user, kind, at }
    }

    pub fn delete(&mut self, sim: &Sim) -> Change {
        let user = self.somebody();
        let at = Instant::now();
        assert!(sim.delete(&user), "{user} is not there");
        let kind = Kind::Deleted;
        Change { user, kind, at }
    }
}

fn create(sim: &Sim) -> Change {
    let at = Instant::now();
    let user = sim.create_random();
    let kind = Kind::Created;
    Change { user, kind, at }
}
