//! `clerk.rejected_rows`: rows of the application's tables that could not be written or removed,
//! and why.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{plan::RowChange, statements::Projection};
use crate::mirror::{
    MirrorError, encoding,
    locks::is_lock,
    session::{Fault, Session},
    sqlstate::{LOCK_NOT_AVAILABLE, NO_DATA, UNIQUE_VIOLATION},
};

/// What could not be done with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mirror) enum RowAction {
    /// Insert, update or link it.
    Write,
    /// Remove it, as the mapping says.
    Remove,
}

impl RowAction {
    fn name(self) -> &'static str {
        match self {
            RowAction::Write => "write",
            RowAction::Remove => "remove",
        }
    }
}

/// A row that could not be written or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mirror) struct RejectedRow {
    /// Clerk's id.
    pub(super) id: String,
    action: RowAction,
    reason: String,
    sqlstate: String,
}

impl RejectedRow {
    /// A row that Postgres refused.
    pub(super) fn refused(id: String, action: RowAction, fault: Fault) -> Self {
        if is_lock(&fault) {
            return Self::locked(id, action);
        }
        Self {
            id,
            action,
            sqlstate: fault.sqlstate().unwrap_or_default().to_owned(),
            reason: MirrorError::refusal(fault),
        }
    }

    /// A row that the application has locked.
    pub(super) fn locked(id: String, action: RowAction) -> Self {
        Self {
            id,
            action,
            reason: "the application has locked the row; the next sync tries again".to_owned(),
            sqlstate: LOCK_NOT_AVAILABLE.to_owned(),
        }
    }

    /// A row that a trigger left out.
    pub(super) fn skipped(id: String, action: RowAction) -> Self {
        Self {
            id,
            action,
            reason: "a trigger of the application skipped the row without an error".to_owned(),
            sqlstate: NO_DATA.to_owned(),
        }
    }

    /// A user whose address fits several rows, or a row whose address several users have.
    pub(super) fn ambiguous(id: String, rows: u64, users: u64) -> Self {
        Self {
            id,
            action: RowAction::Write,
            reason: RowChange::ambiguity(rows, users),
            sqlstate: UNIQUE_VIOLATION.to_owned(),
        }
    }
}

/// Lists rows of a table as rejected by a run, and removes the other ones of `tried` from the list.
pub(super) async fn replace(
    conn: &mut Session,
    run: i64,
    projection: &Projection,
    tried: &[&str],
    rejected: &[RejectedRow],
) -> QueryResult<()> {
    let solved: Vec<&str> = tried
        .iter()
        .copied()
        .filter(|id| !rejected.iter().any(|row| row.id == **id))
        .collect();
    if !solved.is_empty() {
        sql_query("DELETE FROM clerk.rejected_rows WHERE table_name = $1 AND object_id = ANY ($2)")
            .bind::<Text, _>(&projection.name)
            .bind::<Array<Text>, _>(solved)
            .execute(conn)
            .await?;
    }
    add(conn, run, projection, rejected).await
}

/// Lists rows of a table as rejected.
pub(super) async fn add(
    conn: &mut Session,
    run: i64,
    projection: &Projection,
    rejected: &[RejectedRow],
) -> QueryResult<()> {
    if rejected.is_empty() {
        return Ok(());
    }
    let reasons: Vec<_> = rejected
        .iter()
        .map(|row| encoding::message(conn, &row.reason).into_owned())
        .collect();
    sql_query(
        "INSERT INTO clerk.rejected_rows AS r (table_name, object_id, action, reason, sqlstate, run)
         SELECT $1, t.id, t.action, t.reason, t.sqlstate, $6
         FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5))
             AS t(id, action, reason, sqlstate)
         ON CONFLICT (table_name, object_id) DO UPDATE SET action = excluded.action, reason = excluded.reason,
             sqlstate = excluded.sqlstate, run = excluded.run, last_seen_at = pg_catalog.now()",
    )
    .bind::<Text, _>(&projection.name)
    .bind::<Array<Text>, _>(rejected.iter().map(|row| row.id.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rejected.iter().map(|row| row.action.name()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(reasons)
    .bind::<Array<Text>, _>(rejected.iter().map(|row| row.sqlstate.as_str()).collect::<Vec<_>>())
    .bind::<Nullable<BigInt>, _>(Some(run))
    .execute(conn)
    .await?;
    Ok(())
}
