//! Carries out confirmed deletions.

use std::time::{Duration, Instant};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Bool, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    MirrorError, Rejected, Run, TableCounts, bookkeeping,
    convert::{signed, unsigned},
    holds::APPROVED,
    locks::{self, LockBudget, Purpose, USUAL_WAIT, is_lock},
    missing::forget_missing,
    outbox,
    projection::{self, RunTables, TableMapping, mappings_from},
    rejected,
    session::Session,
    sqlstate::{LOCK_NOT_AVAILABLE, NO_DATA},
    tables::{missing_objects, rejected_objects},
    transaction,
    write_failure::WriteFailure,
};
use crate::resource::{Deletion, Dependent, Resource};

/// The result of confirmed deletions.
#[derive(Debug, Default)]
pub struct Deleted {
    /// Rows that are deleted, or marked as deleted.
    pub rows: u64,
    /// Rows that cannot be deleted, or not yet.
    pub kept: Vec<Rejected>,
    /// Ids that there was no time for.
    pub left: Vec<String>,
    /// Ids of other resources whose rows went along.
    pub dependents: Vec<String>,
    /// What was done with rows of the application's tables.
    pub tables: TableCounts,
}

/// How long deleting may take. The rest is left to the next sync, because others wait for this one
/// and Clerk's answer about its instance must be fresh.
const MOST_TIME: Duration = Duration::from_secs(30);

/// How long several rows may take together. If they take longer, they are tried in halves.
const MOST_TIME_TOGETHER: &str = "SET LOCAL statement_timeout = '5s'";

/// Deletes rows of objects whose deletion Clerk confirmed, or with `mark` marks them as deleted.
///
/// A row is kept if the application's constraints or triggers refuse the deletion, or if a foreign
/// key without an index makes it take too long. A row that the application has locked is left to
/// the next sync.
pub(super) async fn delete(
    conn: &mut Session,
    run: &Run,
    mappings: &[TableMapping],
    ids: &[String],
    mark: bool,
) -> Result<Deleted, MirrorError> {
    let dependents = dependents(conn, run, mappings).await?;
    let mut deleted = Deleted::default();
    let mut lock_budget = LockBudget::new();
    let mut parts = vec![ids];
    let began = Instant::now();
    // One transaction per part, so that a slow part is not repeated.
    while let Some(part) = parts.pop() {
        // However slow it is, each sync deletes something.
        let has_done = deleted.rows > 0 || !deleted.kept.is_empty();
        if has_done && began.elapsed() > MOST_TIME {
            deleted.left.extend_from_slice(part);
            continue;
        }
        let (fault, is_first) = match delete_part(conn, run, &dependents, part, mark, &mut lock_budget).await {
            Ok(done) => {
                deleted.rows += done.rows;
                deleted.kept.extend(done.kept);
                deleted.dependents.extend(done.dependents);
                deleted.tables.merge(done.tables);
                continue;
            }
            Err(WriteFailure::OneRow(fault)) => (fault, false),
            Err(WriteFailure::TooLong(fault)) => {
                let expected_locks = lock_budget.expects_locks();
                if is_lock(&fault) {
                    lock_budget.spend();
                }
                let is_first = is_lock(&fault) && !expected_locks;
                (fault, is_first)
            }
            Err(WriteFailure::Whole(error)) => return Err(error),
        };
        match part {
            // Again, now without the locked rows.
            part if is_first => parts.push(part),
            [only] => {
                // A statement that fails without rows fails for another reason: a missing privilege
                // or table.
                remove(conn, run.resource, &[], mark).await?;
                let row = if is_lock(&fault) {
                    locked_row(only)
                } else {
                    let sqlstate = fault.sqlstate().unwrap_or_default().to_owned();
                    let reason = format!(
                        "gone from Clerk, but the row cannot be deleted: {}",
                        MirrorError::from(fault)
                    );
                    kept_row(only, &sqlstate, reason)
                };
                keep_row(conn, run, &row).await?;
                deleted.kept.push(row);
            }
            part => {
                let (left, right) = part.split_at(part.len() / 2);
                parts.extend([right, left]);
            }
        }
    }
    Ok(deleted)
}

/// Deletes rows in one transaction. Once some rows are known to be locked, those that are locked
/// now are left out.
async fn delete_part(
    conn: &mut Session,
    run: &Run,
    dependents: &[(&Dependent, RunTables)],
    ids: &[String],
    mark: bool,
    lock_budget: &mut LockBudget,
) -> Result<Deleted, WriteFailure> {
    conn.transaction(async |conn| {
        transaction::begin_for(conn, run.lease(), Some(run.resource), false).await?;
        if ids.len() > 1 {
            conn.batch_execute(MOST_TIME_TOGETHER).await?;
        }
        lock_budget.begin(conn).await?;
        let all: Vec<&str> = ids.iter().map(String::as_str).collect();
        let locked = if lock_budget.expects_locks() {
            let purpose = if mark { Purpose::Mark } else { Purpose::Delete };
            locks::locked(conn, run.resource, &all, purpose).await?
        } else {
            Vec::new()
        };
        let ids: Vec<&str> = all
            .into_iter()
            .filter(|id| !locked.iter().any(|locked| locked == id))
            .collect();
        let (mut tables, mut dependent_ids) = (TableCounts::default(), Vec::new());
        for dependent in dependents {
            // What the application keeps of them is confirmed later by the sync of their own resource.
            let removed = conn.transaction(async |conn| remove_dependents(conn, run, dependent, &ids, mark).await);
            match removed.await {
                Ok((removed, counts)) => {
                    dependent_ids.extend(removed);
                    tables.merge(counts);
                }
                // The others are deleted without it.
                Err(failure @ WriteFailure::OneRow(_)) if ids.len() > 1 => return Err(failure),
                Err(WriteFailure::OneRow(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        // Before their objects: rows of the application may reference them.
        tables.merge(projection::remove(conn, &run.tables, run.id, &ids).await?);
        let mut gone = remove(conn, run.resource, &ids, mark).await?;
        let remaining = still_there(conn, run.resource, &ids, mark).await?;
        gone.retain(|(id, _)| !remaining.contains(id));
        let rows = gone.len() as u64;
        if run.emits_events {
            outbox::deleted(conn, run.resource, &gone).await?;
        }
        locks::wait_at_most(conn, USUAL_WAIT).await?;
        let done_ids: Vec<&str> = ids
            .into_iter()
            .filter(|id| !remaining.iter().any(|remaining| remaining == id))
            .collect();
        record(conn, run, &gone, &done_ids).await?;
        let remaining = remaining.iter().map(|id| {
            let reason = "gone from Clerk, but a trigger of the application keeps the row".to_owned();
            kept_row(id, NO_DATA, reason)
        });
        let kept: Vec<Rejected> = remaining.chain(locked.iter().map(|id| locked_row(id))).collect();
        for row in &kept {
            list(conn, run, row).await?;
        }
        Ok(Deleted {
            rows,
            kept,
            dependents: dependent_ids,
            tables,
            ..Deleted::default()
        })
    })
    .await
}

/// Counts the rows that are gone, and removes all ids that are done from the lists of rejected and
/// missing objects.
async fn record(
    conn: &mut Session,
    run: &Run,
    gone: &[(String, String)],
    done_ids: &[&str],
) -> Result<(), WriteFailure> {
    diesel::delete(
        rejected_objects::table
            .filter(rejected_objects::resource.eq(run.resource.name))
            .filter(rejected_objects::object_id.eq_any(done_ids)),
    )
    .execute(conn)
    .await?;
    let is_approved = missing_objects::object_id
        .eq_any(gone.iter().map(|(id, _)| id))
        .and(missing_objects::resource.eq(run.resource.name))
        .and(missing_objects::hold.eq(APPROVED));
    let approved: i64 = missing_objects::table
        .filter(is_approved)
        .count()
        .get_result(conn)
        .await?;
    forget_missing(conn, run.resource, done_ids).await?;
    let rows = gone.len() as u64;
    // The order in which a batch locks these rows.
    bookkeeping::advance(conn, run.resource, -signed(rows), None, None).await?;
    Ok(bookkeeping::count_deletions(conn, run, rows, unsigned(approved), 0).await?)
}

/// Returns the entry of a row that cannot be deleted.
fn kept_row(id: &str, sqlstate: &str, reason: String) -> Rejected {
    Rejected {
        object_id: id.to_owned(),
        reason,
        document: None,
        digest: None,
        created_at: None,
        sqlstate: Some(sqlstate.to_owned()),
    }
}

/// Returns the entry of a row that cannot be deleted yet.
fn locked_row(id: &str) -> Rejected {
    let reason = "gone from Clerk, but the application has locked the row; the next sync tries again";
    kept_row(id, LOCK_NOT_AVAILABLE, reason.to_owned())
}

/// Lists a row that cannot be deleted.
async fn keep_row(conn: &mut Session, run: &Run, row: &Rejected) -> Result<(), MirrorError> {
    conn.transaction(async |conn| {
        transaction::begin(conn, run.lease()).await?;
        list(conn, run, row).await
    })
    .await
}

async fn list(conn: &mut Session, run: &Run, row: &Rejected) -> Result<(), MirrorError> {
    rejected::reject(conn, run, std::slice::from_ref(row)).await?;
    // A locked row stays in `clerk.missing`, so that an approval lasts until the row can be
    // deleted.
    if row.sqlstate.as_deref() != Some(LOCK_NOT_AVAILABLE) {
        forget_missing(conn, run.resource, &[&row.object_id]).await?;
    }
    bookkeeping::count_deletions(conn, run, 0, 0, 1).await?;
    Ok(())
}

/// Returns what ends together with the objects of a run, each kind with the tables of the application
/// that are kept in sync from it.
async fn dependents<'r>(
    conn: &mut Session,
    run: &'r Run,
    mappings: &[TableMapping],
) -> Result<Vec<(&'r Dependent, RunTables)>, MirrorError> {
    let mut dependents = Vec::new();
    for dependent in run.resource.dependents {
        let tables = match mappings_from(mappings, dependent.resource).next() {
            Some(_) => RunTables::load(conn, run.lease(), mappings, dependent.resource, false).await?,
            None => RunTables::default(),
        };
        dependents.push((dependent, tables));
    }
    Ok(dependents)
}

/// Deletes or marks the rows of objects that end together with these, and returns their ids. Clerk need
/// not be asked about them.
async fn remove_dependents(
    conn: &mut Session,
    run: &Run,
    (dependent, tables): &(&Dependent, RunTables),
    ids: &[&str],
    mark: bool,
) -> Result<(Vec<String>, TableCounts), WriteFailure> {
    #[derive(QueryableByName)]
    struct DependentRow {
        #[diesel(sql_type = Text)]
        id: String,
    }
    let Dependent { resource, column } = dependent;
    let sql = format!(
        "SELECT id FROM {table} WHERE {column} = ANY ($1)",
        table = resource.table
    );
    let rows: Vec<DependentRow> = sql_query(sql).bind::<Array<Text>, _>(ids).load(conn).await?;
    if rows.is_empty() {
        return Ok((Vec::new(), TableCounts::default()));
    }
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let counts = projection::remove(conn, tables, run.id, &ids).await?;
    let gone = remove(conn, resource, &ids, mark).await?;
    if run.emits_events {
        outbox::deleted(conn, resource, &gone).await?;
    }
    diesel::delete(
        rejected_objects::table
            .filter(rejected_objects::resource.eq(resource.name))
            .filter(rejected_objects::object_id.eq_any(&ids)),
    )
    .execute(conn)
    .await?;
    forget_missing(conn, resource, &ids).await?;
    bookkeeping::advance(conn, resource, -signed(gone.len() as u64), None, None).await?;
    Ok((gone.into_iter().map(|(id, _)| id).collect(), counts))
}

/// Deletes or marks rows, and returns the ids of those that existed and were not marked, with what
/// their events tell as JSON.
async fn remove(
    conn: &mut Session,
    resource: &Resource,
    ids: &[&str],
    mark: bool,
) -> QueryResult<Vec<(String, String)>> {
    #[derive(QueryableByName)]
    struct RemovedRow {
        #[diesel(sql_type = Text)]
        id: String,
        #[diesel(sql_type = Text)]
        data: String,
        #[diesel(sql_type = Bool)]
        is_live: bool,
    }
    let Resource { table, event, .. } = resource;
    let data = match resource.deletion {
        Deletion::Document => format!("{}(t)", resource.document),
        Deletion::Fields(fields) => {
            let fields: String = fields.iter().map(|field| format!(", '{field}', t.{field}")).collect();
            format!(
                "pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('id', t.id, 'object', coalesce(t.object, '{event}'::text), 'deleted', true{fields}))"
            )
        }
    };
    let sql = if mark {
        format!(
            "UPDATE {table} AS t SET deleted_at = pg_catalog.now(), changed_at = pg_catalog.now()
             WHERE id = ANY ($1) AND deleted_at IS NULL RETURNING id, {data}::text AS data, true AS is_live"
        )
    } else {
        format!(
            "DELETE FROM {table} AS t WHERE id = ANY ($1)
             RETURNING id, {data}::text AS data, deleted_at IS NULL AS is_live"
        )
    };
    let rows: Vec<RemovedRow> = sql_query(sql).bind::<Array<Text>, _>(ids).load(conn).await?;
    // A row that was marked before had its event then.
    let live = rows.into_iter().filter(|row| row.is_live);
    Ok(live.map(|row| (row.id, row.data)).collect())
}

/// Returns which rows still exist after their deletion, or with `mark` are still not marked.
async fn still_there(conn: &mut Session, resource: &Resource, ids: &[&str], mark: bool) -> QueryResult<Vec<String>> {
    #[derive(QueryableByName)]
    struct RemainingRow {
        #[diesel(sql_type = Text)]
        id: String,
    }
    let sql = format!(
        "SELECT id FROM {table} WHERE id = ANY ($1){unmarked}",
        table = resource.table,
        unmarked = if mark { " AND deleted_at IS NULL" } else { "" },
    );
    let rows: Vec<RemainingRow> = sql_query(sql).bind::<Array<Text>, _>(ids).load(conn).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
