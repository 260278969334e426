//! Requests that create and change users.
//!
//! Parameters and their rules are documented. Guessed: the code of an error where Clerk names none, how long a lock lasts, and
//! that an absent `Clerk-API-Version` means the newest.

use serde_json::{Map, Value, json};

use crate::create;
use crate::errors::Failure;
use crate::facts::Kind;
use crate::fields::{Field, Fields, Type};
use crate::routes::{Ask, Route};
use crate::state::{State, Touch, edit};

/// How long a lock lasts that was asked for; at Clerk it is a setting of the instance.
pub(crate) const LOCK_SECONDS: i64 = 3600;

const METADATA: [&str; 3] = ["public_metadata", "private_metadata", "unsafe_metadata"];

const METADATA_FIELDS: [Field; 3] = [
    ("public_metadata", Type::Object),
    ("private_metadata", Type::Object),
    ("unsafe_metadata", Type::Object),
];

const UPDATE_FIELDS: [Field; 24] = [
    ("external_id", Type::Text),
    ("first_name", Type::Text),
    ("last_name", Type::Text),
    ("locale", Type::Text),
    ("primary_email_address_id", Type::Text),
    ("notify_primary_email_address_changed", Type::Flag),
    ("primary_phone_number_id", Type::Text),
    ("primary_web3_wallet_id", Type::Text),
    ("username", Type::Text),
    ("profile_image_id", Type::Text),
    ("password", Type::Text),
    ("password_digest", Type::Text),
    ("password_hasher", Type::Text),
    ("skip_password_checks", Type::Flag),
    ("sign_out_of_other_sessions", Type::Flag),
    ("totp_secret", Type::Text),
    ("backup_codes", Type::Texts),
    ("delete_self_enabled", Type::Flag),
    ("create_organization_enabled", Type::Flag),
    ("legal_accepted_at", Type::Time),
    ("skip_legal_checks", Type::Flag),
    ("create_organizations_limit", Type::Whole),
    ("created_at", Type::Time),
    ("bypass_client_trust", Type::Flag),
];

/// Does what is asked and returns whom it was done to.
pub(crate) fn apply(state: &State, ask: &Ask<'_>) -> Result<String, Failure> {
    let bans = if ask.quirks.bans_move_updated_at {
        Touch::Updated
    } else {
        Touch::Silent
    };
    match ask.route {
        Route::Create => create::create(state, ask.body),
        Route::Update(id) => update(state, id, ask),
        Route::MergeMetadata(id) => metadata(state, id, ask.body, merge),
        Route::ReplaceMetadata(id) => metadata(state, id, ask.body, |old, new| *old = new.clone()),
        Route::Ban(id) => change(state, id, bans, |user| set(user, "banned", true)),
        Route::Unban(id) => change(state, id, bans, |user| set(user, "banned", false)),
        Route::Lock(id) => change(state, id, bans, |user| {
            set(user, "locked", true);
            set(user, "lockout_expires_in_seconds", LOCK_SECONDS);
        }),
        Route::Unlock(id) => change(state, id, bans, |user| {
            set(user, "locked", false);
            set(user, "lockout_expires_in_seconds", Value::Null);
        }),
        _ => Err(Failure::no_path(ask.path)),
    }
}

type User = Map<String, Value>;

fn set(user: &mut User, key: &str, value: impl Into<Value>) {
    user.insert(key.to_owned(), value.into());
}

fn change(state: &State, id: &str, touch: Touch, change: impl FnOnce(&mut User)) -> Result<String, Failure> {
    let mut store = state.write();
    let entry = store.get(id).ok_or_else(|| Failure::no_user(id))?;
    if !entry.value(0).is_some_and(|value| value.is_object()) {
        return Err(Failure::not_editable(id));
    }
    edit(&mut store, id, touch, |document| {
        if let Some(user) = document.as_object_mut() {
            change(user);
        }
    });
    Ok(id.to_owned())
}

fn metadata(state: &State, id: &str, body: &[u8], write: fn(&mut Value, &Value)) -> Result<String, Failure> {
    let fields = Fields::read(body, &METADATA_FIELDS)?;
    change(state, id, Touch::Updated, |user| {
        for name in METADATA {
            if let Some(new) = fields.get(name) {
                write(user.entry(name).or_insert(Value::Null), new);
            }
        }
    })
}

/// Deep, and null removes at any level (documented).
fn merge(old: &mut Value, new: &Value) {
    let Value::Object(new) = new else {
        *old = new.clone();
        return;
    };
    if !old.is_object() {
        *old = json!({});
    }
    let Some(old) = old.as_object_mut() else { return };
    for (key, value) in new {
        if value.is_null() {
            old.remove(key);
        } else {
            merge(old.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn update(state: &State, id: &str, ask: &Ask<'_>) -> Result<String, Failure> {
    // From 2026-05-12 on this endpoint refuses metadata (documented); that it replaced them before is a guess.
    let mut known = UPDATE_FIELDS.to_vec();
    if matches!(ask.version, Some("2025-04-10" | "2025-11-10")) {
        known.extend(METADATA_FIELDS);
    }
    let fields = Fields::read(ask.body, &known)?;
    create::check_password(&fields)?;
    {
        let store = state.read();
        let entry = store.get(id).ok_or_else(|| Failure::no_user(id))?;
        for (name, kind) in [("username", Kind::Username), ("external_id", Kind::ExternalId)] {
            if fields
                .text(name)
                .is_some_and(|value| !value.is_empty() && store.is_taken(kind, value, id))
            {
                return Err(Failure::taken(name));
            }
        }
        let user = entry.value(0).ok_or_else(|| Failure::not_editable(id))?;
        for (name, list) in [
            ("primary_email_address_id", "email_addresses"),
            ("primary_phone_number_id", "phone_numbers"),
            ("primary_web3_wallet_id", "web3_wallets"),
        ] {
            if let Some(primary) = fields.text(name) {
                check_primary(&user, name, list, primary)?;
            }
        }
    }
    change(state, id, Touch::Updated, |user| write(user, &fields))
}

/// "It must be verified, and present on the current user" (documented).
fn check_primary(user: &Value, name: &str, list: &str, primary: &str) -> Result<(), Failure> {
    let addresses = user
        .get(list)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let Some(address) = addresses.iter().find(|address| address["id"] == primary) else {
        return Err(Failure::invalid(name, format!("{name} must be present on the user.")));
    };
    if address["verification"]["status"] != "verified" {
        return Err(Failure::invalid(name, format!("{name} must be verified.")));
    }
    Ok(())
}

fn write(user: &mut User, fields: &Fields) {
    for name in [
        "external_id",
        "first_name",
        "last_name",
        "locale",
        "primary_email_address_id",
        "primary_phone_number_id",
        "primary_web3_wallet_id",
        "create_organizations_limit",
        "public_metadata",
        "private_metadata",
        "unsafe_metadata",
    ] {
        if let Some(value) = fields.get(name) {
            set(user, name, value.clone());
        }
    }
    for name in [
        "delete_self_enabled",
        "create_organization_enabled",
        "bypass_client_trust",
    ] {
        if fields.get(name).is_some_and(Value::is_boolean) {
            set(user, name, fields.flag(name));
        }
    }
    if let Some(username) = fields.get("username") {
        // The blank string removes it, as null does (documented).
        set(
            user,
            "username",
            if username == "" { Value::Null } else { username.clone() },
        );
    }
    if let Some(time) = fields.time("created_at") {
        set(user, "created_at", time);
    }
    if fields.get("legal_accepted_at").is_some() {
        set(user, "legal_accepted_at", fields.time("legal_accepted_at"));
    }
    if fields.text("password").is_some() || fields.text("password_digest").is_some() {
        set(user, "password_enabled", true);
        set(user, "password_last_updated_at", crate::state::now());
    }
    if fields.text("totp_secret").is_some() {
        set(user, "totp_enabled", true);
        set(user, "two_factor_enabled", true);
    }
    if fields.get("backup_codes").is_some() {
        set(user, "backup_code_enabled", true);
    }
}
