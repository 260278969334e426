//! Generates users from a seed. The n-th user of a seed is always the same, whatever the number of
//! users.

use bytes::{BufMut, BytesMut};
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::identifications::{Identifications, Profile};
use super::model::{Scim, User};
use super::resource::USER_INDEXES;
use super::samples::{FIRST_NAMES, LAST_NAMES, LOCALES};
use crate::ids::id;
use crate::metadata;
use crate::oddity::Oddity;
use crate::seed::{DAY, EPOCH, SPAN, rng};
use crate::store::entry::Entry;
use crate::store::identifier::{Identifier, identifiers};
use crate::store::{HashedEntries, Store};

/// A large import: these users were created in the same millisecond, and do not fit on a page.
const IMPORT: std::ops::Range<u64> = 3000..3620;
/// Users per small import.
const SMALL_IMPORT: u64 = 8;

/// Bytes per block of memory that documents share.
const BLOCK: usize = 1 << 20;
/// Bytes that must be free in a block for the next document.
const MAX_DOCUMENT: usize = 1 << 14;

/// When a generated user was created. `now` is in Unix milliseconds.
#[derive(Clone, Copy)]
pub(crate) enum Creation {
    /// In the three years before the epoch. Locks count from now.
    Past { now: i64 },
    /// Now, by churn.
    Present { now: i64 },
}

/// The id of the instance of a seed.
pub(crate) fn instance_id(seed: u64) -> String {
    id("ins_", EPOCH - SPAN, &mut rng(seed, 0, 3))
}

/// Generates all users of a simulator, on all cores.
pub(crate) fn store(seed: u64, users: usize, now: i64) -> Store {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let hasher = hashbrown::DefaultHashBuilder::default();
    let share = users.div_ceil(threads).max(1);
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..users)
            .step_by(share)
            .map(|start| {
                let hasher = hasher.clone();
                scope.spawn(move || {
                    let mut part = HashedEntries::new(hasher);
                    let mut buffer = BytesMut::new();
                    for n in start..users.min(start + share) {
                        if buffer.capacity() < MAX_DOCUMENT {
                            buffer = BytesMut::with_capacity(BLOCK);
                        }
                        let (entry, identifiers) = generate(seed, n as u64, Creation::Past { now }, &mut buffer);
                        part.push(entry, &identifiers);
                    }
                    part
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("making a user does not panic"))
            .collect()
    });
    Store::new(&USER_INDEXES, hasher, parts)
}

/// The n-th user of a seed.
pub(crate) fn user(seed: u64, n: u64, creation: Creation) -> Entry {
    generate(seed, n, creation, &mut BytesMut::with_capacity(4096)).0
}

/// The n-th user of a seed, and its identifiers.
///
/// Documents that are made with the same buffer share large blocks of memory. A million allocations
/// that stay, among many that do not, would take longer than generating the users.
fn generate(seed: u64, n: u64, creation: Creation, buffer: &mut BytesMut) -> (Entry, Vec<Identifier>) {
    let mut rng = rng(seed, n, 0);
    let (created_at, now) = match creation {
        Creation::Past { now } => (created_at(seed, n, &mut rng), now),
        Creation::Present { now } => (now, now),
    };
    let last = match creation {
        Creation::Past { .. } => EPOCH,
        Creation::Present { now } => now + 1,
    };
    // Imported users have dates older than their ids.
    let imported = IMPORT.contains(&n) || rng.random_bool(0.1);
    let made_at = if imported {
        rng.random_range(created_at..last)
    } else {
        created_at
    };
    let updated_at = if rng.random_bool(0.15) {
        created_at
    } else {
        rng.random_range(created_at..last)
    };
    let oddity = rng
        .random_bool(0.03)
        .then(|| Oddity::ALL.choose(&mut rng).copied())
        .flatten();
    let user_id = id("user_", made_at, &mut rng);
    let (user, lock_seconds) = document(user_id, n, created_at, updated_at, &mut rng);
    let lock_ends_at = lock_seconds.map(|seconds| now + seconds * 1000);
    let Some(oddity) = oddity else {
        serde_json::to_writer((&mut *buffer).writer(), &user).expect("a user can always be written to memory");
        let bytes = buffer.split().freeze();
        let entry = Entry::verbatim(&user.id, created_at, updated_at, bytes).lock_until(lock_ends_at);
        return (entry, user.identifiers());
    };
    let mut document = serde_json::to_value(&user).expect("a user is a JSON value");
    oddity.apply(&mut document);
    let entry = Entry::new(&user.id, &document, lock_ends_at).with_oddity(Some(oddity));
    // The deviation may have removed or added an address.
    let identifiers = identifiers(&entry, USER_INDEXES.identifiers);
    (entry, identifiers)
}

/// The creation time. More users were created recently than long ago, those of an import at once.
fn created_at(seed: u64, n: u64, own: &mut impl Rng) -> i64 {
    let random_time = |rng: &mut dyn FnMut() -> f64| EPOCH - 1 - (SPAN as f64 * rng().powf(1.4)) as i64;
    let own = random_time(&mut || own.random());
    if IMPORT.contains(&n) {
        return random_time(&mut || rng(seed, IMPORT.start, 1).random());
    }
    let mut import = rng(seed, n / SMALL_IMPORT, 2);
    if import.random_bool(0.08) {
        random_time(&mut || import.random())
    } else {
        own
    }
}

/// The document, and the seconds for which the user is still locked.
fn document(user_id: String, n: u64, created_at: i64, updated_at: i64, rng: &mut ChaCha8Rng) -> (User, Option<i64>) {
    let first_name = rng.random_bool(0.9).then(|| FIRST_NAMES.choose(rng).copied()).flatten();
    let last_name = match rng.random_range(0..100) {
        0..12 => None,
        12..16 => Some(""),
        _ => LAST_NAMES.choose(rng).copied(),
    };
    let profile = Profile {
        n,
        created_at,
        updated_at,
        first_name,
        last_name,
    };
    let identifications = Identifications::generate(&profile, rng);
    let password_enabled = identifications.password;
    let mfa = password_enabled && rng.random_bool(0.08);
    let between = |rng: &mut ChaCha8Rng| rng.random_range(created_at..=updated_at);
    let last_sign_in_at = rng.random_bool(0.85).then(|| between(rng));
    let locked = rng.random_bool(0.01);
    let lock_seconds = (locked && rng.random_bool(0.6)).then(|| rng.random_range(3600..7 * 24 * 3600));
    let picture = rng.random_range(0..10) > 0;
    let image = || {
        format!(
            "https://img.clerk.com/{:064x}",
            u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        )
    };
    let user = User {
        id: user_id,
        object: "user",
        username: identifications.username,
        first_name: first_name.map(str::to_owned),
        last_name: last_name.map(str::to_owned),
        locale: rng
            .random_bool(0.9)
            .then(|| LOCALES.choose(rng).copied().filter(|_| !n.is_multiple_of(3))),
        profile_image_url: (picture && rng.random_bool(0.7)).then(image),
        image_url: picture.then(image),
        has_image: picture && rng.random_bool(0.5),
        primary_email_address_id: identifications.primary_email,
        primary_phone_number_id: identifications.phones.first().map(|phone| phone.id.clone()),
        primary_web3_wallet_id: identifications.wallets.first().map(|wallet| wallet.id.clone()),
        password_enabled,
        two_factor_enabled: mfa,
        totp_enabled: mfa,
        backup_code_enabled: mfa && n.is_multiple_of(2),
        email_addresses: identifications.emails,
        phone_numbers: identifications.phones,
        web3_wallets: identifications.wallets,
        passkeys: identifications.passkeys,
        external_accounts: identifications.external,
        saml_accounts: identifications.saml,
        enterprise_accounts: identifications.enterprise,
        password_last_updated_at: rng.random_bool(0.9).then(|| password_enabled.then(|| between(rng))),
        public_metadata: metadata::public(rng),
        private_metadata: match rng.random_range(0..100) {
            0..4 => None,
            4..8 => Some(None),
            _ => Some(Some(metadata::private(rng))),
        },
        unsafe_metadata: rng.random_bool(0.96).then(|| metadata::unsafe_(rng)),
        external_id: rng.random_bool(0.3).then(|| format!("{:08}", n * 7 + 13)),
        last_sign_in_at,
        banned: rng.random_bool(0.01),
        locked,
        lockout_expires_in_seconds: lock_seconds,
        verification_attempts_remaining: rng
            .random_bool(0.9)
            .then(|| if locked { 0 } else { rng.random_range(1..=100) }),
        created_at,
        updated_at,
        delete_self_enabled: rng.random_bool(0.95),
        create_organization_enabled: rng.random_bool(0.9),
        create_organizations_limit: rng.random_bool(0.5).then(|| n.is_multiple_of(4).then_some(5)),
        last_active_at: last_sign_in_at.map(|at| at.max(updated_at - updated_at.rem_euclid(DAY))),
        mfa_enabled_at: mfa.then(|| between(rng)),
        mfa_disabled_at: rng.random_bool(0.01).then(|| between(rng)),
        legal_accepted_at: rng.random_bool(0.4).then_some(created_at),
        deprovisioned: rng.random_bool(0.9).then(|| rng.random_bool(0.01)),
        bypass_client_trust: rng.random_bool(0.9).then_some(false),
        scim: rng.random_bool(0.01).then(|| Scim {
            external_id: rng.random_bool(0.5).then(|| format!("{n:x}")),
            directory_enabled: true,
            directory_id: id("dir_", created_at, rng),
        }),
    };
    (user, lock_seconds)
}
