//! Checks of `mirror.exclude`: its names, and whether a mapping reads what it leaves out.

use std::fmt::Display;

use super::error::ConfigError;
use crate::{
    mirror::TableMapping,
    nearest::nearest,
    resource::{Exclusions, RESOURCES, Resource, excludable},
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
    let is_field = |name: &str| RESOURCES.iter().any(|resource| resource.position(name, 0).is_some());
    let derived = RESOURCES.iter().flat_map(|resource| resource.derived.columns);
    let derived = derived.filter(|column| column.name == *name && !column.from.is_empty());
    let expected = match derived.map(|column| column.from).next() {
        _ if is_field(name) => "fields of Clerk's objects that no sync needs".to_owned(),
        Some(from) => format!("the fields that it is derived from, for example {}", from[0]),
        None => format!(
            "names of fields; did you mean {}?",
            nearest(name, known).unwrap_or_default()
        ),
    };
    Err(wrong("mirror.exclude", name, &expected))
}

/// Returns what is wrong with an entry that reads an empty column of the mirror, and what to do.
///
/// Strict, as a column that becomes empty would empty the application's table: a name counts in any
/// place outside of texts, and so does the whole object.
pub(super) fn reads_excluded(mapping: &TableMapping, excluded: &Exclusions) -> Option<(String, String)> {
    let resource = mapping.from.resource();
    if !excluded.concern(resource) {
        return None;
    }
    let of_link = mapping.link.is_some().then_some(("link".to_owned(), "u.primary_email"));
    of_link
        .into_iter()
        .chain(mapping.expressions())
        .find_map(|(place, expression)| {
            // A display name is made from what is left, but must not decide which rows there are.
            let may_display = place != "where";
            let is_empty = |word: &str| excluded.has(word) || is_derived(resource, word, excluded, may_display);
            let words = words(expression);
            let column = words.iter().find(|(word, _)| is_empty(word)).map(|(word, _)| word);
            let is_whole = |(word, after): &(String, bool)| word == "u" && !after;
            let what = match column {
                Some(column) => format!("u.{column}, which is empty because of mirror.exclude"),
                None if words.iter().any(is_whole) => "all of u, of which mirror.exclude leaves out a part".to_owned(),
                None => return None,
            };
            Some((
                format!("{place} reads {what}"),
                format!("remove {place}, or take the field out of exclude in [mirror]"),
            ))
        })
}

/// Whether a column is derived from a field that is left out.
fn is_derived(resource: &Resource, name: &str, excluded: &Exclusions, may_display: bool) -> bool {
    let mut derived = resource.derived.columns.iter().filter(|column| column.name == name);
    derived.any(|column| {
        let from_excluded = column.from.iter().any(|field| excluded.has(field));
        from_excluded && !(may_display && name == "display_name")
    })
}

/// Returns the words of an expression outside of texts, in lower case, and whether a dot follows each.
fn words(expression: &str) -> Vec<(String, bool)> {
    // What else can contain a quote makes it unclear where texts are.
    let is_unclear = ["\\", "$", "--", "/*"].iter().any(|part| expression.contains(part));
    let parts = expression.split('\'').step_by(if is_unclear { 1 } else { 2 });
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut words = Vec::new();
    for part in parts {
        let mut rest = part;
        while let Some(start) = rest.find(is_name) {
            let word = &rest[start..];
            let end = word.find(|letter| !is_name(letter)).unwrap_or(word.len());
            rest = &word[end..];
            let has_dot = rest.trim_start_matches([' ', '"', ')']).starts_with('.');
            words.push((word[..end].to_lowercase(), has_dot));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::Source;

    #[test]
    fn a_mapping_must_not_read_what_is_left_out() {
        let check = |expression: &str, expected: Option<&str>| {
            let mut mapping = TableMapping::of("public", "User", Source::Users);
            mapping.set.insert("c".to_owned(), expression.to_owned());
            let excluded = ["phone_numbers", "first_name"].map(str::to_owned);
            let found = reads_excluded(&mapping, &Exclusions::new(&excluded));
            let expected = expected.map(|what| format!("set.c reads {what}"));
            assert_eq!(found.map(|(problem, _)| problem), expected, "{expression}");
        };
        for fine in [
            "u.last_name",
            "u.display_name",
            "\"u\".last_name || u . username",
            "(u).public_metadata ->> 'first_name'",
            "'u'",
        ] {
            check(fine, None);
        }
        for first_name in [
            "u.first_name",
            "U.FIRST_NAME",
            "(u).first_name",
            "u .first_name",
            "\"u\".\"first_name\"",
            "first_name",
            r"E'it\'s ' || u.first_name",
            "$$'$$ || u.first_name",
            "/* it's */ u.first_name",
        ] {
            check(
                first_name,
                Some("u.first_name, which is empty because of mirror.exclude"),
            );
        }
        check(
            "(SELECT m.full_name FROM clerk.members m)",
            Some("u.full_name, which is empty because of mirror.exclude"),
        );
        check(
            "coalesce(u.primary_phone, '')",
            Some("u.primary_phone, which is empty because of mirror.exclude"),
        );
        for whole in ["to_jsonb(u) ->> 'x'", "clerk.user_document(u)", "u::text"] {
            check(whole, Some("all of u, of which mirror.exclude leaves out a part"));
        }
    }

    #[test]
    fn what_is_left_out_decides_neither_rows_nor_links() {
        let excluded = Exclusions::new(&["email_addresses".to_owned()]);
        let mut mapping = TableMapping::of("public", "User", Source::Users);
        mapping.condition = Some("u.display_name IS NOT NULL".to_owned());
        assert!(reads_excluded(&mapping, &excluded).is_some());
        mapping.condition = None;
        mapping.link = Some("email".to_owned());
        assert!(reads_excluded(&mapping, &excluded).is_some());
        mapping.link = None;
        assert_eq!(reads_excluded(&mapping, &excluded), None);
    }
}
