//! What each batch adds to the row of its sync, the number of objects, the watermark and the
//! checkpoint.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{
    Batch, Committed, MirrorError, Run,
    checkpoint::Mark,
    convert::{signed, timestamp},
    session::Session,
    tables::sync_runs,
};
use crate::resource::Resource;

/// Adds what a batch did to the row of its sync.
pub(super) async fn record(
    conn: &mut Session,
    run: &Run,
    batch: &Batch<'_>,
    done: &Committed,
) -> Result<(), MirrorError> {
    let rejected = signed(done.rejected.len() as u64);
    diesel::update(sync_runs::table.find(run.id))
        .set((
            sync_runs::created.eq(sync_runs::created + signed(done.created)),
            sync_runs::updated.eq(sync_runs::updated + signed(done.updated)),
            sync_runs::refreshed.eq(sync_runs::refreshed + signed(done.refreshed)),
            sync_runs::unchanged.eq(sync_runs::unchanged + signed(batch.unchanged + done.refreshed)),
            sync_runs::rejected.eq(sync_runs::rejected + rejected),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Adds to the number of objects, and moves the watermark and the checkpoint.
pub(super) async fn advance(
    conn: &mut Session,
    resource: &Resource,
    more: i64,
    watermark: Option<i64>,
    mark: Option<&Mark>,
) -> Result<(), MirrorError> {
    if more == 0 && watermark.is_none() && mark.is_none() {
        return Ok(());
    }
    let json = |value| serde_json::to_string(value).map_err(|error| MirrorError::Database(error.to_string()));
    let part = mark.map(|mark| json(&mark.part)).transpose()?;
    sql_query(
        "UPDATE clerk.resource_state SET objects = objects + $1, watermark = greatest(watermark, $2),
             checkpoint = CASE WHEN $3 IS NULL THEN checkpoint
                 ELSE pg_catalog.jsonb_set(pg_catalog.jsonb_set(checkpoint, ARRAY['parts', $4::text], $3::jsonb), '{written_at}'::text[], pg_catalog.to_jsonb($5)) END
         WHERE resource = $6",
    )
    .bind::<BigInt, _>(more)
    .bind::<Nullable<Timestamptz>, _>(watermark.map(timestamp))
    .bind::<Nullable<Text>, _>(part)
    .bind::<BigInt, _>(signed(mark.map_or(0, |mark| mark.number as u64)))
    .bind::<Nullable<Timestamptz>, _>(mark.map(|mark| mark.written_at))
    .bind::<Text, _>(resource.name)
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds to the row of a sync: deletions, how many of them a person approved, and rows that could
/// not be deleted.
pub(super) async fn count_deletions(
    conn: &mut Session,
    run: &Run,
    deleted: u64,
    approved: u64,
    kept: u64,
) -> QueryResult<()> {
    let unapproved = deleted.saturating_sub(approved);
    if unapproved > 0 {
        sql_query(
            "WITH old AS (
                 DELETE FROM clerk.recent_deletions
                 WHERE deleted_at < pg_catalog.clock_timestamp() - interval '1 hour')
             INSERT INTO clerk.recent_deletions (resource, objects) VALUES ($2, $1)",
        )
        .bind::<BigInt, _>(signed(unapproved))
        .bind::<Text, _>(run.resource.name)
        .execute(conn)
        .await?;
    }
    diesel::update(sync_runs::table.find(run.id))
        .set((
            sync_runs::deleted.eq(sync_runs::deleted + signed(deleted)),
            sync_runs::approved.eq(sync_runs::approved + signed(approved)),
            sync_runs::rejected.eq(sync_runs::rejected + signed(kept)),
        ))
        .execute(conn)
        .await?;
    Ok(())
}
