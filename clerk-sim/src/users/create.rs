//! `POST /v1/users`.

use rand::Rng;
use serde_json::{Value, json};

use super::identifications::verified;
use super::resource::{EMAIL_ADDRESS, EXTERNAL_ID, PHONE_NUMBER, USERNAME, WEB3_WALLET};
use super::rules::{LOCK_SECONDS, check_password};
use crate::clock::now;
use crate::errors::Failure;
use crate::ids::id;
use crate::kind::Kind;
use crate::parameters::{Parameter, ParameterType, Parameters};
use crate::state::State;
use crate::store::entry::Entry;
use crate::store::identifier::IdentifierKind;

/// The parameters (documented).
const PARAMETERS: [Parameter; 30] = [
    ("external_id", ParameterType::Text),
    ("first_name", ParameterType::Text),
    ("last_name", ParameterType::Text),
    ("locale", ParameterType::Text),
    ("email_address", ParameterType::Texts),
    ("email_address_identification_status", ParameterType::Texts),
    ("phone_number", ParameterType::Texts),
    ("phone_number_identification_status", ParameterType::Texts),
    ("web3_wallet", ParameterType::Texts),
    ("username", ParameterType::Text),
    ("password", ParameterType::Text),
    ("password_digest", ParameterType::Text),
    ("password_hasher", ParameterType::Text),
    ("skip_password_checks", ParameterType::Flag),
    ("skip_password_requirement", ParameterType::Flag),
    ("totp_secret", ParameterType::Text),
    ("backup_codes", ParameterType::Texts),
    ("public_metadata", ParameterType::Object),
    ("private_metadata", ParameterType::Object),
    ("unsafe_metadata", ParameterType::Object),
    ("delete_self_enabled", ParameterType::Flag),
    ("legal_accepted_at", ParameterType::Time),
    ("skip_legal_checks", ParameterType::Flag),
    ("skip_user_requirement", ParameterType::Flag),
    ("create_organization_enabled", ParameterType::Flag),
    ("create_organizations_limit", ParameterType::Integer),
    ("created_at", ParameterType::Time),
    ("bypass_client_trust", ParameterType::Flag),
    ("banned", ParameterType::Flag),
    ("locked", ParameterType::Flag),
];

/// The parameters for addresses.
const ADDRESSES: [(&str, &IdentifierKind); 3] = [
    ("email_address", &EMAIL_ADDRESS),
    ("phone_number", &PHONE_NUMBER),
    ("web3_wallet", &WEB3_WALLET),
];

/// Creates a user, and returns its id.
pub(crate) fn create(state: &State, body: &[u8]) -> Result<String, Failure> {
    let parameters = Parameters::read(body, &PARAMETERS)?;
    check(&parameters)?;
    let now = now();
    let (user_id, document) = document(state, &parameters, now);
    let lock_ends_at = parameters.flag("locked").then_some(now + LOCK_SECONDS * 1000);
    // The check and the addition share a lock, so that of two equal users at once one is refused.
    let mut stores = state.write();
    let store = stores.of_mut(Kind::Users);
    for (name, kind) in ADDRESSES {
        if parameters
            .texts(name)
            .iter()
            .any(|value| store.is_taken(kind, value, ""))
        {
            return Err(Failure::taken(name));
        }
    }
    for (name, kind) in [("username", &USERNAME), ("external_id", &EXTERNAL_ID)] {
        if parameters
            .text(name)
            .is_some_and(|value| !value.is_empty() && store.is_taken(kind, value, ""))
        {
            return Err(Failure::taken(name));
        }
    }
    store.put(Entry::new(&user_id, &document, lock_ends_at), now);
    Ok(user_id)
}

fn check(parameters: &Parameters) -> Result<(), Failure> {
    check_password(parameters)?;
    let identified =
        ADDRESSES.iter().any(|(name, _)| !parameters.texts(name).is_empty()) || parameters.text("username").is_some();
    if !identified && !parameters.flag("skip_user_requirement") {
        let why = "At least one of email_address, phone_number, web3_wallet and username must be given, or skip_user_requirement.";
        return Err(Failure::missing("email_address", why));
    }
    for (name, is_valid) in [
        ("email_address", is_email as fn(&str) -> bool),
        ("phone_number", is_phone),
    ] {
        let values = parameters.texts(name);
        if let Some(value) = values.iter().find(|value| !is_valid(value)) {
            return Err(Failure::malformed(
                name,
                format!("{value:?} is not a valid {}.", name.replace('_', " ")),
            ));
        }
        let parameter = format!("{name}_identification_status");
        let statuses = parameters.texts(&parameter);
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

pub(crate) fn is_email(text: &str) -> bool {
    text.split_once('@')
        .is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty())
}

fn is_phone(text: &str) -> bool {
    text.strip_prefix('+')
        .is_some_and(|digits| digits.len() > 5 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The addresses of a kind, as they are in the document.
fn addresses(parameters: &Parameters, name: &str, now: i64, rng: &mut impl Rng) -> Vec<Value> {
    let statuses = parameters.texts(&format!("{name}_identification_status"));
    let address = |(index, value): (usize, &str)| {
        let reserved = statuses.get(index).is_some_and(|status| *status == "reserved");
        let mut address = json!({
            "id": id("idn_", now, rng),
            "object": name,
            // In lower case (a guess).
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
    parameters.texts(name).into_iter().enumerate().map(address).collect()
}

/// The id and the document of a new user.
fn document(state: &State, parameters: &Parameters, now: i64) -> (String, Value) {
    let mut rng = state.data_rng();
    let created_at = parameters.time("created_at").unwrap_or(now);
    let user_id = id("user_", now, &mut *rng);
    let (emails, phones, wallets) = (
        addresses(parameters, "email_address", now, &mut *rng),
        addresses(parameters, "phone_number", now, &mut *rng),
        addresses(parameters, "web3_wallet", now, &mut *rng),
    );
    let first = |list: &[Value]| list.first().map_or(Value::Null, |address| address["id"].clone());
    let given = |name: &str| parameters.get(name).cloned().unwrap_or(Value::Null);
    let flag = |name: &str, default: bool| parameters.get(name).and_then(Value::as_bool).unwrap_or(default);
    let password = parameters.text("password").is_some() || parameters.text("password_digest").is_some();
    let totp = parameters.text("totp_secret").is_some();
    let document = json!({
        "id": user_id,
        "object": "user",
        "username": parameters.text("username").filter(|name| !name.is_empty()),
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
        "backup_code_enabled": !parameters.texts("backup_codes").is_empty(),
        "email_addresses": emails,
        "phone_numbers": phones,
        "web3_wallets": wallets,
        "passkeys": [],
        "external_accounts": [],
        "saml_accounts": [],
        "enterprise_accounts": [],
        "password_last_updated_at": password.then_some(now),
        "public_metadata": parameters.object("public_metadata"),
        "private_metadata": parameters.object("private_metadata"),
        "unsafe_metadata": parameters.object("unsafe_metadata"),
        "external_id": given("external_id"),
        "last_sign_in_at": null,
        "banned": flag("banned", false),
        "locked": flag("locked", false),
        "lockout_expires_in_seconds": parameters.flag("locked").then_some(LOCK_SECONDS),
        "verification_attempts_remaining": 100,
        "created_at": created_at,
        "updated_at": now,
        "delete_self_enabled": flag("delete_self_enabled", true),
        "create_organization_enabled": flag("create_organization_enabled", true),
        "create_organizations_limit": given("create_organizations_limit"),
        "last_active_at": null,
        "mfa_enabled_at": totp.then_some(now),
        "mfa_disabled_at": null,
        "legal_accepted_at": parameters.time("legal_accepted_at"),
        "deprovisioned": false,
        "bypass_client_trust": flag("bypass_client_trust", false),
    });
    (user_id, document)
}
