//! Checks whether the role has the privileges that a sync needs, and suggests the missing GRANTs.

use std::collections::BTreeMap;

use super::finding::Finding;
use crate::{failure::Failure, mirror::Privileges};

const NAME: &str = "permissions";

/// What the schema `clerk` contains.
#[derive(Debug)]
pub(super) enum SchemaState {
    /// There is no schema.
    Nothing,
    /// The schema is empty.
    Empty,
    /// clerk2pg's objects, perhaps of another version.
    Ours {
        /// Whether no migration is pending.
        is_current: bool,
    },
    /// Probably clerk2pg's objects, but the role may not read their version.
    Hidden,
    /// Foreign objects, or those of a newer clerk2pg, or it could not be read.
    Unusable(Failure),
}

/// Checks the privileges for what has to be done with the schema next.
pub(super) fn check_permissions(privileges: &Privileges, contents: &SchemaState, migrate: bool) -> Finding {
    let (role, database) = (&privileges.whole.role, &privileges.whole.database);
    match contents {
        SchemaState::Unusable(_) => Finding::skipped(NAME, "the schema cannot be used"),
        SchemaState::Nothing | SchemaState::Empty if !migrate => {
            Finding::skipped(NAME, "there is nothing yet that needs rights")
        }
        SchemaState::Nothing if privileges.whole.creates_schemas => Finding::ok(NAME, format!("{role} may create the schema clerk")),
        SchemaState::Nothing => Finding::failed(NAME, format!("{role} may not create the schema clerk in {database}"))
            .hint(format!("as the owner of the database: CREATE SCHEMA clerk AUTHORIZATION {role}; or run `clerk2pg migrate` as a role that may")),
        SchemaState::Empty if privileges.whole.uses && privileges.whole.creates => {
            Finding::ok(NAME, format!("{role} may create what it needs in the schema clerk"))
        }
        SchemaState::Empty => Finding::failed(NAME, format!("{role} may not create in the schema clerk, which is {}'s", owner(privileges)))
            .hint(format!("ALTER SCHEMA clerk OWNER TO {role}; or run `clerk2pg migrate` as {}", owner(privileges))),
        SchemaState::Ours { is_current: false } if migrate => may_migrate(privileges),
        SchemaState::Ours { .. } | SchemaState::Hidden => may_sync(privileges),
    }
}

fn owner(privileges: &Privileges) -> &str {
    privileges.whole.owner.as_deref().unwrap_or_default()
}

/// Checks the privileges for pending migrations: only the owner of a table may alter it.
fn may_migrate(privileges: &Privileges) -> Finding {
    let role = &privileges.whole.role;
    let foreign = privileges.tables.iter().find(|table| !table.is_own);
    let reason = match foreign {
        Some(table) => format!("clerk.{} is {}'s", table.name, table.owner),
        None if !privileges.whole.creates => "it may not create in the schema clerk".to_owned(),
        None => return Finding::ok(NAME, format!("{role} may apply the pending migrations")),
    };
    let owner = foreign.map_or(owner(privileges), |table| &table.owner);
    Finding::failed(NAME, format!("{role} may not apply the pending migrations: {reason}"))
        .hint(format!("run `clerk2pg migrate` as {owner}"))
}

/// Checks the privileges for syncs.
fn may_sync(privileges: &Privileges) -> Finding {
    let role = &privileges.whole.role;
    let (mut lacks, mut grants) = (Vec::new(), Vec::new());
    let mut lack = |privileges: &str, on: &str| {
        lacks.push(format!("{privileges} on {on}"));
        grants.push(format!("GRANT {privileges} ON {on} TO {role};"));
    };
    if !privileges.whole.uses {
        lack("USAGE", "SCHEMA clerk");
    }
    for (missing, tables) in by_missing(privileges) {
        lack(&missing.join(", "), &tables.join(", "));
    }
    for function in &privileges.closed_functions {
        lack("EXECUTE", &format!("FUNCTION {function}"));
    }
    let (hidden, filtered): (Vec<_>, Vec<_>) = privileges
        .tables
        .iter()
        .filter(|table| table.is_filtered)
        .partition(|table| !table.has_policy);
    for table in hidden {
        let name = format!("clerk.{}", table.name);
        lacks.push(format!("a row-level security policy that shows it the rows of {name}"));
        grants.push(format!("CREATE POLICY clerk2pg ON {name} TO {role} USING (true);"));
    }
    if !lacks.is_empty() {
        return Finding::failed(NAME, format!("{role} lacks {}", lacks.join("; "))).hint(format!(
            "as {}: {}",
            owner(privileges),
            grants.join(" ")
        ));
    }
    if let Some(table) = filtered.first() {
        return Finding::warn(
            NAME,
            format!(
                "row-level security decides which rows of clerk.{} {role} sees",
                table.name
            ),
        )
        .hint("ignore this if its policy shows all rows");
    }
    match privileges.tables.iter().find(|table| !table.is_own) {
        None => Finding::ok(NAME, format!("{role} owns all objects that it needs")),
        Some(table) => Finding::ok(
            NAME,
            format!(
                "{role} has all rights that a sync needs; {} must apply the migrations of later versions",
                table.owner
            ),
        ),
    }
}

/// Groups tables by their missing privileges, so that one GRANT covers several.
fn by_missing(privileges: &Privileges) -> BTreeMap<Vec<&'static str>, Vec<String>> {
    let mut found = BTreeMap::<_, Vec<String>>::new();
    for table in &privileges.tables {
        found
            .entry(table.missing())
            .or_default()
            .push(format!("clerk.{}", table.name));
    }
    found.remove(&Vec::new());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::CheckStatus;

    const ALL: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];
    const CURRENT: SchemaState = SchemaState::Ours { is_current: true };
    const OLDER: SchemaState = SchemaState::Ours { is_current: false };

    #[track_caller]
    fn check(
        privileges: &Privileges,
        contents: &SchemaState,
        migrate: bool,
        status: CheckStatus,
        message: &str,
        hint: Option<&str>,
    ) {
        let finding = check_permissions(privileges, contents, migrate);
        let found = (finding.status, finding.message.as_str(), finding.hint.as_deref());
        assert_eq!(found, (status, message, hint));
    }

    fn granted() -> Privileges {
        Privileges::of_owner()
            .with_table("__diesel_schema_migrations", &["SELECT"])
            .with_table("brand_new", &ALL)
            .with_table("sync_state", &["SELECT", "UPDATE"])
            .with_table("events", &["SELECT", "INSERT", "DELETE"])
    }

    #[test]
    fn exactly_the_needed_rights_are_enough() {
        let message = "app has all rights that a sync needs; admin must apply the migrations of later versions";
        check(&granted(), &CURRENT, true, CheckStatus::Ok, message, None);
    }

    #[test]
    fn an_unlisted_table_needs_every_right() {
        let privileges = Privileges::of_owner().with_table("brand_new", &["SELECT"]);
        check(
            &privileges,
            &CURRENT,
            false,
            CheckStatus::Failed,
            "app lacks INSERT, UPDATE, DELETE on clerk.brand_new",
            Some("as app: GRANT INSERT, UPDATE, DELETE ON clerk.brand_new TO app;"),
        );
    }

    #[test]
    fn one_grant_covers_several_tables() {
        let mut privileges = Privileges::of_owner()
            .with_table("a", &[])
            .with_table("b", &[])
            .with_table("c", &ALL);
        privileges.whole.uses = false;
        privileges.whole.owner = Some("admin".to_owned());
        privileges.closed_functions.push("clerk.f(clerk.users)".to_owned());
        check(
            &privileges,
            &SchemaState::Hidden,
            true,
            CheckStatus::Failed,
            "app lacks USAGE on SCHEMA clerk; SELECT, INSERT, UPDATE, DELETE on clerk.a, clerk.b; EXECUTE on FUNCTION clerk.f(clerk.users)",
            Some(
                "as admin: GRANT USAGE ON SCHEMA clerk TO app; GRANT SELECT, INSERT, UPDATE, DELETE ON clerk.a, clerk.b TO app; \
                 GRANT EXECUTE ON FUNCTION clerk.f(clerk.users) TO app;",
            ),
        );
    }

    #[test]
    fn hidden_rows_are_reported() {
        let mut privileges = granted();
        privileges.tables[1].is_filtered = true;
        let message = "app lacks a row-level security policy that shows it the rows of clerk.brand_new";
        let hint = "as app: CREATE POLICY clerk2pg ON clerk.brand_new TO app USING (true);";
        check(&privileges, &CURRENT, true, CheckStatus::Failed, message, Some(hint));
        privileges.tables[1].has_policy = true;
        let message = "row-level security decides which rows of clerk.brand_new app sees";
        check(
            &privileges,
            &CURRENT,
            true,
            CheckStatus::Warn,
            message,
            Some("ignore this if its policy shows all rows"),
        );
    }

    #[test]
    fn only_the_owner_may_migrate() {
        let message = "app may not apply the pending migrations: clerk.__diesel_schema_migrations is admin's";
        check(
            &granted(),
            &OLDER,
            true,
            CheckStatus::Failed,
            message,
            Some("run `clerk2pg migrate` as admin"),
        );
        let message = "app has all rights that a sync needs; admin must apply the migrations of later versions";
        check(&granted(), &OLDER, false, CheckStatus::Ok, message, None);
        check(
            &Privileges::of_owner(),
            &OLDER,
            true,
            CheckStatus::Ok,
            "app may apply the pending migrations",
            None,
        );
    }

    #[test]
    fn rights_to_create_the_schema() {
        let mut privileges = Privileges::of_owner();
        check(
            &privileges,
            &SchemaState::Empty,
            true,
            CheckStatus::Ok,
            "app may create what it needs in the schema clerk",
            None,
        );
        privileges.whole.creates = false;
        privileges.whole.owner = Some("admin".to_owned());
        let message = "app may not create in the schema clerk, which is admin's";
        let hint = "ALTER SCHEMA clerk OWNER TO app; or run `clerk2pg migrate` as admin";
        check(
            &privileges,
            &SchemaState::Empty,
            true,
            CheckStatus::Failed,
            message,
            Some(hint),
        );
        privileges.whole.owner = None;
        let message = "app may not create the schema clerk in shop";
        let hint = "as the owner of the database: CREATE SCHEMA clerk AUTHORIZATION app; or run `clerk2pg migrate` as a role that may";
        check(
            &privileges,
            &SchemaState::Nothing,
            true,
            CheckStatus::Failed,
            message,
            Some(hint),
        );
        privileges.whole.creates_schemas = true;
        check(
            &privileges,
            &SchemaState::Nothing,
            true,
            CheckStatus::Ok,
            "app may create the schema clerk",
            None,
        );
        let message = "there is nothing yet that needs rights";
        check(
            &privileges,
            &SchemaState::Nothing,
            false,
            CheckStatus::Skipped,
            message,
            None,
        );
    }
}
