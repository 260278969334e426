//! Checks whether the role has the rights that a sync needs, and suggests the missing GRANTs.

use std::collections::BTreeMap;

use super::finding::Finding;
use crate::{failure::Failure, mirror::Rights};

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

/// Checks the rights for what has to be done with the schema next.
pub(super) fn check_permissions(rights: &Rights, contents: &SchemaState, migrate: bool) -> Finding {
    let (role, database) = (&rights.whole.role, &rights.whole.database);
    match contents {
        SchemaState::Unusable(_) => Finding::skipped(NAME, "the schema cannot be used"),
        SchemaState::Nothing | SchemaState::Empty if !migrate => {
            Finding::skipped(NAME, "there is nothing yet that needs rights")
        }
        SchemaState::Nothing if rights.whole.creates_schemas => Finding::ok(NAME, format!("{role} may create the schema clerk")),
        SchemaState::Nothing => Finding::failed(NAME, format!("{role} may not create the schema clerk in {database}"))
            .hint(format!("as the owner of the database: CREATE SCHEMA clerk AUTHORIZATION {role}; or run `clerk2pg migrate` as a role that may")),
        SchemaState::Empty if rights.whole.uses && rights.whole.creates => {
            Finding::ok(NAME, format!("{role} may create what it needs in the schema clerk"))
        }
        SchemaState::Empty => Finding::failed(NAME, format!("{role} may not create in the schema clerk, which is {}'s", owner(rights)))
            .hint(format!("ALTER SCHEMA clerk OWNER TO {role}; or run `clerk2pg migrate` as {}", owner(rights))),
        SchemaState::Ours { is_current: false } if migrate => may_migrate(rights),
        SchemaState::Ours { .. } | SchemaState::Hidden => may_sync(rights),
    }
}

fn owner(rights: &Rights) -> &str {
    rights.whole.owner.as_deref().unwrap_or_default()
}

/// Checks the rights for pending migrations: only the owner of a table may alter it.
fn may_migrate(rights: &Rights) -> Finding {
    let role = &rights.whole.role;
    let foreign = rights.tables.iter().find(|table| !table.is_own);
    let reason = match foreign {
        Some(table) => format!("clerk.{} is {}'s", table.name, table.owner),
        None if !rights.whole.creates => "it may not create in the schema clerk".to_owned(),
        None => return Finding::ok(NAME, format!("{role} may apply the pending migrations")),
    };
    let owner = foreign.map_or(owner(rights), |table| &table.owner);
    Finding::failed(NAME, format!("{role} may not apply the pending migrations: {reason}"))
        .hint(format!("run `clerk2pg migrate` as {owner}"))
}

/// Checks the rights for syncs.
fn may_sync(rights: &Rights) -> Finding {
    let role = &rights.whole.role;
    let (mut lacks, mut grants) = (Vec::new(), Vec::new());
    let mut lack = |rights: &str, on: &str| {
        lacks.push(format!("{rights} on {on}"));
        grants.push(format!("GRANT {rights} ON {on} TO {role};"));
    };
    if !rights.whole.uses {
        lack("USAGE", "SCHEMA clerk");
    }
    for (missing, tables) in by_missing(rights) {
        lack(&missing.join(", "), &tables.join(", "));
    }
    for function in &rights.closed_functions {
        lack("EXECUTE", &format!("FUNCTION {function}"));
    }
    let (hidden, filtered): (Vec<_>, Vec<_>) = rights
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
            owner(rights),
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
    match rights.tables.iter().find(|table| !table.is_own) {
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

/// Groups tables by their missing rights, so that one GRANT covers several.
fn by_missing(rights: &Rights) -> BTreeMap<Vec<&'static str>, Vec<String>> {
    let mut found = BTreeMap::<_, Vec<String>>::new();
    for table in &rights.tables {
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
        rights: &Rights,
        contents: &SchemaState,
        migrate: bool,
        status: CheckStatus,
        message: &str,
        hint: Option<&str>,
    ) {
        let finding = check_permissions(rights, contents, migrate);
        let found = (finding.status, finding.message.as_str(), finding.hint.as_deref());
        assert_eq!(found, (status, message, hint));
    }

    fn granted() -> Rights {
        Rights::of_owner()
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
        let rights = Rights::of_owner().with_table("brand_new", &["SELECT"]);
        check(
            &rights,
            &CURRENT,
            false,
            CheckStatus::Failed,
            "app lacks INSERT, UPDATE, DELETE on clerk.brand_new",
            Some("as app: GRANT INSERT, UPDATE, DELETE ON clerk.brand_new TO app;"),
        );
    }

    #[test]
    fn one_grant_covers_several_tables() {
        let mut rights = Rights::of_owner()
            .with_table("a", &[])
            .with_table("b", &[])
            .with_table("c", &ALL);
        rights.whole.uses = false;
        rights.whole.owner = Some("admin".to_owned());
        rights.closed_functions.push("clerk.f(clerk.users)".to_owned());
        check(
            &rights,
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
        let mut rights = granted();
        rights.tables[1].is_filtered = true;
        let message = "app lacks a row-level security policy that shows it the rows of clerk.brand_new";
        let hint = "as app: CREATE POLICY clerk2pg ON clerk.brand_new TO app USING (true);";
        check(&rights, &CURRENT, true, CheckStatus::Failed, message, Some(hint));
        rights.tables[1].has_policy = true;
        let message = "row-level security decides which rows of clerk.brand_new app sees";
        check(
            &rights,
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
            &Rights::of_owner(),
            &OLDER,
            true,
            CheckStatus::Ok,
            "app may apply the pending migrations",
            None,
        );
    }

    #[test]
    fn rights_to_create_the_schema() {
        let mut rights = Rights::of_owner();
        check(
            &rights,
            &SchemaState::Empty,
            true,
            CheckStatus::Ok,
            "app may create what it needs in the schema clerk",
            None,
        );
        rights.whole.creates = false;
        rights.whole.owner = Some("admin".to_owned());
        let message = "app may not create in the schema clerk, which is admin's";
        let hint = "ALTER SCHEMA clerk OWNER TO app; or run `clerk2pg migrate` as admin";
        check(
            &rights,
            &SchemaState::Empty,
            true,
            CheckStatus::Failed,
            message,
            Some(hint),
        );
        rights.whole.owner = None;
        let message = "app may not create the schema clerk in shop";
        let hint = "as the owner of the database: CREATE SCHEMA clerk AUTHORIZATION app; or run `clerk2pg migrate` as a role that may";
        check(
            &rights,
            &SchemaState::Nothing,
            true,
            CheckStatus::Failed,
            message,
            Some(hint),
        );
        rights.whole.creates_schemas = true;
        check(
            &rights,
            &SchemaState::Nothing,
            true,
            CheckStatus::Ok,
            "app may create the schema clerk",
            None,
        );
        let message = "there is nothing yet that needs rights";
        check(
            &rights,
            &SchemaState::Nothing,
            false,
            CheckStatus::Skipped,
            message,
            None,
        );
    }
}
