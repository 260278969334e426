//! Removes what nobody waits for any more.

use std::time::Duration;

use chrono::Utc;
use diesel::{
    sql_query,
    sql_types::{BigInt, Double, Timestamptz},
};
use diesel_async::RunQueryDsl;

use crate::mirror::{MirrorError, session::Session};

/// Rows of late and dead events that are removed per transaction. The writers wait meanwhile.
const PRUNED_AT_ONCE: i64 = 5_000;

/// Removes dead events that died before `keep`, and endpoints that were removed before that, with
/// their events. Returns how many rows it has removed; 0 if there are no more.
pub(in crate::mirror) async fn prune_deliveries(conn: &mut Session, keep: Duration) -> Result<usize, MirrorError> {
    let mut removed = 0;
    for sql in [
        // A redelivery may have locked some of them, in another order.
        "DELETE FROM clerk.deliveries WHERE ctid = ANY (ARRAY(
             SELECT d.ctid FROM clerk.deliveries AS d
             WHERE d.dead_at < least(pg_catalog.now(), $2) - $1 * interval '1 second' LIMIT $3 FOR UPDATE SKIP LOCKED))",
        "DELETE FROM clerk.deliveries WHERE ctid = ANY (ARRAY(
             SELECT d.ctid FROM clerk.deliveries AS d JOIN clerk.endpoints AS p ON p.name = d.endpoint
             WHERE p.removed_at < least(pg_catalog.now(), $2) - $1 * interval '1 second' LIMIT $3 FOR UPDATE OF d SKIP LOCKED))",
        "DELETE FROM clerk.endpoints AS p WHERE p.name = ANY (ARRAY(
             SELECT name FROM clerk.endpoints
             WHERE removed_at < least(pg_catalog.now(), $2) - $1 * interval '1 second'
               AND NOT EXISTS (SELECT FROM clerk.deliveries WHERE endpoint = name) LIMIT $3 FOR UPDATE SKIP LOCKED))",
    ] {
        removed += sql_query(sql)
            .bind::<Double, _>(keep.as_secs_f64())
            .bind::<Timestamptz, _>(Utc::now())
            .bind::<BigInt, _>(PRUNED_AT_ONCE)
            .execute(conn)
            .await?;
    }
    Ok(removed)
}
