//! Compares a table with the mirror, and writes the rows that differ.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    app_tables::AppTables,
    counts::RowCounts,
    error::TableError,
    excluded,
    plan::{CountRow, KeyRow, PlanRow, PlannedRow, RowChange, TableDifferences},
    rejected_rows,
    scan::{Chunk, read, scan},
    state::RunTable,
    statements::Scope,
    write::WrittenRows,
};
use crate::mirror::{
    MirrorError, Run,
    convert::{signed, unsigned},
    locks::is_lock,
    transaction,
    write_failure::WriteFailure,
};

#[derive(QueryableByName)]
struct LastRow {
    #[diesel(sql_type = Nullable<Text>)]
    last: Option<String>,
}

/// How a table differs from the mirror. [`AppTables::next`] returns the differences part by part.
#[derive(Debug)]
pub struct TableComparison {
    rest: Rest,
    /// Whether more rows differ than are read at once.
    pub has_many: bool,
    /// Whether the table may have rows whose keys the mirror does not have.
    pub may_have_unknown: bool,
}

#[derive(Debug)]
enum Rest {
    /// All differences, until they are taken.
    Read(Option<TableDifferences>),
    /// The objects after this id are still to be compared.
    Chunks { after: String },
}

impl TableComparison {
    /// Of all objects, chunk by chunk.
    pub fn by_chunks() -> Self {
        Self {
            rest: Rest::Chunks { after: String::new() },
            has_many: false,
            may_have_unknown: true,
        }
    }

    /// Of a table that does not differ.
    pub fn without_differences() -> Self {
        Self::at_once(Vec::new())
    }

    fn at_once(rows: Vec<PlanRow>) -> Self {
        let mut differences = TableDifferences::default();
        let mut may_have_unknown = false;
        for row in rows {
            match row.is_known {
                None => differences.rows.push(row.into()),
                Some(true) => differences.excluded.push(row.key),
                Some(false) => may_have_unknown = true,
            }
        }
        Self {
            rest: Rest::Read(Some(differences)),
            has_many: false,
            may_have_unknown,
        }
    }

    /// The differences, if all of them are read.
    pub fn differences(&self) -> Option<&TableDifferences> {
        match &self.rest {
            Rest::Read(differences) => differences.as_ref(),
            Rest::Chunks { .. } => None,
        }
    }
}

impl AppTables {
    /// Objects per chunk, and rows that differ in memory.
    const CHUNK: i64 = 50_000;

    /// Compares a table with the mirror in one statement. If many rows differ, or an expression fails
    /// for an object, the table is compared chunk by chunk later.
    pub async fn compare(&self, table: &RunTable) -> Result<TableComparison, TableError> {
        let mut conn = self.0.connection().await?;
        let plan = sql_query(table.projection.plan(Scope::All)).bind::<BigInt, _>(Self::CHUNK + 1);
        match read::<PlanRow, _>(&mut conn, plan).await {
            Ok(rows) if rows.len() as i64 <= Self::CHUNK => Ok(TableComparison::at_once(rows)),
            Ok(_) => Ok(TableComparison {
                has_many: true,
                ..TableComparison::by_chunks()
            }),
            Err(WriteFailure::TooLong(fault)) if is_lock(&fault) => Err(TableError::Unusable(fault.into())),
            Err(WriteFailure::OneRow(_) | WriteFailure::TooLong(_)) => Ok(TableComparison::by_chunks()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Returns the next differences of a comparison; `None` if there are no more.
    pub async fn next(
        &self,
        table: &RunTable,
        comparison: &mut TableComparison,
    ) -> Result<Option<TableDifferences>, TableError> {
        let after = match &mut comparison.rest {
            Rest::Read(differences) => return Ok(differences.take()),
            Rest::Chunks { after } => after,
        };
        let Some(chunk) = self.next_chunk(after, Self::CHUNK).await? else {
            return Ok(None);
        };
        after.clone_from(&chunk.through);
        Ok(Some(TableDifferences {
            rows: self.differences(table, &chunk).await?,
            excluded: self.excluded(table, &chunk).await?,
        }))
    }

    /// Returns the next objects of the mirror after an id; `None` if there are no more.
    async fn next_chunk(&self, after: &str, limit: i64) -> Result<Option<Chunk>, MirrorError> {
        let LastRow { last } = sql_query(format!(
            "SELECT pg_catalog.max(c.id) AS last FROM (
                 SELECT u.id FROM {} u WHERE u.id > $1 ORDER BY u.id LIMIT $2) c",
            self.0.resource.table
        ))
        .bind::<Text, _>(after)
        .bind::<BigInt, _>(limit)
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(last.map(|through| Chunk {
            after: after.to_owned(),
            through,
        }))
    }

    /// Whether a table has no rows.
    pub async fn is_empty(&self, table: &RunTable) -> Result<bool, TableError> {
        Ok(self.count(table.projection.count_first()).await? == 0)
    }

    /// Returns the number of rows of a table.
    pub async fn count_rows(&self, table: &RunTable) -> Result<u64, TableError> {
        self.count(table.projection.count()).await
    }

    /// Returns the number that a statement counts.
    pub(super) async fn count(&self, sql: String) -> Result<u64, TableError> {
        let mut conn = self.0.connection().await?;
        let rows: Vec<CountRow> = read(&mut conn, sql_query(sql)).await?;
        Ok(rows.iter().map(|row| unsigned(row.count)).sum())
    }

    /// Returns the rows of a chunk that are to be inserted, updated or linked.
    async fn differences(&self, table: &RunTable, chunk: &Chunk) -> Result<Vec<PlannedRow>, TableError> {
        let mut conn = self.0.connection().await?;
        let plan = |scope| table.projection.plan(scope);
        let scanned = scan::<PlanRow>(&mut conn, chunk, self.0.resource.table, plan).await?;
        let failed = scanned.failed.into_iter().map(|(id, fault)| PlannedRow {
            id,
            change: RowChange::Fails(MirrorError::from(fault).to_string()),
        });
        Ok(scanned.rows.into_iter().map(PlannedRow::from).chain(failed).collect())
    }

    /// Returns which objects of a chunk have a row although the mapping's condition excludes them.
    async fn excluded(&self, table: &RunTable, chunk: &Chunk) -> Result<Vec<String>, TableError> {
        if !excluded::can_exclude(&table.projection) {
            return Ok(Vec::new());
        }
        // Objects for which the condition fails are rejected with their rows.
        let mut conn = self.0.connection().await?;
        let excluded = |scope| table.projection.excluded(scope);
        let scanned = scan::<KeyRow>(&mut conn, chunk, self.0.resource.table, excluded).await?;
        Ok(scanned.rows.into_iter().map(|row| row.key).collect())
    }

    /// Writes the rows of these objects, and lists those that cannot be written.
    pub async fn write(&self, run: &Run, table: &RunTable, ids: &[&str]) -> Result<RowCounts, TableError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin_for(conn, run.lease(), Some(run.resource), false).await?;
            let WrittenRows { counts, rejected } = table.projection.write_all(conn, ids).await?;
            rejected_rows::replace(conn, run.id, &table.projection, ids, &rejected).await?;
            excluded::note(conn, &table.projection, ids, &rejected).await?;
            Ok(counts)
        })
        .await
    }

    /// Returns the next keys of a table, in order, after `after`, that the mirror does not have.
    pub async fn unknown(&self, table: &RunTable, after: &str, limit: usize) -> Result<Vec<String>, TableError> {
        let mut conn = self.0.connection().await?;
        let unknown = sql_query(table.projection.unknown())
            .bind::<Text, _>(after)
            .bind::<BigInt, _>(limit as i64);
        let rows: Vec<KeyRow> = read(&mut conn, unknown).await?;
        Ok(rows.into_iter().map(|row| row.key).collect())
    }

    /// Returns rows of a table that could not be written, and rows that could not be removed: first
    /// those that were tried longest ago. With `locked`, only those that the application had locked.
    /// Removals that are held are left out.
    pub async fn rejected(
        &self,
        table: &RunTable,
        locked: bool,
        limit: usize,
    ) -> Result<(Vec<String>, Vec<String>), MirrorError> {
        #[derive(QueryableByName)]
        struct RejectedKey {
            #[diesel(sql_type = Text)]
            object_id: String,
            #[diesel(sql_type = Text)]
            action: String,
        }
        let rows: Vec<RejectedKey> = sql_query(
            "SELECT r.object_id, r.action FROM clerk.rejected_rows r
             WHERE r.table_name = $1 AND (NOT $2 OR r.sqlstate = '55P03')
               AND NOT (r.action = 'remove' AND EXISTS (
                   SELECT FROM clerk.departures d
                   WHERE d.table_name = r.table_name AND d.object_id = r.object_id AND d.hold = 'held'))
             ORDER BY r.last_seen_at, r.object_id LIMIT $3",
        )
        .bind::<Text, _>(table.name())
        .bind::<Bool, _>(locked)
        .bind::<BigInt, _>(limit as i64)
        .load(&mut self.0.connection().await?)
        .await?;
        let (write, remove): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.action == "write");
        let ids = |rows: Vec<RejectedKey>| rows.into_iter().map(|row| row.object_id).collect();
        Ok((ids(write), ids(remove)))
    }

    /// Returns how many rows of a table could not be written or removed.
    pub async fn count_rejected(&self, table: &RunTable) -> Result<u64, MirrorError> {
        let row: CountRow =
            sql_query("SELECT pg_catalog.count(*) AS count FROM clerk.rejected_rows WHERE table_name = $1")
                .bind::<Text, _>(table.name())
                .get_result(&mut self.0.connection().await?)
                .await?;
        Ok(unsigned(row.count))
    }

    /// Notes that a full sync has compared a table with its mapping, so that from now on each batch
    /// keeps it in sync. `repaired` rows differed although nobody had changed them at Clerk.
    pub async fn note_compared(&self, run: &Run, table: &RunTable, repaired: u64) -> Result<(), TableError> {
        let rows = self.count_rows(table).await?;
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, run.lease()).await?;
            sql_query(
                "UPDATE clerk.projections SET mapping = $2, rows = $3, repaired = $4, compared_at = pg_catalog.now(),
                     applied_at = CASE WHEN mapping = $2 THEN applied_at ELSE pg_catalog.now() END,
                     removes_since = CASE WHEN $5 THEN coalesce(removes_since, pg_catalog.now()) END,
                     hold = 'none', held_mapping = NULL, held_changes = NULL, held_at = NULL, approved_at = NULL
                 WHERE table_name = $1",
            )
            .bind::<Text, _>(table.name())
            .bind::<Text, _>(table.projection.mapping.digest())
            .bind::<BigInt, _>(signed(rows))
            .bind::<BigInt, _>(signed(repaired))
            .bind::<Bool, _>(table.removes())
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Notes that a new mapping is about to be written. Until that is done, the table agrees with
    /// neither the old mapping nor the new one.
    pub async fn note_applying(&self, run: &Run, table: &RunTable) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, run.lease()).await?;
            sql_query("UPDATE clerk.projections SET mapping = NULL WHERE table_name = $1 AND mapping IS NOT NULL")
                .bind::<Text, _>(table.name())
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    /// Holds a mapping that would change this many rows, until a person approves it. An approval that
    /// was given meanwhile stays.
    pub async fn hold_mapping(&self, run: &Run, table: &RunTable, changes: u64) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, run.lease()).await?;
            sql_query(
                "UPDATE clerk.projections SET hold = 'held', held_mapping = $2, held_changes = $3,
                     held_at = CASE WHEN held_mapping = $2 THEN coalesce(held_at, pg_catalog.now()) ELSE pg_catalog.now() END,
                     approved_at = NULL
                 WHERE table_name = $1 AND (hold <> 'approved' OR held_mapping IS DISTINCT FROM $2)",
            )
            .bind::<Text, _>(table.name())
            .bind::<Text, _>(table.projection.mapping.digest())
            .bind::<BigInt, _>(signed(changes))
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }
}
