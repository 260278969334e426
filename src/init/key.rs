//! Guesses which column of a table holds Clerk's id.

use crate::mirror::{ColumnFacts, Source, TableFacts};

/// Names of such columns, in lower case and without underscores, the surest first. Source: public
/// schemas of applications.
const USER_KEYS: [&str; 10] = [
    "clerkid",
    "clerkuserid",
    "userclerkid",
    "externaluserid",
    "externalauthid",
    "authuserid",
    "authid",
    "externalid",
    "userid",
    "accountid",
];
const ORGANIZATION_KEYS: [&str; 7] = [
    "clerkid",
    "clerkorgid",
    "clerkorganizationid",
    "externalid",
    "organizationid",
    "orgid",
    "tenantid",
];

/// How many of these names are used for nothing else.
const SURE: usize = 3;

/// Words in the names of tables of organizations.
const ORGANIZATION_WORDS: [&str; 7] = [
    "organization",
    "organisation",
    "workspace",
    "company",
    "companies",
    "tenant",
    "team",
];

/// Returns a name in lower case, without what is neither a letter nor a digit.
pub(super) fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Whether the column can hold one of Clerk's ids.
pub(super) fn is_text(column: &ColumnFacts) -> bool {
    matches!(&*column.base, "text" | "varchar")
}

/// Whether a column of this name holds nothing but Clerk's ids.
pub(super) fn is_sure(column: &ColumnFacts) -> bool {
    let name = plain(&column.name);
    let mut sure = USER_KEYS[..SURE].iter().chain(&ORGANIZATION_KEYS[..SURE]);
    sure.any(|sure| *sure == name)
}

/// Returns the resource whose objects the rows most likely are.
pub(super) fn source(table: &TableFacts) -> Source {
    let name = plain(&table.name);
    let is_organization = ORGANIZATION_WORDS.iter().any(|word| name.contains(word));
    match () {
        () if pair(table).is_some() => Source::OrganizationMemberships,
        () if is_organization && !name.contains("user") && !name.contains("member") => Source::Organizations,
        () => Source::Users,
    }
}

/// Returns the columns of the organization and the user of a table of members: together, they are unique.
pub(super) fn pair(table: &TableFacts) -> Option<[&ColumnFacts; 2]> {
    let is_about = |column: &str, words: &[&str]| {
        let facts = table.column(column);
        let refers_to = facts
            .and_then(|column| column.refers_to.get(1))
            .map(|table| plain(table));
        let names = [Some(plain(column)), refers_to];
        names
            .into_iter()
            .flatten()
            .any(|name| words.iter().any(|word| name.contains(word)))
    };
    table.unique.iter().find_map(|columns| {
        let [first, second] = columns.as_slice() else {
            return None;
        };
        let both = [(first, second), (second, first)];
        let (organization, user) = both.into_iter().find(|(organization, user)| {
            let is_organization = is_about(organization, &ORGANIZATION_WORDS) || plain(organization).starts_with("org");
            is_organization && is_about(user, &["user", "member", "account", "person", "profile"])
        })?;
        Some([table.column(organization)?, table.column(user)?])
    })
}

/// Returns the column with Clerk's id; `None` if no column can be it.
pub(super) fn id_column(table: &TableFacts, source: Source) -> Option<&ColumnFacts> {
    let names: &[&str] = match source {
        Source::Organizations => &ORGANIZATION_KEYS,
        Source::Users | Source::OrganizationMemberships => &USER_KEYS,
    };
    let named = |name: &str| {
        let mut texts = table.columns.iter().filter(|column| is_text(column));
        texts.find(|column| plain(&column.name) == name)
    };
    let candidates: Vec<&ColumnFacts> = names.iter().filter_map(|name| named(name)).collect();
    let is_unique = |column: &ColumnFacts| table.is_unique(&column.name);
    // The application may have forgotten the index.
    let sure = candidates.iter().find(|column| is_sure(column));
    let unique = candidates.iter().find(|column| is_unique(column));
    // The primary key, if the application makes it.
    let primary = || named("id").filter(|column| is_unique(column) && !column.has_default);
    sure.or(unique).copied().or_else(primary)
}

/// Whether a column of a table is named after Clerk's ids.
pub fn looks_mapped(table: &TableFacts) -> bool {
    table.columns.iter().any(|column| is_text(column) && is_sure(column))
}
