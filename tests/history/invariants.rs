//! What must hold at every moment and in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    pin::pin,
};

use futures_util::TryStreamExt;
use serde_json::Value;
use tokio_postgres::Row;

use crate::{
    clerk::Clerk,
    replica::{Life, Replica},
    support::{compare::comparable, fixture::Fixture},
};

/// The default limits: up to this many deletions are never held, and more than this percentage
/// always.
const GUARD: (u64, u64) = (10, 20);

/// Clerk's rate limit window in milliseconds.
const WINDOW: i64 = 10_000;

/// How long a request may be in flight after its process has ended, in milliseconds.
const ON_ITS_WAY: i64 = 1000;

/// Records deleted rows, held deletions, rows that went back in time, and the writers and their
/// leases.
const AUDIT: &str = "
    CREATE TABLE public.departures (user_id text NOT NULL, was_held boolean NOT NULL, is_told boolean NOT NULL DEFAULT false);
    CREATE TABLE public.holds (user_id text PRIMARY KEY);
    CREATE TABLE public.regressions (user_id text NOT NULL, was timestamptz NOT NULL, became timestamptz NOT NULL);
    CREATE TABLE public.writes (what text NOT NULL, writer text NOT NULL, holder text, epoch bigint NOT NULL);
    CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        what text := CASE
            WHEN TG_OP = 'INSERT' THEN 'created'
            WHEN TG_OP = 'DELETE' THEN 'deleted'
            WHEN NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL THEN 'deleted'
            WHEN NEW.deleted_at IS NULL AND OLD.deleted_at IS NOT NULL THEN 'created'
            WHEN NEW.changed_at IS DISTINCT FROM OLD.changed_at THEN 'updated'
            ELSE 'refreshed' END;
    BEGIN
        INSERT INTO public.writes SELECT what, current_setting('application_name'), lease_holder, lease_epoch FROM clerk.sync_state;
        IF what = 'deleted' THEN
            INSERT INTO public.departures VALUES (OLD.id, EXISTS (SELECT FROM public.holds h WHERE h.user_id = OLD.id));
        END IF;
        IF TG_OP = 'UPDATE' AND NEW.updated_at < OLD.updated_at THEN
            INSERT INTO public.regressions VALUES (OLD.id, OLD.updated_at, NEW.updated_at);
        END IF;
        RETURN NULL;
    END $$;
    CREATE FUNCTION public.note_hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- What is held already may be approved at this very moment.
        IF NEW.held_at IS NOT NULL AND (TG_OP = 'INSERT' OR OLD.held_at IS NULL) THEN
            INSERT INTO public.holds VALUES (NEW.object_id) ON CONFLICT DO NOTHING;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_hold AFTER INSERT OR UPDATE ON clerk.missing FOR EACH ROW EXECUTE FUNCTION public.note_hold();
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON clerk.users FOR EACH ROW EXECUTE FUNCTION public.note()";

pub async fn watch(fixture: &Fixture) {
    fixture.db.execute(AUDIT).await;
}

/// Asserts that since the last call no user left the mirror that is not deleted at Clerk, and none
/// whose deletion was ever held, unless lagging answers may have shown it again.
pub async fn no_user_was_deleted_wrongly(fixture: &Fixture, clerk: &Clerk, may_lag: bool, seed: u64) {
    let sql = "UPDATE public.departures SET is_told = true WHERE NOT is_told RETURNING user_id, was_held";
    for row in fixture.db.client.query(sql, &[]).await.unwrap() {
        let (id, was_held): (String, bool) = (row.get(0), row.get(1));
        assert!(
            clerk.gone.contains(&id),
            "seed {seed}: {id} has left the mirror, but exists at Clerk"
        );
        assert!(
            may_lag || !was_held,
            "seed {seed}: {id} has left the mirror, though nobody approved the deletion"
        );
    }
}

/// Asserts that no more users left the mirror than the guard allows within an hour, as none were
/// approved.
pub async fn the_guard_has_held(fixture: &Fixture, most_users: usize, seed: u64) {
    let departures = fixture.db.number("SELECT count(*) FROM public.departures").await;
    let allowed = GUARD.0.max(most_users as u64 * GUARD.1 / 100);
    assert!(
        departures.unsigned_abs() <= allowed,
        "seed {seed}: {departures} have left the mirror without approval, of {most_users} users"
    );
}

/// Approves the held deletions.
pub async fn approved(fixture: &Fixture) {
    fixture.db.execute("TRUNCATE public.holds").await;
}

/// Asserts that no row went back in time.
pub async fn no_row_went_back_in_time(fixture: &Fixture, seed: u64) {
    let sql = "SELECT format('%s from %s to %s', user_id, was, became) FROM public.regressions";
    let back = fixture.db.text(sql).await;
    assert_eq!(back, None, "seed {seed}: an older state replaced a newer one");
}

/// Asserts that every write was made by the holder of the lease.
pub async fn only_lease_holders_wrote(fixture: &Fixture, replicas: &[Replica], seed: u64) {
    let sql = "SELECT DISTINCT writer, holder FROM public.writes";
    for row in fixture.db.client.query(sql, &[]).await.unwrap() {
        let (writer, holder): (String, Option<String>) = (row.get(0), row.get(1));
        let holder = holder.unwrap_or_else(|| panic!("seed {seed}: {writer} wrote without a lease"));
        let pid: u32 = holder.split(':').nth_back(1).unwrap().parse().unwrap();
        let life = lives(replicas).find(|life| life.name == writer).unwrap();
        assert_eq!(life.pid, pid, "seed {seed}: {writer} wrote under the lease of {holder}");
    }
    let shared = "SELECT count(*) FROM (SELECT epoch FROM public.writes GROUP BY epoch HAVING count(DISTINCT writer) > 1) shared";
    let shared = fixture.db.number(shared).await;
    assert_eq!(shared, 0, "seed {seed}: leases under which several wrote");
}

fn lives(replicas: &[Replica]) -> impl Iterator<Item = &Life> {
    replicas.iter().flat_map(|replica| &replica.lives)
}

/// Asserts that no ten seconds contain more requests than the processes of that time may send, as
/// far as the simulator remembers requests.
pub fn budget_is_kept(fixture: &Fixture, replicas: &[Replica], budget: u32, seed: u64) {
    let mut arrived: Vec<i64> = fixture.sim.log().iter().map(|request| request.at).collect();
    arrived.sort_unstable();
    for (first, from) in arrived.iter().enumerate() {
        let until = from + WINDOW;
        let requests = arrived[first..].partition_point(|at| *at < until);
        let lived = |life: &&Life| life.from < until && life.until.is_none_or(|end| end + ON_ITS_WAY >= *from);
        let processes = lives(replicas).filter(lived).count();
        assert!(
            requests <= processes * budget as usize,
            "seed {seed}: {requests} requests of {processes} processes, which may send {budget} each"
        );
    }
}

/// How the mirror differs from Clerk.
#[derive(Debug, Default)]
pub struct Difference {
    /// At Clerk but not in the mirror.
    pub lost: BTreeSet<String>,
    /// In the mirror but not at Clerk.
    pub left_over: BTreeSet<String>,
    /// With another document.
    pub differing: BTreeSet<String>,
}

impl Difference {
    pub fn is_none(&self) -> bool {
        self.lost.is_empty() && self.left_over.is_empty() && self.differing.is_empty()
    }
}

/// Returns the users whose deletion is held.
pub async fn held(fixture: &Fixture) -> BTreeSet<String> {
    let sql = "SELECT user_id FROM clerk.missing_users WHERE held_at IS NOT NULL AND approved_at IS NULL";
    ids(fixture, sql).await
}

/// Returns the rejected users.
pub async fn rejected(fixture: &Fixture) -> BTreeSet<String> {
    ids(fixture, "SELECT user_id FROM clerk.rejected_users").await
}

async fn ids(fixture: &Fixture, sql: &str) -> BTreeSet<String> {
    let rows = fixture.db.client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

pub async fn difference(fixture: &Fixture) -> Difference {
    let mut left_over = BTreeSet::new();
    let mut differing = BTreeSet::new();
    let mut lost: BTreeSet<String> = fixture.sim.user_ids().into_iter().collect();
    each(fixture, MIRROR, |row| {
        let (id, document) = (row.get::<_, String>(0), read(row.get(1)));
        match fixture.sim.document(&id).map(comparable) {
            None => drop(left_over.insert(id)),
            Some(there) => {
                lost.remove(&id);
                if there != document {
                    differing.insert(id);
                }
            }
        }
    })
    .await;
    Difference {
        lost,
        left_over,
        differing,
    }
}

/// The documents of the mirror.
pub const MIRROR: &str = "SELECT id, clerk.user_document(u)::text FROM clerk.users u WHERE deleted_at IS NULL";

/// Reads row by row, as all may not fit into memory.
pub async fn each(fixture: &Fixture, sql: &str, mut see: impl FnMut(&Row)) {
    let mut rows = pin!(fixture.db.client.query_raw(sql, [""; 0]).await.unwrap());
    while let Some(row) = rows.try_next().await.unwrap() {
        see(&row);
    }
}

fn read(document: &str) -> Value {
    comparable(serde_json::from_str(document).unwrap())
}

pub fn hash(document: &str) -> u64 {
    digest(serde_json::from_str(document).unwrap())
}

/// Returns a hash of what a document means.
pub fn digest(document: Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    comparable(document).to_string().hash(&mut hasher);
    hasher.finish()
}

/// Asserts that the events add up to the mirror, without a repeated or misplaced one.
pub async fn events_add_up_to_the_mirror(fixture: &Fixture, seed: u64) {
    let mut replayed = BTreeMap::<String, u64>::new();
    let mut moments = BTreeMap::<String, i64>::new();
    let sql = "SELECT type, user_id, (payload->'data')::text, (payload->'data'->>'updated_at')::float8::bigint
        FROM clerk.user_events ORDER BY id";
    each(fixture, sql, |row| {
        let (kind, id, data): (&str, String, &str) = (row.get(0), row.get(1), row.get(2));
        if let Some(moment) = row.get::<_, Option<i64>>(3) {
            let before = moments.insert(id.clone(), moment).unwrap_or(moment);
            assert!(
                before <= moment,
                "seed {seed}: {kind} of {id} is of {moment}, the event before of {before}"
            );
        }
        let data = hash(data);
        let before = match kind {
            "user.deleted" => replayed.remove(&id),
            _ => replayed.insert(id.clone(), data),
        };
        let is_in_order = match kind {
            "user.created" => before.is_none(),
            "user.updated" => before.is_some_and(|before| before != data),
            _ => before.is_some(),
        };
        assert!(is_in_order, "seed {seed}: {kind} of {id} after {before:?}");
    })
    .await;
    let mut mirror = BTreeMap::new();
    each(fixture, MIRROR, |row| {
        mirror.insert(row.get::<_, String>(0), hash(row.get(1)));
    })
    .await;
    assert!(replayed == mirror, "seed {seed}: the events add up to something else");
}

/// Asserts that the counts of the syncs are right.
pub async fn counts_are_true(fixture: &Fixture, seed: u64) {
    for what in ["created", "updated", "deleted"] {
        let number = async |sql: String| fixture.db.number(&sql).await;
        let counted = number(format!(
            "SELECT coalesce(sum({what}), 0)::bigint FROM clerk.sync_runs WHERE resource = 'users'"
        ))
        .await;
        let done = number(format!("SELECT count(*) FROM public.writes WHERE what = '{what}'")).await;
        let replayed = number(format!(
            "SELECT count(*) FROM clerk.user_events WHERE type = 'user.{what}'"
        ))
        .await;
        assert_eq!(
            (counted, replayed),
            (done, done),
            "seed {seed}: {what}: counted, in events, and done"
        );
    }
    let live = "SELECT count(*) FROM clerk.users WHERE deleted_at IS NULL";
    let (live, kept) = (
        fixture.db.number(live).await,
        fixture
            .db
            .number("SELECT objects FROM clerk.resource_state WHERE resource = 'users'")
            .await,
    );
    assert_eq!(kept, live, "seed {seed}: the number that is kept");
    let running = fixture.runs("outcome = 'running'").await;
    assert_eq!(running, 0, "seed {seed}: a sync that never ended");
}
