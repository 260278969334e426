//! Writes the rows of some objects into all tables, in the transaction that writes the objects into
//! the mirror.

use super::{counts::TableCounts, departures, excluded, rejected_rows, state::RunTables};
use crate::mirror::{session::Session, write_failure::WriteFailure};

/// Writes the rows of these objects into each table of the run, and notes which rows are to go
/// because the mapping's condition excludes their objects.
///
/// # Errors
/// Something failed that no single row explains.
pub(in crate::mirror) async fn project(
    conn: &mut Session,
    tables: &RunTables,
    run: i64,
    ids: &[&str],
) -> Result<TableCounts, WriteFailure> {
    let mut counts = TableCounts::default();
    if ids.is_empty() {
        return Ok(counts);
    }
    for projection in tables.applied() {
        let done = projection.write_all(conn, ids).await?;
        rejected_rows::replace(conn, run, projection, ids, &done.rejected).await?;
        excluded::note(conn, projection, ids, &done.rejected).await?;
        counts.add(&projection.name, done.counts);
    }
    Ok(counts)
}

/// Removes the rows of objects that are about to be removed from the mirror. Rows of tables whose
/// mapping is not applied yet are noted, and go once it is.
///
/// # Errors
/// Something failed that no single row explains.
pub(in crate::mirror) async fn remove(
    conn: &mut Session,
    tables: &RunTables,
    run: i64,
    ids: &[&str],
) -> Result<TableCounts, WriteFailure> {
    let mut counts = TableCounts::default();
    for projection in tables.applied() {
        counts.add(&projection.name, projection.remove_all(conn, run, ids).await?);
    }
    departures::note_deleted(conn, &tables.not_applied(), ids).await?;
    Ok(counts)
}
