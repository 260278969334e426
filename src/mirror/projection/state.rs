//! `clerk.projections`: which mapping each table agrees with, and which mappings wait for a person.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Bool, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};
use tracing::warn;

use super::{
    mapping::{RowRemoval, TableMapping, mappings_from},
    statements::Projection,
    trial::{join, refusal, try_mapping},
};
use crate::{
    mirror::{
        Lease, MirrorError,
        locks::{LockBudget, USUAL_WAIT, wait_at_most},
        session::Session,
        transaction,
        write_failure::WriteFailure,
    },
    resource::Resource,
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
    /// Whether no mapping of the table has removed rows so far. Rows with unknown keys are held then.
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

    /// Whether rows without a key are given one.
    pub fn links(&self) -> bool {
        self.projection.mapping.link.is_some()
    }

    /// Whether a column holds Clerk's id.
    pub fn has_ids(&self) -> bool {
        self.projection.mapping.key.id_column().is_some()
    }

    /// Whether rows are removed at all.
    pub fn removes(&self) -> bool {
        self.projection.mapping.delete != RowRemoval::Keep
    }
}

/// The tables of a run: those whose mappings can be carried out.
#[derive(Debug, Default)]
pub struct RunTables {
    /// These tables.
    pub tables: Vec<RunTable>,
    /// Tables that cannot be kept in sync, with the reasons.
    pub broken: Vec<(String, String)>,
}

/// What is stored about the state of a mapping.
#[derive(QueryableByName)]
pub(super) struct StoredState {
    /// The checksum of the mapping that the table agrees with.
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) mapping: Option<String>,
    #[diesel(sql_type = Text)]
    hold: String,
    #[diesel(sql_type = Nullable<Text>)]
    held_mapping: Option<String>,
    #[diesel(sql_type = Bool)]
    is_first: bool,
    #[diesel(sql_type = Bool)]
    has_problem: bool,
    /// The resource that the mapping was from.
    #[diesel(sql_type = Text)]
    resource: String,
}

impl RunTables {
    /// Reads the shapes of the tables that are mapped from a resource, and the states of the mappings.
    /// Forgets tables that are not mapped any more, by any of `all` mappings: nothing keeps them in
    /// sync.
    ///
    /// With `emits_all`, the first import emits events. Then the mapping of an empty table counts as
    /// applied before the first user is stored: each batch writes the rows of its events.
    pub(in crate::mirror) async fn load(
        conn: &mut Session,
        lease: &Lease,
        all: &[TableMapping],
        resource: &Resource,
        emits_all: bool,
    ) -> Result<Self, MirrorError> {
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            forget_others(conn, all).await?;
            let mut run = Self::default();
            for mapping in mappings_from(all, resource) {
                match try_mapping(conn, mapping).await?.usable() {
                    Ok(projection) => {
                        let row = state(conn, mapping).await?;
                        let mut state = row.state(&mapping.digest());
                        if emits_all && state == MappingState::Pending && agrees_empty(conn, &projection).await? {
                            note_applied(conn, mapping).await?;
                            state = MappingState::Applied;
                        }
                        run.tables.push(RunTable {
                            projection,
                            state,
                            is_first: row.is_first,
                        });
                    }
                    Err(problem) => {
                        if note_problem(conn, mapping, &problem).await? {
                            warn!(table = mapping.table(), problem, "the table is not kept in sync");
                        }
                        run.broken.push((mapping.table(), problem));
                    }
                }
            }
            Ok(run)
        })
        .await
    }

    /// Reads the same in a read-only transaction, for a dry run. `columns` are the columns of the
    /// mirror's table if there is none yet.
    pub(super) async fn look_at(
        conn: &mut Session,
        mappings: impl Iterator<Item = &TableMapping>,
        columns: Option<String>,
    ) -> Result<Self, MirrorError> {
        let mut run = Self::default();
        for mapping in mappings {
            let projection = match join(conn, mapping).await?.usable() {
                Ok(projection) => projection,
                Err(problem) => {
                    run.broken.push((mapping.table(), problem));
                    continue;
                }
            };
            let (projection, stored) = match &columns {
                Some(columns) => (projection.before_mirror(columns.clone()), None),
                None => (projection, stored_state(conn, mapping).await?),
            };
            let planned = conn.transaction(async |conn| projection.plan_reading(conn).await);
            if let Some(fault) = refusal(planned.await)? {
                run.broken.push((mapping.table(), MirrorError::from(fault).to_string()));
                continue;
            }
            run.tables.push(RunTable {
                projection,
                is_first: stored.as_ref().is_none_or(|row| row.is_first),
                state: stored.map_or(MappingState::Pending, |row| row.state(&mapping.digest())),
            });
        }
        Ok(run)
    }

    /// The tables that agree with their mappings.
    pub(in crate::mirror) fn applied(&self) -> impl Iterator<Item = &Projection> {
        let applied = self.tables.iter().filter(|table| table.state == MappingState::Applied);
        applied.map(|table| &table.projection)
    }

    /// The names of the other tables: those whose mappings are not applied, or cannot be carried out.
    pub(super) fn not_applied(&self) -> Vec<&str> {
        let tables = self.tables.iter().filter(|table| table.state != MappingState::Applied);
        let broken = self.broken.iter().map(|(name, _)| name.as_str());
        tables.map(RunTable::name).chain(broken).collect()
    }
}

impl StoredState {
    /// The state of the mapping with this digest.
    pub(super) fn state(&self, digest: &str) -> MappingState {
        if self.mapping.as_deref() == Some(digest) {
            return MappingState::Applied;
        }
        match self.hold.as_str() {
            _ if self.held_mapping.as_deref() != Some(digest) => MappingState::Pending,
            "held" => MappingState::Held,
            "approved" => MappingState::Approved,
            _ => MappingState::Pending,
        }
    }
}

/// Returns what is stored about the state of a mapping. Lists its table if it is new, or had a
/// problem.
async fn state(conn: &mut Session, mapping: &TableMapping) -> QueryResult<StoredState> {
    let resource = mapping.from.resource().name;
    let stored = stored_state(conn, mapping).await?;
    if let Some(row) = stored.filter(|row| !row.has_problem && row.resource == resource) {
        return Ok(row);
    }
    sql_query(
        "INSERT INTO clerk.projections AS p (table_name, resource) VALUES ($1, $2)
         ON CONFLICT (table_name) DO UPDATE SET problem = NULL, resource = $2
         RETURNING p.mapping, p.hold, p.held_mapping, p.removes_since IS NULL AS is_first, false AS has_problem, p.resource",
    )
    .bind::<Text, _>(mapping.table())
    .bind::<Text, _>(resource)
    .get_result(conn)
    .await
}

/// Returns what is stored about the state of a mapping, if its table is listed.
pub(super) async fn stored_state(conn: &mut Session, mapping: &TableMapping) -> QueryResult<Option<StoredState>> {
    sql_query(
        "SELECT mapping, hold, held_mapping, removes_since IS NULL AS is_first, problem IS NOT NULL AS has_problem, resource
         FROM clerk.projections WHERE table_name = $1",
    )
    .bind::<Text, _>(mapping.table())
    .get_result(conn)
    .await
    .optional()
}

/// Whether there are neither rows nor objects, so that a table agrees with any mapping.
async fn agrees_empty(conn: &mut Session, projection: &Projection) -> Result<bool, MirrorError> {
    #[derive(QueryableByName)]
    struct Emptiness {
        #[diesel(sql_type = Bool)]
        is_empty: bool,
    }
    let read = conn.transaction(async |conn| {
        LockBudget::new().begin(conn).await?;
        let sql = format!(
            "SELECT NOT EXISTS (SELECT FROM {}) AND NOT EXISTS (SELECT FROM {}) AS is_empty",
            projection.source, projection.table
        );
        let Emptiness { is_empty } = sql_query(sql).get_result(conn).await?;
        Ok::<_, WriteFailure>(is_empty)
    });
    let is_empty = match read.await {
        Ok(is_empty) => is_empty,
        // A full sync applies the mapping at its end.
        Err(WriteFailure::OneRow(_) | WriteFailure::TooLong(_)) => false,
        Err(WriteFailure::Whole(error)) => return Err(error),
    };
    wait_at_most(conn, USUAL_WAIT).await?;
    Ok(is_empty)
}

/// Notes that a table agrees with its mapping.
async fn note_applied(conn: &mut Session, mapping: &TableMapping) -> QueryResult<()> {
    sql_query("UPDATE clerk.projections SET mapping = $2, applied_at = pg_catalog.now() WHERE table_name = $1")
        .bind::<Text, _>(mapping.table())
        .bind::<Text, _>(mapping.digest())
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes why a table is not kept in sync. Once the reason is gone, its mapping is applied anew.
/// Returns whether that is new.
async fn note_problem(conn: &mut Session, mapping: &TableMapping, problem: &str) -> QueryResult<bool> {
    let noted = sql_query(
        "INSERT INTO clerk.projections AS p (table_name, resource, problem) VALUES ($1, $3, $2)
         ON CONFLICT (table_name) DO UPDATE SET problem = $2, mapping = NULL, resource = $3 WHERE p.problem IS DISTINCT FROM $2",
    )
    .bind::<Text, _>(mapping.table())
    .bind::<Text, _>(problem)
    .bind::<Text, _>(mapping.from.resource().name)
    .execute(conn)
    .await?;
    Ok(noted > 0)
}

async fn forget_others(conn: &mut Session, mappings: &[TableMapping]) -> QueryResult<()> {
    let mapped: Vec<String> = mappings.iter().map(TableMapping::table).collect();
    sql_query(
        "WITH others AS (DELETE FROM clerk.projections WHERE table_name <> ALL ($1) RETURNING table_name),
         departures AS (DELETE FROM clerk.departures d USING others o WHERE d.table_name = o.table_name)
         DELETE FROM clerk.rejected_rows r USING others o WHERE r.table_name = o.table_name",
    )
    .bind::<Array<Text>, _>(&mapped)
    .execute(conn)
    .await?;
    Ok(())
}
