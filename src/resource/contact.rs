//! The columns that are derived from a document: which address and number are the primary ones, and the full name.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{Derived, User, Value, decode::string, keys::keys};

/// The lists that hold a user's addresses and numbers, as they came: one that cannot be stored as it is still names the primary one.
#[derive(Default, Clone, Copy)]
pub(super) struct Lists<'a> {
    pub(super) email_addresses: Option<&'a RawValue>,
    pub(super) phone_numbers: Option<&'a RawValue>,
}

/// The entry that the document names as the primary one.
struct Primary {
    value: String,
    is_verified: bool,
}

/// What the mirror offers besides Clerk's fields.
pub(super) fn derive(user: &User<'_>, lists: Lists<'_>) -> Derived {
    let find = |list: Option<&RawValue>, key, id| match (list, user.get(id)) {
        (Some(list), Some(Value::Text(id))) => primary(list, key, id),
        _ => None,
    };
    let email = find(lists.email_addresses, "email_address", "primary_email_address_id");
    let phone = find(lists.phone_numbers, "phone_number", "primary_phone_number_id");
    let name: Vec<&str> = ["first_name", "last_name"]
        .into_iter()
        .filter_map(|field| match user.get(field) {
            Some(Value::Text(name)) => Some(name.trim()).filter(|name| !name.is_empty()),
            _ => None,
        })
        .collect();
    Derived {
        primary_email_verified: email.as_ref().map(|email| email.is_verified),
        primary_email: email.map(|email| email.value),
        primary_phone_verified: phone.as_ref().map(|phone| phone.is_verified),
        primary_phone: phone.map(|phone| phone.value),
        full_name: (!name.is_empty()).then(|| name.join(" ")),
    }
}

/// The first entry of the list with this id and a value under `key`.
fn primary(list: &RawValue, key: &str, primary_id: &str) -> Option<Primary> {
    // Entries are read one by one: an odd one must not hide the primary one.
    let entries: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    entries.into_iter().find_map(|entry| {
        let entry = Entry::read(entry.get())?;
        if entry.text("id")? != primary_id {
            return None;
        }
        Some(Primary {
            value: entry.text(key)?.into_owned(),
            is_verified: entry.status().as_deref() == Some("verified"),
        })
    })
}

/// The values of an object that matter here, unread. Of a key that occurs twice the last value counts, as in `jsonb`.
#[derive(Default)]
struct Entry<'a>([Option<&'a RawValue>; ENTRY.len()]);

const ENTRY: [&str; 5] = ["id", "email_address", "phone_number", "verification", "status"];

impl<'a> Extend<(Cow<'a, str>, &'a RawValue)> for Entry<'a> {
    fn extend<I: IntoIterator<Item = (Cow<'a, str>, &'a RawValue)>>(&mut self, keys: I) {
        for (key, value) in keys {
            if let Some(at) = ENTRY.iter().position(|known| *known == key) {
                self.0[at] = Some(value);
            }
        }
    }
}

impl<'a> Entry<'a> {
    /// `None` if it is not an object.
    fn read(json: &'a str) -> Option<Self> {
        keys(json).ok()
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let at = ENTRY.iter().position(|known| *known == name)?;
        self.0[at].map(RawValue::get)
    }

    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        string(self.get(name)?)
    }

    /// `verification.status`; Clerk leaves out or nulls the whole object in some documents. Source: observed.
    fn status(&self) -> Option<Cow<'a, str>> {
        Entry::read(self.get("verification")?)?.text("status")
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    /// A user whose primary entry is `named`, after some that are not.
    fn derived(named: &str) -> Derived {
        let document = format!(
            r#"{{"id":"u","created_at":1,"primary_email_address_id":"b","primary_phone_number_id":"b",
            "email_addresses":[{{}},7,{{"id":"a","email_address":"a@x","verification":{{"status":"verified"}}}},{named}],
            "phone_numbers":[null,"b",{{"id":"a","phone_number":"+1"}},{named}]}}"#
        );
        decode(&document).unwrap().derived
    }

    #[track_caller]
    fn check(named: &str, email: Option<(&str, bool)>, phone: Option<(&str, bool)>) {
        let derived = derived(named);
        let email = email.map(|(value, is_verified)| (value.to_owned(), is_verified));
        let phone = phone.map(|(value, is_verified)| (value.to_owned(), is_verified));
        assert_eq!(
            derived.primary_email.zip(derived.primary_email_verified),
            email,
            "{named}"
        );
        assert_eq!(
            derived.primary_phone.zip(derived.primary_phone_verified),
            phone,
            "{named}"
        );
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
        let name = |fields: &str| {
            let document = format!(r#"{{"id":"u","created_at":1{fields}}}"#);
            decode(&document).unwrap().derived.full_name
        };
        assert_eq!(name(r#","first_name":" Ann ","last_name":"""#).as_deref(), Some("Ann"));
        assert_eq!(
            name(r#","first_name":"Ann","last_name":"Lee""#).as_deref(),
            Some("Ann Lee")
        );
        assert_eq!(name(r#","first_name":7,"last_name":null"#), None);
    }
}
