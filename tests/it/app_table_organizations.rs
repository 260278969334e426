//! The application's tables of organizations and their members are kept in sync from the mirror.

use clerk_sim::{Kind, OrganizationOptions, PerOrganization, Sim};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    app_table::AppTable,
    organizations::{age, assert_all_in_sync, company},
    process::{EVERY_SECOND, NEVER},
    summary::Exit,
    wait::eventually,
};

const SCHEMA: &str = r#"
    CREATE TABLE "User" (id text PRIMARY KEY, "clerkId" text UNIQUE NOT NULL, name text NOT NULL);
    CREATE TABLE "Organization" (id text PRIMARY KEY, "clerkId" text UNIQUE NOT NULL, name text NOT NULL, slug text);
    CREATE TABLE "OrganizationMember" (
        id text PRIMARY KEY,
        "clerkId" text UNIQUE NOT NULL,
        role text NOT NULL,
        "userId" text NOT NULL REFERENCES "User" (id) ON DELETE RESTRICT ON UPDATE CASCADE,
        "organizationId" text NOT NULL REFERENCES "Organization" (id) ON DELETE RESTRICT ON UPDATE CASCADE,
        UNIQUE ("userId", "organizationId")
    );"#;

const MAPPING: &str = r#"
    [[tables]]
    name = "User"
    key = "clerkId"
    where = "u.first_name IS DISTINCT FROM 'Hidden'"
    [tables.set]
    name = "coalesce(u.full_name, '')"
    [tables.insert]
    id = "clerk.cuid()"

    [[tables]]
    name = "Organization"
    from = "organizations"
    key = "clerkId"
    [tables.set]
    name = "u.name"
    slug = "u.slug"
    [tables.insert]
    id = "clerk.cuid()"

    [[tables]]
    name = "OrganizationMember"
    from = "organization_memberships"
    key = "clerkId"
    [tables.set]
    role = "u.role"
    userId = """(SELECT t.id FROM public."User" AS t WHERE t."clerkId" = u.user_id)"""
    organizationId = """(SELECT t.id FROM public."Organization" AS t WHERE t."clerkId" = u.organization_id)"""
    [tables.insert]
    id = "clerk.cuid()"
"#;

/// Organizations with as many members.
async fn app(users: usize, members: &[usize]) -> AppTable {
    let organizations = OrganizationOptions {
        members: PerOrganization::Sizes(members.to_vec()),
        ..OrganizationOptions::number(members.len())
    };
    AppTable::with_organizations(company(users, organizations).await, SCHEMA, MAPPING).await
}

/// How many rows of the three tables differ from the mirror.
async fn count_differences(app: &AppTable) -> i64 {
    let sql = r#"
        SELECT (SELECT count(*) FROM clerk.organizations o FULL JOIN "Organization" t ON t."clerkId" = o.id
                WHERE (t.name, t.slug) IS DISTINCT FROM (o.name, o.slug))
             + (SELECT count(*) FROM clerk.organization_memberships m
                FULL JOIN ("OrganizationMember" t JOIN "User" u ON u.id = t."userId"
                           JOIN "Organization" o ON o.id = t."organizationId") ON t."clerkId" = m.id
                WHERE (t.role, u."clerkId", o."clerkId") IS DISTINCT FROM (m.role, m.user_id, m.organization_id))
             + (SELECT count(*) FROM clerk.users u FULL JOIN "User" t ON t."clerkId" = u.id
                WHERE t.name IS DISTINCT FROM coalesce(u.full_name, ''))"#;
    app.fixture.db.number(sql).await
}

/// The organizations, those with most members first.
fn by_size(sim: &Sim) -> Vec<String> {
    let mut organizations = sim.ids(Kind::Organizations);
    organizations.sort_by_key(|id| std::cmp::Reverse(sim.memberships_of(id).len()));
    organizations
}

async fn assert_equal(app: &AppTable) {
    assert_all_in_sync(&app.fixture).await;
    assert_eq!(count_differences(app).await, 0);
}

async fn sync(app: &AppTable) {
    app.once().await.assert_exit(Exit::Ok);
    assert_equal(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_and_members_land_in_their_tables_and_follow() {
    let app = app(20, &[9, 4, 0]).await;
    sync(&app).await;
    let (db, sim) = (&app.fixture.db, &app.fixture.sim);
    assert_eq!(db.number(r#"SELECT count(*) FROM "OrganizationMember""#).await, 13);
    let versions = r#"SELECT string_agg(xmin::text, ',' ORDER BY "clerkId") FROM (
        SELECT xmin, "clerkId" FROM "OrganizationMember" UNION ALL SELECT xmin, "clerkId" FROM "Organization") AS t"#;
    let before = db.text(versions).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.text(versions).await, before, "an unchanged sync writes nothing");

    age(db).await;
    app.fixture.age_rows().await;
    let organizations = by_size(sim);
    let oldest = sim.memberships_of(&organizations[1])[0].clone();
    sim.update_object(Kind::OrganizationMemberships, &oldest, |membership| {
        membership["role"] = json!("org:accountant");
    });
    sim.update_object(Kind::Organizations, &organizations[2], |organization| {
        organization["name"] = json!("Renamed");
    });
    // The rows of the members go first: the others are referenced by them.
    assert!(sim.delete_organization(&organizations[0]));
    let member = sim
        .object(Kind::OrganizationMemberships, &sim.memberships_of(&organizations[1])[1])
        .unwrap();
    sim.delete(member["public_user_data"]["user_id"].as_str().unwrap());
    sync(&app).await;
    assert_eq!(db.number(r#"SELECT count(*) FROM "OrganizationMember""#).await, 3);
    assert_eq!(db.number("SELECT count(*) FROM clerk.rejected_rows").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_keep_them_in_sync() {
    let app = app(20, &[9, 4]).await;
    sync(&app).await;
    age(&app.fixture.db).await;
    app.fixture.age_rows().await;
    let sim = &app.fixture.sim;
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    daemon.wait_for_log("full sync").await;
    let check = async |what: &str| eventually(what, async || count_differences(&app).await == 0).await;
    let organizations = by_size(sim);
    let user = sim.create_random();
    let id = sim.add_member(&organizations[0], &user, "org:admin").unwrap();
    let row = format!(r#"SELECT count(*) FROM "OrganizationMember" WHERE "clerkId" = '{id}'"#);
    eventually("a new member", async || app.fixture.db.number(&row).await == 1).await;
    assert!(sim.change_role(&organizations[0], &user, "org:member"));
    eventually("another role", async || {
        app.fixture.db.number(&format!("{row} AND role = 'org:member'")).await == 1
    })
    .await;
    assert!(sim.remove_member(&organizations[0], &user));
    eventually("the member leaves", async || app.fixture.db.number(&row).await == 0).await;
    assert!(sim.delete_organization(&organizations[1]));
    let organization = r#"SELECT count(*) FROM "Organization""#;
    eventually("an organization goes", async || {
        app.fixture.db.number(organization).await == 1
    })
    .await;
    check("its members, too").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_equal(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_waits_for_what_it_refers_to() {
    let app = app(12, &[5]).await;
    let sim = &app.fixture.sim;
    let organization = sim.ids(Kind::Organizations)[0].clone();
    let membership = sim
        .object(Kind::OrganizationMemberships, &sim.memberships_of(&organization)[0])
        .unwrap();
    let user = membership["public_user_data"]["user_id"].as_str().unwrap().to_owned();
    assert!(sim.update(&user, |user| user["first_name"] = json!("Hidden")));
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    let members = r#"SELECT count(*) FROM "OrganizationMember""#;
    assert_eq!(db.number(members).await, 4);
    let rejected = "SELECT count(*) FROM clerk.rejected_rows WHERE sqlstate = '23502'";
    assert_eq!(db.number(rejected).await, 1);
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    daemon.wait_for_log("full sync").await;
    // Nothing changes at the membership.
    assert!(sim.update(&user, |user| user["first_name"] = json!("Ada")));
    eventually("the member's row", async || db.number(members).await == 5).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_equal(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_repairs_what_the_application_changed() {
    let app = app(12, &[5, 3]).await;
    sync(&app).await;
    let db = &app.fixture.db;
    db.execute(
        r#"UPDATE "OrganizationMember" SET role = 'nobody' WHERE id = (SELECT min(id) FROM "OrganizationMember");
           DELETE FROM "OrganizationMember" WHERE id = (SELECT max(id) FROM "OrganizationMember");
           UPDATE "Organization" SET name = 'nothing'"#,
    )
    .await;
    let dry = app.run(&["--dry-run"]).await;
    for line in ["~ role", "~ name"] {
        let words: Vec<&str> = line.split(' ').collect();
        let is_shown = |shown: &str| words.iter().all(|word| shown.contains(word));
        assert!(dry.stdout.lines().any(is_shown), "{line}: {}", dry.stdout);
    }
    assert!(count_differences(&app).await > 0, "a dry run writes nothing");
    sync(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_no_list_shows_goes_once_two_syncs_missed_it() {
    let app = app(12, &[5, 3]).await;
    sync(&app).await;
    let db = &app.fixture.db;
    db.execute(
        r#"INSERT INTO "OrganizationMember" SELECT 'stray', 'orgmem_stray', 'admin', u.id, o.id
           FROM "User" u, "Organization" o
           WHERE NOT EXISTS (SELECT FROM "OrganizationMember" m WHERE m."userId" = u.id AND m."organizationId" = o.id)
           LIMIT 1"#,
    )
    .await;
    app.once().await.assert_exit(Exit::Ok);
    let strays = r#"SELECT count(*) FROM "OrganizationMember" WHERE id = 'stray'"#;
    assert_eq!(db.number(strays).await, 1, "a replica may lag");
    app.age_departures().await;
    sync(&app).await;
    assert_eq!(db.number(strays).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tries_the_mapping_of_each_table() {
    let app = app(12, &[5, 3]).await;
    sync(&app).await;
    let check = app.run(&["check", "--format", "json"]).await;
    let findings = check.stdout.clone();
    for words in [
        r#"public.\"User\": 2 columns from users, tried on 12 users"#,
        r#"public.\"Organization\": 3 columns from organizations, tried on 2 organizations"#,
        r#"public.\"OrganizationMember\": 4 columns from organization memberships, tried on 8 organization memberships"#,
    ] {
        assert!(findings.contains(words), "{words}: {findings}");
    }
    let broken = MAPPING.replace("u.slug", "u.primary_email");
    app.set_mapping(&broken);
    let check = app.run(&["check"]).await;
    assert!(check.stdout.contains("primary_email"), "{}", check.stdout);
}
