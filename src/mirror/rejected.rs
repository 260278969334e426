//! `clerk.rejected`: objects that could not be stored, rows that could not be deleted, and why.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Binary, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Lease, MirrorError, Rejected, Run, SyncKind,
    convert::{timestamp, unsigned},
    encoding,
    holds::APPROVED,
    pool::ConnectionPool,
    session::Session,
    sqlstate::{BLOCKED, LOCK_NOT_AVAILABLE},
    tables::{missing_objects, rejected_objects, sync_runs},
    transaction,
};
use crate::resource::Digest;

/// Rejected objects that are logged at the end of a sync.
const LOGGED: i64 = 1_000;

/// Objects that could not be stored, and rows that could not be deleted.
#[derive(Debug, Clone)]
pub struct RejectedObjects(pub(super) ConnectionPool);

impl RejectedObjects {
    /// Returns whether any object is rejected.
    pub async fn any(&self) -> Result<bool, MirrorError> {
        let any = rejected_objects::table
            .filter(rejected_objects::resource.eq(self.0.resource.name))
            .select(rejected_objects::object_id);
        Ok(diesel::select(diesel::dsl::exists(any))
            .get_result(&mut self.0.connection().await?)
            .await?)
    }

    /// Returns those of these ids that are rejected, with the digest of the rejected document.
    pub async fn digests(&self, ids: &[String]) -> Result<HashMap<String, Option<Digest>>, MirrorError> {
        #[derive(QueryableByName)]
        struct DigestRow {
            #[diesel(sql_type = Text)]
            object_id: String,
            #[diesel(sql_type = Nullable<Binary>)]
            digest: Option<Vec<u8>>,
        }
        let rows: Vec<DigestRow> = sql_query(
            "SELECT object_id, digest FROM clerk.rejected
                 WHERE resource OPERATOR(pg_catalog.=) $2 AND object_id OPERATOR(pg_catalog.=) ANY ($1)",
        )
        .bind::<Array<Text>, _>(ids)
        .bind::<Text, _>(self.0.resource.name)
        .load(self.0.connection().await?.autocommit())
        .await?;
        let of_row = |digest: Vec<u8>| Some(Digest(digest.try_into().ok()?));
        let listed = rows.into_iter().map(|row| (row.object_id, row.digest.and_then(of_row)));
        Ok(listed.collect())
    }

    /// Returns how many objects this sync was the last to try, and could not store or delete.
    pub async fn count(&self, run: &Run) -> Result<u64, MirrorError> {
        let count: i64 = rejected_objects::table
            .filter(rejected_objects::resource.eq(self.0.resource.name))
            .filter(rejected_objects::run.eq(run.id))
            .count()
            .get_result(&mut self.0.connection().await?)
            .await?;
        Ok(unsigned(count))
    }

    /// Returns objects and rows that other rows or locks block at the end of a sync, with the
    /// reasons. Unless the sync is a full one, those that were listed before it are left out.
    pub async fn left_blocked(&self, run: &Run) -> Result<Vec<(String, String)>, MirrorError> {
        let began = sync_runs::table
            .filter(sync_runs::id.eq(run.id))
            .select(sync_runs::started_at.nullable())
            .single_value();
        let mut rows = rejected_objects::table
            .filter(rejected_objects::resource.eq(self.0.resource.name))
            .select((rejected_objects::object_id, rejected_objects::reason))
            .filter(rejected_objects::run.eq(run.id))
            .filter(rejected_objects::sqlstate.eq_any(BLOCKED))
            .order(rejected_objects::object_id)
            .limit(LOGGED)
            .into_boxed();
        if run.kind != SyncKind::Full {
            rows = rows.filter(rejected_objects::first_seen_at.nullable().ge(began));
        }
        Ok(rows.load(&mut self.0.connection().await?).await?)
    }

    /// Returns the next objects after `after`, in order, that another row's value or a lock blocked
    /// and that may be storable now.
    pub async fn blocked(&self, after: &str, limit: usize) -> Result<Vec<String>, MirrorError> {
        Ok(rejected_objects::table
            .filter(rejected_objects::resource.eq(self.0.resource.name))
            .select(rejected_objects::object_id)
            .filter(rejected_objects::document.is_not_null())
            .filter(rejected_objects::sqlstate.eq_any(BLOCKED))
            .filter(rejected_objects::object_id.gt(after))
            .order(rejected_objects::object_id)
            .limit(limit as i64)
            .load(&mut self.0.connection().await?)
            .await?)
    }

    /// Returns objects that Postgres refused: first those that this sync tried, then those that the
    /// application had locked, then those that were tried longest ago. With `locked`, only those
    /// that were locked.
    pub async fn refused(&self, run: &Run, locked: bool, limit: usize) -> Result<Vec<String>, MirrorError> {
        let mut rows = rejected_objects::table
            .filter(rejected_objects::resource.eq(self.0.resource.name))
            .select(rejected_objects::object_id)
            .filter(rejected_objects::document.is_not_null())
            .filter(rejected_objects::sqlstate.is_not_null())
            .order((
                rejected_objects::run.is_not_distinct_from(run.id).desc(),
                rejected_objects::sqlstate.eq(LOCK_NOT_AVAILABLE).desc(),
                rejected_objects::last_seen_at,
                rejected_objects::object_id,
            ))
            .limit(limit as i64)
            .into_boxed();
        if locked {
            rows = rows.filter(rejected_objects::sqlstate.eq(LOCK_NOT_AVAILABLE));
        }
        Ok(rows.load(&mut self.0.connection().await?).await?)
    }

    /// Returns rows that could not be deleted because the application had locked them.
    pub async fn locked_deletions(&self) -> Result<Vec<String>, MirrorError> {
        Ok(rejected_objects::table
            .filter(rejected_objects::resource.eq(self.0.resource.name))
            .select(rejected_objects::object_id)
            .filter(rejected_objects::document.is_null())
            .filter(rejected_objects::sqlstate.eq(LOCK_NOT_AVAILABLE))
            .load(&mut self.0.connection().await?)
            .await?)
    }

    /// Records that Clerk left these rejected objects out of its answer. Those without a row are
    /// removed from the list, unless they were added so recently that a lagging replica may not
    /// know them yet. The others are tried again after all that were not left out.
    pub async fn note_left_out(&self, lease: &Lease, ids: &[String]) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            sql_query(format!(
                "DELETE FROM clerk.rejected r
                 WHERE r.resource = $2 AND r.object_id = ANY($1)
                   AND r.first_seen_at < pg_catalog.now() - interval '10 seconds'
                   AND NOT EXISTS (SELECT FROM {table} u WHERE u.id = r.object_id)",
                table = self.0.resource.table
            ))
            .bind::<Array<Text>, _>(ids)
            .bind::<Text, _>(self.0.resource.name)
            .execute(conn)
            .await?;
            diesel::update(
                rejected_objects::table
                    .filter(rejected_objects::resource.eq(self.0.resource.name))
                    .filter(rejected_objects::object_id.eq_any(ids)),
            )
            .set(rejected_objects::last_seen_at.eq(diesel::dsl::now))
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Returns those of these ids whose rows the application kept, without a person's approval to
    /// delete them.
    pub async fn kept_among(&self, ids: &[String]) -> Result<Vec<String>, MirrorError> {
        let approved = missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .select(missing_objects::object_id)
            .filter(missing_objects::hold.eq(APPROVED));
        Ok(rejected_objects::table
            .filter(rejected_objects::resource.eq(self.0.resource.name))
            .select(rejected_objects::object_id)
            .filter(rejected_objects::object_id.eq_any(ids))
            .filter(rejected_objects::document.is_null())
            .filter(rejected_objects::sqlstate.is_distinct_from(LOCK_NOT_AVAILABLE))
            .filter(rejected_objects::object_id.ne_all(approved))
            .load(&mut self.0.connection().await?)
            .await?)
    }

    /// Returns the ids whose rows the application kept although the objects are gone from Clerk,
    /// with the reasons: the rejections without a document.
    pub async fn kept_rows(&self) -> Result<HashMap<String, String>, MirrorError> {
        let rows: Vec<(String, String)> = rejected_objects::table
            .filter(rejected_objects::resource.eq(self.0.resource.name))
            .select((rejected_objects::object_id, rejected_objects::reason))
            .filter(rejected_objects::document.is_null())
            .filter(rejected_objects::sqlstate.is_distinct_from(LOCK_NOT_AVAILABLE))
            .load(&mut self.0.connection().await?)
            .await?;
        Ok(rows.into_iter().collect())
    }
}

/// Lists objects as rejected.
pub(super) async fn reject(conn: &mut Session, run: &Run, rejected: &[Rejected]) -> QueryResult<()> {
    for object in rejected {
        let document = object
            .document
            .as_deref()
            .map(|document| encoding::json(conn, document));
        let object_id = encoding::message(conn, &object.object_id);
        let reason = encoding::message(conn, &object.reason);
        let digest = object.digest.map(|digest| digest.0.to_vec());
        let created_at = object.created_at.map(timestamp);
        diesel::insert_into(rejected_objects::table)
            .values((
                rejected_objects::resource.eq(run.resource.name),
                rejected_objects::object_id.eq(&object_id),
                rejected_objects::reason.eq(&reason),
                rejected_objects::document.eq(&document),
                rejected_objects::digest.eq(&digest),
                rejected_objects::created_at.eq(created_at),
                rejected_objects::sqlstate.eq(&object.sqlstate),
                rejected_objects::run.eq(Some(run.id)),
            ))
            .on_conflict((rejected_objects::resource, rejected_objects::object_id))
            .do_update()
            .set((
                rejected_objects::reason.eq(&reason),
                rejected_objects::document.eq(&document),
                rejected_objects::digest.eq(&digest),
                rejected_objects::created_at.eq(created_at),
                rejected_objects::sqlstate.eq(&object.sqlstate),
                rejected_objects::run.eq(Some(run.id)),
                rejected_objects::last_seen_at.eq(diesel::dsl::now),
            ))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Removes objects from the list, except those that are rejected again.
pub(super) async fn unreject(
    conn: &mut Session,
    run: &Run,
    unrejected: &[String],
    rejected: &[Rejected],
) -> QueryResult<()> {
    let unrejected: Vec<&String> = unrejected
        .iter()
        .filter(|id| !rejected.iter().any(|again| again.object_id == **id))
        .collect();
    if !unrejected.is_empty() {
        diesel::delete(
            rejected_objects::table
                .filter(rejected_objects::resource.eq(run.resource.name))
                .filter(rejected_objects::object_id.eq_any(unrejected)),
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}
