//! Scenes played without faults: the application locks rows, and a person approves held deletions.

use std::time::Duration;

use fastrand::Rng;

use crate::{application::Transaction, faults::patient, invariants, play::History, support::wait::within};

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
