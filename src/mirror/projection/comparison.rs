//! The statements that compare a table with the mirror.

use super::{
    mapping::RowRemoval,
    row_key::RowKey,
    statements::{Projection, Scope, is_plain},
};
use crate::mirror::quote::{identifier as quote, literal};

impl Projection {
    /// For each synced column, whether the row `t` differs from `desired` in it.
    fn differences(&self) -> Vec<(&str, String)> {
        let set = self
            .set
            .iter()
            .enumerate()
            .filter(|(at, _)| !self.key.has_place(*at))
            .map(|(at, assignment)| (assignment.column.as_str(), assignment.differs(&format!("d.s{at}"))));
        let keep = self.keep.iter().enumerate().map(|(at, assignment)| {
            let differs = assignment.differs(&format!("d.k{at}"));
            (
                assignment.column.as_str(),
                format!("(d.k{at} IS NOT NULL AND {differs})"),
            )
        });
        set.chain(keep).collect()
    }

    /// Whether the row `t` differs from `desired`.
    pub(super) fn differs(&self) -> String {
        let differences: Vec<String> = self.differences().into_iter().map(|(_, differs)| differs).collect();
        match differences.is_empty() {
            true => "false".to_owned(),
            false => differences.join(" OR "),
        }
    }

    /// The columns in which the row `t` differs from `desired`, as an array.
    fn changed_columns(&self) -> String {
        let columns: Vec<String> = self
            .differences()
            .into_iter()
            .map(|(column, differs)| format!("CASE WHEN {differs} THEN {} END", literal(column)))
            .collect();
        match columns.is_empty() {
            true => "'{}'::text[]".to_owned(),
            false => format!("pg_catalog.array_remove(ARRAY[{}], NULL)", columns.join(", ")),
        }
    }

    /// Returns the rows that are to be inserted, updated or linked: key, columns that change (`NULL`
    /// for a row that does not exist), and with a link the address, and the number of rows and users
    /// that share it.
    ///
    /// Over all objects, it also returns the rows that are to go, with whether the mirror knows their
    /// keys (`NULL` for all others).
    pub(super) fn plan(&self, scope: Scope) -> String {
        let desired = self.desired(scope);
        let plan = match scope {
            Scope::All if self.mapping.delete != RowRemoval::Keep => self.plan_with_surplus(),
            Scope::All | Scope::Ids | Scope::Range | Scope::Records => self.plan_of_desired(),
        };
        let (few, source) = match scope {
            // Outside of the plan, or the server would plan for the first rows instead of for all.
            Scope::All => (", few AS MATERIALIZED (SELECT p.* FROM plan AS p LIMIT $1)", "few"),
            Scope::Ids | Scope::Range | Scope::Records => ("", "plan"),
        };
        let Some(link) = &self.mapping.link else {
            return format!(
                "WITH {desired}, plan AS MATERIALIZED ({plan}){few} \
                 SELECT p.key, p.columns, NULL::text AS address, 0::bigint AS rows, 0::bigint AS rivals, p.is_known \
                 FROM {source} AS p"
            );
        };
        let Self { table, .. } = self;
        let link = quote(link);
        let has_key = self.key.is_set();
        let holders = self.holders(scope);
        let is_plain = is_plain(&format!("t.{link}::text"));
        format!(
            "WITH {desired}, plan AS MATERIALIZED ({plan}){few}, \
             free AS MATERIALIZED (SELECT pg_catalog.lower(t.{link}::text) AS address, pg_catalog.count(*) AS rows FROM {table} AS t \
                 WHERE NOT {has_key} AND pg_catalog.lower(t.{link}::text) IN (SELECT p.address FROM {source} AS p WHERE p.columns IS NULL) \
                   AND {is_plain} GROUP BY 1), \
             rivals AS MATERIALIZED (SELECT o.address, pg_catalog.count(*) AS users FROM ({holders}) AS o \
                 WHERE EXISTS (SELECT FROM free) AND o.address IN (SELECT f.address FROM free AS f) GROUP BY 1) \
             SELECT p.key, p.columns, f.address, coalesce(f.rows, 0) AS rows, coalesce(r.users, 0) AS rivals, p.is_known \
             FROM {source} AS p LEFT JOIN free AS f ON p.columns IS NULL AND f.address = p.address \
             LEFT JOIN rivals AS r ON r.address = f.address"
        )
    }

    /// `plan` for rows that are to exist.
    fn plan_of_desired(&self) -> String {
        format!(
            "SELECT d.key, {address} AS address, CASE WHEN {exists} THEN {columns} END AS columns, NULL::boolean AS is_known \
             FROM desired AS d LEFT JOIN {table} AS t ON {is_row} \
             WHERE NOT {exists} OR {differs}",
            address = self.address(),
            exists = self.key.is_set(),
            columns = self.changed_columns(),
            table = self.table,
            is_row = self.key.is_of_desired(),
            differs = self.differs(),
        )
    }

    /// `plan` for these, and for rows that are to go.
    fn plan_with_surplus(&self) -> String {
        // `OFFSET 0`: otherwise an object would be made for each row.
        let object = self.lone_object("o").map_or_else(String::new, |object| {
            format!(" LEFT JOIN LATERAL (SELECT o.* FROM {object} WHERE d.key IS NULL OFFSET 0) AS u ON true")
        });
        let row = self.key.of_row();
        // A row that is known by its values is that of an excluded object, or of none.
        let (surplus, is_known, known) = match (&self.key, self.excluded_objects()) {
            (RowKey::Id { .. }, _) => (row, self.is_known(), String::new()),
            (RowKey::Values(_), None) => (row, "false".to_owned(), String::new()),
            (RowKey::Values(_), Some(excluded)) => (
                format!("coalesce(x.key, {row})"),
                "x.key IS NOT NULL".to_owned(),
                excluded,
            ),
        };
        format!(
            "SELECT coalesce(d.key, {surplus}) AS key, {address} AS address, \
                 CASE WHEN d.key IS NOT NULL AND {exists} THEN {columns} END AS columns, \
                 CASE WHEN d.key IS NULL THEN {is_known} END AS is_known \
             FROM desired AS d FULL JOIN {table} AS t ON {is_row}{known}{object} \
             WHERE CASE WHEN d.key IS NULL THEN {exists} AND NOT {removed} ELSE NOT {exists} OR {differs} END",
            address = self.address(),
            exists = self.key.is_set(),
            columns = self.changed_columns(),
            table = self.table,
            is_row = self.key.is_of_desired(),
            removed = self.is_removed(),
            differs = self.differs(),
        )
    }

    /// The address of `desired` by which a row without a key is found.
    fn address(&self) -> &'static str {
        match self.mapping.link {
            Some(_) => "d.address",
            None => "NULL::text",
        }
    }

    /// The verified addresses of all users.
    fn holders(&self, scope: Scope) -> String {
        let is_plain = is_plain("u.primary_email");
        let of = |objects: &str| {
            format!(
                "SELECT pg_catalog.lower(u.primary_email) AS address FROM {objects} \
                 WHERE u.primary_email_verified AND {is_plain} AND u.deleted_at IS NULL"
            )
        };
        let stored = of(&format!("{} AS u", self.source));
        match (scope, &self.future_columns) {
            (Scope::Ids | Scope::Range | Scope::All, _) => stored,
            (Scope::Records, Some(_)) => of(&self.objects(scope)),
            (Scope::Records, None) => format!(
                "{} UNION ALL {stored} AND u.id NOT IN (SELECT r.record OPERATOR(pg_catalog.->>) 'id'::text FROM pg_catalog.jsonb_array_elements($1::jsonb) AS r(record))",
                of(&self.objects(scope))
            ),
        }
    }
}
