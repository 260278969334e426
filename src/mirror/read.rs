//! Reads `clerk.users` for the comparison.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Binary, Bool, Double, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{Error, Mirror, schema::users};
use crate::{
    reconcile::{diff::Known, walk::Range},
    resource::Digest,
};

/// A stored document.
#[derive(Debug, Clone, QueryableByName)]
pub struct Document {
    /// Clerk's id.
    #[diesel(sql_type = Text)]
    pub id: String,
    /// Put together again from the columns.
    #[diesel(sql_type = Text)]
    pub document: String,
    /// Whether the row was updated within the time that the caller asked about.
    #[diesel(sql_type = Bool)]
    pub is_fresh: bool,
}

#[derive(Queryable, QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Binary)]
    digest: Vec<u8>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    deleted_at: Option<DateTime<Utc>>,
}

fn known(row: Row) -> Known {
    let Row {
        id,
        created_at,
        digest,
        deleted_at,
    } = row;
    Known {
        id,
        created_at: created_at.timestamp_millis(),
        // A digest of another length is none of ours, and equals nothing.
        digest: Digest(digest.try_into().unwrap_or_default()),
        deleted: deleted_at.is_some(),
    }
}

/// Times are checked when they are decoded; what lies outside is the edge.
pub(super) fn timestamp(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(milliseconds).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl Mirror {
    /// Most rows of a stretch that are held at a time: a page's worth normally, more only where Clerk's list has a gap.
    pub const STRETCH: i64 = 2_000;

    /// The rows of a stretch of `created_at`, at most [`Self::STRETCH`], in order, behind `after`.
    pub async fn stretch(&self, interval: Range, after: Option<&Known>) -> Result<Vec<Known>, Error> {
        let mut query = users::table
            .select((users::id, users::created_at, users::digest, users::deleted_at))
            .order((users::created_at, users::id))
            .limit(Self::STRETCH)
            .into_boxed();
        if let Some(from) = interval.from {
            query = query.filter(users::created_at.ge(timestamp(from)));
        }
        if let Some(before) = interval.before {
            query = query.filter(users::created_at.lt(timestamp(before)));
        }
        if let Some(after) = after {
            let at = timestamp(after.created_at);
            query = query.filter(
                users::created_at
                    .gt(at)
                    .or(users::created_at.eq(at).and(users::id.gt(after.id.clone()))),
            );
        }
        let rows: Vec<Row> = query.load(&mut self.connection().await?).await?;
        Ok(rows.into_iter().map(known).collect())
    }

    /// The rows of these ids, wherever their `created_at` lies.
    pub async fn named(&self, ids: &[&str]) -> Result<Vec<Known>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<Row> = sql_query(
            "SELECT id, created_at, digest, deleted_at FROM clerk.users WHERE id OPERATOR(pg_catalog.=) ANY ($1)",
        )
        .bind::<Array<Text>, _>(ids)
        .load(self.connection().await?.autocommit())
        .await?;
        Ok(rows.into_iter().map(known).collect())
    }

    /// The documents of these ids, put together again from their columns. A row is fresh if it was updated less than `fresh`
    /// ago; a time that is still to come is from before the clock went back.
    pub async fn documents(&self, ids: &[&str], fresh: Duration) -> Result<Vec<Document>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        Ok(sql_query(
            "SELECT u.id, clerk.user_document(u)::pg_catalog.text AS document,
                    (u.changed_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()
                     AND u.changed_at OPERATOR(pg_catalog.>=) (pg_catalog.clock_timestamp()
                         OPERATOR(pg_catalog.-) ($2 OPERATOR(pg_catalog.*) interval '1 second'))) AS is_fresh
             FROM clerk.users u WHERE u.id OPERATOR(pg_catalog.=) ANY ($1)",
        )
        .bind::<Array<Text>, _>(ids)
        .bind::<Double, _>(fresh.as_secs_f64())
        .load(self.connection().await?.autocommit())
        .await?)
    }
}
