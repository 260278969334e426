//! Reads the mirror through a mapping's expressions. An expression that fails for one object costs
//! only that object.

use diesel::{
    pg::Pg,
    prelude::*,
    sql_query,
    sql_types::{Array, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection, methods::LoadQuery};

use super::{
    error::TableError,
    plan::KeyRow,
    statements::{READ_ONLY, RESTORE_PATH, RESTRICT_PATH, Scope},
};
use crate::mirror::{
    locks::{LockBudget, is_lock},
    session::{Fault, Session},
    write_failure::WriteFailure,
};

/// A part of the mirror: the objects whose ids are after one id and up to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The id before the first one.
    pub(super) after: String,
    /// The last id.
    pub(super) through: String,
}

/// The rows that a statement returned, and the objects for which it fails.
pub(super) struct Scanned<R> {
    pub(super) rows: Vec<R>,
    pub(super) failed: Vec<(String, Fault)>,
}

/// Objects for which a statement may fail before the table counts as unusable.
const MOST_FAILED: usize = 1_000;

/// Runs a statement in a transaction of its own, in which nothing can be written. Names in the
/// mapping's expressions are found in `pg_catalog` only.
pub(super) async fn read<'q, R, Q>(conn: &mut Session, query: Q) -> Result<Vec<R>, WriteFailure>
where
    R: Send,
    Q: LoadQuery<'q, Session, R> + Send + 'q,
{
    conn.transaction(async |conn| {
        LockBudget::new().begin(conn).await?;
        conn.batch_execute(READ_ONLY).await?;
        conn.batch_execute(RESTRICT_PATH).await?;
        let rows = query.load(conn).await?;
        conn.batch_execute(RESTORE_PATH).await?;
        Ok(rows)
    })
    .await
}

/// Runs a statement over a chunk: at once, and if it fails, over halves of the chunk's ids.
pub(super) async fn scan<R>(
    conn: &mut Session,
    chunk: &Chunk,
    mirrored: &str,
    sql: impl Fn(Scope) -> String + Sync,
) -> Result<Scanned<R>, TableError>
where
    R: QueryableByName<Pg> + Send + 'static,
{
    let at_once = sql_query(sql(Scope::Range))
        .bind::<Text, _>(&chunk.after)
        .bind::<Text, _>(&chunk.through);
    match read(conn, at_once).await {
        Ok(rows) => {
            return Ok(Scanned {
                rows,
                failed: Vec::new(),
            });
        }
        Err(WriteFailure::TooLong(fault)) if is_lock(&fault) => return Err(TableError::Unusable(fault.into())),
        Err(WriteFailure::OneRow(_) | WriteFailure::TooLong(_)) => {}
        Err(failure) => return Err(failure.into()),
    }
    let ids: Vec<KeyRow> = sql_query(format!(
        "SELECT u.id AS key FROM {mirrored} u WHERE u.id > $1 AND u.id <= $2 ORDER BY u.id"
    ))
    .bind::<Text, _>(&chunk.after)
    .bind::<Text, _>(&chunk.through)
    .load(conn)
    .await?;
    let ids: Vec<String> = ids.into_iter().map(|row| row.key).collect();
    scan_ids(conn, ids, &sql(Scope::Ids)).await
}

/// Runs a statement over objects: together, and if it fails, over halves of them.
pub(super) async fn scan_ids<R>(conn: &mut Session, ids: Vec<String>, sql: &str) -> Result<Scanned<R>, TableError>
where
    R: QueryableByName<Pg> + Send + 'static,
{
    let mut scanned = Scanned {
        rows: Vec::new(),
        failed: Vec::new(),
    };
    let mut pending = vec![&ids[..]];
    while let Some(part) = pending.pop() {
        match read(conn, sql_query(sql).bind::<Array<Text>, _>(part)).await {
            Ok(rows) => scanned.rows.extend(rows),
            Err(WriteFailure::OneRow(fault) | WriteFailure::TooLong(fault)) => match part {
                [only] if scanned.failed.len() < MOST_FAILED => scanned.failed.push((only.clone(), fault)),
                // It fails for too many to be about single objects.
                [] | [_] => return Err(TableError::Unusable(fault.into())),
                part => {
                    let (left, right) = part.split_at(part.len() / 2);
                    pending.extend([right, left]);
                }
            },
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(scanned)
}
