//! By what a user signs in: addresses, wallets, passkeys and accounts elsewhere.

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde_json::Map;

use crate::ids::id;
use crate::model::{
    Connection, EmailAddress, EnterpriseAccount, ExternalAccount, Link, Passkey, PhoneNumber, SamlAccount,
    Verification, Web3Wallet,
};
use crate::people::{DOMAINS, MAILBOXES};

/// What accounts need to know of their user.
pub(crate) struct Person {
    pub(crate) n: u64,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) first_name: Option<&'static str>,
    pub(crate) last_name: Option<&'static str>,
}

#[derive(Default)]
pub(crate) struct Accounts {
    pub(crate) username: Option<String>,
    pub(crate) password: bool,
    pub(crate) emails: Vec<EmailAddress>,
    pub(crate) primary_email: Option<String>,
    pub(crate) phones: Vec<PhoneNumber>,
    pub(crate) wallets: Vec<Web3Wallet>,
    pub(crate) passkeys: Vec<Passkey>,
    pub(crate) external: Vec<ExternalAccount>,
    pub(crate) saml: Vec<SamlAccount>,
    pub(crate) enterprise: Vec<EnterpriseAccount>,
}

/// A verification that succeeded.
pub(crate) fn verified(object: &'static str, strategy: &'static str) -> Verification {
    Verification {
        object,
        status: "verified",
        strategy,
        nonce: None,
        attempts: None,
        expire_at: Some(None),
    }
}

pub(crate) fn accounts(person: &Person, rng: &mut ChaCha8Rng) -> Accounts {
    let mut accounts = Accounts::default();
    match rng.random_range(0..100) {
        0..38 => accounts.password = true,
        38..62 => accounts
            .external
            .push(external(person, "oauth_google", "google_account", rng)),
        62..72 => accounts
            .external
            .push(external(person, "oauth_github", "external_account", rng)),
        72..77 => accounts
            .external
            .push(external(person, "oauth_facebook", "facebook_account", rng)),
        77..80 => {
            accounts
                .external
                .push(external(person, "oauth_google", "google_account", rng));
            accounts
                .external
                .push(external(person, "oauth_github", "external_account", rng));
        }
        80..86 => {
            accounts.phones.push(phone(person, 0, rng));
            return named(accounts, person, rng);
        }
        86..90 => {
            accounts.wallets.push(wallet(person, rng));
            return named(accounts, person, rng);
        }
        90..94 => accounts.saml.push(saml(person, rng)),
        94..97 => accounts.enterprise.push(enterprise(person, rng)),
        _ => {
            accounts.password = true;
            accounts.phones.push(phone(person, 0, rng));
            accounts.wallets.push(wallet(person, rng));
        }
    }
    let emails = if rng.random_bool(0.15) {
        rng.random_range(2..=4)
    } else {
        1
    };
    accounts.emails = (0..emails)
        .map(|index| email(person, index, &accounts.external, rng))
        .collect();
    // The primary address is often not the first, and may name none at all (observed).
    accounts.primary_email = match rng.random_range(0..100) {
        0..2 => Some(id("idn_", person.created_at, rng)),
        2..4 => None,
        _ => accounts.emails.last().map(|email| email.id.clone()),
    };
    named(accounts, person, rng)
}

fn named(mut accounts: Accounts, person: &Person, rng: &mut ChaCha8Rng) -> Accounts {
    if rng.random_bool(0.35) {
        accounts.username = MAILBOXES
            .choose(rng)
            .map(|name| format!("{}_{}", name.replace(['.', '+', '\''], "-"), person.n));
    }
    if rng.random_bool(0.06) {
        accounts.passkeys = (0..rng.random_range(1..3)).map(|_| passkey(person, rng)).collect();
    }
    accounts
}

fn mailbox(person: &Person, index: usize, rng: &mut impl Rng) -> String {
    let name = MAILBOXES.choose(rng).copied().unwrap_or("user");
    let domain = DOMAINS.choose(rng).copied().unwrap_or("example.com");
    if index == 0 {
        format!("{name}.{}@{domain}", person.n)
    } else {
        format!("{name}.{}.{index}@{domain}", person.n)
    }
}

fn email(person: &Person, index: usize, external: &[ExternalAccount], rng: &mut ChaCha8Rng) -> EmailAddress {
    let verification = match (external.first(), rng.random_range(0..100)) {
        (Some(account), 0..80) if index == 0 => Some(verified(
            "verification_from_oauth",
            match account.provider {
                "oauth_google" => "from_oauth_google",
                "oauth_github" => "from_oauth_github",
                _ => "from_oauth_facebook",
            },
        )),
        (_, 0..15) => Some(verified("verification_admin", "admin")),
        (_, 15..25) => Some(Verification {
            attempts: Some(1),
            expire_at: Some(Some(person.created_at + 600_000)),
            ..verified("verification_ticket", "ticket")
        }),
        (_, 25..35) => Some(Verification {
            attempts: Some(1),
            expire_at: Some(Some(person.created_at + 600_000)),
            ..verified("verification_email_link", "email_link")
        }),
        (_, 35..45) => Some(Verification {
            status: "unverified",
            attempts: Some(0),
            expire_at: Some(Some(person.updated_at + 600_000)),
            ..verified("verification_otp", "email_code")
        }),
        (_, 45..48) => None,
        _ => Some(Verification {
            attempts: Some(1),
            expire_at: Some(Some(person.created_at + 600_000)),
            ..verified("verification_otp", "email_code")
        }),
    };
    let linked_to = match external.first() {
        Some(account) if index == 0 => vec![Link {
            id: account.identification_id.clone(),
            r#type: account.provider,
        }],
        _ => Vec::new(),
    };
    EmailAddress {
        id: id("idn_", person.created_at, rng),
        object: "email_address",
        email_address: mailbox(person, index, rng),
        reserved: false,
        verification,
        linked_to,
        matches_sso_connection: rng.random_bool(0.9).then_some(false),
        created_at: person.created_at,
        updated_at: rng.random_range(person.created_at..=person.updated_at),
    }
}

fn phone(person: &Person, index: u64, rng: &mut ChaCha8Rng) -> PhoneNumber {
    let second_factor = rng.random_bool(0.1);
    PhoneNumber {
        id: id("idn_", person.created_at, rng),
        object: "phone_number",
        phone_number: format!("+1555{:09}", person.n * 4 + index),
        reserved_for_second_factor: second_factor,
        default_second_factor: second_factor,
        reserved: false,
        verification: Some(Verification {
            attempts: Some(1),
            expire_at: Some(Some(person.created_at + 600_000)),
            ..verified("verification_otp", "phone_code")
        }),
        linked_to: Vec::new(),
        backup_codes: None,
        created_at: person.created_at,
        updated_at: person.created_at,
    }
}

fn wallet(person: &Person, rng: &mut ChaCha8Rng) -> Web3Wallet {
    Web3Wallet {
        id: id("idn_", person.created_at, rng),
        object: "web3_wallet",
        web3_wallet: format!("0x{:024x}{:016x}", rng.random::<u64>(), person.n),
        verification: Some(Verification {
            nonce: Some(format!("{:032x}", rng.random::<u128>())),
            attempts: Some(1),
            ..verified("verification_web3", "web3_metamask_signature")
        }),
        created_at: person.created_at,
        updated_at: person.created_at,
    }
}

fn passkey(person: &Person, rng: &mut ChaCha8Rng) -> Passkey {
    Passkey {
        id: id("idn_", person.created_at, rng),
        object: "passkey",
        name: ["Chrome on Mac", "iCloud Keychain", "YubiKey 5 – Büro"]
            .choose(rng)
            .copied()
            .unwrap_or_default(),
        last_used_at: person.updated_at,
        verification: Some(Verification {
            nonce: Some("nonce".to_owned()),
            ..verified("verification_passkey", "passkey")
        }),
    }
}

fn external(person: &Person, provider: &'static str, object: &'static str, rng: &mut ChaCha8Rng) -> ExternalAccount {
    let image = format!("https://images.example.com/{:016x}=s1000-c", rng.random::<u64>());
    ExternalAccount {
        id: id(
            if object == "google_account" { "gac_" } else { "eac_" },
            person.created_at,
            rng,
        ),
        object,
        provider,
        identification_id: id("idn_", person.created_at, rng),
        provider_user_id: format!("1{:020}", person.n),
        approved_scopes: if provider == "oauth_github" {
            "read:user user:email"
        } else {
            "email openid profile"
        },
        email_address: mailbox(person, 0, rng),
        email_address_verified: rng.random_bool(0.5).then(|| rng.random_bool(0.8).then_some(true)),
        username: (provider == "oauth_github").then(|| format!("hub-{}", person.n)),
        first_name: person.first_name.unwrap_or_default().to_owned(),
        last_name: person.last_name.unwrap_or_default().to_owned(),
        avatar_url: image.clone(),
        image_url: rng.random_bool(0.9).then_some(image),
        label: None,
        verification: Some(Verification {
            // Null is not allowed here.
            expire_at: Some(Some(person.created_at + 600_000)),
            ..verified("verification_oauth", provider)
        }),
        public_metadata: Map::new(),
        created_at: person.created_at,
        updated_at: person.created_at,
    }
}

fn connection(
    prefix: &str,
    protocol: Option<&'static str>,
    provider: &'static str,
    rng: &mut ChaCha8Rng,
) -> Connection {
    let since = 1_680_000_000_000;
    Connection {
        id: id(prefix, since, rng),
        protocol,
        provider,
        active: true,
        name: "Example Corp".to_owned(),
        created_at: since,
        updated_at: since,
        allow_idp_initiated: true,
        allow_subdomains: false,
        disable_additional_identifications: false,
        domains: vec!["corp.example.com".to_owned()],
        logo_public_url: protocol.map(|_| None),
        sync_user_attributes: true,
    }
}

fn saml(person: &Person, rng: &mut ChaCha8Rng) -> SamlAccount {
    SamlAccount {
        id: id("samlacc_", person.created_at, rng),
        object: "saml_account",
        provider: "saml_okta",
        active: rng.random_bool(0.9),
        provider_user_id: rng.random_bool(0.8).then(|| format!("00u{:017x}", person.n)),
        email_address: mailbox(person, 0, rng),
        first_name: person.first_name.map(str::to_owned),
        last_name: person.last_name.map(str::to_owned),
        verification: Some(Verification {
            expire_at: rng.random_bool(0.5).then_some(None),
            ..verified("verification_saml", "saml")
        }),
        saml_connection: rng
            .random_bool(0.9)
            .then(|| connection("samlc_", None, "saml_okta", rng)),
        public_metadata: Map::new(),
    }
}

fn enterprise(person: &Person, rng: &mut ChaCha8Rng) -> EnterpriseAccount {
    let oauth = rng.random_bool(0.5);
    let (protocol, provider, verification) = if oauth {
        (
            "oauth",
            "oauth_google",
            Verification {
                expire_at: Some(Some(person.created_at + 600_000)),
                ..verified("verification_oauth", "oauth_google")
            },
        )
    } else {
        ("saml", "saml_custom", verified("verification_saml", "saml"))
    };
    EnterpriseAccount {
        id: id("entacc_", person.created_at, rng),
        object: "enterprise_account",
        protocol,
        provider,
        active: true,
        provider_user_id: rng.random_bool(0.8).then(|| format!("{:x}", person.n)),
        email_address: mailbox(person, 0, rng),
        first_name: person.first_name.map(str::to_owned),
        last_name: person.last_name.map(str::to_owned),
        verification: Some(verification),
        enterprise_connection: rng
            .random_bool(0.9)
            .then(|| connection("entconn_", Some(protocol), provider, rng)),
        public_metadata: Map::new(),
    }
}
