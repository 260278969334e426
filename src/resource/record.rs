//! A decoded object, and what a newer document changes of it.

use std::{borrow::Cow, collections::BTreeSet};

use super::{
    definition::{ID, Moves, Resource},
    json,
    value::FieldValue,
};

/// A decoded object. Borrows from the bytes of the page that it came on.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The kind of object.
    pub resource: &'static Resource,
    /// Clerk's id.
    pub id: Cow<'a, str>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// A value for each of the resource's fields, in their order.
    pub values: Vec<FieldValue<'a>>,
    /// Names of the fields that are [`FieldValue::Unexpected`].
    pub unexpected: Vec<&'static str>,
    /// Keys that the resource has no field for, with their JSON texts as far as `jsonb` can hold
    /// them.
    pub extra: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// A value for each of the resource's derived columns, in their order.
    pub derived: Vec<FieldValue<'static>>,
    /// The document with strings in place of what `jsonb` cannot hold; `None` if it can hold all of
    /// it.
    pub storable: Option<String>,
}

/// What a newer document means for a row whose digest differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing worth a write: only a countdown went on.
    Same,
    /// Worth a write, but nobody changed the object: another spelling, `null` for a missing key, or
    /// a field that moves by itself.
    Refresh,
    /// The object changed. The names of the fields: known ones first, in the table's order, then
    /// unknown keys.
    Update(Vec<String>),
}

impl<'a> Record<'a> {
    /// Returns the value of a field.
    pub fn get(&self, name: &str) -> Option<&FieldValue<'a>> {
        self.resource.position(name, ID).map(|at| &self.values[at])
    }

    /// Returns the text of a field or of a derived column.
    pub fn text(&self, column: &str) -> Option<&str> {
        let derived = self.resource.derived.columns.iter().zip(&self.derived);
        let of_column = |(_, value)| value;
        let value = match self.get(column) {
            Some(value) => value,
            None => derived
                .filter(|(derived, _)| derived.name == column)
                .map(of_column)
                .next()?,
        };
        match value {
            FieldValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the names of the known fields that the document does not have.
    pub fn absent(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.resource
            .fields
            .iter()
            .zip(&self.values)
            .filter(|(_, value)| matches!(value, FieldValue::Absent))
            .map(|(field, _)| field.name)
    }

    /// Returns what has no column and what does not fit its column, as one JSON object; `None` if
    /// there is nothing.
    pub fn extra_object(&self) -> Option<String> {
        let extra = self.extra.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        let misfits = self.unexpected.iter().filter_map(|&name| match self.get(name)? {
            FieldValue::Unexpected(json) => Some((name, json.as_ref())),
            _ => None,
        });
        let pairs: Vec<String> = extra
            .chain(misfits)
            .map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key)))
            .collect();
        (!pairs.is_empty()).then(|| format!("{{{}}}", pairs.join(",")))
    }

    /// Returns what `new` changes of `self`. Both are of the same resource.
    pub fn change(&self, new: &Record<'_>) -> Change {
        let mut changed = Vec::new();
        let mut moved = false;
        let mut respelled = true;
        for ((field, old), new) in self.resource.fields.iter().zip(&self.values).zip(&new.values) {
            if old.same(new) {
                continue;
            }
            match (field.moves, old, new) {
                (Moves::CountsDown, FieldValue::Int(old), FieldValue::Int(new)) if new < old => respelled = false,
                (Moves::CountsDown | Moves::ByItself, ..) => moved = true,
                (Moves::No, ..) => changed.push(field.name.to_owned()),
            }
        }
        for key in extra_keys(self, new) {
            let (old, new) = (self.extra(key), new.extra(key));
            let same = match (old, new) {
                (Some(old), Some(new)) => json::same(old, new),
                (one, other) => one.or(other).is_none_or(|value| value == "null"),
            };
            if !same {
                changed.push(key.to_owned());
            }
        }
        if !changed.is_empty() {
            Change::Update(changed)
        } else if moved || respelled {
            Change::Refresh
        } else {
            Change::Same
        }
    }

    pub(super) fn extra(&self, key: &str) -> Option<&str> {
        self.extra
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_ref())
    }
}

fn extra_keys<'k>(old: &'k Record<'_>, new: &'k Record<'_>) -> BTreeSet<&'k str> {
    old.extra
        .iter()
        .chain(&new.extra)
        .map(|(key, _)| key.as_ref())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{USERS, decode};

    fn check(old: &str, new: &str, expected: Change) {
        let with = |rest: &str| format!(r#"{{"id":"user_1","created_at":1700000000000{rest}}}"#);
        let (old, new) = (with(old), with(new));
        assert_eq!(
            decode(&USERS, &old).unwrap().change(&decode(&USERS, &new).unwrap()),
            expected,
            "{old} then {new}"
        );
    }

    fn update(fields: &[&str]) -> Change {
        Change::Update(fields.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_change_names_its_fields() {
        check(
            r#","first_name":"A","public_metadata":{"a":1},"z":1"#,
            r#","first_name":"B","public_metadata":{"a":2},"z":2"#,
            update(&["first_name", "public_metadata", "z"]),
        );
        check("", r#","banned":true"#, update(&["banned"]));
        check(r#","last_name":"""#, r#","last_name":null"#, update(&["last_name"]));
        check(r#","agent_policy":{}"#, "", update(&["agent_policy"]));
    }

    #[test]
    fn another_spelling_is_stored_but_is_no_change() {
        check(r#","last_name":null"#, "", Change::Refresh);
        check("", r#","scim":null,"brand_new":null"#, Change::Refresh);
        check(
            r#","public_metadata":{"a":1,"b":2}"#,
            r#","public_metadata":{"b":2,"a":1}"#,
            Change::Refresh,
        );
    }

    #[test]
    fn what_moves_by_itself_is_no_change() {
        let attempts = |n| format!(r#","verification_attempts_remaining":{n}"#);
        let lockout = |n| format!(r#","lockout_expires_in_seconds":{n}"#);
        check(&attempts("10"), &attempts("9"), Change::Refresh);
        check(&lockout("60"), &lockout("59"), Change::Same);
        check(&lockout("60"), &lockout("3600"), Change::Refresh);
        check(&lockout("60"), &lockout("null"), Change::Refresh);
        check(
            &(lockout("60") + r#","locked":true"#),
            &(lockout("59") + r#","locked":false"#),
            update(&["locked"]),
        );
    }
}
