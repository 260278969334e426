//! What filters, orders and uniqueness look at in a document, read from its bytes.
//!
//! Lenient by design: a user whose name is a number has no name to match, but does match on the rest.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The parts of a document that are looked at, each still unparsed.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Facts<'a> {
    #[serde(borrow)]
    username: Option<&'a RawValue>,
    #[serde(borrow)]
    first_name: Option<&'a RawValue>,
    #[serde(borrow)]
    last_name: Option<&'a RawValue>,
    #[serde(borrow)]
    external_id: Option<&'a RawValue>,
    #[serde(borrow)]
    primary_email_address_id: Option<&'a RawValue>,
    #[serde(borrow)]
    primary_phone_number_id: Option<&'a RawValue>,
    #[serde(borrow)]
    primary_web3_wallet_id: Option<&'a RawValue>,
    #[serde(borrow)]
    email_addresses: Option<&'a RawValue>,
    #[serde(borrow)]
    phone_numbers: Option<&'a RawValue>,
    #[serde(borrow)]
    web3_wallets: Option<&'a RawValue>,
    #[serde(borrow)]
    external_accounts: Option<&'a RawValue>,
    #[serde(borrow)]
    organization_memberships: Option<&'a RawValue>,
    #[serde(borrow)]
    last_sign_in_at: Option<&'a RawValue>,
    #[serde(borrow)]
    last_active_at: Option<&'a RawValue>,
    #[serde(borrow)]
    banned: Option<&'a RawValue>,
    #[serde(borrow)]
    locked: Option<&'a RawValue>,
    #[serde(borrow)]
    lockout_expires_in_seconds: Option<&'a RawValue>,
}

/// An address with the id that a primary id refers to.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Address {
    id: Option<String>,
    #[serde(alias = "email_address", alias = "phone_number", alias = "web3_wallet")]
    value: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Account {
    provider: Option<String>,
    provider_user_id: Option<String>,
}

#[derive(Deserialize)]
struct Membership {
    organization: Organization,
}

#[derive(Deserialize)]
struct Organization {
    id: String,
}

fn parse<T: DeserializeOwned>(raw: Option<&RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// The items of a list that have the expected form; the odd ones among them are passed over.
fn items<T: DeserializeOwned>(raw: Option<&RawValue>) -> Vec<T> {
    let items: Vec<&RawValue> = raw
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    items.into_iter().filter_map(|item| parse(Some(item))).collect()
}

/// What must be unique in an instance, and so can be looked up exactly.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    Email,
    Phone,
    Wallet,
    Username,
    ExternalId,
    /// `provider`, a space, `provider_user_id`.
    Account,
}

impl<'a> Facts<'a> {
    /// None where the bytes are not a JSON object.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(crate) fn username(&self) -> Option<String> {
        parse(self.username)
    }

    pub(crate) fn first_name(&self) -> Option<String> {
        parse(self.first_name)
    }

    pub(crate) fn last_name(&self) -> Option<String> {
        parse(self.last_name)
    }

    pub(crate) fn emails(&self) -> Vec<String> {
        values(self.email_addresses)
    }

    pub(crate) fn phones(&self) -> Vec<String> {
        values(self.phone_numbers)
    }

    pub(crate) fn wallets(&self) -> Vec<String> {
        values(self.web3_wallets)
    }

    pub(crate) fn primary_email(&self) -> Option<String> {
        primary(self.primary_email_address_id, self.email_addresses)
    }

    pub(crate) fn primary_phone(&self) -> Option<String> {
        primary(self.primary_phone_number_id, self.phone_numbers)
    }

    pub(crate) fn primary_wallet(&self) -> Option<String> {
        primary(self.primary_web3_wallet_id, self.web3_wallets)
    }

    pub(crate) fn organizations(&self) -> Vec<String> {
        items::<Membership>(self.organization_memberships)
            .into_iter()
            .map(|m| m.organization.id)
            .collect()
    }

    pub(crate) fn last_sign_in_at(&self) -> Option<i64> {
        parse(self.last_sign_in_at)
    }

    pub(crate) fn last_active_at(&self) -> Option<i64> {
        parse(self.last_active_at)
    }

    pub(crate) fn banned(&self) -> bool {
        parse(self.banned).unwrap_or(false)
    }

    /// The raw texts of `locked` and `lockout_expires_in_seconds`, as parts of the document's bytes.
    pub(crate) fn lockout(&self) -> Option<(&'a str, &'a str)> {
        Some((self.locked?.get(), self.lockout_expires_in_seconds?.get()))
    }

    /// Everything by which the user can be looked up exactly.
    pub(crate) fn identifiers(&self) -> Vec<(Kind, String)> {
        let mut all = Vec::new();
        all.extend(self.emails().into_iter().map(|value| (Kind::Email, value)));
        all.extend(self.phones().into_iter().map(|value| (Kind::Phone, value)));
        all.extend(self.wallets().into_iter().map(|value| (Kind::Wallet, value)));
        all.extend(self.username().map(|value| (Kind::Username, value)));
        all.extend(parse(self.external_id).map(|value| (Kind::ExternalId, value)));
        for account in items::<Account>(self.external_accounts) {
            if let (Some(provider), Some(id)) = (account.provider, account.provider_user_id) {
                all.push((Kind::Account, format!("{provider} {id}")));
            }
        }
        all.into_iter()
            .map(|(kind, value)| (kind, normal(kind, &value)))
            .collect()
    }
}

/// The form in which identifiers are compared: addresses and usernames without case (a guess), as external ids are the
/// application's own.
pub(crate) fn normal(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Email | Kind::Username | Kind::Wallet => value.to_lowercase(),
        Kind::Phone | Kind::ExternalId | Kind::Account => value.to_owned(),
    }
}

fn values(list: Option<&RawValue>) -> Vec<String> {
    items::<Address>(list)
        .into_iter()
        .filter_map(|address| address.value)
        .collect()
}

fn primary(id: Option<&RawValue>, list: Option<&RawValue>) -> Option<String> {
    let id: String = parse(id)?;
    items::<Address>(list)
        .into_iter()
        .find(|address| address.id.as_deref() == Some(&id))?
        .value
}
