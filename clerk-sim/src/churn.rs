//! Life: users that come, change and go by themselves.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::generate::{self, Birth};
use crate::people::{FIRST_NAMES, PLANS};
use crate::server::stopped;
use crate::state::{State, Touch, edit, now};

/// Of a hundred changes so many create, and as many delete: the number of users stays about the same.
const CREATES: u32 = 20;
const DELETES: u32 = 20;

/// Changes users at the rate that was last set, for as long as there is somebody to set it.
pub(crate) async fn run(state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let mut rate = state.churn.subscribe();
    loop {
        let current = *rate.borrow_and_update();
        let Some(per_second) = current.filter(|rate| *rate > 0.0) else {
            tokio::select! {
                () = stopped(&mut stop) => return,
                changed = rate.changed() => if changed.is_err() { return } else { continue },
            }
        };
        // Fast rates come in batches, as timers are not finer than a millisecond.
        let period = Duration::from_secs_f64((1.0 / per_second).clamp(0.005, 86_400.0));
        let mut owed = 0.0;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                changed = rate.changed() => if changed.is_err() { return } else { break },
                _ = ticks.tick() => {}
            }
            owed += per_second * period.as_secs_f64();
            while owed >= 0.999 {
                owed -= 1.0;
                change(&state);
            }
        }
    }
}

fn change(state: &State) {
    let roll = state.dice().random_range(0..100);
    if roll < CREATES {
        create(state);
    } else if roll < CREATES + DELETES {
        delete(state);
    } else {
        update(state);
    }
}

/// A user at random.
fn somebody(state: &State) -> Option<String> {
    let store = state.read();
    let users = store.len();
    let rank = (users > 0).then(|| state.dice().random_range(0..users))?;
    store.by_created.nth(rank).map(|entry| entry.id.to_string())
}

/// A new user, created now.
pub(crate) fn create(state: &State) -> String {
    let entry = generate::user(state.options.seed, state.next_user(), Birth::Live { now: now() });
    let id = entry.id.to_string();
    state.write().put(entry, now());
    id
}

/// Somebody is no more.
pub(crate) fn delete(state: &State) -> Option<String> {
    let id = somebody(state)?;
    state.write().remove(&id, now()).then_some(id)
}

/// Something happens to somebody: a sign-in, other metadata, another name, or now and then a ban or lock.
pub(crate) fn update(state: &State) -> Option<String> {
    let id = somebody(state)?;
    let (roll, salt, name, plan) = {
        let mut dice = state.dice();
        let name = FIRST_NAMES.choose(&mut *dice).copied();
        (
            dice.random_range(0..100),
            dice.random::<u32>(),
            name,
            PLANS.choose(&mut *dice).copied(),
        )
    };
    let touch = if roll < 94 { Touch::Updated } else { Touch::Silent };
    let changed = edit(&mut state.write(), &id, touch, |document| {
        let Some(user) = document.as_object_mut() else { return };
        let mut set = |key: &str, value: Value| drop(user.insert(key.to_owned(), value));
        match roll {
            0..40 => {
                set("last_sign_in_at", now().into());
                set("last_active_at", now().into());
            }
            40..75 => set("public_metadata", json!({"plan": plan, "revision": salt})),
            75..94 => set("first_name", name.into()),
            // Activity moves without `updated_at` (observed); bans do here, as the harder case.
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
