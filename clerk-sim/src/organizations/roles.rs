//! The roles and permissions of an instance.
//!
//! The roles Admin and Member and the keys of system permissions are as observed. The other texts
//! are guesses.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::resource::ROLE_INDEXES;
use crate::ids::id;
use crate::kind::Kind;
use crate::seed::{EPOCH, SPAN, rng};
use crate::store::entry::Entry;
use crate::store::identifier::identifiers;
use crate::store::properties::Properties;
use crate::store::{HashedEntries, Store};
use crate::stores::View;

/// Permissions: key, name, and whether it is of the system.
const PERMISSIONS: [(&str, &str, bool); 10] = [
    ("org:sys_profile:manage", "Manage profile", true),
    ("org:sys_profile:delete", "Delete organization", true),
    ("org:sys_memberships:read", "Read members", true),
    ("org:sys_memberships:manage", "Manage members", true),
    ("org:sys_domains:read", "Read domains", true),
    ("org:sys_domains:manage", "Manage domains", true),
    ("org:sys_billing:read", "Read billing", true),
    ("org:sys_billing:manage", "Manage billing", true),
    ("org:invoices:create", "Create invoices", false),
    ("org:reports:read", "Read \"reports\" & more", false),
];

/// Roles: key, name, and which permissions it has, by place above.
const ROLES: [(&str, &str, &[usize]); 3] = [
    ("org:admin", "Admin", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ("org:member", "Member", &[2, 6, 9]),
    ("org:accountant", "Accountant", &[2, 6, 7, 8]),
];

/// The purpose of the random numbers that ids are made of.
const PERMISSION: u64 = 10;
const ROLE: u64 = 11;

/// A role, as memberships and invitations show it.
pub(crate) struct Role {
    pub(crate) name: String,
    /// The keys of its permissions.
    pub(crate) permissions: Vec<String>,
}

/// The roles of an instance by their keys.
pub(crate) struct RoleTable(HashMap<String, Role>);

impl RoleTable {
    pub(crate) fn read(view: &View<'_>) -> Self {
        let roles = view.of(Kind::OrganizationRoles).all();
        let read = |entry: &Entry| {
            let properties = Properties::read(entry.stored())?;
            let permissions = properties.items("permissions");
            let role = Role {
                name: properties.value("name")?,
                permissions: permissions.iter().filter_map(|item| item.value("key")).collect(),
            };
            Some((properties.value("key")?, role))
        };
        Self(roles.iter().filter_map(|entry| read(entry)).collect())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Role> {
        self.0.get(key)
    }
}

/// The keys of the roles that are there at the start. The first is that of admins.
pub(super) fn keys() -> [&'static str; ROLES.len()] {
    ROLES.map(|(key, ..)| key)
}

/// Makes the roles and the permissions of a seed.
pub(super) fn stores(seed: u64) -> (Store, Store) {
    let at = |n: usize| EPOCH - SPAN + i64::try_from(n).expect("a small number") * 60_000;
    let permission = |n: usize| {
        let (key, name, is_system) = PERMISSIONS[n];
        json!({
            "id": id("perm_", at(n), &mut rng(seed, n as u64, PERMISSION)),
            "object": "permission", "name": name, "key": key, "description": format!("Permission to {}", name.to_lowercase()),
            "type": if is_system { "system" } else { "user" }, "created_at": at(n), "updated_at": at(n),
        })
    };
    let role = |n: usize| {
        let (key, name, permissions) = ROLES[n];
        let permissions: Vec<_> = permissions.iter().map(|n| permission(*n)).collect();
        json!({
            "id": id("role_", at(n), &mut rng(seed, n as u64, ROLE)),
            "object": "role", "name": name, "key": key, "description": (n < 2).then(|| format!("Role of {}s", name.to_lowercase())),
            "is_creator_eligible": n == 0, "permissions": permissions, "created_at": at(n), "updated_at": at(n),
        })
    };
    (
        store((0..ROLES.len()).map(role)),
        store((0..PERMISSIONS.len()).map(permission)),
    )
}

fn store(documents: impl Iterator<Item = Value>) -> Store {
    let hasher = hashbrown::DefaultHashBuilder::default();
    let mut part = HashedEntries::new(hasher.clone());
    for document in documents {
        let id = document["id"].as_str().expect("a generated object has an id");
        let entry = Entry::new(id, &document, None);
        let identifiers = identifiers(&entry, ROLE_INDEXES.identifiers);
        part.push(entry, &identifiers);
    }
    Store::new(&ROLE_INDEXES, hasher, vec![part])
}
