//! Requests that change users.
//!
//! Parameters and their rules are documented. Guessed: the codes of errors for which Clerk names
//! none, how long a lock lasts, and that an absent `Clerk-API-Version` means the newest.

use serde_json::{Map, Value};

use super::resource::{EXTERNAL_ID, USERNAME};
use super::rules::{LOCK_SECONDS, check_password};
use crate::clock::now;
use crate::errors::Failure;
use crate::faults::Quirks;
use crate::kind::Kind;
use crate::metadata::merge;
use crate::parameters::{Parameter, ParameterType, Parameters};
use crate::state::State;
use crate::store::edit::{Touch, edit_object};

const METADATA: [Parameter; 3] = [
    ("public_metadata", ParameterType::Object),
    ("private_metadata", ParameterType::Object),
    ("unsafe_metadata", ParameterType::Object),
];

const PARAMETERS: [Parameter; 24] = [
    ("external_id", ParameterType::Text),
    ("first_name", ParameterType::Text),
    ("last_name", ParameterType::Text),
    ("locale", ParameterType::Text),
    ("primary_email_address_id", ParameterType::Text),
    ("notify_primary_email_address_changed", ParameterType::Flag),
    ("primary_phone_number_id", ParameterType::Text),
    ("primary_web3_wallet_id", ParameterType::Text),
    ("username", ParameterType::Text),
    ("profile_image_id", ParameterType::Text),
    ("password", ParameterType::Text),
    ("password_digest", ParameterType::Text),
    ("password_hasher", ParameterType::Text),
    ("skip_password_checks", ParameterType::Flag),
    ("sign_out_of_other_sessions", ParameterType::Flag),
    ("totp_secret", ParameterType::Text),
    ("backup_codes", ParameterType::Texts),
    ("delete_self_enabled", ParameterType::Flag),
    ("create_organization_enabled", ParameterType::Flag),
    ("legal_accepted_at", ParameterType::Time),
    ("skip_legal_checks", ParameterType::Flag),
    ("create_organizations_limit", ParameterType::Integer),
    ("created_at", ParameterType::Time),
    ("bypass_client_trust", ParameterType::Flag),
];

/// A change of a ban or a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restriction {
    Ban,
    Unban,
    Lock,
    Unlock,
}

/// Bans, unbans, locks or unlocks a user.
pub(crate) fn restrict(state: &State, id: &str, restriction: Restriction, quirks: &Quirks) -> Result<(), Failure> {
    let touch = if quirks.bans_move_updated_at {
        Touch::UpdatedAt
    } else {
        Touch::Nothing
    };
    change(state, id, touch, |user| match restriction {
        Restriction::Ban => set(user, "banned", true),
        Restriction::Unban => set(user, "banned", false),
        Restriction::Lock => {
            set(user, "locked", true);
            set(user, "lockout_expires_in_seconds", LOCK_SECONDS);
        }
        Restriction::Unlock => {
            set(user, "locked", false);
            set(user, "lockout_expires_in_seconds", Value::Null);
        }
    })
}

/// Merges metadata into that of a user.
pub(crate) fn merge_metadata(state: &State, id: &str, body: &[u8]) -> Result<(), Failure> {
    write_metadata(state, id, body, merge)
}

/// Replaces the metadata of a user.
pub(crate) fn replace_metadata(state: &State, id: &str, body: &[u8]) -> Result<(), Failure> {
    write_metadata(state, id, body, |old, new| *old = new.clone())
}

type Document = Map<String, Value>;

fn set(user: &mut Document, key: &str, value: impl Into<Value>) {
    user.insert(key.to_owned(), value.into());
}

fn change(state: &State, id: &str, touch: Touch, change: impl FnOnce(&mut Document)) -> Result<(), Failure> {
    let mut stores = state.write();
    let missing = || Failure::no_object("user", id);
    edit_object(stores.of_mut(Kind::Users), id, touch, missing, change)
}

fn write_metadata(state: &State, id: &str, body: &[u8], write: fn(&mut Value, &Value)) -> Result<(), Failure> {
    let parameters = Parameters::read(body, &METADATA)?;
    change(state, id, Touch::UpdatedAt, |user| {
        for (name, _) in METADATA {
            if let Some(new) = parameters.get(name) {
                write(user.entry(name).or_insert(Value::Null), new);
            }
        }
    })
}

/// Updates a user.
pub(crate) fn update(state: &State, id: &str, body: &[u8], version: Option<&str>) -> Result<(), Failure> {
    // From 2026-05-12 on this endpoint refuses metadata (documented). That it replaced them before
    // is a guess.
    let mut accepted = PARAMETERS.to_vec();
    if matches!(version, Some("2025-04-10" | "2025-11-10")) {
        accepted.extend(METADATA);
    }
    let parameters = Parameters::read(body, &accepted)?;
    check_password(&parameters)?;
    {
        let stores = state.read();
        let store = stores.of(Kind::Users);
        let entry = store.get(id).ok_or_else(|| Failure::no_object("user", id))?;
        for (name, kind) in [("username", &USERNAME), ("external_id", &EXTERNAL_ID)] {
            if parameters
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
            if let Some(primary) = parameters.text(name) {
                check_primary(&user, name, list, primary)?;
            }
        }
    }
    change(state, id, Touch::UpdatedAt, |user| write(user, &parameters))
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

fn write(user: &mut Document, parameters: &Parameters) {
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
        if let Some(value) = parameters.get(name) {
            set(user, name, value.clone());
        }
    }
    for name in [
        "delete_self_enabled",
        "create_organization_enabled",
        "bypass_client_trust",
    ] {
        if parameters.get(name).is_some_and(Value::is_boolean) {
            set(user, name, parameters.flag(name));
        }
    }
    if let Some(username) = parameters.get("username") {
        // An empty string removes it, as null does (documented).
        set(
            user,
            "username",
            if username == "" { Value::Null } else { username.clone() },
        );
    }
    if let Some(time) = parameters.time("created_at") {
        set(user, "created_at", time);
    }
    if parameters.get("legal_accepted_at").is_some() {
        set(user, "legal_accepted_at", parameters.time("legal_accepted_at"));
    }
    if parameters.text("password").is_some() || parameters.text("password_digest").is_some() {
        set(user, "password_enabled", true);
        set(user, "password_last_updated_at", now());
    }
    if parameters.text("totp_secret").is_some() {
        set(user, "totp_enabled", true);
        set(user, "two_factor_enabled", true);
    }
    if parameters.get("backup_codes").is_some() {
        set(user, "backup_code_enabled", true);
    }
}
