//! What the application does in the mirror's database: foreign keys, long transactions, floods of
//! notifications, and unique indexes.

use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::{clerk::Clerk, support::fixture::Fixture};

/// A table of the application that references users.
const PROFILES: &str = "
    CREATE TABLE public.profiles (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        user_id text NOT NULL REFERENCES clerk.users (id) ON DELETE CASCADE
    );
    INSERT INTO public.profiles (user_id) SELECT id FROM clerk.users";

/// A transaction that the application leaves open.
pub struct Transaction(Client);

impl Transaction {
    /// Runs statements in a transaction that stays open. `None` if they lose a deadlock or their
    /// server.
    pub async fn open(client: Client, statements: Vec<String>) -> Option<Self> {
        client.batch_execute("BEGIN").await.ok()?;
        for sql in statements {
            client.batch_execute(&sql).await.ok()?;
        }
        Some(Self(client))
    }

    /// Commits. The server may be gone.
    pub async fn commit(self) {
        let _ = self.0.batch_execute("COMMIT").await;
    }

    pub async fn roll_back(self) {
        let _ = self.0.batch_execute("ROLLBACK").await;
    }
}

pub async fn uses_the_mirror(fixture: &Fixture) {
    fixture.db.execute(PROFILES).await;
}

/// Declares addresses unique.
pub async fn wants_unique_addresses(fixture: &Fixture) {
    fixture
        .db
        .execute("CREATE UNIQUE INDEX addresses ON clerk.users (primary_email) WHERE deleted_at IS NULL")
        .await;
}

/// Locks some rows, references others without a commit, or locks a table, for seconds. Returns what
/// it did.
pub fn forgets_to_commit(client: Client, dice: &mut Rng, meanwhile: &mut JoinSet<()>) -> &'static str {
    let some = |limit: u32| format!("SELECT id FROM clerk.users ORDER BY random() LIMIT {limit}");
    let (what, sql) = match dice.u32(0..5) {
        0 | 1 => (
            "rows locked for seconds",
            format!(
                "SELECT FROM clerk.users WHERE id IN ({}) FOR UPDATE",
                some(dice.u32(1..5))
            ),
        ),
        2 | 3 => (
            "references that stay uncommitted for seconds",
            format!("INSERT INTO public.profiles (user_id) {}", some(dice.u32(1..5))),
        ),
        _ => (
            "a table locked for seconds",
            format!(
                "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
                dice.choice(&["clerk.users", "public.profiles"]).unwrap()
            ),
        ),
    };
    let pause = Duration::from_millis(dice.u64(2_000..9_000));
    let commits = dice.bool();
    meanwhile.spawn(async move {
        if let Some(transaction) = Transaction::open(client, vec![sql]).await {
            tokio::time::sleep(pause).await;
            match commits {
                true => transaction.commit().await,
                false => transaction.roll_back().await,
            }
        }
    });
    what
}

/// Sends notifications with many ids, most of them unknown.
pub async fn floods(fixture: &Fixture, clerk: &Clerk, dice: &mut Rng) {
    let many = dice.u32(100..1500);
    let mut sql = format!(
        "SELECT pg_notify('clerk2pg', 'user_' || left(md5(random()::text || n), 27)) FROM generate_series(1, {many}) AS n;"
    );
    for _ in 0..dice.u32(1..6) {
        sql += &format!("NOTIFY clerk2pg, '{}';", clerk.anybody(dice));
    }
    fixture.db.execute(&sql).await;
}
