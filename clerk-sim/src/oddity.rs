//! Users that deviate from the specification on purpose, in ways that were observed or are likely.

use serde::Serialize;
use serde_json::{Value, json};

/// How a generated user deviates. Each deviates in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Oddity {
    /// There is no `last_name` key (observed).
    LastNameMissing,
    /// `image_url` is null (observed).
    ImageUrlNull,
    /// `public_metadata` is null (observed).
    PublicMetadataNull,
    /// `unsafe_metadata` is null (observed).
    UnsafeMetadataNull,
    /// `email_addresses` is `[{}]` (observed).
    EmptyEmailAddress,
    /// A SAML account whose verification lacks a required key (observed: it broke whole pages in
    /// official SDKs).
    SamlVerificationIncomplete,
    /// There is no `saml_accounts` key.
    SamlAccountsMissing,
    /// `passkeys` is null.
    PasskeysNull,
    /// There is a key that the specification does not have (observed: keys appear without a new
    /// version).
    UnknownKeys,
    /// An address has a key that the specification does not have.
    UnknownAddressKey,
}

impl Oddity {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::LastNameMissing,
        Self::ImageUrlNull,
        Self::PublicMetadataNull,
        Self::UnsafeMetadataNull,
        Self::EmptyEmailAddress,
        Self::SamlVerificationIncomplete,
        Self::SamlAccountsMissing,
        Self::PasskeysNull,
        Self::UnknownKeys,
        Self::UnknownAddressKey,
    ];

    /// The key of the user at which the deviation is.
    pub fn key(self) -> &'static str {
        match self {
            Self::LastNameMissing => "last_name",
            Self::ImageUrlNull => "image_url",
            Self::PublicMetadataNull => "public_metadata",
            Self::UnsafeMetadataNull => "unsafe_metadata",
            Self::EmptyEmailAddress | Self::UnknownAddressKey => "email_addresses",
            Self::SamlVerificationIncomplete | Self::SamlAccountsMissing => "saml_accounts",
            Self::PasskeysNull => "passkeys",
            Self::UnknownKeys => "agent_policy",
        }
    }

    /// Makes a user deviate.
    pub(crate) fn apply(self, document: &mut Value) {
        let user = document.as_object_mut().expect("a generated user is an object");
        match self {
            Self::LastNameMissing | Self::SamlAccountsMissing => drop(user.remove(self.key())),
            Self::ImageUrlNull | Self::PublicMetadataNull | Self::UnsafeMetadataNull | Self::PasskeysNull => {
                user.insert(self.key().to_owned(), Value::Null);
            }
            Self::EmptyEmailAddress => {
                user.insert("email_addresses".to_owned(), json!([{}]));
                user.insert("primary_email_address_id".to_owned(), Value::Null);
            }
            Self::SamlVerificationIncomplete => {
                let account = json!({
                    "id": "samlacc_1", "object": "saml_account", "provider": "saml_okta", "active": true,
                    "email_address": "saml@corp.example.com", "first_name": null, "last_name": null,
                    "verification": {"object": "verification_saml", "status": "verified", "attempts": null, "expire_at": null},
                });
                user.insert("saml_accounts".to_owned(), json!([account]));
            }
            Self::UnknownKeys => {
                user.insert(
                    "agent_policy".to_owned(),
                    json!({"mode": "ask", "tools": ["search", "mail"], "ceiling": 0.25}),
                );
            }
            Self::UnknownAddressKey => {
                let mailbox = user["id"].as_str().unwrap_or_default().to_lowercase();
                let address = json!({
                    "object": "email_address", "email_address": format!("{mailbox}@example.com"), "reserved": false, "verification": null,
                    "linked_to": [], "created_at": user["created_at"], "updated_at": user["created_at"],
                    "deliverability": {"score": 0.5},
                });
                let addresses = user["email_addresses"]
                    .as_array_mut()
                    .expect("a generated user has a list of addresses");
                match addresses.first_mut() {
                    Some(first) => first["deliverability"] = address["deliverability"].clone(),
                    None => addresses.push(address),
                }
            }
        }
    }
}
