//! What an incremental sync starts from.

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{MirrorError, TableMapping, connect::Connection, expected_minus_rows::expected_minus_rows, lease};
use crate::resource::Resource;

/// What an incremental sync starts from.
#[derive(Debug, Clone, QueryableByName)]
pub struct SyncState {
    /// The pinned Clerk instance.
    #[diesel(sql_type = Nullable<Text>)]
    pub instance_id: Option<String>,
    /// Whether a full sync was done.
    #[diesel(sql_type = Bool)]
    pub is_imported: bool,
    /// Every object that was updated at Clerk before this time, less the overlap, is in the mirror.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub watermark: Option<DateTime<Utc>>,
    /// How many objects the mirror expects at Clerk, by the stored number of rows.
    #[diesel(sql_type = BigInt)]
    pub expected: i64,
    /// Whether objects are to be stored again because the application had locked their rows.
    #[diesel(sql_type = Bool)]
    pub has_put_off_objects: bool,
    /// Whether rows are to be deleted again because the application had locked them, without
    /// waiting for an approval.
    #[diesel(sql_type = Bool)]
    pub has_put_off_deletions: bool,
    /// Whether rows of the application's tables are to be written again because the application had
    /// locked them.
    #[diesel(sql_type = Bool)]
    pub has_put_off_rows: bool,
    /// Whether rows of the application's tables could not be written, for any reason.
    #[diesel(sql_type = Bool)]
    pub has_rejected_rows: bool,
    /// The application's tables that need no full sync: each with the mapping that is applied or
    /// held, or alone if it cannot be kept in sync.
    #[diesel(sql_type = Array<Text>)]
    pub(super) settled_tables: Vec<String>,
    /// The fields that are not stored, in order.
    #[diesel(sql_type = Array<Text>)]
    pub excluded: Vec<String>,
    /// Whether a full sync is due, because the fields that are not stored have changed.
    #[diesel(sql_type = Bool)]
    pub rereads: bool,
    /// The process that holds the lease at this moment.
    #[diesel(sql_type = Nullable<Text>)]
    pub lease_holder: Option<String>,
    /// Grows with every lease. Who takes the lease at this epoch knows that no other process wrote
    /// since.
    #[diesel(sql_type = BigInt)]
    pub lease_epoch: i64,
}

impl SyncState {
    /// Whether the last sync found that a mapping's table cannot be kept in sync.
    pub(super) fn has_problem(&self, mapping: &TableMapping) -> bool {
        self.settled_tables.contains(&mapping.table())
    }

    /// Reads it, in one query.
    pub(super) async fn read(mut conn: Connection, resource: &Resource) -> Result<Self, MirrorError> {
        let sql = format!(
            "SELECT instance_id, imported_at IS NOT NULL AS is_imported, objects OPERATOR(pg_catalog.+) {difference} AS expected,
                    watermark, lease_epoch, excluded, rereads,
                    EXISTS (SELECT FROM clerk.rejected
                            WHERE resource OPERATOR(pg_catalog.=) '{resource}' AND sqlstate OPERATOR(pg_catalog.=) '55P03'
                                AND document IS NOT NULL) AS has_put_off_objects,
                    EXISTS (SELECT FROM clerk.rejected r
                            WHERE r.resource OPERATOR(pg_catalog.=) '{resource}' AND r.sqlstate OPERATOR(pg_catalog.=) '55P03'
                                AND r.document IS NULL AND NOT EXISTS (
                                SELECT FROM clerk.missing m WHERE m.resource OPERATOR(pg_catalog.=) r.resource
                                    AND m.object_id OPERATOR(pg_catalog.=) r.object_id AND m.hold OPERATOR(pg_catalog.=) 'held'
                            )) AS has_put_off_deletions,
                    EXISTS (SELECT FROM clerk.rejected_rows r JOIN clerk.projections p ON p.table_name OPERATOR(pg_catalog.=) r.table_name
                            WHERE p.resource OPERATOR(pg_catalog.=) '{resource}' AND r.sqlstate OPERATOR(pg_catalog.=) '55P03') AS has_put_off_rows,
                    EXISTS (SELECT FROM clerk.rejected_rows r JOIN clerk.projections p ON p.table_name OPERATOR(pg_catalog.=) r.table_name
                            WHERE p.resource OPERATOR(pg_catalog.=) '{resource}') AS has_rejected_rows,
                    ARRAY(SELECT CASE WHEN p.problem IS NOT NULL THEN p.table_name ELSE pg_catalog.concat(p.table_name, ' ',
                            CASE WHEN p.hold OPERATOR(pg_catalog.=) 'held' THEN p.held_mapping ELSE p.mapping END) END
                        FROM clerk.projections p) AS settled_tables,
                    CASE WHEN {held} THEN lease_holder END AS lease_holder
             FROM clerk.sync_state, clerk.resource_state AS state
             WHERE state.resource OPERATOR(pg_catalog.=) '{resource}'",
            difference = expected_minus_rows(resource, "true", "true"),
            held = lease::held(),
            resource = resource.name,
        );
        Ok(sql_query(sql).get_result(conn.autocommit()).await?)
    }
}
