//! Errors of Postgres, by what the caller does about them.

use diesel::result::Error as Diesel;

use super::{
    schema_name::schema,
    session::Fault,
    sqlstate::{INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE},
};
use crate::secret::without_secrets;

/// A failed use of the mirror.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The address cannot be used, whatever the server.
    #[error("{place} cannot be used: {why}")]
    Address {
        /// The setting, variable or parameter.
        place: String,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The server can be reached, but not with the TLS that is asked for.
    #[error("TLS with Postgres failed: {why}")]
    Tls {
        /// What is wrong.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The server cannot be reached, or has gone away. Worth waiting for.
    #[error("Postgres cannot be reached: {0}")]
    Unavailable(String),
    /// The server takes no writes because it is a standby. Worth waiting for: another server may be
    /// found, or it may become the primary.
    #[error("this Postgres server takes no writes: {0}")]
    ReadOnly(String),
    /// The application has locked a whole table, or a row of clerk2pg's own tables is locked. Worth
    /// waiting for.
    #[error("the database is locked: {0}")]
    Locked(String),
    /// The server refuses this role, password or database name.
    #[error("Postgres refused the connection: {why}")]
    Refused {
        /// The server's message.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The role lacks a privilege.
    #[error("the database role lacks a privilege: {0}")]
    Denied(String),
    /// The schema is foreign, or another version's.
    #[error("{0}")]
    Schema(#[from] SchemaError),
    /// Another process holds the lease. Nothing of the batch was written.
    #[error("another clerk2pg has taken over; this one stopped writing")]
    LeaseLost,
    /// Any other error from Postgres.
    #[error("Postgres: {0}")]
    Database(String),
}

/// Why a schema `clerk` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It has tables, but not clerk2pg's.
    #[error("the database has a schema \"{}\" that is not clerk2pg's", schema())]
    Foreign,
    /// Migrations were applied that this binary does not know.
    #[error("the schema \"{}\" is newer than this clerk2pg: it has the migration {}", schema(), .0)]
    Newer(String),
    /// Migrations are pending.
    #[error("the schema \"{}\" is {}", schema(), if *.missing { "missing" } else { "older than this clerk2pg" })]
    Outdated {
        /// Whether there is no schema yet.
        missing: bool,
    },
}

impl MirrorError {
    /// Why Postgres refused a row, for people.
    pub(super) fn refusal(fault: Fault) -> String {
        match Self::from(fault) {
            MirrorError::Database(message) => format!("Postgres refused it: {message}"),
            other => other.to_string(),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            MirrorError::Address { hint, .. } | MirrorError::Tls { hint, .. } | MirrorError::Refused { hint, .. } => {
                hint
            }
            MirrorError::Unavailable(_) => {
                "check that the server is running, and host and port in database.url (DATABASE_URL)"
            }
            MirrorError::ReadOnly(_) => {
                "set database.url (DATABASE_URL) to the primary, or to all servers: postgres://…@one,two/…?target_session_attrs=read-write"
            }
            MirrorError::Locked(_) => {
                "find the transaction that locks a table of the schema clerk in the view pg_locks, and end it"
            }
            MirrorError::Denied(_) => {
                "let the role own the schema: CREATE SCHEMA clerk AUTHORIZATION <role>, or ALTER SCHEMA clerk OWNER TO <role>"
            }
            MirrorError::Schema(SchemaError::Foreign) => {
                "set database.schema to another name, or use another database; nothing was changed"
            }
            MirrorError::Schema(SchemaError::Newer(_)) => "run the newer clerk2pg here; nothing was changed",
            MirrorError::Schema(SchemaError::Outdated { .. }) => {
                "run `clerk2pg migrate`, or set database.migrate = true to migrate at start"
            }
            MirrorError::LeaseLost => "two processes sync this database: stop one, or set a longer lease.ttl",
            MirrorError::Database(_) => "see the server's log",
        }
    }
}

/// Removes the value from the detail of a violated constraint,
/// `Key (column)=(value) already exists.`: it is a user's address or name, and errors are logged. A
/// detail about half a surrogate pair has no value. Any other form may contain a whole row, and
/// gives `None`.
fn without_values(detail: &str) -> Option<String> {
    if detail.starts_with("Unicode ") {
        return Some(detail.to_owned());
    }
    let (columns, rest) = detail.split_once(")=(")?;
    let (_, consequence) = rest.split_once(") ")?;
    let is_complete = !consequence.contains(['(', ')']);
    is_complete.then(|| format!("{columns}) {consequence}"))
}

/// Removes the values that Postgres quotes when it cannot convert one, as in
/// `invalid input syntax for type integer: "…"`. The value itself may contain quotes, so it ends at
/// the last one.
fn without_quoted_values(message: &str) -> String {
    let mut cleaned = String::new();
    let mut rest = message;
    while let Some(at) = rest.find('"') {
        let (before, quoted) = rest.split_at(at);
        cleaned.push_str(before);
        let is_value = before.ends_with(": ") || before.ends_with("value ");
        let end = if is_value {
            quoted[1..].rfind('"')
        } else {
            quoted[1..].find('"')
        };
        let end = end.map_or(quoted.len(), |end| end + 2);
        cleaned.push_str(if is_value { "\"…\"" } else { &quoted[..end] });
        rest = &quoted[end..];
    }
    cleaned + rest
}

impl From<Fault> for MirrorError {
    fn from(fault: Fault) -> Self {
        // A trigger of the application can raise any message.
        let message = without_secrets(&without_quoted_values(&fault.to_string()));
        let Fault::Refused(answer) = &fault else {
            return MirrorError::Unavailable(message);
        };
        match answer.code().code() {
            _ if fault.ends_connection() => MirrorError::Unavailable(message),
            _ if fault.is_read_only() => MirrorError::ReadOnly(message),
            INSUFFICIENT_PRIVILEGE => MirrorError::Denied(message),
            LOCK_NOT_AVAILABLE => MirrorError::Locked(message),
            _ => {
                let detail = answer.detail().and_then(without_values);
                let detail = detail.map_or_else(String::new, |detail| format!(" ({detail})"));
                MirrorError::Database(message + &detail)
            }
        }
    }
}

impl From<Diesel> for MirrorError {
    fn from(error: Diesel) -> Self {
        match Fault::of(error) {
            Ok(fault) => fault.into(),
            Err(Diesel::BrokenTransactionManager) => {
                MirrorError::Unavailable("the connection broke in a transaction".to_owned())
            }
            Err(other) => MirrorError::Database(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_are_removed() {
        let check = |message, expected| assert_eq!(without_quoted_values(message), expected);
        check(
            r#"invalid input syntax for type integer: "ann@x""#,
            r#"invalid input syntax for type integer: "…""#,
        );
        check(
            r#"value "77777777777" is out of range for type integer"#,
            r#"value "…" is out of range for type integer"#,
        );
        check(
            r#"relation "clerk.users" does not exist"#,
            r#"relation "clerk.users" does not exist"#,
        );
        check(r#"unterminated: "ann"#, r#"unterminated: "…""#);
        check(r#"quotes in it: ""Ann" of many""#, r#"quotes in it: "…""#);
    }

    #[test]
    fn values_are_removed_from_details() {
        let check =
            |detail, expected: Option<&str>| assert_eq!(without_values(detail).as_deref(), expected, "{detail}");
        check(
            "Key (primary_email)=(ann@example.com) already exists.",
            Some("Key (primary_email) already exists."),
        );
        check(
            r#"Key (id)=(user_1) is still referenced from table "orders"."#,
            Some(r#"Key (id) is still referenced from table "orders"."#),
        );
        let surrogate = "Unicode low surrogate must follow a high surrogate.";
        check(surrogate, Some(surrogate));
        check("Failing row contains (user_1, ann@example.com, null).", None);
        check("Key (a)=(ann) conflicts with existing key (a)=(ann).", None);
        check("Key (full_name)=(Ann (the first) of many) already exists.", None);
    }
}
