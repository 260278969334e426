//! Changes of users at Clerk.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::fixture::Fixture;

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Gives a user another first name, with `at` as its `updated_at` in Unix milliseconds.
pub fn rename(fixture: &Fixture, id: &str, name: &str, at: i64) {
    let renamed = fixture.sim.update(id, |user| {
        user["first_name"] = name.into();
        user["updated_at"] = at.into();
    });
    assert!(renamed, "{id} is gone");
}

/// Adds a copy of the first user under another id, without addresses.
pub fn import(fixture: &Fixture, id: &str, created_at: i64, updated_at: i64) {
    let mut user = fixture.sim.document(&fixture.sim.user_ids()[0]).unwrap();
    user["id"] = id.into();
    user["created_at"] = created_at.into();
    user["updated_at"] = updated_at.into();
    user["email_addresses"] = Value::Array(Vec::new());
    user["primary_email_address_id"] = Value::Null;
    fixture.sim.insert(user);
}

/// Makes this the only address of a user.
pub fn set_address(fixture: &Fixture, id: &str, address: &str) {
    let changed = fixture.sim.update(id, |user| {
        let of_address = format!("idn_{}", address.replace(['@', '.'], "_"));
        user["email_addresses"] = json!([{
            "id": of_address, "object": "email_address", "email_address": address, "reserved": false,
            "verification": {"status": "verified", "strategy": "admin"}, "linked_to": [],
        }]);
        user["primary_email_address_id"] = of_address.into();
    });
    assert!(changed, "{id}");
}

impl Fixture {
    /// Gives a user another first name, with Clerk's own `updated_at`.
    pub fn rename(&self, id: &str, name: &str) {
        assert!(self.sim.update(id, |user| user["first_name"] = name.into()));
    }
}
