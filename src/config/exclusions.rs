//! Checks of `mirror.exclude`: its names, and whether a mapping reads what it leaves out.

use std::fmt::Display;

use super::error::ConfigError;
use crate::{
    mirror::TableMapping,
    nearest::nearest,
    resource::{Exclusions, RESOURCES, excludable, is_needed},
};

/// Checks the names of fields that are not stored.
pub(super) fn validate_exclusions(
    names: &[String],
    wrong: &impl Fn(&str, &dyn Display, &str) -> ConfigError,
) -> Result<(), ConfigError> {
    let known = excludable();
    let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) else {
        return Ok(());
    };
    let derived = RESOURCES.iter().flat_map(|resource| resource.derived.columns);
    let derived = derived.filter(|column| column.name == *name && !column.from.is_empty());
    let expected = match derived.map(|column| column.from).next() {
        _ if is_needed(name) => "fields of Clerk's objects that no sync needs".to_owned(),
        Some(from) => format!("the fields that it is derived from, for example {}", from[0]),
        None => format!(
            "names of fields; did you mean {}?",
            nearest(name, known).unwrap_or_default()
        ),
    };
    Err(wrong("mirror.exclude", name, &expected))
}

/// Returns what is wrong with an entry that reads an empty column of the mirror, and what to do.
pub(super) fn reads_excluded(mapping: &TableMapping, excluded: &Exclusions) -> Option<(String, String)> {
    let derived = mapping.from.resource().derived.columns;
    let is_empty = |name: &str| {
        let derived = derived.iter().find(|column| column.name == name);
        // A display name is made from what is left.
        let derived = derived.filter(|column| column.name != "display_name");
        excluded.has(name) || derived.is_some_and(|column| column.from.iter().any(|field| excluded.has(field)))
    };
    let of_link = mapping.link.is_some().then_some(("link".to_owned(), "u.primary_email"));
    of_link
        .into_iter()
        .chain(mapping.expressions())
        .find_map(|(place, expression)| {
            let column = columns_of_object(expression).find(|name| is_empty(name))?;
            Some((
                format!("{place} reads u.{column}, which is empty because of mirror.exclude"),
                format!("remove {place}, or take the field out of exclude in [mirror]"),
            ))
        })
}

/// Returns the names in an expression that can be columns of the object, `u`: not those of functions,
/// other tables or within texts.
fn columns_of_object(expression: &str) -> impl Iterator<Item = &str> {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let outside = expression.split('\'').step_by(2);
    outside.flat_map(move |sql| {
        let mut before = "";
        let parts = sql.split_inclusive(move |letter| !is_name(letter));
        parts.filter_map(move |part| {
            let name = part.trim_end_matches(|letter| !is_name(letter));
            if part == "\"" {
                return None;
            }
            let is_of_other = before.ends_with('.') && before != "u.";
            before = part;
            (!name.is_empty() && !is_of_other).then_some(name)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::Source;

    #[test]
    fn the_columns_that_an_expression_can_read() {
        let check = |expression: &str, expected: &[&str]| {
            assert_eq!(
                columns_of_object(expression).collect::<Vec<_>>(),
                expected,
                "{expression}"
            );
        };
        check("u.primary_email", &["u", "primary_email"]);
        check("lower(u.\"username\")", &["lower", "u", "username"]);
        check(
            "u.public_metadata ->> 'username' || username",
            &["u", "public_metadata", "username"],
        );
        check("(SELECT a.username FROM app.a)", &["SELECT", "a", "FROM", "app"]);
        check("a.\"username\"", &["a"]);
    }

    #[test]
    fn a_mapping_must_not_read_what_is_left_out() {
        let check = |set: &str, expected: Option<&str>| {
            let mut mapping = TableMapping::of("public", "User", Source::Users);
            mapping.set.insert("c".to_owned(), set.to_owned());
            let excluded = ["phone_numbers", "first_name"].map(str::to_owned);
            let found = reads_excluded(&mapping, &Exclusions::new(&excluded));
            assert_eq!(found.map(|(problem, _)| problem).as_deref(), expected, "{set}");
        };
        check("u.last_name", None);
        check("u.display_name", None);
        check("u.public_metadata ->> 'first_name'", None);
        check(
            "u.first_name",
            Some("set.c reads u.first_name, which is empty because of mirror.exclude"),
        );
        check(
            "u.full_name",
            Some("set.c reads u.full_name, which is empty because of mirror.exclude"),
        );
        check(
            "coalesce(u.primary_phone, '')",
            Some("set.c reads u.primary_phone, which is empty because of mirror.exclude"),
        );
    }
}
