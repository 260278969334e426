//! A user as Clerk's specification has it, for writing only.
//!
//! The fields are in the order of [`crate::store::canonical`]. `None` in a field that can be
//! skipped is a missing key, where the specification allows that.

use serde::Serialize;
use serde_json::{Map, Value};

use super::resource::{EMAIL_ADDRESS, EXTERNAL_ACCOUNT, EXTERNAL_ID, PHONE_NUMBER, USERNAME, WEB3_WALLET};
use crate::store::identifier::{Identifier, IdentifierKind};

#[derive(Serialize)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) username: Option<String>,
    pub(crate) first_name: Option<String>,
    pub(crate) last_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) locale: Option<Option<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) profile_image_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_url: Option<String>,
    pub(crate) has_image: bool,
    pub(crate) primary_email_address_id: Option<String>,
    pub(crate) primary_phone_number_id: Option<String>,
    pub(crate) primary_web3_wallet_id: Option<String>,
    pub(crate) password_enabled: bool,
    pub(crate) two_factor_enabled: bool,
    pub(crate) totp_enabled: bool,
    pub(crate) backup_code_enabled: bool,
    pub(crate) email_addresses: Vec<EmailAddress>,
    pub(crate) phone_numbers: Vec<PhoneNumber>,
    pub(crate) web3_wallets: Vec<Web3Wallet>,
    pub(crate) passkeys: Vec<Passkey>,
    pub(crate) external_accounts: Vec<ExternalAccount>,
    pub(crate) saml_accounts: Vec<SamlAccount>,
    pub(crate) enterprise_accounts: Vec<EnterpriseAccount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_last_updated_at: Option<Option<i64>>,
    pub(crate) public_metadata: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) private_metadata: Option<Option<Map<String, Value>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unsafe_metadata: Option<Map<String, Value>>,
    pub(crate) external_id: Option<String>,
    pub(crate) last_sign_in_at: Option<i64>,
    pub(crate) banned: bool,
    pub(crate) locked: bool,
    pub(crate) lockout_expires_in_seconds: Option<i64>,
    pub(crate) verification_attempts_remaining: Option<i64>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) delete_self_enabled: bool,
    pub(crate) create_organization_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) create_organizations_limit: Option<Option<i64>>,
    pub(crate) last_active_at: Option<i64>,
    pub(crate) mfa_enabled_at: Option<i64>,
    pub(crate) mfa_disabled_at: Option<i64>,
    pub(crate) legal_accepted_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deprovisioned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bypass_client_trust: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scim: Option<Scim>,
}

impl User {
    /// The identifiers, without reading them from the written document.
    pub(crate) fn identifiers(&self) -> Vec<Identifier> {
        let mut all = Vec::with_capacity(6);
        let mut add = |kind: &'static IdentifierKind, value: &str| all.push((kind, kind.normalize(value)));
        for email in &self.email_addresses {
            add(&EMAIL_ADDRESS, &email.email_address);
        }
        for phone in &self.phone_numbers {
            add(&PHONE_NUMBER, &phone.phone_number);
        }
        for wallet in &self.web3_wallets {
            add(&WEB3_WALLET, &wallet.web3_wallet);
        }
        if let Some(username) = &self.username {
            add(&USERNAME, username);
        }
        if let Some(external_id) = &self.external_id {
            add(&EXTERNAL_ID, external_id);
        }
        for account in &self.external_accounts {
            let value = format!("{} {}", account.provider, account.provider_user_id);
            add(&EXTERNAL_ACCOUNT, &value);
        }
        all
    }
}

/// A verification of any of the specification's kinds.
#[derive(Serialize, Clone)]
pub(crate) struct Verification {
    pub(crate) object: &'static str,
    pub(crate) status: &'static str,
    pub(crate) strategy: &'static str,
    /// Only web3 and passkey verifications have this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nonce: Option<String>,
    pub(crate) attempts: Option<i64>,
    /// `None` is a missing key, `Some(None)` is null. OAuth verifications do not allow null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expire_at: Option<Option<i64>>,
}

#[derive(Serialize)]
pub(crate) struct Link {
    pub(crate) id: String,
    pub(crate) r#type: &'static str,
}

#[derive(Serialize)]
pub(crate) struct EmailAddress {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) email_address: String,
    pub(crate) reserved: bool,
    pub(crate) verification: Option<Verification>,
    pub(crate) linked_to: Vec<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matches_sso_connection: Option<bool>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

#[derive(Serialize)]
pub(crate) struct PhoneNumber {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) phone_number: String,
    pub(crate) reserved_for_second_factor: bool,
    pub(crate) default_second_factor: bool,
    pub(crate) reserved: bool,
    pub(crate) verification: Option<Verification>,
    pub(crate) linked_to: Vec<Link>,
    pub(crate) backup_codes: Option<Vec<String>>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

#[derive(Serialize)]
pub(crate) struct Web3Wallet {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) web3_wallet: String,
    pub(crate) verification: Option<Verification>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

#[derive(Serialize)]
pub(crate) struct Passkey {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) name: &'static str,
    pub(crate) last_used_at: i64,
    pub(crate) verification: Option<Verification>,
}

#[derive(Serialize)]
pub(crate) struct ExternalAccount {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) identification_id: String,
    pub(crate) provider_user_id: String,
    pub(crate) approved_scopes: &'static str,
    pub(crate) email_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email_address_verified: Option<Option<bool>>,
    pub(crate) username: Option<String>,
    pub(crate) first_name: String,
    pub(crate) last_name: String,
    pub(crate) avatar_url: String,
    pub(crate) image_url: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) verification: Option<Verification>,
    pub(crate) public_metadata: Map<String, Value>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

#[derive(Serialize)]
pub(crate) struct SamlAccount {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) active: bool,
    pub(crate) provider_user_id: Option<String>,
    pub(crate) email_address: String,
    pub(crate) first_name: Option<String>,
    pub(crate) last_name: Option<String>,
    pub(crate) verification: Option<Verification>,
    pub(crate) saml_connection: Option<Connection>,
    pub(crate) public_metadata: Map<String, Value>,
}

#[derive(Serialize)]
pub(crate) struct EnterpriseAccount {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) active: bool,
    pub(crate) provider_user_id: Option<String>,
    pub(crate) email_address: String,
    pub(crate) first_name: Option<String>,
    pub(crate) last_name: Option<String>,
    pub(crate) verification: Option<Verification>,
    pub(crate) enterprise_connection: Option<Connection>,
    pub(crate) public_metadata: Map<String, Value>,
}

/// A SAML connection or, with a protocol, an enterprise connection.
#[derive(Serialize)]
pub(crate) struct Connection {
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<&'static str>,
    pub(crate) provider: &'static str,
    pub(crate) active: bool,
    pub(crate) name: String,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) allow_idp_initiated: bool,
    pub(crate) allow_subdomains: bool,
    pub(crate) disable_additional_identifications: bool,
    pub(crate) domains: Vec<String>,
    /// Only enterprise connections have this key. `Some(None)` is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logo_public_url: Option<Option<String>>,
    pub(crate) sync_user_attributes: bool,
}

/// The user in a directory. The specification says that only events have it; that reads have it too
/// is a guess.
#[derive(Serialize)]
pub(crate) struct Scim {
    pub(crate) external_id: Option<String>,
    pub(crate) directory_enabled: bool,
    pub(crate) directory_id: String,
}
