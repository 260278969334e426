//! The derived columns of users: primary address, primary number, and names.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{definition::DocumentKeys, json::string, keys::keys, value::FieldValue};

/// Returns the values of the derived columns, in their order.
pub(super) fn derive(document: &DocumentKeys<'_, '_>) -> Vec<FieldValue<'static>> {
    let find = |list, key, id| primary(document.json(list)?, key, document.text(id)?);
    let email = find("email_addresses", "email_address", "primary_email_address_id");
    let phone = find("phone_numbers", "phone_number", "primary_phone_number_id");
    let name: Vec<&str> = ["first_name", "last_name"]
        .into_iter()
        .filter_map(|field| document.text(field))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let full_name = Some(name.join(" ")).filter(|name| !name.is_empty());
    let display_name = full_name
        .as_deref()
        .or_else(|| document.text("username").map(str::trim).filter(|name| !name.is_empty()))
        .or_else(|| Some(email.as_ref()?.value.rsplit_once('@')?.0).filter(|name| !name.is_empty()))
        .or_else(|| Some(phone.as_ref()?.value.as_str()));
    let display_name = FieldValue::of_text(display_name.map(str::to_owned));
    let ([email, email_verified], [phone, phone_verified]) = (columns(email), columns(phone));
    vec![
        email,
        email_verified,
        phone,
        phone_verified,
        FieldValue::of_text(full_name),
        display_name,
    ]
}

/// The entry that the document refers to as the primary one.
struct Primary {
    value: String,
    is_verified: bool,
}

/// The value, and whether it is verified.
fn columns(primary: Option<Primary>) -> [FieldValue<'static>; 2] {
    match primary {
        Some(Primary { value, is_verified }) => [FieldValue::Text(value.into()), FieldValue::Bool(is_verified)],
        None => [FieldValue::Null, FieldValue::Null],
    }
}

/// Returns the first entry of the list with this id and a value under `key`.
fn primary(list: &str, key: &str, primary_id: &str) -> Option<Primary> {
    // Entries are read one by one: one of an unexpected form must not hide the primary one.
    let entries: Vec<&RawValue> = serde_json::from_str(list).ok()?;
    entries.into_iter().find_map(|entry| {
        let entry = ContactEntry::read(entry.get())?;
        if entry.text("id")? != primary_id {
            return None;
        }
        Some(Primary {
            value: entry.text(key)?.into_owned(),
            is_verified: entry.status().as_deref() == Some("verified"),
        })
    })
}

/// The values of an entry that are needed, not decoded. If a key occurs twice, the last value
/// counts, as in `jsonb`.
#[derive(Default)]
struct ContactEntry<'a>([Option<&'a RawValue>; ENTRY_KEYS.len()]);

const ENTRY_KEYS: [&str; 5] = ["id", "email_address", "phone_number", "verification", "status"];

impl<'a> Extend<(Cow<'a, str>, &'a RawValue)> for ContactEntry<'a> {
    fn extend<I: IntoIterator<Item = (Cow<'a, str>, &'a RawValue)>>(&mut self, keys: I) {
        for (key, value) in keys {
            if let Some(at) = ENTRY_KEYS.iter().position(|known| *known == key) {
                self.0[at] = Some(value);
            }
        }
    }
}

impl<'a> ContactEntry<'a> {
    /// Reads an object; `None` if it is something else.
    fn read(json: &'a str) -> Option<Self> {
        keys(json).ok()
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let at = ENTRY_KEYS.iter().position(|known| *known == name)?;
        self.0[at].map(RawValue::get)
    }

    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        string(self.get(name)?)
    }

    /// Returns `verification.status`. Clerk leaves out or nulls the whole object in some documents.
    /// Source: observed.
    fn status(&self) -> Option<Cow<'a, str>> {
        ContactEntry::read(self.get("verification")?)?.text("status")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{USERS, decode};

    /// The derived columns of a user whose primary entry is `named`, after some other entries.
    fn derived(named: &str) -> Vec<FieldValue<'static>> {
        let document = format!(
            r#"{{"id":"u","created_at":1,"primary_email_address_id":"b","primary_phone_number_id":"b",
            "email_addresses":[{{}},7,{{"id":"a","email_address":"a@x","verification":{{"status":"verified"}}}},{named}],
            "phone_numbers":[null,"b",{{"id":"a","phone_number":"+1"}},{named}]}}"#
        );
        decode(&USERS, &document).unwrap().derived
    }

    #[track_caller]
    fn check(named: &str, email: Option<(&str, bool)>, phone: Option<(&str, bool)>) {
        let pair = |contact: Option<(&str, bool)>| {
            columns(contact.map(|(value, is_verified)| Primary {
                value: value.to_owned(),
                is_verified,
            }))
        };
        let derived = derived(named);
        assert_eq!(derived[..2], pair(email), "{named}");
        assert_eq!(derived[2..4], pair(phone), "{named}");
    }

    #[test]
    fn the_primary_entry_is_found_whatever_else_it_holds() {
        let email = |rest: &str, is_verified| {
            let named = format!(r#"{{"id":"b","email_address":"b@x"{rest}}}"#);
            check(&named, Some(("b@x", is_verified)), None);
            let named = format!(r#"{{"id":"b","phone_number":"+49"{rest}}}"#);
            check(&named, None, Some(("+49", is_verified)));
        };
        email("", false);
        email(r#","verification":{"status":"verified"}"#, true);
        email(r#","verification":{"status":"unverified","status":"verified"}"#, true);
        email(
            r#","verification":null,"verification":{"status":"verified","x":"\ud800"}"#,
            true,
        );
        for odd in [
            "null",
            "{}",
            r#""verified""#,
            r#"["verified"]"#,
            "true",
            r#"{"status":42}"#,
            r#"{"status":null}"#,
            r#"{"status":["verified"]}"#,
            r#"{"status":"expired"}"#,
            r#"{"status":"verified","status":"failed"}"#,
        ] {
            email(&format!(r#","verification":{odd}"#), false);
        }
        let both = r#"{"id":"b","email_address":"b@x","phone_number":null,"verification":{"status":"verified"}}"#;
        check(both, Some(("b@x", true)), None);
        let both = r#"{"phone_number":"+49","email_address":7,"id":"b"}"#;
        check(both, None, Some(("+49", false)));
        let twice = r#"{"id":"a","id":"b","email_address":null,"email_address":"b@x"}"#;
        check(twice, Some(("b@x", false)), None);
        // Another entry of the list that cannot be stored.
        let odd = r#"{"id":"b","email_address":"b@x"},{"id":"c","email_address":"\u0000"}"#;
        check(odd, Some(("b@x", false)), None);
    }

    #[test]
    fn an_entry_without_a_value_is_none() {
        for named in [
            r#"{"id":"b"}"#,
            r#"{"id":"b","email_address":null}"#,
            r#"{"id":"b","email_address":["b@x"]}"#,
            r#"{"id":"b","email_address":"\u0000"}"#,
            r#"{"id":["b"],"email_address":"b@x"}"#,
            r#"{"id":"c","email_address":"b@x"}"#,
            r#"["b","b@x"]"#,
        ] {
            check(named, None, None);
        }
    }

    #[test]
    fn the_full_name_is_what_there_is_of_it() {
        let check = |fields: &str, expected: Option<&str>| {
            let document = format!(r#"{{"id":"u","created_at":1{fields}}}"#);
            let expected = expected.map_or(FieldValue::Null, |name| FieldValue::Text(name.to_owned().into()));
            assert_eq!(decode(&USERS, &document).unwrap().derived[4], expected, "{fields}");
        };
        check(r#","first_name":" Ann ","last_name":"""#, Some("Ann"));
        check(r#","first_name":"Ann","last_name":"Lee""#, Some("Ann Lee"));
        check(r#","first_name":7,"last_name":null"#, None);
    }

    #[test]
    fn the_display_name_is_the_first_of_full_name_username_address_and_number() {
        const EMAIL: &str =
            r#","primary_email_address_id":"e","email_addresses":[{"id":"e","email_address":"ann.lee@x.example"}]"#;
        const PHONE: &str = r#","primary_phone_number_id":"p","phone_numbers":[{"id":"p","phone_number":"+49"}]"#;
        let check = |fields: &[&str], expected: Option<&str>| {
            let document = format!(r#"{{"id":"u","created_at":1{}}}"#, fields.concat());
            let expected = FieldValue::of_text(expected.map(str::to_owned));
            assert_eq!(decode(&USERS, &document).unwrap().derived[5], expected, "{fields:?}");
        };
        let (name, username) = (r#","last_name":"Lee""#, r#","username":" annie ""#);
        check(&[name, username, EMAIL, PHONE], Some("Lee"));
        check(&[username, EMAIL, PHONE], Some("annie"));
        check(&[r#","username":" ","first_name":"""#, EMAIL, PHONE], Some("ann.lee"));
        check(&[PHONE], Some("+49"));
        let odd = |address| EMAIL.replace("ann.lee@x.example", address);
        check(&[&odd(r#"\"a@b\"@x.example"#)], Some(r#""a@b""#));
        check(&[&odd("@x.example")], None);
        check(&[&odd("ann")], None);
        check(&[], None);
    }
}
