//! Checks of the entries of `[[tables]]`.

use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};

use super::{error::ConfigError, exclusions::reads_excluded, settings::ResourceSettings};
use crate::{
    mirror::{DEFAULT_SCHEMA, Expressions, RowRemoval, Source, TableMapping},
    nearest::nearest,
};

/// Checks that each key of each entry exists. `place` is the file's name in errors.
///
/// # Errors
/// The first key that does not exist, or something else is in the place of the entries.
pub(super) fn check_entries(tables: &Value, place: &str) -> Result<(), ConfigError> {
    let ValueKind::Array(entries) = &tables.kind else {
        return Err(ConfigError::new(format!("{place}: tables is not a list"))
            .hint("begin each entry with [[tables]], in double brackets"));
    };
    let known = entry_keys()?;
    for (at, entry) in entries.iter().enumerate() {
        let ValueKind::Table(keys) = &entry.kind else {
            return Err(
                ConfigError::new(format!("{place}: entry {} of [[tables]] has no keys", at + 1))
                    .hint("begin each entry with [[tables]]"),
            );
        };
        let keys: BTreeMap<_, _> = keys.iter().collect();
        let Some(unknown) = keys.keys().find(|key| !known.contains(**key)) else {
            continue;
        };
        let name = keys.iter().find(|(key, _)| **key == "name");
        let name = name.map_or_else(|| format!("number {}", at + 1), |(_, name)| name.to_string());
        let error = ConfigError::new(format!(
            "{place}: the entry {name} of [[tables]] has an unknown key {unknown}"
        ));
        let nearest = nearest(unknown, known.iter().map(String::as_str)).unwrap_or_default();
        return Err(error.hint(format!(
            "did you mean {nearest}? the table's own columns belong in [tables.set]"
        )));
    }
    Ok(())
}

/// Returns the keys of an entry, read from its type.
fn entry_keys() -> Result<BTreeSet<String>, ConfigError> {
    let broken = |error: serde_json::Error| ConfigError::new(error.to_string());
    let empty: TableMapping = serde_json::from_str("{}").map_err(broken)?;
    let keys: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(serde_json::to_value(empty).map_err(broken)?).map_err(broken)?;
    Ok(keys.into_keys().collect())
}

/// Checks what the entries say, with what is mirrored and in which schema. `place` is the file's name in
/// errors.
///
/// # Errors
/// The first entry that contradicts itself or another one.
pub(super) fn validate_tables(
    tables: &[TableMapping],
    mirror: &ResourceSettings,
    schema: &str,
    place: &str,
) -> Result<(), ConfigError> {
    let excluded = mirror.excluded();
    let mut names = BTreeSet::new();
    for (at, mapping) in tables.iter().enumerate() {
        let entry = match mapping.name.is_empty() {
            true => format!("entry {} of [[tables]]", at + 1),
            false => format!("[[tables]] {}", mapping.table()),
        };
        let found = match names.insert((&mapping.schema, &mapping.name)) {
            true => unmirrored(mapping, &mirror.resources)
                .or_else(|| in_mirror(mapping, schema))
                .or_else(|| contradiction(mapping))
                .or_else(|| reads_excluded(mapping, &excluded)),
            false => Some((
                "there are two entries for this table".to_owned(),
                "merge them into one".to_owned(),
            )),
        };
        if let Some((problem, hint)) = found {
            return Err(ConfigError::new(format!("{place}: {entry}: {problem}")).hint(hint));
        }
    }
    Ok(())
}

/// Returns what is wrong with an entry for a table of the mirror, and what to do.
fn in_mirror(mapping: &TableMapping, schema: &str) -> Option<(String, String)> {
    // Statements are written for the usual name, and sent with the other one.
    [schema, DEFAULT_SCHEMA].contains(&mapping.schema.as_str()).then(|| {
        (
            format!("the schema {:?} is the mirror's", mapping.schema),
            "set schema to that of a table of the application".to_owned(),
        )
    })
}

/// Returns what is wrong with an entry whose resource is not mirrored, and what to do.
fn unmirrored(mapping: &TableMapping, resources: &[String]) -> Option<(String, String)> {
    let name = mapping.from.resource().name;
    let is_mirrored = resources.iter().any(|resource| resource == name);
    (!is_mirrored).then(|| {
        (
            format!("from = {name:?}, which is not mirrored"),
            format!("add {name:?} to resources in [mirror]"),
        )
    })
}

/// Returns what is wrong with an entry, and what to do; `None` if nothing is.
fn contradiction(mapping: &TableMapping) -> Option<(String, String)> {
    let found = |problem: &str, hint: &str| Some((problem.to_owned(), hint.to_owned()));
    for (key, value, hint) in [
        (
            "name",
            &mapping.name,
            "set name to the table's name, for example name = \"User\"",
        ),
        ("schema", &mapping.schema, "leave it out for the schema public"),
    ] {
        if value.is_empty() {
            return found(&format!("it has no {key}"), hint);
        }
    }
    if let Some(found) = contradicting_key(mapping) {
        return Some(found);
    }
    let is_empty = |text: &Option<String>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    for (key, value) in [("where", &mapping.condition), ("link", &mapping.link)] {
        if is_empty(value) {
            return found(&format!("{key} is empty"), &format!("give it a value, or remove {key}"));
        }
    }
    if mapping.link.is_some() && mapping.from != Source::Users {
        return found(
            "link is for users only",
            "remove link, or fill the key of existing rows by hand",
        );
    }
    if !(0.0..=100.0).contains(&mapping.max_change_percent) {
        let problem = format!("max_change_percent = {}", mapping.max_change_percent);
        return found(&problem, "set it to a percentage from 0 to 100");
    }
    match (mapping.delete, mapping.deleted.is_empty()) {
        (RowRemoval::Update, true) => {
            return found(
                "delete = \"update\" has no columns to write",
                "add them in [tables.deleted], for example deleted_at = \"now()\"",
            );
        }
        (RowRemoval::Delete | RowRemoval::Keep, false) => {
            return found(
                "[tables.deleted] has no effect",
                "set delete = \"update\", or remove [tables.deleted]",
            );
        }
        _ => {}
    }
    contradicting_columns(mapping)
}

/// Returns what is wrong with the key of an entry, and what to do; `None` if nothing is.
fn contradicting_key(mapping: &TableMapping) -> Option<(String, String)> {
    let found = |problem: String, hint: &str| Some((problem, hint.to_owned()));
    let columns = mapping.key.columns();
    if columns.is_empty() || columns.iter().any(String::is_empty) {
        return found(
            "it has no key".to_owned(),
            "set key to the column with Clerk's id, for example key = \"clerk_id\"",
        );
    }
    if mapping.key.id_column().is_some() {
        return None;
    }
    if mapping.from != Source::OrganizationMemberships {
        return found(
            "a key of several columns is for organization_memberships only".to_owned(),
            "set key to the column with Clerk's id, for example key = \"clerk_id\"",
        );
    }
    if let Some(column) = columns.iter().find(|column| !mapping.set.contains_key(*column)) {
        return found(
            format!("the column {column:?} of the key is not in [tables.set]"),
            "add it there: its value tells which row belongs to a membership",
        );
    }
    let reads = |name: &str| columns.iter().any(|column| mapping.set[column].contains(name));
    let unread = ["u.organization_id", "u.user_id"].into_iter().find(|name| !reads(name));
    if let Some(name) = unread {
        return found(
            format!("no column of the key is made from {name}"),
            "a row belongs to one user in one organization: add a column for the other one to the key",
        );
    }
    let names_object = mapping.deleted.values().any(|expression| expression.contains("u."));
    names_object.then(|| {
        (
            "[tables.deleted] names u".to_owned(),
            "remove it there: without a column for Clerk's id, nothing is known of an object that is gone".to_owned(),
        )
    })
}

/// Returns what is wrong with the columns of an entry, and what to do; `None` if nothing is.
fn contradicting_columns(mapping: &TableMapping) -> Option<(String, String)> {
    let TableMapping {
        set,
        keep,
        touch,
        insert,
        deleted,
        key,
        ..
    } = mapping;
    if set.is_empty() && keep.is_empty() && insert.is_empty() {
        let hint = "add columns in [tables.set], for example email = \"u.primary_email\"";
        return Some(("it has no columns".to_owned(), hint.to_owned()));
    }
    let written: [(&str, &Expressions); 4] = [("set", set), ("keep", keep), ("touch", touch), ("insert", insert)];
    let mut sections = BTreeMap::new();
    for (section, expressions) in written {
        for column in expressions.keys() {
            if Some(column.as_str()) == key.id_column() {
                let problem = format!("the key {column:?} is in [tables.{section}]");
                return Some((
                    problem,
                    "remove it there: clerk2pg writes Clerk's id into it".to_owned(),
                ));
            }
            if let Some(other) = sections.insert(column, section) {
                let problem = format!("the column {column:?} is in [tables.{other}] and in [tables.{section}]");
                return Some((problem, "remove it from one of them".to_owned()));
            }
        }
    }
    let all = written.into_iter().chain([("deleted", deleted)]);
    for (section, expressions) in all {
        let empty = expressions
            .iter()
            .find(|(column, expression)| column.is_empty() || expression.trim().is_empty());
        if let Some((column, _)) = empty {
            let problem = format!("the column {column:?} in [tables.{section}] has no name or no expression");
            return Some((
                problem,
                "write column = \"SQL expression\", for example email = \"u.primary_email\"".to_owned(),
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{ConfigSource, Loaded, load};

    const USER: &str = "[[tables]]\nname = \"User\"\nkey = \"clerkId\"\n";
    const EMAIL: &str = "[tables.set]\nemail = \"u.primary_email\"\n";

    fn load_text(text: &str) -> Result<Loaded, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let source = ConfigSource {
            file: Some(path),
            environment: BTreeMap::new(),
        };
        load(&source).map_err(|error| ConfigError {
            message: error.message.replace(&directory.path().display().to_string(), "DIR"),
            ..error
        })
    }

    #[track_caller]
    fn check(text: &str, message: &str, hint: &str) {
        let error = load_text(text).unwrap_err();
        let message = format!("DIR/config.toml: {message}");
        assert_eq!(
            (error.message.as_str(), error.hint.as_deref()),
            (message.as_str(), Some(hint)),
            "{text}"
        );
    }

    #[test]
    fn names_are_taken_literally() {
        let text = format!(
            "{USER}[tables.set]\nupdatedAt = \"now()\"\nclerk_ID = \"u.id\"\n\"odd name\" = \"1\"\n\"a.b\" = \"2\"\n\"x[0]\" = \"3\"\n\
             [tables.insert]\n\"Ä\" = \"'Ä'\"\n[tables.touch]\nTouchedAt = \"now()\"\n[tables.keep]\n\"It's\" = \"4\"\n",
        );
        let tables = load_text(&text).unwrap().settings.tables;
        let [table] = tables.as_slice() else {
            panic!("{tables:#?}")
        };
        assert_eq!(
            (table.name.as_str(), table.key.id_column(), table.schema.as_str()),
            ("User", Some("clerkId"), "public")
        );
        let columns: Vec<_> = table.set.keys().collect();
        assert_eq!(columns, ["a.b", "clerk_ID", "odd name", "updatedAt", "x[0]"]);
        let others = [&table.insert, &table.touch, &table.keep].map(|section| section.keys().collect::<Vec<_>>());
        assert_eq!(others, [["Ä"], ["TouchedAt"], ["It's"]]);
        assert_eq!(table.insert["Ä"], "'Ä'");
    }

    #[test]
    fn one_table_or_several_are_read_in_their_order() {
        let text = format!("{USER}{EMAIL}[[tables]]\nname = \"User\"\nschema = \"app\"\nkey = \"id\"\n{EMAIL}");
        let tables = load_text(&text).unwrap().settings.tables;
        let names: Vec<_> = tables.iter().map(TableMapping::table).collect();
        assert_eq!(names, [r#"public."User""#, r#"app."User""#]);
        assert!(load_text("tables = []\n").unwrap().settings.tables.is_empty());
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let belongs = "the table's own columns belong in [tables.set]";
        check(
            &format!("{USER}[tables.inserts]\nid = \"1\"\n"),
            "the entry User of [[tables]] has an unknown key inserts",
            &format!("did you mean insert? {belongs}"),
        );
        check(
            &format!("{USER}Where = \"true\"\n{EMAIL}"),
            "the entry User of [[tables]] has an unknown key Where",
            &format!("did you mean where? {belongs}"),
        );
        check(
            "[[tables]]\nkeys = \"id\"\n",
            "the entry number 1 of [[tables]] has an unknown key keys",
            &format!("did you mean key? {belongs}"),
        );
        check(
            "[tables]\nmax_change_percent = 5\n",
            "tables is not a list",
            "begin each entry with [[tables]], in double brackets",
        );
        check(
            "tables = [1]\n",
            "entry 1 of [[tables]] has no keys",
            "begin each entry with [[tables]]",
        );
    }

    #[test]
    fn values_of_a_wrong_type_name_their_place() {
        for (line, says) in [
            ("key = [[\"a\"]]\n", "key"),
            ("delete = \"purge\"\n", "purge"),
            ("set = \"email\"\n", "set"),
            ("max_change_percent = \"many\"\n", "max_change_percent"),
        ] {
            let user = USER.replace("key = \"clerkId\"\n", "");
            let error = load_text(&format!("{user}{line}")).unwrap_err();
            assert!(error.message.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn entries_that_contradict_themselves_are_refused() {
        let table = r#"[[tables]] public."User""#;
        let set = "add columns in [tables.set], for example email = \"u.primary_email\"";
        let one = "remove it from one of them";
        check(
            &format!("{USER}{EMAIL}{USER}{EMAIL}"),
            &format!("{table}: there are two entries for this table"),
            "merge them into one",
        );
        let name = "set name to the table's name, for example name = \"User\"";
        check(
            &format!("[[tables]]\nkey = \"id\"\n{EMAIL}"),
            "entry 1 of [[tables]]: it has no name",
            name,
        );
        let key = "set key to the column with Clerk's id, for example key = \"clerk_id\"";
        check(
            &format!("[[tables]]\nname = \"User\"\n{EMAIL}"),
            &format!("{table}: it has no key"),
            key,
        );
        check(
            &format!("[[tables]]\nname = \"User\"\nkey = \"\"\n{EMAIL}"),
            &format!("{table}: it has no key"),
            key,
        );
        check(
            &format!("{USER}where = \" \"\n{EMAIL}"),
            &format!("{table}: where is empty"),
            "give it a value, or remove where",
        );
        check(
            &format!("{USER}delete = \"update\"\n{EMAIL}"),
            &format!("{table}: delete = \"update\" has no columns to write"),
            "add them in [tables.deleted], for example deleted_at = \"now()\"",
        );
        check(
            &format!("{USER}{EMAIL}[tables.deleted]\ngone = \"true\"\n"),
            &format!("{table}: [tables.deleted] has no effect"),
            "set delete = \"update\", or remove [tables.deleted]",
        );
        let member = "[[tables]]\nname = \"User\"\nkey = [\"a\", \"b\"]\n";
        check(
            &format!("{member}{EMAIL}"),
            &format!("{table}: a key of several columns is for organization_memberships only"),
            key,
        );
        let member = format!("{member}from = \"organization_memberships\"\n");
        check(
            &format!("{member}[tables.set]\na = \"1\"\n"),
            &format!("{table}: the column \"b\" of the key is not in [tables.set]"),
            "add it there: its value tells which row belongs to a membership",
        );
        check(
            &format!("{member}[tables.set]\na = \"u.organization_id\"\nb = \"2\"\n"),
            &format!("{table}: no column of the key is made from u.user_id"),
            "a row belongs to one user in one organization: add a column for the other one to the key",
        );
        let member = format!("{member}[tables.set]\na = \"u.organization_id\"\nb = \"u.user_id\"\n");
        load_text(&member).unwrap();
        check(
            &format!("{member}[tables.deleted]\nc = \"u.id\"\n").replace("from =", "delete = \"update\"\nfrom ="),
            &format!("{table}: [tables.deleted] names u"),
            "remove it there: without a column for Clerk's id, nothing is known of an object that is gone",
        );
        check(
            &format!("{USER}from = \"organizations\"\nlink = \"email\"\n{EMAIL}"),
            &format!("{table}: link is for users only"),
            "remove link, or fill the key of existing rows by hand",
        );
        check(
            &format!("[mirror]\nresources = [\"users\"]\n{USER}from = \"organizations\"\n{EMAIL}"),
            &format!("{table}: from = \"organizations\", which is not mirrored"),
            "add \"organizations\" to resources in [mirror]",
        );
        check(USER, &format!("{table}: it has no columns"), set);
        check(
            &format!("{USER}[tables.touch]\nupdatedAt = \"now()\"\n"),
            &format!("{table}: it has no columns"),
            set,
        );
        for (first, second) in [("set", "keep"), ("set", "insert"), ("set", "touch"), ("keep", "insert")] {
            check(
                &format!("{USER}[tables.{first}]\na = \"1\"\n[tables.{second}]\na = \"1\"\n"),
                &format!("{table}: the column \"a\" is in [tables.{first}] and in [tables.{second}]"),
                one,
            );
        }
        check(
            &format!("{USER}{EMAIL}[tables.insert]\nclerkId = \"u.id\"\n"),
            &format!("{table}: the key \"clerkId\" is in [tables.insert]"),
            "remove it there: clerk2pg writes Clerk's id into it",
        );
        check(
            &format!("{USER}[tables.set]\nemail = \"\"\n"),
            &format!("{table}: the column \"email\" in [tables.set] has no name or no expression"),
            "write column = \"SQL expression\", for example email = \"u.primary_email\"",
        );
        for percent in ["-0.1", "100.1", "nan"] {
            let shown: f64 = percent.parse().unwrap();
            check(
                &format!("{USER}max_change_percent = {percent}\n{EMAIL}"),
                &format!("{table}: max_change_percent = {shown}"),
                "set it to a percentage from 0 to 100",
            );
        }
        for percent in ["0", "100", "12.5"] {
            load_text(&format!("{USER}max_change_percent = {percent}\n{EMAIL}")).unwrap();
        }
    }
}
