//! `clerk.projections`: which mapping each table agrees with, and which mappings wait for a person.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use tracing::warn;

use super::{
    mapping::{RowRemoval, TableMapping},
    plan::KeyRow,
    problems::problems,
    shape::TableShape,
    statements::{Projection, RESTORE_PATH, RESTRICT_PATH},
};
use crate::mirror::{
    Lease, MirrorError,
    isolation::RowWriter,
    locks::{LockBudget, USUAL_WAIT, is_lock, wait_at_most},
    session::Session,
    transaction,
    write_failure::WriteFailure,
};

/// How far a mapping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingState {
    /// The table agrees with the mapping, and each batch keeps it so.
    Applied,
    /// The next full sync applies the mapping.
    Pending,
    /// The mapping would change many rows, and waits for a person.
    Held,
    /// A person has approved the mapping. The next full sync applies it.
    Approved,
}

/// A table of a run.
#[derive(Debug, Clone)]
pub struct RunTable {
    pub(super) projection: Projection,
    /// How far its mapping has come.
    pub state: MappingState,
    /// Whether no mapping of the table was ever applied.
    pub is_first: bool,
}

impl RunTable {
    /// The table's name, for people and for the bookkeeping.
    pub fn name(&self) -> &str {
        &self.projection.name
    }

    /// A new mapping that would change more than this part of the rows, in percent, is held.
    pub fn max_change_percent(&self) -> f64 {
        self.projection.mapping.max_change_percent
    }

    /// The checksum of its mapping.
    pub fn mapping_digest(&self) -> String {
        self.projection.mapping.digest()
    }

    /// Whether rows are removed at all.
    pub fn removes(&self) -> bool {
        self.projection.mapping.delete != RowRemoval::Keep
    }
}

/// The tables of a run: those whose mappings can be carried out.
#[derive(Debug, Default)]
pub(in crate::mirror) struct RunTables {
    pub(in crate::mirror) tables: Vec<RunTable>,
    /// Tables that cannot be kept in sync, with the reasons.
    pub(in crate::mirror) broken: Vec<(String, String)>,
}

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = Nullable<Text>)]
    mapping: Option<String>,
    #[diesel(sql_type = Text)]
    hold: String,
    #[diesel(sql_type = Nullable<Text>)]
    held_mapping: Option<String>,
    #[diesel(sql_type = Bool)]
    is_first: bool,
}

impl RunTables {
    /// Reads the shapes of the mapped tables and the states of the mappings. Forgets tables that
    /// are not mapped any more: nothing keeps them in sync.
    pub(in crate::mirror) async fn load(
        conn: &mut Session,
        lease: &Lease,
        mappings: &[TableMapping],
    ) -> Result<Self, MirrorError> {
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            forget_others(conn, mappings).await?;
            let mut run = Self::default();
            for mapping in mappings {
                match prepare(conn, mapping).await? {
                    Ok(table) => run.tables.push(table),
                    Err(problem) => {
                        warn!(table = mapping.table(), problem, "the table is not kept in sync");
                        note_problem(conn, mapping, &problem).await?;
                        run.broken.push((mapping.table(), problem));
                    }
                }
            }
            Ok(run)
        })
        .await
    }

    /// The tables that agree with their mappings.
    pub(in crate::mirror) fn applied(&self) -> impl Iterator<Item = &Projection> {
        let applied = self.tables.iter().filter(|table| table.state == MappingState::Applied);
        applied.map(|table| &table.projection)
    }
}

/// Joins a mapping with its table, and tries its statements without rows.
async fn prepare(conn: &mut Session, mapping: &TableMapping) -> Result<Result<RunTable, String>, MirrorError> {
    let path: String = search_path(conn).await?;
    let shape = TableShape::load(conn, mapping).await?;
    set_search_path(conn, &path).await?;
    let Some(shape) = shape else {
        return Ok(Err("there is no such table".to_owned()));
    };
    if let Some(problem) = problems(mapping, &shape).into_iter().find(|problem| problem.is_fatal()) {
        return Ok(Err(problem.to_string()));
    }
    let projection = Projection::new(mapping, &shape);
    let tried = conn.transaction(async |conn| projection.try_statements(conn).await);
    let tried = tried.await;
    wait_at_most(conn, USUAL_WAIT).await?;
    match tried {
        Ok(()) => {}
        // The application has locked the whole table. What is to be written into it is rejected, and
        // tried again by the next sync.
        Err(WriteFailure::TooLong(fault)) if is_lock(&fault) => {}
        Err(WriteFailure::OneRow(fault) | WriteFailure::TooLong(fault)) => {
            return Ok(Err(MirrorError::from(fault).to_string()));
        }
        Err(WriteFailure::Whole(error)) => return Err(error),
    }
    let (state, is_first) = state(conn, mapping).await?;
    Ok(Ok(RunTable {
        projection,
        state,
        is_first,
    }))
}

/// Returns the state of a mapping, and lists its table if it is new.
async fn state(conn: &mut Session, mapping: &TableMapping) -> QueryResult<(MappingState, bool)> {
    let digest = mapping.digest();
    let row: StateRow = sql_query(
        "INSERT INTO clerk.projections AS p (table_name, resource) VALUES ($1, 'users')
         ON CONFLICT (table_name) DO UPDATE SET problem = NULL
         RETURNING p.mapping, p.hold, p.held_mapping, p.applied_at IS NULL AS is_first",
    )
    .bind::<Text, _>(mapping.table())
    .get_result(conn)
    .await?;
    let is_first = row.is_first;
    let state = match row {
        StateRow { mapping, .. } if mapping.as_deref() == Some(&digest) => MappingState::Applied,
        StateRow { hold, held_mapping, .. } if held_mapping.as_deref() == Some(&digest) => match hold.as_str() {
            "held" => MappingState::Held,
            "approved" => MappingState::Approved,
            _ => MappingState::Pending,
        },
        _ => MappingState::Pending,
    };
    Ok((state, is_first))
}

/// Notes why a table is not kept in sync. Once the reason is gone, its mapping is applied anew.
async fn note_problem(conn: &mut Session, mapping: &TableMapping, problem: &str) -> QueryResult<()> {
    sql_query(
        "INSERT INTO clerk.projections (table_name, resource, problem) VALUES ($1, 'users', $2)
         ON CONFLICT (table_name) DO UPDATE SET problem = $2, mapping = NULL",
    )
    .bind::<Text, _>(mapping.table())
    .bind::<Text, _>(problem)
    .execute(conn)
    .await?;
    Ok(())
}

async fn forget_others(conn: &mut Session, mappings: &[TableMapping]) -> QueryResult<()> {
    let mapped: Vec<String> = mappings.iter().map(TableMapping::table).collect();
    for table in ["projections", "departures", "rejected_rows"] {
        sql_query(format!("DELETE FROM clerk.{table} WHERE table_name <> ALL ($1)"))
            .bind::<Array<Text>, _>(&mapped)
            .execute(conn)
            .await?;
    }
    Ok(())
}

async fn search_path(conn: &mut Session) -> QueryResult<String> {
    let row: KeyRow = sql_query("SELECT pg_catalog.current_setting('search_path') AS key")
        .get_result(conn)
        .await?;
    Ok(row.key)
}

async fn set_search_path(conn: &mut Session, path: &str) -> QueryResult<()> {
    sql_query("SELECT pg_catalog.set_config('search_path', $1, true)")
        .bind::<Text, _>(path)
        .execute(conn)
        .await?;
    Ok(())
}

impl Projection {
    /// Tries each statement without rows, so that an expression that cannot be used is found before
    /// it could fail for all rows.
    async fn try_statements(&self, conn: &mut Session) -> Result<(), WriteFailure> {
        LockBudget::new().begin(conn).await?;
        let nothing: [String; 0] = [];
        self.write(conn, &nothing).await?;
        let writes = [Some(self.update()), Some(self.insert()), self.link(), self.remove()];
        for sql in writes.into_iter().flatten() {
            self.keys(conn, &sql, &nothing).await?;
        }
        conn.batch_execute(RESTRICT_PATH).await?;
        sql_query(self.unknown())
            .bind::<Text, _>("")
            .bind::<BigInt, _>(0)
            .execute(conn)
            .await?;
        conn.batch_execute(RESTORE_PATH).await?;
        Ok(())
    }
}
