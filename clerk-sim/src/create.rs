//! `POST /v1/users`.

use serde_json::{Value, json};

use crate::accounts::verified;
use crate::document::Entry;
use crate::errors::Failure;
use crate::facts::Kind;
use crate::fields::{Field, Fields, Type};
use crate::ids::id;
use crate::state::{State, now};
use crate::write::LOCK_SECONDS;

const FIELDS: [Field; 30] = [
    ("external_id", Type::Text),
    ("first_name", Type::Text),
    ("last_name", Type::Text),
    ("locale", Type::Text),
    ("email_address", Type::Texts),
    ("email_address_identification_status", Type::Texts),
    ("phone_number", Type::Texts),
    ("phone_number_identification_status", Type::Texts),
    ("web3_wallet", Type::Texts),
    ("username", Type::Text),
    ("password", Type::Text),
    ("password_digest", Type::Text),
    ("password_hasher", Type::Text),
    ("skip_password_checks", Type::Flag),
    ("skip_password_requirement", Type::Flag),
    ("totp_secret", Type::Text),
    ("backup_codes", Type::Texts),
    ("public_metadata", Type::Object),
    ("private_metadata", Type::Object),
    ("unsafe_metadata", Type::Object),
    ("delete_self_enabled", Type::Flag),
    ("legal_accepted_at", Type::Time),
    ("skip_legal_checks", Type::Flag),
    ("skip_user_requirement", Type::Flag),
    ("create_organization_enabled", Type::Flag),
    ("create_organizations_limit", Type::Whole),
    ("created_at", Type::Time),
    ("bypass_client_trust", Type::Flag),
    ("banned", Type::Flag),
    ("locked", Type::Flag),
];

/// The kinds of addresses a user can be created with.
const ADDRESSES: [(&str, Kind); 3] = [
    ("email_address", Kind::Email),
    ("phone_number", Kind::Phone),
    ("web3_wallet", Kind::Wallet),
];

/// "Must be at least 8 characters long" (documented); lists of hacked passwords are not consulted.
pub(crate) fn check_password(fields: &Fields) -> Result<(), Failure> {
    let short = fields
        .text("password")
        .is_some_and(|password| password.chars().count() < 8);
    if short && !fields.flag("skip_password_checks") {
        return Err(Failure::short_password());
    }
    Ok(())
}

/// Creates the user and returns its id.
pub(crate) fn create(state: &State, body: &[u8]) -> Result<String, Failure> {
    let fields = Fields::read(body, &FIELDS)?;
    check(&fields)?;
    let now = now();
    let (user_id, document) = document(state, &fields, now);
    let lock_ends_at = fields.flag("locked").then_some(now + LOCK_SECONDS * 1000);
    // Uniqueness is looked at under the same lock as the user is added under, so that of two at once one is refused.
    let mut store = state.write();
    for (name, kind) in ADDRESSES {
        if fields.texts(name).iter().any(|value| store.is_taken(kind, value, "")) {
            return Err(Failure::taken(name));
        }
    }
    for (name, kind) in [("username", Kind::Username), ("external_id", Kind::ExternalId)] {
        if fields
            .text(name)
            .is_some_and(|value| !value.is_empty() && store.is_taken(kind, value, ""))
        {
            return Err(Failure::taken(name));
        }
    }
    store.put(Entry::new(&user_id, &document, lock_ends_at), now);
    Ok(user_id)
}

fn check(fields: &Fields) -> Result<(), Failure> {
    check_password(fields)?;
    let identified =
        ADDRESSES.iter().any(|(name, _)| !fields.texts(name).is_empty()) || fields.text("username").is_some();
    if !identified && !fields.flag("skip_user_requirement") {
        let why = "At least one of email_address, phone_number, web3_wallet and username must be given, or skip_user_requirement.";
        return Err(Failure::missing("email_address", why));
    }
    for (name, is_valid) in [
        (
            "email_address",
            (|email: &str| {
                email
                    .split_once('@')
                    .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty())
            }) as fn(&str) -> bool,
        ),
        ("phone_number", |phone| {
            phone
                .strip_prefix('+')
                .is_some_and(|d| d.len() > 5 && d.bytes().all(|b| b.is_ascii_digit()))
        }),
    ] {
        let values = fields.texts(name);
        if let Some(value) = values.iter().find(|value| !is_valid(value)) {
            return Err(Failure::malformed(
                name,
                format!("{value:?} is not a valid {}.", name.replace('_', " ")),
            ));
        }
        let parameter = format!("{name}_identification_status");
        let statuses = fields.texts(&parameter);
        if !statuses.is_empty() && statuses.len() != values.len() {
            return Err(Failure::invalid(
                &parameter,
                format!("{parameter} must have one item for each {name}."),
            ));
        }
        if statuses.iter().any(|status| !["verified", "reserved"].contains(status)) {
            return Err(Failure::invalid(
                &parameter,
                format!("{parameter} must be verified or reserved."),
            ));
        }
    }
    Ok(())
}

fn document(state: &State, fields: &Fields, now: i64) -> (String, Value) {
    let mut dice = state.dice();
    let created_at = fields.time("created_at").unwrap_or(now);
    let user_id = id("user_", now, &mut *dice);
    let statuses = |name: &str, index: usize| {
        fields
            .texts(&format!("{name}_identification_status"))
            .get(index)
            .is_some_and(|status| *status == "reserved")
    };
    let mut addresses = |name: &'static str| -> Vec<Value> {
        let build = |(index, value): (usize, &str)| {
            let reserved = statuses(name, index);
            let mut address = json!({
                "id": id("idn_", now, &mut *dice),
                "object": name,
                // Lowered (a guess).
                name: if name == "email_address" { value.to_lowercase() } else { value.to_owned() },
                "verification": if reserved { Value::Null } else { json!(verified("verification_admin", "admin")) },
                "created_at": now,
                "updated_at": now,
            });
            if name != "web3_wallet" {
                address["reserved"] = reserved.into();
                address["linked_to"] = json!([]);
            }
            if name == "phone_number" {
                address["reserved_for_second_factor"] = false.into();
                address["default_second_factor"] = false.into();
                address["backup_codes"] = Value::Null;
            }
            address
        };
        fields.texts(name).into_iter().enumerate().map(build).collect()
    };
    let (emails, phones, wallets) = (
        addresses("email_address"),
        addresses("phone_number"),
        addresses("web3_wallet"),
    );
    let first = |list: &[Value]| list.first().map_or(Value::Null, |address| address["id"].clone());
    let given = |name: &str| fields.get(name).cloned().unwrap_or(Value::Null);
    let flag = |name: &str, default: bool| fields.get(name).and_then(Value::as_bool).unwrap_or(default);
    let password = fields.text("password").is_some() || fields.text("password_digest").is_some();
    let totp = fields.text("totp_secret").is_some();
    let document = json!({
        "id": user_id,
        "object": "user",
        "username": fields.text("username").filter(|name| !name.is_empty()),
        "first_name": given("first_name"),
        "last_name": given("last_name"),
        "locale": given("locale"),
        "image_url": format!("https://img.clerk.com/{user_id}"),
        "has_image": false,
        "primary_email_address_id": first(&emails),
        "primary_phone_number_id": first(&phones),
        "primary_web3_wallet_id": first(&wallets),
        "password_enabled": password,
        "two_factor_enabled": totp,
        "totp_enabled": totp,
        "backup_code_enabled": !fields.texts("backup_codes").is_empty(),
        "email_addresses": emails,
        "phone_numbers": phones,
        "web3_wallets": wallets,
        "passkeys": [],
        "external_accounts": [],
        "saml_accounts": [],
        "enterprise_accounts": [],
        "password_last_updated_at": password.then_some(now),
        "public_metadata": fields.object("public_metadata"),
        "private_metadata": fields.object("private_metadata"),
        "unsafe_metadata": fields.object("unsafe_metadata"),
        "external_id": given("external_id"),
        "last_sign_in_at": null,
        "banned": flag("banned", false),
        "locked": flag("locked", false),
        "lockout_expires_in_seconds": fields.flag("locked").then_some(LOCK_SECONDS),
        "verification_attempts_remaining": 100,
        "created_at": created_at,
        "updated_at": now,
        "delete_self_enabled": flag("delete_self_enabled", true),
        "create_organization_enabled": flag("create_organization_enabled", true),
        "create_organizations_limit": given("create_organizations_limit"),
        "last_active_at": null,
        "mfa_enabled_at": totp.then_some(now),
        "mfa_disabled_at": null,
        "legal_accepted_at": fields.time("legal_accepted_at"),
        "deprovisioned": false,
        "bypass_client_trust": flag("bypass_client_trust", false),
    });
    (user_id, document)
}
