//! Reads and writes the rows of a resource's table.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Binary, Bool, Double, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{
    Batch, Committed, Deleted, MirrorError, Run, apply, convert::timestamp, counts::IN_RANGE, delete,
    pool::ConnectionPool,
};
use crate::{
    reconcile::{diff::Known, range::Range},
    resource::{Digest, Resource},
};

/// A stored document.
#[derive(Debug, Clone, QueryableByName)]
pub struct Document {
    /// Clerk's id.
    #[diesel(sql_type = Text)]
    pub id: String,
    /// The document, put together from the columns.
    #[diesel(sql_type = Text)]
    pub document: String,
    /// Whether the row was updated within the time that the caller asked about.
    #[diesel(sql_type = Bool)]
    pub is_fresh: bool,
}

#[derive(QueryableByName)]
struct KnownRow {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Binary)]
    digest: Vec<u8>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    deleted_at: Option<DateTime<Utc>>,
}

fn known(row: KnownRow) -> Known {
    let KnownRow {
        id,
        created_at,
        digest,
        deleted_at,
    } = row;
    Known {
        id,
        created_at: created_at.timestamp_millis(),
        // A digest of another length is not ours, and equals none.
        digest: Digest(digest.try_into().unwrap_or_default()),
        deleted: deleted_at.is_some(),
    }
}

#[derive(QueryableByName)]
struct NewestAt {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    at: Option<DateTime<Utc>>,
}

#[derive(QueryableByName)]
struct RowId {
    #[diesel(sql_type = Text)]
    id: String,
}

/// Reads and writes the rows of a resource's table.
#[derive(Debug, Clone)]
pub struct Rows(pub(super) ConnectionPool);

impl Rows {
    /// Rows of a range that are loaded at a time. A range usually has a page's worth; it has more
    /// only where Clerk's list has a gap.
    pub const MAX_ROWS: i64 = 2_000;

    /// Returns the rows of a range of `created_at` after `after`, in order, at most
    /// [`Self::MAX_ROWS`].
    pub async fn range(&self, range: Range, after: Option<&Known>) -> Result<Vec<Known>, MirrorError> {
        let from = after.map_or(range.from, |row| Some(row.created_at));
        let sql = format!(
            "SELECT id, created_at, digest, deleted_at FROM {table}
             WHERE {IN_RANGE} AND (created_at > $1 OR id > $3) ORDER BY created_at, id LIMIT $4",
            table = self.0.resource.table
        );
        let rows: Vec<KnownRow> = sql_query(sql)
            .bind::<Nullable<Timestamptz>, _>(from.map(timestamp))
            .bind::<Nullable<Timestamptz>, _>(range.before.map(timestamp))
            // Every id comes behind the empty one.
            .bind::<Text, _>(after.map_or("", |row| &row.id))
            .bind::<BigInt, _>(Self::MAX_ROWS)
            .load(&mut self.0.connection().await?)
            .await?;
        Ok(rows.into_iter().map(known).collect())
    }

    /// Returns the rows of these ids, whatever their `created_at`.
    pub async fn by_ids(&self, ids: &[&str]) -> Result<Vec<Known>, MirrorError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.0.resource.table;
        let rows: Vec<KnownRow> = sql_query(format!(
            "SELECT id, created_at, digest, deleted_at FROM {table} WHERE id OPERATOR(pg_catalog.=) ANY ($1)"
        ))
        .bind::<Array<Text>, _>(ids)
        .load(self.0.connection().await?.autocommit())
        .await?;
        Ok(rows.into_iter().map(known).collect())
    }

    /// Returns the documents of these ids, put together from their columns. A row is fresh if it
    /// was updated less than `fresh` ago. A time in the future was written before the clock went
    /// back, and is not fresh.
    pub async fn documents(&self, ids: &[&str], fresh: Duration) -> Result<Vec<Document>, MirrorError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let Resource { table, document, .. } = self.0.resource;
        let sql = format!(
            "SELECT u.id, {document}(u)::pg_catalog.text AS document,
                    (u.changed_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()
                     AND u.changed_at OPERATOR(pg_catalog.>=) (pg_catalog.clock_timestamp()
                         OPERATOR(pg_catalog.-) ($2 OPERATOR(pg_catalog.*) interval '1 second'))) AS is_fresh
             FROM {table} u WHERE u.id OPERATOR(pg_catalog.=) ANY ($1)"
        );
        Ok(sql_query(sql)
            .bind::<Array<Text>, _>(ids)
            .bind::<Double, _>(fresh.as_secs_f64())
            .load(self.0.connection().await?.autocommit())
            .await?)
    }

    /// Returns the ids of the objects that were created last, except `ids`.
    pub async fn newest_ids_except(&self, ids: &[String], limit: usize) -> Result<Vec<String>, MirrorError> {
        let sql = format!(
            "SELECT id FROM {table} WHERE deleted_at IS NULL AND id <> ALL ($1)
             ORDER BY created_at DESC, id DESC LIMIT $2",
            table = self.0.resource.table
        );
        let rows: Vec<RowId> = sql_query(sql)
            .bind::<Array<Text>, _>(ids)
            .bind::<BigInt, _>(limit as i64)
            .load(&mut self.0.connection().await?)
            .await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Returns the newest `created_at`, in Unix milliseconds.
    pub async fn newest(&self) -> Result<Option<i64>, MirrorError> {
        let sql = format!(
            "SELECT pg_catalog.max(created_at) AS at FROM {table} WHERE deleted_at IS NULL",
            table = self.0.resource.table
        );
        let NewestAt { at } = sql_query(sql).get_result(&mut self.0.connection().await?).await?;
        Ok(at.map(|at| at.timestamp_millis()))
    }

    /// Returns the ids of all rows that are marked as deleted.
    pub async fn marked(&self) -> Result<Vec<String>, MirrorError> {
        let sql = format!(
            "SELECT id FROM {table} WHERE deleted_at IS NOT NULL",
            table = self.0.resource.table
        );
        let rows: Vec<RowId> = sql_query(sql).load(&mut self.0.connection().await?).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Returns how much longer each of these rows must be known before Clerk's answer counts, by
    /// the database's clock. Rows that were first seen or last updated at least `least` ago are
    /// left out. More than `least` means that the clock went back since.
    pub async fn too_young(&self, ids: &[String], least: Duration) -> Result<HashMap<String, Duration>, MirrorError> {
        #[derive(QueryableByName)]
        struct YoungRow {
            #[diesel(sql_type = Text)]
            id: String,
            #[diesel(sql_type = Double)]
            remaining: f64,
        }
        let rows: Vec<YoungRow> = sql_query(format!(
            "SELECT id, remaining FROM (
                 SELECT u.id, $2 - extract(epoch FROM pg_catalog.clock_timestamp() - greatest(u.first_seen_at, u.changed_at))
                     ::double precision AS remaining
                 FROM {table} u WHERE u.id = ANY($1) AND u.deleted_at IS NULL) AS rows
             WHERE remaining > 0::double precision",
            table = self.0.resource.table
        ))
        .bind::<Array<Text>, _>(ids)
        .bind::<Double, _>(least.as_secs_f64())
        .load(&mut self.0.connection().await?)
        .await?;
        let remaining = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Ok(rows.into_iter().map(|row| (row.id, remaining(row.remaining))).collect())
    }

    /// Applies a batch completely or not at all.
    pub async fn apply(&self, run: &Run, batch: &Batch<'_>) -> Result<Committed, MirrorError> {
        let mut conn = self.0.connection().await?;
        // Boxed, so that the futures of callers do not contain its state.
        let committed = Box::pin(apply::apply(&mut conn, run, &self.0.upserts, batch)).await?;
        if run.emits_events && committed.created + committed.updated > 0 {
            self.0.events.send_replace(());
        }
        Ok(committed)
    }

    /// Deletes rows of objects whose deletion Clerk confirmed, or with `mark` marks them as deleted.
    pub async fn delete(&self, run: &Run, ids: &[String], mark: bool) -> Result<Deleted, MirrorError> {
        let mut conn = self.0.connection().await?;
        // Boxed, so that the futures of callers do not contain its state.
        let result = Box::pin(delete::delete(&mut conn, run, &self.0.mappings, ids, mark)).await;
        if run.emits_events {
            // Even if it failed in the end, a part may be committed.
            self.0.events.send_replace(());
        }
        result
    }
}
