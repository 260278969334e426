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

/// How the rows of members are found.
#[derive(Debug, Clone, Copy)]
enum Members {
    /// By Clerk's id.
    ById,
    /// By user and organization. There is no column for Clerk's id.
    ByValues,
}

impl Members {
    fn schema(self) -> String {
        match self {
            Self::ById => SCHEMA.to_owned(),
            Self::ByValues => {
                let columns = "id text PRIMARY KEY,\n        \"clerkId\" text UNIQUE NOT NULL,\n        role";
                SCHEMA
                    .replace(columns, "role")
                    .replace("UNIQUE (\"userId\"", "PRIMARY KEY (\"userId\"")
            }
        }
    }

    fn mapping(self) -> String {
        let (others, members) = MAPPING.split_once("name = \"OrganizationMember\"").unwrap();
        let members = match self {
            Self::ById => members.to_owned(),
            Self::ByValues => members
                .replace("key = \"clerkId\"", "key = [\"organizationId\", \"userId\"]")
                .replace("[tables.insert]\n    id = \"clerk.cuid()\"\n", ""),
        };
        format!("{others}name = \"OrganizationMember\"{members}")
    }

    /// Organizations with as many members.
    async fn app(self, users: usize, members: &[usize]) -> AppTable {
        let organizations = OrganizationOptions {
            members: PerOrganization::Sizes(members.to_vec()),
            ..OrganizationOptions::number(members.len())
        };
        AppTable::with_organizations(company(users, organizations).await, &self.schema(), &self.mapping()).await
    }
}

/// The rows of members, with Clerk's ids of the user and the organization.
const MEMBERS: &str = r#"(SELECT t.role, u."clerkId" AS user_id, o."clerkId" AS organization_id, t.xmin, t.ctid
    FROM "OrganizationMember" t JOIN "User" u ON u.id = t."userId" JOIN "Organization" o ON o.id = t."organizationId")"#;

/// How many rows of the three tables differ from the mirror.
async fn count_differences(app: &AppTable) -> i64 {
    let sql = format!(
        r#"SELECT (SELECT count(*) FROM clerk.organizations o FULL JOIN "Organization" t ON t."clerkId" = o.id
                   WHERE (t.name, t.slug) IS DISTINCT FROM (o.name, o.slug))
                + (SELECT count(*) FROM clerk.organization_memberships m
                   FULL JOIN {MEMBERS} t ON (t.user_id, t.organization_id) = (m.user_id, m.organization_id)
                   WHERE t.role IS DISTINCT FROM m.role)
                + (SELECT count(*) FROM clerk.users u FULL JOIN "User" t ON t."clerkId" = u.id
                   WHERE t.name IS DISTINCT FROM coalesce(u.full_name, ''))"#
    );
    app.fixture.db.number(&sql).await
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

async fn check_organizations_and_members_land_in_their_tables_and_follow(members: Members) {
    let app = members.app(20, &[9, 4, 0]).await;
    sync(&app).await;
    let (db, sim) = (&app.fixture.db, &app.fixture.sim);
    assert_eq!(db.number(r#"SELECT count(*) FROM "OrganizationMember""#).await, 13);
    let versions = format!(
        r#"SELECT string_agg(version, ',' ORDER BY version) FROM (
            SELECT concat(ctid, xmin) AS version FROM {MEMBERS} AS m
            UNION ALL SELECT concat(ctid, xmin) FROM "Organization") AS t"#
    );
    let before = db.text(&versions).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.text(&versions).await, before, "an unchanged sync writes nothing");

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

async fn check_incremental_syncs_keep_them_in_sync(members: Members) {
    let app = members.app(20, &[9, 4]).await;
    sync(&app).await;
    age(&app.fixture.db).await;
    app.fixture.age_rows().await;
    let sim = &app.fixture.sim;
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    daemon.wait_for_log("full sync").await;
    let check = async |what: &str| eventually(what, async || count_differences(&app).await == 0).await;
    let organizations = by_size(sim);
    let user = sim.create_random();
    sim.add_member(&organizations[0], &user, "org:admin").unwrap();
    let row = format!("SELECT count(*) FROM {MEMBERS} AS t WHERE user_id = '{user}'");
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
    let app = Members::ByValues.app(12, &[5]).await;
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

async fn check_a_full_sync_repairs_what_the_application_changed(members: Members) {
    let app = members.app(12, &[5, 3]).await;
    sync(&app).await;
    let db = &app.fixture.db;
    db.execute(
        r#"DELETE FROM "OrganizationMember" WHERE ctid = (SELECT max(ctid) FROM "OrganizationMember");
           UPDATE "OrganizationMember" SET role = 'nobody' WHERE ctid = (SELECT min(ctid) FROM "OrganizationMember");
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
    let app = Members::ById.app(12, &[5, 3]).await;
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
    let app = Members::ById.app(12, &[5, 3]).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn organizations_and_members_land_in_their_tables_and_follow() {
    check_organizations_and_members_land_in_their_tables_and_follow(Members::ById).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_and_members_land_in_their_tables_and_follow_without_clerks_id() {
    check_organizations_and_members_land_in_their_tables_and_follow(Members::ByValues).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_keep_them_in_sync() {
    check_incremental_syncs_keep_them_in_sync(Members::ById).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_keep_them_in_sync_without_clerks_id() {
    check_incremental_syncs_keep_them_in_sync(Members::ByValues).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_repairs_what_the_application_changed() {
    check_a_full_sync_repairs_what_the_application_changed(Members::ById).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_repairs_what_the_application_changed_without_clerks_id() {
    check_a_full_sync_repairs_what_the_application_changed(Members::ByValues).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_and_came_back_keeps_one_row() {
    let app = Members::ByValues.app(700, &[700, 5]).await;
    sync(&app).await;
    let sim = &app.fixture.sim;
    age(&app.fixture.db).await;
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    daemon.wait_for_log("full sync").await;
    for organization in by_size(sim) {
        let members = sim.memberships_of(&organization);
        let membership = sim.object(Kind::OrganizationMemberships, &members[1]).unwrap();
        let user = membership["public_user_data"]["user_id"].as_str().unwrap().to_owned();
        app.fixture
            .while_frozen(&[&daemon], || {
                assert!(sim.remove_member(&organization, &user));
                sim.add_member(&organization, &user, "org:accountant").unwrap();
            })
            .await;
        let old = format!(
            "SELECT count(*) FROM clerk.organization_memberships WHERE id = '{}'",
            members[1]
        );
        eventually("the first membership goes", async || {
            app.fixture.db.number(&old).await == 0 && count_differences(&app).await == 0
        })
        .await;
        let role = format!(
            "SELECT count(*) FROM {MEMBERS} AS t WHERE user_id = '{user}' AND organization_id = '{organization}' AND role = 'org:accountant'"
        );
        assert_eq!(app.fixture.db.number(&role).await, 1);
    }
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_equal(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_values_that_no_list_shows_are_held_and_go_once_approved() {
    let app = Members::ByValues.app(12, &[5, 3]).await;
    sync(&app).await;
    let db = &app.fixture.db;
    db.execute(r#"INSERT INTO "OrganizationMember" SELECT 'admin', u.id, o.id FROM "User" u, "Organization" o ON CONFLICT DO NOTHING"#)
        .await;
    let ran = app.once().await;
    ran.assert_exit(Exit::Held);
    let held = &ran.json()["resources"]["organization_memberships"]["tables"][r#"public."OrganizationMember""#];
    assert_eq!(held["held"], 12 * 2 - 8, "{held:#}");
    let plan = held["plan"].as_str().unwrap();
    let dry = app.run(&["--dry-run"]).await;
    assert!(dry.stdout.contains(plan), "{}", dry.stdout);
    let status = app.run(&["status"]).await;
    assert!(
        status.stdout.contains(&format!("clerk2pg approve {plan}")),
        "{}",
        status.stdout
    );
    app.run(&["approve", plan]).await.assert_exit(Exit::Ok);
    app.age_departures().await;
    sync(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_decides_which_members_have_a_row() {
    let app = Members::ByValues.app(40, &[30, 9]).await;
    let mapping = Members::ByValues.mapping();
    let key = "key = [\"organizationId\", \"userId\"]";
    assert!(mapping.contains(key));
    app.set_mapping(&mapping.replace(key, &format!("{key}\n    where = \"u.role = 'org:admin'\"")));
    app.once().await.assert_exit(Exit::Ok);
    let (db, sim) = (&app.fixture.db, &app.fixture.sim);
    let differ = format!(
        "SELECT count(*) FROM (SELECT * FROM clerk.organization_memberships WHERE role = 'org:admin') m
         FULL JOIN {MEMBERS} t ON (t.user_id, t.organization_id) = (m.user_id, m.organization_id)
         WHERE t.role IS DISTINCT FROM m.role"
    );
    assert_eq!(db.number(&differ).await, 0);
    let organization = by_size(sim)[0].clone();
    let user_of = |at: usize| {
        let membership = sim.object(Kind::OrganizationMemberships, &sim.memberships_of(&organization)[at]);
        membership.unwrap()["public_user_data"]["user_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (first, second) = (user_of(0), user_of(1));
    for role in ["org:admin", "org:member", "org:admin"] {
        age(db).await;
        sim.change_role(&organization, &first, role);
        sim.change_role(&organization, &second, role);
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(db.number(&differ).await, 0, "{role}");
    }
    // The application undoes the removal of a row; the next full sync removes it again.
    sim.change_role(&organization, &first, "org:member");
    app.once().await.assert_exit(Exit::Ok);
    let insert = format!(
        r#"INSERT INTO "OrganizationMember" SELECT 'org:admin', u.id, o.id FROM "User" u, "Organization" o
           WHERE u."clerkId" = '{first}' AND o."clerkId" = '{organization}'"#
    );
    db.execute(&insert).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number(&differ).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_values_are_marked_if_the_mapping_says_so() {
    let app = Members::ByValues.app(40, &[30, 9]).await;
    app.fixture
        .db
        .execute(r#"ALTER TABLE "OrganizationMember" ADD "leftAt" timestamptz"#)
        .await;
    let key = "key = [\"organizationId\", \"userId\"]";
    let mapping = Members::ByValues
        .mapping()
        .replace(key, &format!("{key}\n    delete = \"update\""));
    app.set_mapping(&format!(
        "{mapping}    leftAt = \"NULL\"\n    [tables.deleted]\n    leftAt = \"now()\"\n"
    ));
    app.once().await.assert_exit(Exit::Ok);
    let (db, sim) = (&app.fixture.db, &app.fixture.sim);
    age(db).await;
    let organization = by_size(sim)[0].clone();
    let membership = sim
        .object(Kind::OrganizationMemberships, &sim.memberships_of(&organization)[0])
        .unwrap();
    let user = membership["public_user_data"]["user_id"].as_str().unwrap().to_owned();
    assert!(sim.remove_member(&organization, &user));
    app.once().await.assert_exit(Exit::Ok);
    let left = r#"SELECT count(*) FROM "OrganizationMember" WHERE "leftAt" IS NOT NULL"#;
    assert_eq!(db.number(left).await, 1);
    let before = db.text(r#"SELECT max("leftAt")::text FROM "OrganizationMember""#).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(
        db.text(r#"SELECT max("leftAt")::text FROM "OrganizationMember""#).await,
        before
    );
    sim.add_member(&organization, &user, "org:member").unwrap();
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_of_a_member_who_left_goes_once_it_is_free() {
    let app = Members::ByValues.app(12, &[9]).await;
    sync(&app).await;
    let (db, sim) = (&app.fixture.db, &app.fixture.sim);
    age(db).await;
    let membership = sim.memberships_of(&by_size(sim)[0])[3].clone();
    let user = sim.object(Kind::OrganizationMemberships, &membership).unwrap()["public_user_data"]["user_id"].clone();
    let user = user.as_str().unwrap();
    let lock = format!(
        r#"BEGIN; SELECT FROM "OrganizationMember" WHERE "userId" = (SELECT id FROM "User" WHERE "clerkId" = '{user}') FOR UPDATE"#
    );
    db.client.batch_execute(&lock).await.unwrap();
    sim.delete_object(Kind::OrganizationMemberships, &membership);
    app.once().await.assert_exit(Exit::Ok);
    let rows = r#"SELECT count(*) FROM "OrganizationMember""#;
    assert_eq!(db.number(rows).await, 9);
    assert_eq!(db.number("SELECT count(*) FROM clerk.rejected_rows").await, 1);
    db.client.batch_execute("COMMIT").await.unwrap();
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number(rows).await, 8);
    assert_equal(&app).await;
    assert_eq!(db.number("SELECT count(*) FROM clerk.rejected_rows").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_who_comes_back_as_a_member_loses_the_row() {
    let app = Members::ByValues.app(30, &[25]).await;
    let key = "key = [\"organizationId\", \"userId\"]";
    let mapping = Members::ByValues.mapping();
    app.set_mapping(&mapping.replace(key, &format!("{key}\n    where = \"u.role = 'org:admin'\"")));
    let (db, sim) = (&app.fixture.db, &app.fixture.sim);
    let organization = by_size(sim)[0].clone();
    let member = |at: usize| {
        let id = &sim.memberships_of(&organization)[at];
        let membership = sim.object(Kind::OrganizationMemberships, id).unwrap();
        membership["public_user_data"]["user_id"].as_str().unwrap().to_owned()
    };
    let users: Vec<String> = (0..10).map(member).collect();
    for user in &users {
        sim.change_role(&organization, user, "org:admin");
    }
    app.once().await.assert_exit(Exit::Ok);
    age(db).await;
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    daemon.wait_for_log("full sync").await;
    let row = format!("SELECT count(*) FROM {MEMBERS} AS t WHERE user_id = '{}'", users[0]);
    assert_eq!(db.number(&row).await, 1);
    app.fixture
        .while_frozen(&[&daemon], || {
            assert!(sim.remove_member(&organization, &users[0]));
            sim.add_member(&organization, &users[0], "org:member").unwrap();
        })
        .await;
    eventually("the row goes", async || db.number(&row).await == 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_nothing_but_the_key_follows() {
    let app = Members::ByValues.app(12, &[9, 4]).await;
    let mapping = Members::ByValues.mapping().replace("    role = \"u.role\"\n", "");
    app.set_mapping(&mapping);
    app.fixture
        .db
        .execute(r#"ALTER TABLE "OrganizationMember" ALTER role SET DEFAULT 'member'"#)
        .await;
    app.once().await.assert_exit(Exit::Ok);
    let (db, sim) = (&app.fixture.db, &app.fixture.sim);
    let rows = r#"SELECT count(*) FROM "OrganizationMember""#;
    assert_eq!(db.number(rows).await, 13);
    age(db).await;
    sim.delete_object(Kind::OrganizationMemberships, &sim.memberships_of(&by_size(sim)[0])[0]);
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number(rows).await, 12);
}
