//! The SQL of how many more objects are expected at Clerk than the mirror has rows.

use crate::resource::Resource;

/// The number of objects expected at Clerk minus the number of rows, for `created_at` from `$1` to
/// `$2`.
///
/// An object whose deletion is held is gone. One that an interrupted sync left as absent is still
/// an open question, and counts. The lists read are small. The rows of the resource's table are
/// looked up one by one, whatever number of them the planner estimates. Every name and operator has
/// its schema, as the statement may run without a transaction.
const EXPECTED_MINUS_ROWS: &str = "
    (SELECT pg_catalog.count(*) FROM clerk.rejected r
     WHERE r.resource OPERATOR(pg_catalog.=) '{resource}' AND r.document IS NOT NULL AND {rejected}
       AND coalesce((SELECT u.deleted_at IS NOT NULL FROM {table} u WHERE u.id OPERATOR(pg_catalog.=) r.object_id), true))
  OPERATOR(pg_catalog.-) (SELECT pg_catalog.count(*) FROM (
         SELECT object_id FROM clerk.missing
         WHERE resource OPERATOR(pg_catalog.=) '{resource}' AND state OPERATOR(pg_catalog.=) 'absent' AND hold OPERATOR(pg_catalog.<>) 'none'
         UNION SELECT object_id FROM clerk.rejected
         WHERE resource OPERATOR(pg_catalog.=) '{resource}' AND document IS NULL) AS gone
     WHERE (SELECT u.deleted_at IS NULL AND {gone} FROM {table} u WHERE u.id OPERATOR(pg_catalog.=) gone.object_id))";

/// Returns the SQL. `rejected` and `gone` are conditions on the two lists.
pub(super) fn expected_minus_rows(resource: &Resource, rejected: &str, gone: &str) -> String {
    EXPECTED_MINUS_ROWS
        .replace("{resource}", resource.name)
        .replace("{table}", resource.table)
        .replace("{rejected}", rejected)
        .replace("{gone}", gone)
}
