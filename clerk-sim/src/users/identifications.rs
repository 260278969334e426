//! Generates what users sign in with: addresses, wallets, passkeys and accounts at other services.

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde_json::Map;

use super::model::{
    Connection, EmailAddress, EnterpriseAccount, ExternalAccount, Link, Passkey, PhoneNumber, SamlAccount,
    Verification, Web3Wallet,
};
use super::samples::{DOMAINS, MAILBOXES};
use crate::ids::id;

/// What the identifications of a user depend on.
pub(crate) struct Profile {
    /// The number of the user within its seed.
    pub(crate) n: u64,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) first_name: Option<&'static str>,
    pub(crate) last_name: Option<&'static str>,
}

/// What a user signs in with.
#[derive(Default)]
pub(crate) struct Identifications {
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

impl Identifications {
    /// Generates the identifications of a user.
    pub(crate) fn generate(profile: &Profile, rng: &mut ChaCha8Rng) -> Self {
        let mut all = Self::default();
        let google = |rng: &mut _| external(profile, "oauth_google", "google_account", rng);
        let github = |rng: &mut _| external(profile, "oauth_github", "external_account", rng);
        let facebook = |rng: &mut _| external(profile, "oauth_facebook", "facebook_account", rng);
        let mut has_email = true;
        match rng.random_range(0..100) {
            0..38 => all.password = true,
            38..62 => all.external.push(google(rng)),
            62..72 => all.external.push(github(rng)),
            72..77 => all.external.push(facebook(rng)),
            77..80 => all.external = vec![google(rng), github(rng)],
            80..86 => {
                all.phones.push(phone(profile, 0, rng));
                has_email = false;
            }
            86..90 => {
                all.wallets.push(wallet(profile, rng));
                has_email = false;
            }
            90..94 => all.saml.push(saml(profile, rng)),
            94..97 => all.enterprise.push(enterprise(profile, rng)),
            _ => {
                all.password = true;
                all.phones.push(phone(profile, 0, rng));
                all.wallets.push(wallet(profile, rng));
            }
        }
        if has_email {
            all.add_emails(profile, rng);
        }
        all.add_username_and_passkeys(profile, rng);
        all
    }

    fn add_emails(&mut self, profile: &Profile, rng: &mut ChaCha8Rng) {
        let emails = if rng.random_bool(0.15) {
            rng.random_range(2..=4)
        } else {
            1
        };
        self.emails = (0..emails)
            .map(|index| email(profile, index, &self.external, rng))
            .collect();
        // The primary address is often not the first, and its id may refer to no address
        // (observed).
        self.primary_email = match rng.random_range(0..100) {
            0..2 => Some(id("idn_", profile.created_at, rng)),
            2..4 => None,
            _ => self.emails.last().map(|email| email.id.clone()),
        };
    }

    fn add_username_and_passkeys(&mut self, profile: &Profile, rng: &mut ChaCha8Rng) {
        if rng.random_bool(0.35) {
            self.username = MAILBOXES
                .choose(rng)
                .map(|name| format!("{}_{}", name.replace(['.', '+', '\''], "-"), profile.n));
        }
        if rng.random_bool(0.06) {
            self.passkeys = (0..rng.random_range(1..3)).map(|_| passkey(profile, rng)).collect();
        }
    }
}

fn mailbox(profile: &Profile, index: usize, rng: &mut impl Rng) -> String {
    let name = MAILBOXES.choose(rng).copied().unwrap_or("user");
    let domain = DOMAINS.choose(rng).copied().unwrap_or("example.com");
    if index == 0 {
        format!("{name}.{}@{domain}", profile.n)
    } else {
        format!("{name}.{}.{index}@{domain}", profile.n)
    }
}

fn email(profile: &Profile, index: usize, external: &[ExternalAccount], rng: &mut ChaCha8Rng) -> EmailAddress {
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
            expire_at: Some(Some(profile.created_at + 600_000)),
            ..verified("verification_ticket", "ticket")
        }),
        (_, 25..35) => Some(Verification {
            attempts: Some(1),
            expire_at: Some(Some(profile.created_at + 600_000)),
            ..verified("verification_email_link", "email_link")
        }),
        (_, 35..45) => Some(Verification {
            status: "unverified",
            attempts: Some(0),
            expire_at: Some(Some(profile.updated_at + 600_000)),
            ..verified("verification_otp", "email_code")
        }),
        (_, 45..48) => None,
        _ => Some(Verification {
            attempts: Some(1),
            expire_at: Some(Some(profile.created_at + 600_000)),
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
        id: id("idn_", profile.created_at, rng),
        object: "email_address",
        email_address: mailbox(profile, index, rng),
        reserved: false,
        verification,
        linked_to,
        matches_sso_connection: rng.random_bool(0.9).then_some(false),
        created_at: profile.created_at,
        updated_at: rng.random_range(profile.created_at..=profile.updated_at),
    }
}

fn phone(profile: &Profile, index: u64, rng: &mut ChaCha8Rng) -> PhoneNumber {
    let second_factor = rng.random_bool(0.1);
    PhoneNumber {
        id: id("idn_", profile.created_at, rng),
        object: "phone_number",
        phone_number: format!("+1555{:09}", profile.n * 4 + index),
        reserved_for_second_factor: second_factor,
        default_second_factor: second_factor,
        reserved: false,
        verification: Some(Verification {
            attempts: Some(1),
            expire_at: Some(Some(profile.created_at + 600_000)),
            ..verified("verification_otp", "phone_code")
        }),
        linked_to: Vec::new(),
        backup_codes: None,
        created_at: profile.created_at,
        updated_at: profile.created_at,
    }
}

fn wallet(profile: &Profile, rng: &mut ChaCha8Rng) -> Web3Wallet {
    Web3Wallet {
        id: id("idn_", profile.created_at, rng),
        object: "web3_wallet",
        web3_wallet: format!("0x{:024x}{:016x}", rng.random::<u64>(), profile.n),
        verification: Some(Verification {
            nonce: Some(format!("{:032x}", rng.random::<u128>())),
            attempts: Some(1),
            ..verified("verification_web3", "web3_metamask_signature")
        }),
        created_at: profile.created_at,
        updated_at: profile.created_at,
    }
}

fn passkey(profile: &Profile, rng: &mut ChaCha8Rng) -> Passkey {
    Passkey {
        id: id("idn_", profile.created_at, rng),
        object: "passkey",
        name: ["Chrome on Mac", "iCloud Keychain", "YubiKey 5 – Büro"]
            .choose(rng)
            .copied()
            .unwrap_or_default(),
        last_used_at: profile.updated_at,
        verification: Some(Verification {
            nonce: Some("nonce".to_owned()),
            ..verified("verification_passkey", "passkey")
        }),
    }
}

fn external(profile: &Profile, provider: &'static str, object: &'static str, rng: &mut ChaCha8Rng) -> ExternalAccount {
    let image = format!("https://images.example.com/{:016x}=s1000-c", rng.random::<u64>());
    ExternalAccount {
        id: id(
            if object == "google_account" { "gac_" } else { "eac_" },
            profile.created_at,
            rng,
        ),
        object,
        provider,
        identification_id: id("idn_", profile.created_at, rng),
        provider_user_id: format!("1{:020}", profile.n),
        approved_scopes: if provider == "oauth_github" {
            "read:user user:email"
        } else {
            "email openid profile"
        },
        email_address: mailbox(profile, 0, rng),
        email_address_verified: rng.random_bool(0.5).then(|| rng.random_bool(0.8).then_some(true)),
        username: (provider == "oauth_github").then(|| format!("hub-{}", profile.n)),
        first_name: profile.first_name.unwrap_or_default().to_owned(),
        last_name: profile.last_name.unwrap_or_default().to_owned(),
        avatar_url: image.clone(),
        image_url: rng.random_bool(0.9).then_some(image),
        label: None,
        verification: Some(Verification {
            // The specification does not allow null here.
            expire_at: Some(Some(profile.created_at + 600_000)),
            ..verified("verification_oauth", provider)
        }),
        public_metadata: Map::new(),
        created_at: profile.created_at,
        updated_at: profile.created_at,
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

fn saml(profile: &Profile, rng: &mut ChaCha8Rng) -> SamlAccount {
    SamlAccount {
        id: id("samlacc_", profile.created_at, rng),
        object: "saml_account",
        provider: "saml_okta",
        active: rng.random_bool(0.9),
        provider_user_id: rng.random_bool(0.8).then(|| format!("00u{:017x}", profile.n)),
        email_address: mailbox(profile, 0, rng),
        first_name: profile.first_name.map(str::to_owned),
        last_name: profile.last_name.map(str::to_owned),
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

fn enterprise(profile: &Profile, rng: &mut ChaCha8Rng) -> EnterpriseAccount {
    let oauth = rng.random_bool(0.5);
    let (protocol, provider, verification) = if oauth {
        (
            "oauth",
            "oauth_google",
            Verification {
                expire_at: Some(Some(profile.created_at + 600_000)),
                ..verified("verification_oauth", "oauth_google")
            },
        )
    } else {
        ("saml", "saml_custom", verified("verification_saml", "saml"))
    };
    EnterpriseAccount {
        id: id("entacc_", profile.created_at, rng),
        object: "enterprise_account",
        protocol,
        provider,
        active: true,
        provider_user_id: rng.random_bool(0.8).then(|| format!("{:x}", profile.n)),
        email_address: mailbox(profile, 0, rng),
        first_name: profile.first_name.map(str::to_owned),
        last_name: profile.last_name.map(str::to_owned),
        verification: Some(verification),
        enterprise_connection: rng
            .random_bool(0.9)
            .then(|| connection("entconn_", Some(protocol), provider, rng)),
        public_metadata: Map::new(),
    }
}
