//! What the role may do, and what it would have to.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Bool, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{Error, session::Session};

/// What every table of the schema is used for, unless it stands in [`EXCEPTIONS`]: a new one that is forgotten there is asked too much for, never
/// too little.
const USES: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// Tables that less is done with. Locking a row, as the lease does, takes UPDATE; identity columns take no right to their sequences.
const EXCEPTIONS: [(&str, &[&str]); 5] = [
    (BOOKKEEPING, &["SELECT"]),
    ("leader", &["SELECT", "UPDATE"]),
    ("recent_deletions", &["SELECT", "INSERT", "DELETE"]),
    ("sync_state", &["SELECT", "UPDATE"]),
    ("user_events", &["SELECT", "INSERT", "DELETE"]),
];

/// Where diesel keeps which migrations are applied.
const BOOKKEEPING: &str = "__diesel_schema_migrations";

/// What the role may do. Names are written as SQL writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// With the database and the schema as a whole.
    pub whole: Whole,
    /// With each table of the schema, by id.
    pub tables: Vec<Table>,
    /// Functions of the schema that it may not call.
    pub closed_functions: Vec<String>,
}

/// What the role may do with the database and the schema `clerk`.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Whole {
    /// Whose rights these are.
    #[diesel(sql_type = Text)]
    pub role: String,
    /// The database.
    #[diesel(sql_type = Text)]
    pub database: String,
    /// It may create schemas in the database.
    #[diesel(sql_type = Bool)]
    pub creates_schemas: bool,
    /// Who owns the schema; none where there is none.
    #[diesel(sql_type = Nullable<Text>)]
    pub owner: Option<String>,
    /// It may use what is in the schema.
    #[diesel(sql_type = Bool)]
    pub uses: bool,
    /// It may create in the schema.
    #[diesel(sql_type = Bool)]
    pub creates: bool,
    /// Something is in the schema.
    #[diesel(sql_type = Bool)]
    pub is_filled: bool,
}

/// What the role may do with a table.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Table {
    /// Without its schema.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// Who owns it.
    #[diesel(sql_type = Text)]
    pub owner: String,
    /// The role has the owner's rights.
    #[diesel(sql_type = Bool)]
    pub is_own: bool,
    /// Row-level security chooses which rows the role sees.
    #[diesel(sql_type = Bool)]
    pub is_filtered: bool,
    /// There is a policy of that for the role; without one it sees none.
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

impl Rights {
    pub(super) async fn read(conn: &mut Session) -> Result<Self, Error> {
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

    /// Whether the role may read which migrations are applied; none where nothing is kept of any.
    pub fn reads_bookkeeping(&self) -> Option<bool> {
        let table = self.tables.iter().find(|table| table.name == BOOKKEEPING)?;
        Some(self.whole.uses && table.selects)
    }
}

impl Table {
    /// What the role would have to be allowed besides.
    pub fn missing(&self) -> Vec<&'static str> {
        let allowed = |right: &str| match right {
            "SELECT" => self.selects,
            "INSERT" => self.inserts,
            "UPDATE" => self.updates,
            _ => self.deletes,
        };
        let needed = EXCEPTIONS.iter().find(|(name, _)| *name == self.name);
        let needed = needed.map_or(&USES[..], |(_, needed)| needed);
        needed.iter().copied().filter(|right| !allowed(right)).collect()
    }
}

#[cfg(test)]
impl Rights {
    /// Those of a role `app` that owns an empty schema, for tests of what is made of them.
    pub(crate) fn of_owner() -> Self {
        Self {
            whole: Whole {
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

    /// The same with a table of somebody else's that `app` has these rights on.
    pub(crate) fn with_table(mut self, name: &str, rights: &[&str]) -> Self {
        self.whole.is_filled = true;
        self.tables.push(Table {
            name: name.to_owned(),
            owner: "admin".to_owned(),
            is_own: false,
            is_filtered: false,
            has_policy: false,
            selects: rights.contains(&"SELECT"),
            inserts: rights.contains(&"INSERT"),
            updates: rights.contains(&"UPDATE"),
            deletes: rights.contains(&"DELETE"),
        });
        self
    }
}
