//! Users, made from a seed: the n-th user of a seed is always the same, however many there are.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

use crate::accounts::{self, Person};
use crate::document::Entry;
use crate::facts::{Facts, Kind};
use crate::ids::id;
use crate::metadata;
use crate::model::{Scim, User};
use crate::oddity::Oddity;
use crate::people::{FIRST_NAMES, LAST_NAMES, LOCALES};
use crate::store::{Prepared, Store};

/// Before this moment, 2026-06-01T00:00:00Z, lies everything that generated users have done: so they stay the same from run to run.
pub(crate) const EPOCH: i64 = 1_780_272_000_000;
const DAY: i64 = 24 * 60 * 60 * 1000;
const SPAN: i64 = 3 * 365 * DAY;
/// One large import: all of these users were created in the same millisecond, more than fit on a page.
const IMPORT: std::ops::Range<u64> = 3000..3620;
/// Small imports come in runs of so many users.
const RUN: u64 = 8;

/// Documents are written into blocks of so many bytes, each of which has room for one of this length left.
const BLOCK: usize = 1 << 20;
const LONGEST: usize = 1 << 14;

/// When a generated user comes into being.
#[derive(Clone, Copy)]
pub(crate) enum Birth {
    /// In the three years before the epoch. Locks end by the clock, so they are told the time.
    Seeded { now: i64 },
    /// Now, in Unix milliseconds: by churn.
    Live { now: i64 },
}

fn rng(seed: u64, n: u64, purpose: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (part, value) in key.chunks_exact_mut(8).zip([seed, n, purpose]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The instance id that a seed stands for.
pub(crate) fn instance_id(seed: u64) -> String {
    id("ins_", EPOCH - SPAN, &mut rng(seed, 0, 3))
}

/// Makes all users of a simulator, on all cores.
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
                    let mut part = Prepared::new(hasher);
                    let mut buffer = BytesMut::new();
                    for n in start..users.min(start + share) {
                        if buffer.capacity() < LONGEST {
                            buffer = BytesMut::with_capacity(BLOCK);
                        }
                        let (entry, identifiers) = generate(seed, n as u64, Birth::Seeded { now }, &mut buffer);
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
    Store::new(hasher, parts)
}

/// The n-th user of a seed.
pub(crate) fn user(seed: u64, n: u64, birth: Birth) -> Entry {
    generate(seed, n, birth, &mut BytesMut::with_capacity(4096)).0
}

/// The n-th user of a seed, and what it can be looked up by.
///
/// Documents made with the same buffer share large blocks of memory: a million allocations that stay, among many that do not, take
/// longer than making the users.
fn generate(seed: u64, n: u64, birth: Birth, buffer: &mut BytesMut) -> (Entry, Vec<(Kind, String)>) {
    let mut rng = rng(seed, n, 0);
    let (created_at, now) = match birth {
        Birth::Seeded { now } => (created_at(seed, n, &mut rng), now),
        Birth::Live { now } => (now, now),
    };
    let last = match birth {
        Birth::Seeded { .. } => EPOCH,
        Birth::Live { now } => now + 1,
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
    let entry = Entry::new(&user.id, &document, lock_ends_at).odd(Some(oddity));
    // The deviation may have taken an address away or added one.
    let identifiers = Facts::read(entry.stored())
        .map(|facts| facts.identifiers())
        .unwrap_or_default();
    (entry, identifiers)
}

/// More users were created lately than long ago; those of an import at once.
fn created_at(seed: u64, n: u64, own: &mut impl Rng) -> i64 {
    let moment = |rng: &mut dyn FnMut() -> f64| EPOCH - 1 - (SPAN as f64 * rng().powf(1.4)) as i64;
    let own = moment(&mut || own.random());
    if IMPORT.contains(&n) {
        return moment(&mut || rng(seed, IMPORT.start, 1).random());
    }
    let mut run = rng(seed, n / RUN, 2);
    if run.random_bool(0.08) {
        moment(&mut || run.random())
    } else {
        own
    }
}

/// The document, and for how many seconds the user is locked.
fn document(user_id: String, n: u64, created_at: i64, updated_at: i64, rng: &mut ChaCha8Rng) -> (User, Option<i64>) {
    let first_name = rng.random_bool(0.9).then(|| FIRST_NAMES.choose(rng).copied()).flatten();
    let last_name = match rng.random_range(0..100) {
        0..12 => None,
        12..16 => Some(""),
        _ => LAST_NAMES.choose(rng).copied(),
    };
    let person = Person {
        n,
        created_at,
        updated_at,
        first_name,
        last_name,
    };
    let accounts = accounts::accounts(&person, rng);
    let password_enabled = accounts.password;
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
        username: accounts.username,
        first_name: first_name.map(str::to_owned),
        last_name: last_name.map(str::to_owned),
        locale: rng
            .random_bool(0.9)
            .then(|| LOCALES.choose(rng).copied().filter(|_| !n.is_multiple_of(3))),
        profile_image_url: (picture && rng.random_bool(0.7)).then(image),
        image_url: picture.then(image),
        has_image: picture && rng.random_bool(0.5),
        primary_email_address_id: accounts.primary_email,
        primary_phone_number_id: accounts.phones.first().map(|phone| phone.id.clone()),
        primary_web3_wallet_id: accounts.wallets.first().map(|wallet| wallet.id.clone()),
        password_enabled,
        two_factor_enabled: mfa,
        totp_enabled: mfa,
        backup_code_enabled: mfa && n.is_multiple_of(2),
        email_addresses: accounts.emails,
        phone_numbers: accounts.phones,
        web3_wallets: accounts.wallets,
        passkeys: accounts.passkeys,
        external_accounts: accounts.external,
        saml_accounts: accounts.saml,
        enterprise_accounts: accounts.enterprise,
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

/// The users of a store in ascending (created_at, id) order.
pub(crate) fn in_order(store: &Store) -> impl Iterator<Item = &Arc<Entry>> {
    store.by_created.range(0..store.len())
}
