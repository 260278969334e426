//! Generates organizations with members and invitations from a seed. The n-th organization of a
//! seed is always the same, whatever the number of organizations. Its members depend on the users.

use std::sync::Arc;

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::options::OrganizationOptions;
use super::render::PENDING;
use super::resource::{INVITATION_INDEXES, MEMBERSHIP_INDEXES, ORGANIZATION_INDEXES};
use super::roles;
use super::samples::{FORMS, NAMES};
use crate::ids::id;
use crate::metadata;
use crate::seed::{DAY, EPOCH, SPAN, rng};
use crate::store::entry::Entry;
use crate::store::identifier::identifiers;
use crate::store::{HashedEntries, Indexes, Store};
use crate::stores::Stores;
use crate::users::samples::DOMAINS;

/// The purposes of the random numbers of an organization.
const ORGANIZATION: u64 = 20;
const MEMBERS: u64 = 21;
const INVITATIONS: u64 = 22;

/// The time in which an invitation can be accepted, in milliseconds (documented).
pub(super) const VALIDITY: i64 = 30 * DAY;

/// Adds organizations and what belongs to them to the users.
pub(crate) fn stores(seed: u64, options: &OrganizationOptions, users: Store) -> Stores {
    let members: Vec<_> = users.in_order().cloned().collect();
    let mut generated = Generated {
        seed,
        users: members,
        organizations: Part::new(&ORGANIZATION_INDEXES),
        memberships: Part::new(&MEMBERSHIP_INDEXES),
        invitations: Part::new(&INVITATION_INDEXES),
    };
    for n in 0..options.number {
        generated.add(n, options);
    }
    let (roles, permissions) = roles::stores(seed);
    Stores::new([
        users,
        generated.organizations.store(),
        generated.memberships.store(),
        generated.invitations.store(),
        roles,
        permissions,
    ])
}

/// The entries of one kind.
struct Part {
    indexes: &'static Indexes,
    hasher: hashbrown::DefaultHashBuilder,
    entries: HashedEntries,
}

impl Part {
    fn new(indexes: &'static Indexes) -> Self {
        let hasher = hashbrown::DefaultHashBuilder::default();
        Self {
            indexes,
            entries: HashedEntries::new(hasher.clone()),
            hasher,
        }
    }

    fn push(&mut self, entry: Entry) {
        let identifiers = identifiers(&entry, self.indexes.identifiers);
        self.entries.push(entry, &identifiers);
    }

    fn store(self) -> Store {
        Store::new(self.indexes, self.hasher, vec![self.entries])
    }
}

struct Generated {
    seed: u64,
    /// In ascending (`created_at`, id) order.
    users: Vec<Arc<Entry>>,
    organizations: Part,
    memberships: Part,
    invitations: Part,
}

impl Generated {
    /// Adds the n-th organization with its members and invitations.
    fn add(&mut self, n: usize, options: &OrganizationOptions) {
        let seed = self.seed;
        let mut members_rng = rng(seed, n as u64, MEMBERS);
        let mut invitations_rng = rng(seed, n as u64, INVITATIONS);
        let members = options.members.of(n, members_rng.random()).min(self.users.len());
        let invitations = options.invitations.of(n, invitations_rng.random());
        let users = self.choose_users(members, &mut members_rng);
        let creator = users.first().map(|user| &*user.id);
        let (organization, created_at) = organization(seed, n as u64, None, creator, members + invitations);
        let organization_id = organization.id.to_string();
        // The members of some organizations were imported, all in the same millisecond.
        let is_imported = n % 8 == 3;
        for (k, user) in users.iter().enumerate() {
            let since = created_at.max(user.created_at);
            let at = match is_imported {
                true => created_at,
                false => members_rng.random_range(since..=EPOCH.max(since)),
            };
            let role = if k == 0 {
                roles::keys()[0]
            } else {
                random_role(&mut members_rng)
            };
            let membership = membership(&organization_id, &user.id, role, at, &mut members_rng);
            self.memberships.push(membership);
        }
        for k in 0..invitations {
            let invitation = past_invitation(&organization_id, creator, n, k, created_at, &mut invitations_rng);
            self.invitations.push(invitation);
        }
        self.organizations.push(organization);
    }

    /// Chooses this number of users, none of them twice.
    fn choose_users(&self, number: usize, rng: &mut ChaCha8Rng) -> Vec<Arc<Entry>> {
        let all = self.users.len();
        if number == 0 {
            return Vec::new();
        }
        let start = rng.random_range(0..all);
        // Steps that have no divisor in common with the number of users reach each of them.
        let mut step = rng.random_range(1..=all);
        while greatest_common_divisor(step, all) != 1 {
            step += 1;
        }
        let nth = |k: usize| self.users[(start + k * step) % all].clone();
        (0..number).map(nth).collect()
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A role: most members have no special one.
pub(super) fn random_role(rng: &mut impl Rng) -> &'static str {
    let [admin, member, accountant] = roles::keys();
    match rng.random_range(0..10) {
        0 => admin,
        1 => accountant,
        _ => member,
    }
}

/// A name of an organization.
pub(super) fn random_name(rng: &mut impl Rng) -> String {
    let part = |parts: &[&'static str], rng: &mut _| parts.choose(rng).copied().unwrap_or_default();
    format!("{}{}", part(NAMES, rng), part(FORMS, rng))
}

/// The n-th organization of a seed, and when it was created: now, or in the past if there is no
/// `now`. `size` is the number of its members and invitations.
pub(super) fn organization(seed: u64, n: u64, now: Option<i64>, creator: Option<&str>, size: usize) -> (Entry, i64) {
    let rng = &mut rng(seed, n, ORGANIZATION);
    let past = EPOCH - 1 - (SPAN as f64 * rng.random::<f64>().powf(1.4)) as i64;
    let created_at = now.unwrap_or(past);
    let last = now.unwrap_or(EPOCH);
    let updated_at = if rng.random_bool(0.2) {
        created_at
    } else {
        rng.random_range(created_at..=last)
    };
    let id = id("org_", created_at, rng);
    let name = random_name(rng);
    let limit = if rng.random_bool(0.5) { 0 } else { (2 * size).max(5) };
    let mut document = json!({
        "id": id, "object": "organization", "name": name, "slug": format!("organization-{n}"),
        "has_image": rng.random_bool(0.3), "max_allowed_memberships": limit, "admin_delete_enabled": rng.random_bool(0.9),
        "public_metadata": metadata::public(rng), "created_at": created_at, "updated_at": updated_at,
    });
    let mut set_sometimes = |probability: f64, key: &str, value: Value| {
        if rng.random_bool(probability) {
            document[key] = value;
        }
    };
    set_sometimes(0.97, "image_url", format!("https://img.clerk.com/{id}").into());
    set_sometimes(0.5, "last_active_at", updated_at.into());
    set_sometimes(0.3, "role_set_key", Value::Null);
    set_sometimes(0.3, "role_set_key", "role_set:default".into());
    if let Some(creator) = creator {
        set_sometimes(0.95, "created_by", creator.into());
    }
    if rng.random_bool(0.95) {
        document["private_metadata"] = metadata::private(rng).into();
    }
    (Entry::new(&id, &document, None), created_at)
}

/// A membership as it is stored: the organization and the user are ids. The fields are in the order
/// of [`crate::store::canonical`].
#[derive(Serialize)]
struct Membership<'a> {
    id: &'a str,
    object: &'static str,
    public_metadata: Map<String, Value>,
    private_metadata: Map<String, Value>,
    created_at: i64,
    updated_at: i64,
    organization: OrganizationReference<'a>,
    public_user_data: UserReference<'a>,
    role: &'a str,
}

#[derive(Serialize)]
struct OrganizationReference<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct UserReference<'a> {
    user_id: &'a str,
}

/// A membership with generated metadata.
pub(super) fn membership(organization: &str, user: &str, role: &str, at: i64, rng: &mut impl Rng) -> Entry {
    let metadata = match rng.random_range(0..100) {
        0..80 => Map::new(),
        _ => metadata::public(rng),
    };
    membership_with(organization, user, role, at, [metadata, Map::new()], rng)
}

/// A membership with this public and private metadata.
pub(super) fn membership_with(
    organization: &str,
    user: &str,
    role: &str,
    at: i64,
    [public_metadata, private_metadata]: [Map<String, Value>; 2],
    rng: &mut impl Rng,
) -> Entry {
    let id = id("orgmem_", at, rng);
    let document = Membership {
        id: &id,
        object: "organization_membership",
        public_metadata,
        private_metadata,
        created_at: at,
        updated_at: at,
        organization: OrganizationReference { id: organization },
        public_user_data: UserReference { user_id: user },
        role,
    };
    let bytes = serde_json::to_vec(&document).expect("a membership can always be written to memory");
    Entry::verbatim(&id, at, at, bytes)
}

/// The k-th invitation to the n-th organization.
///
/// Pending ones never expire, so that they stay the same from run to run.
fn past_invitation(
    organization: &str,
    inviter: Option<&str>,
    n: usize,
    k: usize,
    since: i64,
    rng: &mut impl Rng,
) -> Entry {
    let status = match rng.random_range(0..20) {
        0..8 => PENDING,
        8..15 => "accepted",
        15..18 => "revoked",
        _ => "expired",
    };
    let created_at = rng.random_range(since..EPOCH);
    let id = id("orginv_", created_at, rng);
    let domain = DOMAINS.choose(rng).copied().unwrap_or_default();
    let is_pending = status == PENDING;
    let mut document = invitation(
        &id,
        organization,
        &format!("invitee-{n}-{k}@{domain}"),
        random_role(rng),
        created_at,
    );
    document["status"] = status.into();
    document["inviter_id"] = inviter.filter(|_| rng.random_bool(0.9)).into();
    if is_pending {
        document["expires_at"] = Value::Null;
    } else {
        document["updated_at"] = rng.random_range(created_at..=EPOCH).into();
        document["url"] = Value::Null;
    }
    if rng.random_bool(0.2) {
        document["public_metadata"] = metadata::public(rng).into();
    }
    Entry::new(&id, &document, None)
}

/// A pending invitation as it is stored, without an inviter and without metadata.
pub(super) fn invitation(id: &str, organization: &str, address: &str, role: &str, at: i64) -> Value {
    json!({
        "id": id, "object": "organization_invitation", "email_address": address, "organization_id": organization,
        "inviter_id": null, "role": role, "status": PENDING, "public_metadata": {}, "private_metadata": {},
        "url": format!("https://accounts.example.com/v1/tickets/accept?ticket={id}"),
        "expires_at": at + VALIDITY, "created_at": at, "updated_at": at,
    })
}
