//! Fields that are left out of the mirror.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{RESOURCES, definition::Resource, keys::keys};

/// Fields that every sync needs: `id` and the times order the lists, `status` names an event, and
/// `organization_id` says where Clerk has an invitation.
const NEEDED: [&str; 5] = ["id", "created_at", "updated_at", "status", "organization_id"];

/// Key of excerpts of a user. Its value is an address, a number or a name.
const IDENTIFIER: &str = "identifier";

/// The fields whose values [`IDENTIFIER`] can have. Source: documented.
const IDENTIFIED_BY: [&str; 4] = ["email_addresses", "phone_numbers", "username", "web3_wallets"];

/// The keys and values of a JSON object, in its order.
type Pairs<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Names of fields that are not stored: in no resource that has them, and in no excerpt of such an
/// object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclusions(Vec<String>);

impl Exclusions {
    /// Sorts the names.
    pub fn new(names: &[String]) -> Self {
        let mut names = names.to_vec();
        names.sort();
        names.dedup();
        Self(names)
    }

    /// Returns the names, in order.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether a field or a key of an excerpt is left out.
    pub fn has(&self, key: &str) -> bool {
        let has = |name: &str| self.0.iter().any(|excluded| excluded == name);
        has(key) || (key == IDENTIFIER && IDENTIFIED_BY.into_iter().any(has))
    }

    /// Returns the names of the keys that are left out of excerpts.
    pub fn in_excerpts(&self) -> Vec<String> {
        let identifier = self.has(IDENTIFIER).then(|| IDENTIFIER.to_owned());
        self.0.iter().cloned().chain(identifier).collect()
    }

    /// Returns a document without the fields. What is no JSON object becomes `null`, because no
    /// fields can be found in it.
    pub fn cut<'d>(&self, resource: &Resource, document: &'d str) -> Cow<'d, str> {
        let Ok(pairs) = keys::<Pairs<'_>>(document) else {
            return Cow::Borrowed("null");
        };
        let kept = pairs.iter().filter_map(|(key, value)| {
            let value = value.get();
            let is_excerpt = resource.excerpts.iter().any(|excerpt| excerpt == key);
            let value = match (self.has(key), resource.link) {
                (true, Some((linked, part))) if linked == key => only(part, value)?.into(),
                (true, _) => return None,
                (false, _) if is_excerpt => self.cut_excerpt(value),
                (false, _) => Cow::Borrowed(value),
            };
            Some((key, value))
        });
        object(kept).into()
    }

    fn cut_excerpt<'d>(&self, excerpt: &'d str) -> Cow<'d, str> {
        match keys::<Pairs<'_>>(excerpt) {
            Ok(pairs) => {
                let kept = pairs.iter().filter(|(key, _)| !self.has(key));
                object(kept.map(|(key, value)| (key, value.get()))).into()
            }
            Err(_) => Cow::Borrowed(excerpt),
        }
    }
}

/// Returns an object with one part of another one; `None` if there is no such part.
fn only(part: &str, json: &str) -> Option<String> {
    let pairs = keys::<Pairs<'_>>(json).ok()?;
    let found = pairs.iter().filter(|(key, _)| key == part);
    Some(object(found.map(|(key, value)| (key, value.get()))))
}

fn object<'k, V: AsRef<str>>(pairs: impl Iterator<Item = (&'k Cow<'k, str>, V)>) -> String {
    let pairs = pairs.map(|(key, value)| format!("{}:{}", serde_json::Value::from(key.as_ref()), value.as_ref()));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

/// Returns the names of the fields that can be left out, in order.
pub fn excludable() -> Vec<&'static str> {
    let fields = RESOURCES.iter().flat_map(|resource| resource.fields);
    let mut names: Vec<&str> = fields.map(|field| field.name).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !NEEDED.contains(name));
    names
}

/// Whether every sync needs a field, so that it cannot be left out.
pub fn is_needed(field: &str) -> bool {
    NEEDED.contains(&field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{MEMBERSHIPS, USERS};

    #[track_caller]
    fn check(names: &[&str], resource: &Resource, document: &str, expected: &str) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(Exclusions::new(&names).cut(resource, document), expected, "{document}");
    }

    #[test]
    fn the_fields_are_cut_out_of_documents() {
        check(&["scim"], &USERS, r#"{"id":"u","scim":null}"#, r#"{"id":"u"}"#);
        let document = r#"{"id": "u", "private_metadata": {"a": 1}, "scim": [ 1 ], "x": {"scim": 2}}"#;
        check(
            &["private_metadata", "scim"],
            &USERS,
            document,
            r#"{"id":"u","x":{"scim": 2}}"#,
        );
        // However it is spelled, and however often it occurs.
        let document = r#"{"scim":1,"sc\u0069m":2,"Scim":3,"\u0000":4}"#;
        check(&["scim"], &USERS, document, r#"{"Scim":3,"\\u0000":4}"#);
        for odd in ["[{\"scim\":1}]", "\"scim\"", "7", "null"] {
            check(&["scim"], &USERS, odd, "null");
        }
    }

    #[test]
    fn the_fields_are_cut_out_of_excerpts_of_other_objects() {
        let document = r#"{"id":"m","private_metadata":1,"organization":{"id":"o","private_metadata":2,"public_metadata":{"private_metadata":3}},"public_user_data":{"user_id":"u","identifier":"a@x","first_name":"Ann"}}"#;
        check(
            &["private_metadata", "first_name"],
            &MEMBERSHIPS,
            document,
            r#"{"id":"m","organization":{"id":"o","public_metadata":{"private_metadata":3}},"public_user_data":{"user_id":"u","identifier":"a@x"}}"#,
        );
        for identifying in IDENTIFIED_BY {
            check(
                &[identifying],
                &MEMBERSHIPS,
                r#"{"public_user_data":{"user_id":"u","identifier":"a@x"},"identifier":"b@x"}"#,
                r#"{"public_user_data":{"user_id":"u"}}"#,
            );
        }
    }

    #[test]
    fn a_membership_keeps_the_id_of_its_user() {
        let check = |data: &str, expected: &str| {
            let with = |data: &str| format!(r#"{{"id":"m"{data}}}"#);
            check(&["public_user_data"], &MEMBERSHIPS, &with(data), &with(expected));
        };
        check(
            r#","public_user_data":{"user_id":"u","first_name":"Ann"}"#,
            r#","public_user_data":{"user_id":"u"}"#,
        );
        check(r#","public_user_data":null"#, "");
    }

    #[test]
    fn what_syncs_need_cannot_be_left_out() {
        let names = excludable();
        assert!(names.contains(&"private_metadata") && names.contains(&"public_user_data"));
        assert!(NEEDED.iter().all(|name| !names.contains(name)));
    }
}
