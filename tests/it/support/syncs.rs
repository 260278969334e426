//! Waits for syncs, and reads what the database and Clerk's log say of them.

use clerk_sim::Request;

use crate::support::{compare::comparable, fixture::Fixture, summary::IncrementalTotals, wait::eventually};

impl Fixture {
    /// Returns the first request of each incremental sync so far that was answered.
    pub fn incremental_syncs(&self) -> Vec<Request> {
        let mut limit_before = 0;
        let mut log = self.sim.log();
        log.retain(|request| {
            let Some((_, query)) = request.path.split_once("order_by=-updated_at&limit=") else {
                return false;
            };
            let Some(limit) = query.strip_suffix("&offset=0") else {
                limit_before = 0;
                return false;
            };
            let limit: u32 = limit.parse().unwrap();
            // A full sync requests ten for its watermark.
            if limit == 10 || request.status != 200 {
                return false;
            }
            // The same sync asks for more if all users of a page changed in one moment.
            let continues = limit > limit_before && limit == (4 * limit_before).min(500);
            limit_before = limit;
            !continues
        });
        log
    }

    /// Waits for an incremental sync that begins after this moment and is over.
    pub async fn wait_for_incremental_sync(&self) {
        let before = self.incremental_syncs().len();
        // The first may be running already, and the third begins when the second is over.
        eventually("three incremental syncs", async || {
            self.incremental_syncs().len() >= before + 3
        })
        .await;
    }

    /// Waits until every request is answered.
    pub async fn wait_until_answered(&self) {
        let mut answered = None;
        eventually("every request is answered", async || {
            let (sent, log) = (self.sim.requests(), self.sim.log().len() as u64);
            sent == log && answered.replace(sent) == Some(sent)
        })
        .await;
    }

    /// Counts the syncs that meet an SQL condition; 0 if there is no schema yet.
    pub async fn runs(&self, condition: &str) -> i64 {
        let exists = "SELECT (to_regclass('clerk.sync_runs') IS NOT NULL)::int";
        match self.db.number(exists).await {
            0 => 0,
            _ => {
                self.db
                    .number(&format!("SELECT count(*) FROM clerk.sync_runs WHERE {condition}"))
                    .await
            }
        }
    }

    /// Waits until `count` syncs are over and did not fail.
    pub async fn syncs(&self, count: i64) {
        let condition = "ended_at IS NOT NULL AND outcome <> 'failed'";
        eventually(&format!("{count} syncs"), async || self.runs(condition).await >= count).await;
    }

    /// Waits for a sync that begins after this moment, and asserts that the mirror is in sync.
    pub async fn wait_for_next_sync(&self) {
        let last = self.db.number("SELECT coalesce(max(id), 0) FROM clerk.sync_runs").await;
        let whole = format!("id > {last} AND outcome IN ('in_sync', 'changed')");
        eventually("a sync that began later", async || self.runs(&whole).await > 0).await;
        self.assert_in_sync().await;
    }

    /// Asserts that no two syncs ever overlapped.
    pub async fn assert_one_at_a_time(&self) {
        let overlapping = "SELECT count(*) FROM clerk.sync_runs a JOIN clerk.sync_runs b
            ON a.id < b.id AND b.started_at < coalesce(a.ended_at, 'infinity') AND a.started_at < coalesce(b.ended_at, 'infinity')";
        assert_eq!(self.db.number(overlapping).await, 0, "syncs overlapped");
    }

    /// Waits until the mirror equals Clerk, and no sync is running.
    pub async fn wait_until_mirrored(&self) {
        let has_all = async || {
            let (mirror, ids) = (self.db.documents().await, self.sim.user_ids());
            let is_same = |id: &String| {
                let documents = mirror.get(id).cloned().zip(self.sim.document(id));
                documents.is_some_and(|(mirror, clerk)| comparable(mirror) == comparable(clerk))
            };
            mirror.len() == ids.len() && ids.iter().all(is_same) && self.runs("ended_at IS NULL").await == 0
        };
        eventually("the mirror equals Clerk", has_all).await;
    }

    /// Returns the lease's holder, even if the lease has expired.
    pub async fn lease_holder(&self) -> Option<String> {
        self.db
            .text("SELECT lease_holder FROM clerk.sync_state WHERE lease_holder IS NOT NULL")
            .await
    }

    /// Returns what all incremental syncs did together.
    pub async fn incremental(&self) -> IncrementalTotals {
        let sql = "SELECT coalesce(sum(created), 0)::bigint, coalesce(sum(updated), 0)::bigint,
                coalesce(sum(deleted), 0)::bigint, coalesce(sum(rejected), 0)::bigint,
                count(*) FILTER (WHERE outcome <> 'changed')
            FROM clerk.sync_runs WHERE kind = 'incremental'";
        let row = self.db.client.query_one(sql, &[]).await.unwrap();
        IncrementalTotals {
            created: row.get(0),
            updated: row.get(1),
            deleted: row.get(2),
            rejected: row.get(3),
            others: row.get(4),
        }
    }

    /// Returns the watermark in Unix milliseconds.
    pub async fn watermark(&self) -> i64 {
        let sql =
            "SELECT (extract(epoch FROM watermark) * 1000)::bigint FROM clerk.resource_state WHERE resource = 'users'";
        self.db.number(sql).await
    }

    /// Asserts that the daemon's first full sync was the only one.
    pub async fn assert_one_full_sync(&self) {
        assert_eq!(self.runs("kind = 'full'").await, 1);
    }

    /// Returns how many users an interrupted walk has passed.
    pub async fn checkpoint(&self) -> i64 {
        self.db
            .number(
                "SELECT coalesce(sum(coalesce((part ->> 'done')::bigint, (part #>> '{position,seen}')::bigint)), 0)::bigint
                 FROM clerk.resource_state, jsonb_array_elements(checkpoint -> 'parts') AS part",
            )
            .await
    }
}
