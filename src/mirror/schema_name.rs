//! The name of the mirror's schema. Statements and messages are written for `clerk`; another name is
//! put into them when they are sent or shown.

use std::{borrow::Cow, sync::OnceLock};

/// The usual name, for which statements and messages are written.
pub const DEFAULT_SCHEMA: &str = "clerk";

/// The longest name, in bytes. Names of channels begin with it, and PostgreSQL's have 63 at most.
pub const MAX_SCHEMA: usize = 30;

/// The name, once it is set. A process has one database, and in it one mirror.
static NAME: OnceLock<String> = OnceLock::new();

/// What migrations have ever created in the schema. Only these names are taken for objects of the
/// mirror: an expression of the application may contain others, for example in an address.
const OBJECTS: [&str; 43] = [
    "__diesel_schema_migrations",
    "cuid",
    "deliveries",
    "departures",
    "endpoints",
    "events",
    "events_id_seq",
    "leader",
    "members",
    "missing",
    "missing_users",
    "nanoid",
    "organization_document",
    "organization_invitation_document",
    "organization_invitations",
    "organization_invitations_created_at_idx",
    "organization_membership_document",
    "organization_memberships",
    "organization_memberships_created_at_idx",
    "organization_permission_document",
    "organization_permissions",
    "organization_permissions_created_at_idx",
    "organization_role_document",
    "organization_roles",
    "organization_roles_created_at_idx",
    "organizations",
    "organizations_created_at_idx",
    "projections",
    "recent_deletions",
    "rejected",
    "rejected_rows",
    "rejected_users",
    "resource_state",
    "standbys",
    "sync_runs",
    "sync_runs_running_idx",
    "sync_runs_started_at_idx",
    "sync_state",
    "user_document",
    "user_events",
    "user_events_id_seq",
    "users",
    "users_created_at_idx",
];

/// Sets the name for the whole process. Returns whether it is the name from now on: the first one
/// stays.
pub fn set_schema(name: &str) -> bool {
    NAME.get_or_init(|| name.to_owned()) == name
}

/// Returns the name.
pub fn schema() -> &'static str {
    NAME.get().map_or(DEFAULT_SCHEMA, String::as_str)
}

/// Returns whether a name can be that of a schema, without quotes in most places.
pub fn is_schema_name(name: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    name.starts_with(is_letter)
        && name.chars().all(|letter| is_letter(letter) || letter.is_ascii_digit())
        && name.len() <= MAX_SCHEMA
        && !name.starts_with("pg_")
        && !["public", "information_schema"].contains(&name)
}

/// Returns a statement with the name in it.
pub(super) fn in_sql(sql: &str) -> Cow<'_, str> {
    rewrite(sql, schema(), Quotes::Identifier)
}

/// Returns a message with the name in it.
pub(crate) fn in_message(text: &str) -> Cow<'_, str> {
    rewrite(text, schema(), Quotes::None)
}

/// Whether the name is quoted as an identifier, which it needs if it is a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    Identifier,
}

fn rewrite<'t>(text: &'t str, name: &str, quotes: Quotes) -> Cow<'t, str> {
    if name == DEFAULT_SCHEMA {
        return Cow::Borrowed(text);
    }
    let mut rewritten = String::with_capacity(text.len() + 64);
    let mut copied = 0;
    for (at, word) in text.match_indices(DEFAULT_SCHEMA) {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        let replaced = match use_of(before, after) {
            None => continue,
            Some(Use::Identifier) if quotes == Quotes::Identifier => format!("\"{name}\""),
            Some(Use::Identifier | Use::Text) => name.to_owned(),
        };
        rewritten.push_str(&text[copied..at]);
        rewritten.push_str(&replaced);
        copied = at + word.len();
    }
    rewritten.push_str(&text[copied..]);
    Cow::Owned(rewritten)
}

/// What the word stands for in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The schema, as an identifier.
    Identifier,
    /// The schema within quotes, or a part of the name of a channel.
    Text,
}

/// Returns how the word `clerk` is used between these texts; `None` if it is another word.
fn use_of(before: &str, after: &str) -> Option<Use> {
    let ends_with = |parts: &[&str]| parts.iter().any(|part| before.ends_with(part));
    let is_part = |letter: char| letter.is_alphanumeric() || "_@-./$".contains(letter);
    let continues = |text: &str| text.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    if let Some(object) = after.strip_prefix('.') {
        let end = object.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let is_object = OBJECTS.contains(&&object[..end.unwrap_or(object.len())]);
        return (is_object && !before.ends_with(is_part)).then_some(Use::Identifier);
    }
    // Diesel's query builder quotes all names.
    if before.ends_with('"') && after.starts_with("\".") {
        return Some(Use::Text);
    }
    if ends_with(&["schema \"", "nspname = '", "nspname <> '"]) && after.starts_with(['"', '\'']) {
        return Some(Use::Text);
    }
    if ends_with(&["SCHEMA ", "schema ", "search_path = "]) && !continues(after) {
        return Some(Use::Identifier);
    }
    let is_channel = match after.strip_prefix("2pg") {
        Some(rest) => ends_with(&["LISTEN ", "NOTIFY ", "pg_notify('"]) && !continues(rest),
        None => {
            let events = ["_events", "_user_events"]
                .iter()
                .filter_map(|end| after.strip_prefix(end));
            let is_name = events.into_iter().any(|rest| !continues(rest));
            (is_name && !before.ends_with(is_part)) || (ends_with(&["pg_notify('"]) && after.starts_with("_'"))
        }
    };
    is_channel.then_some(Use::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, sql: &str, message: &str) {
        assert_eq!(rewrite(text, "dev", Quotes::Identifier), sql);
        assert_eq!(rewrite(text, "dev", Quotes::None), message);
        assert_eq!(rewrite(text, "clerk", Quotes::Identifier), text);
    }

    #[test]
    fn the_schema_is_named_wherever_it_is_meant() {
        check(
            "SELECT clerk.cuid(), 'clerk.users'::regclass FROM clerk.users, \"clerk\".\"events\"",
            "SELECT \"dev\".cuid(), '\"dev\".users'::regclass FROM \"dev\".users, \"dev\".\"events\"",
            "SELECT dev.cuid(), 'dev.users'::regclass FROM dev.users, \"dev\".\"events\"",
        );
        check(
            "CREATE SCHEMA clerk; SET LOCAL search_path = clerk",
            "CREATE SCHEMA \"dev\"; SET LOCAL search_path = \"dev\"",
            "CREATE SCHEMA dev; SET LOCAL search_path = dev",
        );
        for (text, expected) in [
            ("nspname = 'clerk'::name", "nspname = 'dev'::name"),
            ("the schema \"clerk\" is missing", "the schema \"dev\" is missing"),
            (
                "pg_notify('clerk_events', x), pg_notify('clerk_'::text || $1, x)",
                "pg_notify('dev_events', x), pg_notify('dev_'::text || $1, x)",
            ),
            ("LISTEN clerk2pg", "LISTEN dev2pg"),
            ("NOTIFY clerk_user_events tells", "NOTIFY dev_user_events tells"),
        ] {
            check(text, expected, expected);
        }
    }

    #[test]
    fn other_words_stay() {
        for text in [
            "'clerk'",
            "'support@clerk.com'",
            "'x@clerk.users'",
            "clerk.unknown",
            "my.clerk.users",
            "the_clerk.users",
            "clerk.users_of_mine",
            "clerk2pg.search_path",
            "`clerk2pg status`",
            "clerk_id",
            "SCHEMA clerks",
        ] {
            check(text, text, text);
        }
    }

    #[test]
    fn names_of_schemas() {
        let long = "a".repeat(MAX_SCHEMA);
        for name in ["clerk", "clerk_dev", "_2", "order", &long] {
            assert!(is_schema_name(name), "{name}");
        }
        let long = format!("{long}a");
        for name in [
            "",
            "2",
            "Clerk",
            "clerk-dev",
            "clerk.dev",
            "a\"b",
            "public",
            "pg_temp",
            "é",
            &long,
        ] {
            assert!(!is_schema_name(name), "{name}");
        }
    }
}
