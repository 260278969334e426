//! What must hold at every moment, and in the end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    clerk::Clerk,
    harness::{World, comparable},
    replica::Replica,
};

/// Notes who leaves the mirror, and who writes under whose lease.
const AUDIT: &str = "
    CREATE TABLE public.departures (user_id text NOT NULL);
    CREATE TABLE public.writes (writer text, holder text);
    CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.writes SELECT DISTINCT current_setting('application_name'), lease_holder FROM clerk.sync_state;
        IF TG_OP = 'DELETE' THEN
            INSERT INTO public.departures VALUES (OLD.id);
        ELSIF TG_OP = 'UPDATE' AND NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL THEN
            INSERT INTO public.departures VALUES (OLD.id);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON clerk.users FOR EACH ROW EXECUTE FUNCTION public.note()";

pub async fn watch(world: &World) {
    world.db.execute(AUDIT).await;
}

/// Nobody has left the mirror who was not deleted at Clerk.
pub async fn nobody_left_who_exists(world: &World, clerk: &Clerk, seed: u64) {
    let rows = world
        .db
        .client
        .query("SELECT user_id FROM public.departures", &[])
        .await
        .unwrap();
    for row in rows {
        let id: String = row.get(0);
        assert!(
            clerk.gone.contains(&id),
            "seed {seed}: {id} has left the mirror, but exists at Clerk"
        );
    }
}

/// Every write was made by a process that had the lease.
pub async fn only_holders_wrote(world: &World, replicas: &[Replica], seed: u64) {
    let sql = "SELECT DISTINCT writer, holder FROM public.writes WHERE writer LIKE 'replica%'";
    for row in world.db.client.query(sql, &[]).await.unwrap() {
        let (writer, holder): (String, Option<String>) = (row.get(0), row.get(1));
        let holder = holder.unwrap_or_else(|| panic!("seed {seed}: {writer} wrote without a lease"));
        let pid: u32 = holder.split(':').nth_back(1).unwrap().parse().unwrap();
        let replica = replicas.iter().find(|replica| replica.name == writer).unwrap();
        assert!(
            replica.pids.contains(&pid),
            "seed {seed}: {writer} wrote under the lease of {holder}"
        );
    }
}

/// Why the mirror differs from Clerk, if it does.
pub async fn difference(world: &World) -> Option<String> {
    let mirror = mirrored(world).await;
    let there: BTreeSet<String> = world.sim.user_ids().into_iter().collect();
    let here: BTreeSet<String> = mirror.keys().cloned().collect();
    if here != there {
        let (lost, left): (Vec<_>, Vec<_>) = (there.difference(&here).collect(), here.difference(&there).collect());
        return Some(format!("lost {lost:?}, left over {left:?}"));
    }
    let differs = |id: &&String| world.sim.document(id).map(comparable).as_ref() != mirror.get(*id);
    there.iter().find(differs).map(|id| format!("{id} differs"))
}

/// The mirror's documents, in the form in which they can be compared.
async fn mirrored(world: &World) -> BTreeMap<String, Value> {
    let documents = world.db.documents().await.into_iter();
    documents.map(|(id, document)| (id, comparable(document))).collect()
}

/// Whoever follows the events has what the mirror has, and was told nothing twice or out of order.
pub async fn events_tell_the_mirror(world: &World, seed: u64) {
    let sql = "SELECT type, user_id, (payload->'data')::text FROM clerk.user_events ORDER BY id";
    let mut users = BTreeMap::<String, Value>::new();
    for row in world.db.client.query(sql, &[]).await.unwrap() {
        let (kind, id, data): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let data = comparable(serde_json::from_str(&data).unwrap());
        let (was_there, must_be) = match kind.as_str() {
            "user.deleted" => (users.remove(&id).is_some(), true),
            "user.created" => (users.insert(id.clone(), data).is_some(), false),
            _ => (users.insert(id.clone(), data).is_some(), true),
        };
        assert_eq!(was_there, must_be, "seed {seed}: {kind} of {id}");
    }
    assert_eq!(
        users,
        mirrored(world).await,
        "seed {seed}: the events tell another story"
    );
}

/// The passes have counted what they did.
pub async fn counts_are_true(world: &World, seed: u64) {
    let sql = "SELECT coalesce(sum(created) - sum(deleted), 0)::bigint FROM clerk.sync_runs";
    let users = world.users().await;
    let live = world
        .db
        .number("SELECT count(*) FROM clerk.users WHERE deleted_at IS NULL")
        .await;
    assert_eq!(
        world.db.number(sql).await,
        live,
        "seed {seed}: created less deleted, of {users} rows"
    );
    let kept = world.db.number("SELECT users FROM clerk.sync_state").await;
    assert_eq!(kept, live, "seed {seed}: the number that is kept");
    let running = world.runs("outcome = 'running'").await;
    assert_eq!(running, 0, "seed {seed}: a pass that never ended");
    // One that failed before it could take the lease is listed with its end as its beginning.
    let overlapping =
        "SELECT count(*) FROM clerk.sync_runs a JOIN clerk.sync_runs b ON a.id < b.id AND a.started_at < a.ended_at
        AND b.started_at < b.ended_at AND b.started_at < a.ended_at AND a.started_at < b.ended_at";
    assert_eq!(world.db.number(overlapping).await, 0, "seed {seed}: passes overlapped");
}
