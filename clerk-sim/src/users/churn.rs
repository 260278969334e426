//! Creates, changes and deletes users at random.

use rand::RngExt;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::generate::{self, Creation};
use super::samples::{FIRST_NAMES, PLANS};
use crate::clock::now;
use crate::kind::Kind;
use crate::state::State;
use crate::store::edit::{Touch, edit};

/// Creations per hundred changes. As many as deletions, so that the number of users stays about the
/// same.
const CREATES: u32 = 20;
/// Deletions per hundred changes.
const DELETES: u32 = 20;

/// Makes one change.
pub(crate) fn change(state: &State) {
    let roll = state.data_rng().random_range(0..100);
    if roll < CREATES {
        create(state);
    } else if roll < CREATES + DELETES {
        delete(state);
    } else {
        update(state);
    }
}

/// The id of a user at random.
fn random_user(state: &State) -> Option<String> {
    let stores = state.read();
    let store = stores.of(Kind::Users);
    let users = store.len();
    let rank = (users > 0).then(|| state.data_rng().random_range(0..users))?;
    store.by_created_at.nth(rank).map(|entry| entry.id.to_string())
}

/// Creates a user now, and returns its id.
pub(crate) fn create(state: &State) -> String {
    let entry = generate::user(state.options.seed, state.next_user(), Creation::Present { now: now() });
    let id = entry.id.to_string();
    state.write().of_mut(Kind::Users).put(entry, now());
    id
}

/// Deletes a user at random, and returns its id. `None` if there are no users.
pub(crate) fn delete(state: &State) -> Option<String> {
    let id = random_user(state)?;
    state.write().remove(Kind::Users, &id, now()).map(|_| id)
}

/// Changes a user at random, and returns its id. `None` if there are no users.
///
/// It signs in, or its metadata or name changes. Sometimes it is banned or locked.
pub(crate) fn update(state: &State) -> Option<String> {
    let id = random_user(state)?;
    let (roll, salt, name, plan) = {
        let mut rng = state.data_rng();
        let name = FIRST_NAMES.choose(&mut *rng).copied();
        (
            rng.random_range(0..100),
            rng.random::<u32>(),
            name,
            PLANS.choose(&mut *rng).copied(),
        )
    };
    let touch = if roll < 94 { Touch::UpdatedAt } else { Touch::Nothing };
    let changed = edit(state.write().of_mut(Kind::Users), &id, touch, |document| {
        let Some(user) = document.as_object_mut() else { return };
        let mut set = |key: &str, value: Value| drop(user.insert(key.to_owned(), value));
        match roll {
            0..40 => {
                set("last_sign_in_at", now().into());
                set("last_active_at", now().into());
            }
            40..75 => set("public_metadata", json!({"plan": plan, "revision": salt})),
            75..94 => set("first_name", name.into()),
            // Activity does not move `updated_at` (observed). Neither do bans and locks here, which
            // is the harder case.
            94..98 => set("last_active_at", now().into()),
            98 => set("banned", (salt % 2 == 0).into()),
            _ => {
                set("locked", true.into());
                set("lockout_expires_in_seconds", json!(salt % 3600 + 60));
            }
        }
    });
    changed.then_some(id)
}
