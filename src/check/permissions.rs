//! Whether the role may do what is needed, and the GRANT that mends it.

use std::collections::BTreeMap;

use super::Finding;
use crate::{failure::Failure, mirror::Rights};

const NAME: &str = "permissions";

/// What is in the schema `clerk`.
#[derive(Debug)]
pub(super) enum Contents {
    /// There is no such schema.
    Nothing,
    /// Nothing is in it.
    Empty,
    /// What clerk2pg made, if not of this version.
    Ours {
        /// No migration is pending.
        is_current: bool,
    },
    /// Most likely what clerk2pg made, but the role may not read of which version it is.
    Hidden,
    /// Somebody else's, or a newer clerk2pg's; or it could not be looked at.
    Unusable(Failure),
}

/// Judges.
pub(super) fn judge(rights: &Rights, contents: &Contents, migrate: bool) -> Finding {
    let (role, database) = (&rights.whole.role, &rights.whole.database);
    match contents {
        Contents::Unusable(_) => Finding::skipped(NAME, "the schema cannot be used"),
        Contents::Nothing | Contents::Empty if !migrate => {
            Finding::skipped(NAME, "there is nothing yet that rights would be needed on")
        }
        Contents::Nothing if rights.whole.creates_schemas => Finding::ok(NAME, format!("{role} may create the schema clerk")),
        Contents::Nothing => Finding::failed(NAME, format!("{role} may not create the schema clerk in {database}"))
            .hint(format!("as the owner of the database: CREATE SCHEMA clerk AUTHORIZATION {role}; or run `clerk2pg migrate` as a role that may")),
        Contents::Empty if rights.whole.uses && rights.whole.creates => {
            Finding::ok(NAME, format!("{role} may create what it needs in the schema clerk"))
        }
        Contents::Empty => Finding::failed(NAME, format!("{role} may not create in the schema clerk, which is {}'s", owner(rights)))
            .hint(format!("ALTER SCHEMA clerk OWNER TO {role}; or run `clerk2pg migrate` as {}", owner(rights))),
        Contents::Ours { is_current: false } if migrate => may_migrate(rights),
        Contents::Ours { .. } | Contents::Hidden => may_sync(rights),
    }
}

fn owner(rights: &Rights) -> &str {
    rights.whole.owner.as_deref().unwrap_or_default()
}

/// Migrations alter tables, which is their owner's to do.
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
        lacks.push(format!(
            "a policy by which row-level security shows it the rows of {name}"
        ));
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
                "row-level security chooses which rows of clerk.{} {role} sees",
                table.name
            ),
        )
        .hint("nothing, if its policy shows them all");
    }
    match rights.tables.iter().find(|table| !table.is_own) {
        None => Finding::ok(NAME, format!("{role} owns what it works with")),
        Some(table) => Finding::ok(
            NAME,
            format!(
                "{role} may do all that a sync does; migrations of later versions are {}'s to apply",
                table.owner
            ),
        ),
    }
}

/// Tables by what is missing on them, so that one GRANT serves for several.
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
    use crate::check::CheckStatus;

    const ALL: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];
    const CURRENT: Contents = Contents::Ours { is_current: true };
    const OLDER: Contents = Contents::Ours { is_current: false };

    #[track_caller]
    fn check(rights: &Rights, contents: &Contents, migrate: bool, status: CheckStatus, says: &str, hint: Option<&str>) {
        let finding = judge(rights, contents, migrate);
        let found = (finding.status, finding.says.as_str(), finding.hint.as_deref());
        assert_eq!(found, (status, says, hint));
    }

    fn granted() -> Rights {
        Rights::of_owner()
            .with_table("__diesel_schema_migrations", &["SELECT"])
            .with_table("brand_new", &ALL)
            .with_table("sync_state", &["SELECT", "UPDATE"])
            .with_table("user_events", &["SELECT", "INSERT", "DELETE"])
    }

    #[test]
    fn all_that_is_needed_and_no_more() {
        let says = "app may do all that a sync does; migrations of later versions are admin's to apply";
        check(&granted(), &CURRENT, true, CheckStatus::Ok, says, None);
    }

    #[test]
    fn a_table_that_nobody_listed_is_used_in_every_way() {
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
    fn one_grant_serves_for_several_tables() {
        let mut rights = Rights::of_owner()
            .with_table("a", &[])
            .with_table("b", &[])
            .with_table("c", &ALL);
        rights.whole.uses = false;
        rights.whole.owner = Some("admin".to_owned());
        rights.closed_functions.push("clerk.f(clerk.users)".to_owned());
        check(
            &rights,
            &Contents::Hidden,
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
    fn rows_that_are_hidden() {
        let mut rights = granted();
        rights.tables[1].is_filtered = true;
        let says = "app lacks a policy by which row-level security shows it the rows of clerk.brand_new";
        let hint = "as app: CREATE POLICY clerk2pg ON clerk.brand_new TO app USING (true);";
        check(&rights, &CURRENT, true, CheckStatus::Failed, says, Some(hint));
        rights.tables[1].has_policy = true;
        let says = "row-level security chooses which rows of clerk.brand_new app sees";
        check(
            &rights,
            &CURRENT,
            true,
            CheckStatus::Warn,
            says,
            Some("nothing, if its policy shows them all"),
        );
    }

    #[test]
    fn migrations_are_the_owners() {
        let says = "app may not apply the pending migrations: clerk.__diesel_schema_migrations is admin's";
        check(
            &granted(),
            &OLDER,
            true,
            CheckStatus::Failed,
            says,
            Some("run `clerk2pg migrate` as admin"),
        );
        let says = "app may do all that a sync does; migrations of later versions are admin's to apply";
        check(&granted(), &OLDER, false, CheckStatus::Ok, says, None);
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
    fn what_is_not_there_yet() {
        let mut rights = Rights::of_owner();
        check(
            &rights,
            &Contents::Empty,
            true,
            CheckStatus::Ok,
            "app may create what it needs in the schema clerk",
            None,
        );
        rights.whole.creates = false;
        rights.whole.owner = Some("admin".to_owned());
        let says = "app may not create in the schema clerk, which is admin's";
        let hint = "ALTER SCHEMA clerk OWNER TO app; or run `clerk2pg migrate` as admin";
        check(&rights, &Contents::Empty, true, CheckStatus::Failed, says, Some(hint));
        rights.whole.owner = None;
        let says = "app may not create the schema clerk in shop";
        let hint = "as the owner of the database: CREATE SCHEMA clerk AUTHORIZATION app; or run `clerk2pg migrate` as a role that may";
        check(&rights, &Contents::Nothing, true, CheckStatus::Failed, says, Some(hint));
        rights.whole.creates_schemas = true;
        check(
            &rights,
            &Contents::Nothing,
            true,
            CheckStatus::Ok,
            "app may create the schema clerk",
            None,
        );
        let says = "there is nothing yet that rights would be needed on";
        check(&rights, &Contents::Nothing, false, CheckStatus::Skipped, says, None);
    }
}
