//! A user as Clerk's specification has it, for writing only.
//!
//! The order of the fields is the order of [`crate::canonical`], and `None` in a field marked to be skipped is a missing key, where the
//! specification allows it to be missing.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::facts::{Kind, normal};

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
    /// What [`crate::facts::Facts::identifiers`] reads from the written document, without reading it.
    pub(crate) fn identifiers(&self) -> Vec<(Kind, String)> {
        let mut all = Vec::with_capacity(6);
        all.extend(
            self.email_addresses
                .iter()
                .map(|email| (Kind::Email, &*email.email_address)),
        );
        all.extend(
            self.phone_numbers
                .iter()
                .map(|phone| (Kind::Phone, &*phone.phone_number)),
        );
        all.extend(
            self.web3_wallets
                .iter()
                .map(|wallet| (Kind::Wallet, &*wallet.web3_wallet)),
        );
        all.extend(self.username.as_deref().map(|username| (Kind::Username, username)));
        all.extend(
            self.external_id
                .as_deref()
                .map(|external_id| (Kind::ExternalId, external_id)),
        );
        let accounts = self.external_accounts.iter();
        let accounts = accounts.map(|account| {
            (
                Kind::Account,
                format!("{} {}", account.provider, account.provider_user_id),
            )
        });
        all.into_iter()
            .map(|(kind, value)| (kind, normal(kind, value)))
            .chain(accounts)
            .collect()
    }
}

/// Any of the specification's verifications.
#[derive(Serialize, Clone)]
pub(crate) struct Verification {
    pub(crate) object: &'static str,
    pub(crate) status: &'static str,
    pub(crate) strategy: &'static str,
    /// A key of web3 and passkey verifications only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nonce: Option<String>,
    pub(crate) attempts: Option<i64>,
    /// Absent where null is not allowed.
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

/// A SAML or, with a protocol, an enterprise connection.
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
    /// `Some(None)` is null; a key of enterprise connections only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logo_public_url: Option<Option<String>>,
    pub(crate) sync_user_attributes: bool,
}

/// What a directory knows of the user. The specification says it is sent with events only; that it turns up in reads is a guess.
#[derive(Serialize)]
pub(crate) struct Scim {
    pub(crate) external_id: Option<String>,
    pub(crate) directory_enabled: bool,
    pub(crate) directory_id: String,
}
