//! Fields that are left out of the mirror.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{RESOURCES, definition::Resource, keys::keys};

/// Fields that every sync needs: `id` and the times order the lists, `status` names an event, and
/// `organization_id` says where Clerk has an invitation.
const NEEDED: [&str; 5] = ["id", "created_at", "updated_at", "status", "organization_id"];

/// Other keys that have the value of a field, in excerpts of objects and in a user's accounts.
/// Source: documented.
const SYNONYMS: [(&str, &[&str]); 5] = [
    ("email_addresses", &["email_address", "identifier"]),
    ("phone_numbers", &["phone_number", "identifier"]),
    ("username", &["identifier"]),
    ("web3_wallets", &["web3_wallet", "identifier"]),
    ("image_url", &["avatar_url"]),
];

/// Keys whose values the application decides. Nothing is cut out of them.
const METADATA: [&str; 3] = ["public_metadata", "private_metadata", "unsafe_metadata"];

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

    /// Whether a field is left out.
    pub fn has(&self, field: &str) -> bool {
        self.0.iter().any(|excluded| excluded == field)
    }

    /// Whether a key of an excerpt is left out.
    fn has_in_excerpts(&self, key: &str) -> bool {
        let has_synonym = |(field, keys): &(&str, &[&str])| keys.contains(&key) && self.has(field);
        self.has(key) || SYNONYMS.iter().any(has_synonym)
    }

    /// Whether documents of a resource can have something to leave out.
    pub fn concern(&self, resource: &Resource) -> bool {
        let has_field = resource.fields.iter().any(|field| self.has(field.name));
        !self.0.is_empty() && (has_field || !resource.excerpts.is_empty())
    }

    /// Returns a document without the fields; borrowed if there is nothing to leave out. What is no
    /// JSON object becomes `null`, because no fields can be found in it.
    pub fn cut<'d>(&self, resource: &Resource, document: &'d str) -> Cow<'d, str> {
        if self.0.is_empty() {
            return Cow::Borrowed(document);
        }
        let Ok(pairs) = keys::<Pairs<'_>>(document) else {
            return Cow::Borrowed("null");
        };
        let cut = cut(&pairs, |key, value| match resource.link {
            Some((linked, part)) if linked == key && self.has(key) => only(part, value),
            _ if self.has(key) => Part::Removed,
            _ if resource.excerpts.contains(&key) => self.cut_excerpt(value),
            _ => Part::Kept,
        });
        cut.map_or(Cow::Borrowed(document), Cow::Owned)
    }

    /// Returns a document without the fields; `None` if it has none of them.
    pub fn remainder(&self, resource: &Resource, document: &str) -> Option<String> {
        match self.cut(resource, document) {
            Cow::Owned(cut) => Some(cut),
            Cow::Borrowed(_) => None,
        }
    }

    /// Cuts the fields out of an excerpt, a list of excerpts, or excerpts within these.
    fn cut_excerpt(&self, json: &str) -> Part {
        if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(json) {
            let parts: Vec<Part> = list.iter().map(|entry| self.cut_excerpt(entry.get())).collect();
            if parts.iter().all(|part| *part == Part::Kept) {
                return Part::Kept;
            }
            let entries = list.iter().zip(parts).map(|(entry, part)| match part {
                Part::Changed(json) => json,
                Part::Kept | Part::Removed => entry.get().to_owned(),
            });
            return Part::Changed(format!("[{}]", entries.collect::<Vec<_>>().join(",")));
        }
        let Ok(pairs) = keys::<Pairs<'_>>(json) else {
            return Part::Kept;
        };
        let cut = cut(&pairs, |key, value| match key {
            key if self.has_in_excerpts(key) => Part::Removed,
            key if METADATA.contains(&key) => Part::Kept,
            _ => self.cut_excerpt(value),
        });
        cut.map_or(Part::Kept, Part::Changed)
    }
}

/// What becomes of a value.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Kept,
    Removed,
    Changed(String),
}

/// Returns an object with what becomes of its values; `None` if it stays as it is.
fn cut(pairs: &Pairs<'_>, part: impl Fn(&str, &str) -> Part) -> Option<String> {
    let parts: Vec<Part> = pairs.iter().map(|(key, value)| part(key, value.get())).collect();
    if parts.iter().all(|part| *part == Part::Kept) {
        return None;
    }
    let kept = pairs.iter().zip(parts).filter_map(|((key, value), part)| {
        let value = match part {
            Part::Kept => value.get().to_owned(),
            Part::Changed(json) => json,
            Part::Removed => return None,
        };
        Some(format!("{}:{value}", serde_json::Value::from(key.as_ref())))
    });
    Some(format!("{{{}}}", kept.collect::<Vec<_>>().join(",")))
}

/// Leaves one part of an object.
fn only(part: &str, json: &str) -> Part {
    let Ok(pairs) = keys::<Pairs<'_>>(json) else {
        return Part::Removed;
    };
    let is_part = |key: &str| if key == part { Part::Kept } else { Part::Removed };
    cut(&pairs, |key, _| is_part(key)).map_or(Part::Kept, Part::Changed)
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
        for identifying in ["email_addresses", "phone_numbers", "username", "web3_wallets"] {
            check(
                &[identifying],
                &MEMBERSHIPS,
                r#"{"public_user_data":{"user_id":"u","identifier":"a@x"},"identifier":"b@x"}"#,
                r#"{"public_user_data":{"user_id":"u"},"identifier":"b@x"}"#,
            );
        }
        // The accounts of a user, and the memberships within a user.
        check(
            &["email_addresses", "first_name", "image_url"],
            &USERS,
            r#"{"external_accounts":[{"id":"a","email_address":"a@x","first_name":"Ann","avatar_url":"x","public_metadata":{"first_name":1}},7],
                "organization_memberships":[{"public_user_data":{"first_name":"Ann","last_name":"Lee"}}],"x":{"first_name":2}}"#,
            r#"{"external_accounts":[{"id":"a","public_metadata":{"first_name":1}},7],"organization_memberships":[{"public_user_data":{"last_name":"Lee"}}],"x":{"first_name":2}}"#,
        );
    }

    #[test]
    fn a_document_without_the_fields_stays_as_it_is() {
        let document = r#"{ "id": "u", "external_accounts": [ {"id": 1} ], "x": {"scim": 2} }"#;
        check(&["scim", "first_name"], &USERS, document, document);
        let document = r#"{ "public_user_data": {"user_id": "u"} }"#;
        check(&["public_user_data"], &MEMBERSHIPS, document, document);
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
