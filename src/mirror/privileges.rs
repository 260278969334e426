//! The role's privileges, and those that it needs.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Bool, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{MirrorError, session::Session};

/// Privileges that each table of the schema needs, unless it is in [`EXCEPTIONS`]. If a new table
/// is missing there, too many privileges are asked for, never too few.
const USES: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// Tables that need fewer privileges. Locking a row, as the lease does, needs UPDATE. Identity
/// columns need no privilege on their sequences.
const EXCEPTIONS: [(&str, &[&str]); 6] = [
    (MIGRATIONS_TABLE, &["SELECT"]),
    ("events", &["SELECT", "INSERT", "DELETE"]),
    ("leader", &["SELECT", "UPDATE"]),
    ("recent_deletions", &["SELECT", "INSERT", "DELETE"]),
    ("resource_state", &["SELECT", "UPDATE"]),
    ("sync_state", &["SELECT", "UPDATE"]),
];

/// The table in which Diesel stores the applied migrations.
const MIGRATIONS_TABLE: &str = "__diesel_schema_migrations";

/// The role's privileges. Names are quoted as SQL needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    /// On the database and the schema.
    pub whole: DatabasePrivileges,
    /// On each table of the schema.
    pub tables: Vec<TablePrivileges>,
    /// Functions of the schema that the role may not call.
    pub closed_functions: Vec<String>,
}

/// The role's privileges on the database and the schema `clerk`.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct DatabasePrivileges {
    /// The role.
    #[diesel(sql_type = Text)]
    pub role: String,
    /// The database.
    #[diesel(sql_type = Text)]
    pub database: String,
    /// Whether it may create schemas in the database.
    #[diesel(sql_type = Bool)]
    pub creates_schemas: bool,
    /// The owner of the schema; `None` if there is no schema.
    #[diesel(sql_type = Nullable<Text>)]
    pub owner: Option<String>,
    /// Whether it may use what is in the schema.
    #[diesel(sql_type = Bool)]
    pub uses: bool,
    /// Whether it may create objects in the schema.
    #[diesel(sql_type = Bool)]
    pub creates: bool,
    /// Whether anything is in the schema.
    #[diesel(sql_type = Bool)]
    pub is_filled: bool,
}

/// The role's privileges on a table.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct TablePrivileges {
    /// The name without the schema.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// The owner.
    #[diesel(sql_type = Text)]
    pub owner: String,
    /// Whether the role has the owner's privileges.
    #[diesel(sql_type = Bool)]
    pub is_own: bool,
    /// Whether row-level security decides which rows the role sees.
    #[diesel(sql_type = Bool)]
    pub is_filtered: bool,
    /// Whether it has a policy for the role; without one, the role sees no rows.
    #[diesel(sql_type = Bool)]
    pub has_policy: bool,
    #[diesel(sql_type = Bool)]
    selects: bool,
    #[diesel(sql_type = Bool)]
    inserts: bool,
    #[diesel(sql_type = Bool)]
    updates: bool,
    #[diesel(sql_type = Bool)]
    deletes: bool,
}

impl Privileges {
    pub(super) async fn read(conn: &mut Session) -> Result<Self, MirrorError> {
        #[derive(QueryableByName)]
        struct Function {
            #[diesel(sql_type = Text)]
            signature: String,
        }
        let whole = sql_query(
            "SELECT pg_catalog.quote_ident(current_user) AS role, pg_catalog.quote_ident(pg_catalog.current_database()) AS database,
                    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS creates_schemas,
                    pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(n.nspowner)) AS owner,
                    coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false) AS uses,
                    coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false) AS creates,
                    EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid) AS is_filled
             FROM (SELECT) AS always LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'clerk'",
        )
        .get_result(conn)
        .await?;
        let tables = sql_query(
            "SELECT c.relname::text AS name, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)) AS owner,
                    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS is_own, pg_catalog.row_security_active(c.oid) AS is_filtered,
                    EXISTS (SELECT FROM pg_catalog.pg_policy p, pg_catalog.unnest(p.polroles) AS allowed
                            WHERE p.polrelid = c.oid AND (allowed = 0::oid OR pg_catalog.pg_has_role(allowed, 'USAGE'))) AS has_policy,
                    pg_catalog.has_table_privilege(c.oid, 'SELECT') AS selects, pg_catalog.has_table_privilege(c.oid, 'INSERT') AS inserts,
                    pg_catalog.has_table_privilege(c.oid, 'UPDATE') AS updates, pg_catalog.has_table_privilege(c.oid, 'DELETE') AS deletes
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'clerk' AND c.relkind IN ('r', 'p') ORDER BY c.relname",
        )
        .load(conn)
        .await?;
        let functions: Vec<Function> = sql_query(
            "SELECT p.oid::regprocedure::text AS signature FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname = 'clerk' AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1",
        )
        .load(conn)
        .await?;
        Ok(Self {
            whole,
            tables,
            closed_functions: functions.into_iter().map(|function| function.signature).collect(),
        })
    }

    /// Whether the role may read which migrations are applied; `None` if there is no such table.
    pub fn reads_migrations(&self) -> Option<bool> {
        let table = self.tables.iter().find(|table| table.name == MIGRATIONS_TABLE)?;
        Some(self.whole.uses && table.selects)
    }
}

impl TablePrivileges {
    /// Returns the privileges that the role lacks.
    pub fn missing(&self) -> Vec<&'static str> {
        let allowed = |privilege: &str| match privilege {
            "SELECT" => self.selects,
            "INSERT" => self.inserts,
            "UPDATE" => self.updates,
            _ => self.deletes,
        };
        let needed = EXCEPTIONS.iter().find(|(name, _)| *name == self.name);
        let needed = needed.map_or(&USES[..], |(_, needed)| needed);
        needed.iter().copied().filter(|privilege| !allowed(privilege)).collect()
    }
}

#[cfg(test)]
impl Privileges {
    /// Privileges of a role `app` that owns an empty schema, for unit tests.
    pub(crate) fn of_owner() -> Self {
        Self {
            whole: DatabasePrivileges {
                role: "app".to_owned(),
                database: "shop".to_owned(),
                creates_schemas: false,
                owner: Some("app".to_owned()),
                uses: true,
                creates: true,
                is_filled: false,
            },
            tables: Vec::new(),
            closed_functions: Vec::new(),
        }
    }

    /// Adds a table of another role that `app` has these privileges on.
    pub(crate) fn with_table(mut self, name: &str, privileges: &[&str]) -> Self {
        self.whole.is_filled = true;
        self.tables.push(TablePrivileges {
            name: name.to_owned(),
            owner: "admin".to_owned(),
            is_own: false,
            is_filtered: false,
            has_policy: false,
            selects: privileges.contains(&"SELECT"),
            inserts: privileges.contains(&"INSERT"),
            updates: privileges.contains(&"UPDATE"),
            deletes: privileges.contains(&"DELETE"),
        });
        self
    }
}
