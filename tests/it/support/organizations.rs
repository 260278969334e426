//! Organizations and what belongs to them, in the mirror and at Clerk.

use std::collections::BTreeMap;

use clerk_sim::{Kind, Options, OrganizationOptions};
use serde_json::Value;

use crate::support::{compare::comparable, database::Database, fixture::Fixture, summary::Exit};

/// The kinds of objects with their tables, and the functions that build their documents.
pub const KINDS: [(Kind, &str, &str); 5] = [
    (Kind::Organizations, "organizations", "organization_document"),
    (
        Kind::OrganizationMemberships,
        "organization_memberships",
        "organization_membership_document",
    ),
    (
        Kind::OrganizationInvitations,
        "organization_invitations",
        "organization_invitation_document",
    ),
    (
        Kind::OrganizationRoles,
        "organization_roles",
        "organization_role_document",
    ),
    (
        Kind::OrganizationPermissions,
        "organization_permissions",
        "organization_permission_document",
    ),
];

/// What belongs to organizations is mirrored, too.
pub const ALL: (&str, &str) = (
    "CLERK2PG_MIRROR__RESOURCES",
    "users,organizations,organization_memberships,organization_invitations,organization_roles,organization_permissions",
);

fn company_options(users: usize, organizations: OrganizationOptions) -> Options {
    Options {
        users,
        organizations,
        ..Options::default()
    }
}

/// Starts a database and a Clerk with organizations.
pub async fn company(users: usize, organizations: OrganizationOptions) -> Fixture {
    Fixture::with(company_options(users, organizations)).await
}

/// The same, with everything mirrored.
pub async fn mirrored_company(users: usize, organizations: OrganizationOptions) -> Fixture {
    let fixture = Fixture::migrated(company_options(users, organizations)).await;
    once_all(&fixture).await;
    age(&fixture.db).await;
    fixture
}

/// Runs a full sync of all resources, which succeeds, and returns its report.
pub async fn once_all(fixture: &Fixture) -> Value {
    let ran = fixture.once_with(&[ALL]).await;
    ran.assert_exit(Exit::Ok);
    ran.json()
}

/// Makes all rows old enough for Clerk's next answer to count.
pub async fn age(db: &Database) {
    for (_, table, _) in KINDS {
        let sql = format!(
            "UPDATE clerk.{table} SET first_seen_at = first_seen_at - interval '1 hour',
                 changed_at = changed_at - interval '1 hour'"
        );
        db.execute(&sql).await;
    }
}

/// Returns the documents of a table, by id.
pub async fn documents(db: &Database, table: &str, function: &str) -> BTreeMap<String, Value> {
    let sql = format!("SELECT id, clerk.{function}(t)::text FROM clerk.{table} AS t WHERE deleted_at IS NULL");
    let rows = db.client.query(&sql, &[]).await.unwrap();
    let document = |row: &tokio_postgres::Row| serde_json::from_str(row.get(1)).unwrap();
    rows.iter().map(|row| (row.get(0), document(row))).collect()
}

/// Whether the mirror of a kind equals Clerk.
pub async fn is_in_sync(fixture: &Fixture, kind: Kind) -> bool {
    difference(fixture, kind).await.is_none()
}

/// Asserts that all tables equal Clerk, document by document.
pub async fn assert_all_in_sync(fixture: &Fixture) {
    fixture.assert_in_sync().await;
    for (kind, table, _) in KINDS {
        if let Some(difference) = difference(fixture, kind).await {
            panic!("{table}: {difference}");
        }
        let stored = format!("SELECT objects FROM clerk.resource_state WHERE resource = '{table}'");
        let rows = format!("SELECT count(*) FROM clerk.{table} WHERE deleted_at IS NULL");
        assert_eq!(
            fixture.db.number(&stored).await,
            fixture.db.number(&rows).await,
            "{table}"
        );
    }
}

async fn difference(fixture: &Fixture, kind: Kind) -> Option<String> {
    let (_, table, function) = KINDS.into_iter().find(|(of, ..)| *of == kind).unwrap();
    let mirror = documents(&fixture.db, table, function).await;
    let mut ids = fixture.sim.ids(kind);
    ids.sort();
    let mirrored: Vec<String> = mirror.keys().cloned().collect();
    if mirrored != ids {
        return Some(format!("{} are mirrored, and Clerk has {}", mirrored.len(), ids.len()));
    }
    for (id, document) in mirror {
        let (ours, theirs) = (own(document), own(fixture.sim.object(kind, &id)?));
        if ours != theirs {
            return Some(format!("{ours:#}\nat Clerk: {theirs:#}"));
        }
    }
    None
}

/// A document without what belongs to other objects, or is not listed.
fn own(mut document: Value) -> Value {
    let object = document.as_object_mut().unwrap();
    for key in [
        "organization",
        "public_organization_data",
        "public_user_data",
        "public_inviter_data",
        "members_count",
        "pending_invitations_count",
        "missing_member_with_elevated_permissions",
    ] {
        object.remove(key);
    }
    comparable(document)
}
