//! Which tables of the application are there between full syncs, and whether those with a problem can
//! be kept in sync by now.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Nullable, Oid, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{app_tables::AppTables, mapping::TableMapping, statements::READ_ONLY, trial::try_mapping};
use crate::mirror::{MirrorError, SyncState};

/// The identity of each mapped table, in the order of the mappings; `None` for a table that does not
/// exist. A table that was dropped and created again has another one.
pub type TableIdentities = Vec<Option<u32>>;

#[derive(QueryableByName)]
struct IdentitiesRow {
    #[diesel(sql_type = Array<Nullable<Oid>>)]
    identities: TableIdentities,
}

impl AppTables {
    /// Reads the identities of the mapped tables.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn identities(&self) -> Result<TableIdentities, MirrorError> {
        let column = |of: fn(&TableMapping) -> &String| self.0.own_mappings().map(of).collect::<Vec<_>>();
        let row: IdentitiesRow = sql_query(
            "SELECT ARRAY(
                 SELECT c.oid FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY AS m(schema, name, place)
                 LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = m.schema
                 LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = m.name
                 ORDER BY m.place) AS identities",
        )
        .bind::<Array<Text>, _>(column(|mapping| &mapping.schema))
        .bind::<Array<Text>, _>(column(|mapping| &mapping.name))
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(row.identities)
    }

    /// Whether a table that could not be kept in sync can be by now. Writes nothing.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn has_recovered(&self, state: &SyncState) -> Result<bool, MirrorError> {
        for mapping in self.0.own_mappings().filter(|mapping| state.has_problem(mapping)) {
            let mut conn = self.0.connection().await?;
            let is_usable = conn.transaction(async |conn| {
                conn.batch_execute(READ_ONLY).await?;
                Ok::<_, MirrorError>(try_mapping(conn, mapping).await?.usable().is_ok())
            });
            if is_usable.await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
