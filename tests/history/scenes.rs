//! Scenes played without other faults: the application locks rows, a person approves held deletions, the
//! mirror grows beside them, Clerk finds nobody by id, and its list has no end.

use std::{collections::BTreeSet, time::Duration};

use clerk_sim::{Effect, Endpoint, Faults, Quirks, Rule};
use fastrand::Rng;

use crate::{
    application::Transaction,
    clerk::now,
    clock,
    faults::patient,
    invariants,
    play::History,
    support::wait::{eventually, within},
};

/// How long a sync of a short list may take that has no end, on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// Less than a request takes.
const PATCHED_EVERY: Duration = Duration::from_millis(2);

/// Users that the guard wants for each deletion, and some more.
const USERS_PER_DELETION: i64 = 5;
const SOME_MORE: i64 = 20;

/// How long other users may wait for locked rows, on a busy machine.
const OTHERS_WAIT: Duration = Duration::from_secs(60);

impl History {
    /// The application locks some rows and references others without a commit. All other users do
    /// not wait.
    pub async fn nobody_waits_for_locks(&mut self, dice: &mut Rng) {
        // A user that takes the address of a held row waits for a person.
        let rejected = invariants::rejected(&self.fixture).await;
        let mut ids = self.clerk.some(dice, 100);
        ids.retain(|id| !rejected.contains(id));
        ids.truncate(8);
        let [locked, referenced, free] = match ids.as_slice() {
            [a, b, c, d, e, f, rest @ ..] if !rest.is_empty() => [vec![a, b, c], vec![d, e, f], rest.iter().collect()],
            _ => return,
        };
        let list = |ids: &[&String]| format!("SELECT id FROM clerk.users WHERE id = ANY ('{{{}}}')", join(ids));
        let statements = [
            format!("{} FOR UPDATE", list(&locked)),
            format!("INSERT INTO public.profiles (user_id) {}", list(&referenced)),
        ];
        let Some(transaction) = Transaction::open(patient(&self.fixture.db.url).await, statements.into()).await else {
            return;
        };
        for id in locked.iter().chain(&free) {
            assert!(
                self.fixture
                    .sim
                    .update(id, |user| user["public_metadata"] = "locked".into())
            );
        }
        for id in &referenced {
            self.clerk.deletes(id);
        }
        let news: Vec<String> = (0..3).map(|_| self.clerk.creates()).collect();
        let others: Vec<&String> = free.into_iter().chain(&news).collect();
        let fixture = &self.fixture;
        let what = format!(
            "seed {}: {others:?} are in the mirror while others are locked",
            self.seed
        );
        within(OTHERS_WAIT, &what, async || {
            let stored = format!(
                "SELECT count(*) FROM clerk.users WHERE id = ANY ('{{{}}}') AND (id = ANY ('{{{}}}') OR public_metadata = '\"locked\"')",
                join(&others),
                join(&news.iter().collect::<Vec<_>>()),
            );
            fixture.db.number(&stored).await == i64::try_from(others.len()).unwrap()
        })
        .await;
        match dice.bool() {
            true => transaction.commit().await,
            false => transaction.roll_back().await,
        }
        *self.tried.entry("changes beside locked rows").or_default() += 1;
    }

    /// Waits for the first import, and makes its rows old, as if the program had run for an hour.
    pub async fn has_run_for_an_hour(&mut self) {
        let imported = "SELECT count(*) FROM clerk.resource_state WHERE resource = 'users' AND imported_at IS NOT NULL";
        eventually("the first import ends", async || {
            self.fixture.db.number(imported).await > 0
        })
        .await;
        clock::rows_grow_old(&self.fixture).await;
        self.is_old = true;
        *self.tried.entry("histories with old rows").or_default() += 1;
    }

    /// Clerk leaves some users out of its lists, and finds nobody by id, not even the users that it
    /// lists. Nobody is deleted.
    pub async fn nobody_is_found_by_id(&mut self, patience: Duration, dice: &mut Rng) {
        clock::rows_grow_old(&self.fixture).await;
        let mut quirks = Quirks {
            hidden_from_lists: self.clerk.some(dice, 5),
            not_found_by_id: self.fixture.sim.user_ids(),
            ..Quirks::default()
        };
        self.fixture.sim.set_faults(Faults::from(quirks.clone()));
        self.ends_a_sync(patience, "a blind", "outcome NOT IN ('running', 'failed')")
            .await;
        self.no_user_was_deleted_wrongly().await;
        // No sync may still ask for these users when answers by id are right again.
        quirks.hidden_from_lists.clear();
        self.fixture.sim.set_faults(Faults::from(quirks));
        self.ends_a_sync(patience, "a less blind", "outcome NOT IN ('running', 'failed')")
            .await;
        self.fixture.sim.clear_faults();
        *self.tried.entry("times that nobody was found by id").or_default() += 1;
    }

    /// Clerk ignores orders and offsets, and users' `created_at` is patched all the time: each page begins
    /// with another known user, for ever. The sync ends all the same.
    pub async fn no_list_keeps_a_sync(&mut self, patience: Duration) {
        let endless = Quirks {
            ignore_order_by: true,
            ignore_offset: true,
            ignore_created_at: true,
            ignore_starting_after: true,
            ..Quirks::default()
        };
        let sim = self.fixture.sim.clone();
        sim.set_faults(Rule::new(Effect::Quirks(Box::new(endless))).on([Endpoint::List]));
        let ids = sim.user_ids();
        let patched = async {
            for id in ids.iter().cycle() {
                sim.update(id, |user| user["created_at"] = now().into());
                tokio::time::sleep(PATCHED_EVERY).await;
            }
        };
        tokio::select! {
            () = patched => {}
            () = self.ends_a_sync(ENDS_WITHIN.min(patience), "an endless", "outcome <> 'running'") => {}
        }
        sim.clear_faults();
        *self.tried.entry("lists without an end").or_default() += 1;
    }

    /// Users sign up until as many deletions as are held would not be held any more. These stay held.
    pub async fn growth_releases_nobody(&mut self, held: &BTreeSet<String>, patience: Duration) {
        let seed = self.seed;
        invariants::the_guard_has_held(&self.fixture, self.clerk.most(), seed).await;
        let number = async |sql| self.fixture.db.number(sql).await;
        let departures = number("SELECT count(*) FROM public.departures").await;
        let rows = number("SELECT count(*) FROM clerk.users WHERE deleted_at IS NULL").await;
        let deletions = i64::try_from(held.len()).unwrap() + departures;
        for _ in rows..USERS_PER_DELETION * deletions + SOME_MORE {
            self.clerk.creates();
        }
        self.syncs(patience, "one after the growth").await;
        let released: Vec<String> = held
            .difference(&invariants::held(&self.fixture).await)
            .cloned()
            .collect();
        assert!(
            released.is_empty(),
            "seed {seed}: growth has released the deletion of {released:?}"
        );
        self.differs_by(held).await;
        *self.tried.entry("mirrors that grew beside held deletions").or_default() += 1;
    }

    /// Approves the held deletions, after the test has checked them.
    pub async fn is_approved(&mut self) {
        let seed = self.seed;
        if self.is_guarded {
            invariants::the_guard_has_held(&self.fixture, self.clerk.most(), seed).await;
        }
        let status = self.fixture.run(&["--format", "json", "status"]).await.json();
        let plan = status["plan"].as_str();
        let plan = plan.unwrap_or_else(|| panic!("seed {seed}: no checksum of what is held: {status:#}"));
        invariants::approved(&self.fixture).await;
        let ran = self.fixture.run(&["approve", plan]).await;
        assert_eq!(ran.code, Some(0), "seed {seed}: {ran:#?}");
        *self.tried.entry("held deletions approved").or_default() += 1;
    }
}

fn join(ids: &[&String]) -> String {
    ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(",")
}
