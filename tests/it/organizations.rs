//! Organizations, memberships, invitations, roles and permissions in the mirror.

use clerk_sim::{Effect, Endpoint, Kind, Options, OrganizationOptions, PerOrganization, Request, Rule, Sim};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    event_schemas::assert_as_specified,
    fixture::Fixture,
    organizations::{ALL, age, assert_all_in_sync, company, is_in_sync, mirrored_company, once_all},
    summary::Exit,
    wait::eventually,
};

/// Organizations of these sizes.
fn sizes(sizes: &[usize]) -> OrganizationOptions {
    OrganizationOptions {
        members: PerOrganization::Sizes(sizes.to_vec()),
        invitations: PerOrganization::Sizes(vec![2]),
        ..OrganizationOptions::number(sizes.len())
    }
}

/// Makes each page of memberships take some milliseconds more.
fn slow_down_memberships(sim: &Sim, ms: u64) {
    let rule = Rule::new(Effect::LatencyMs(ms)).on([Endpoint::OrganizationList]);
    sim.set_faults(rule.about("memberships"));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_mirrored_and_a_second_sync_writes_nothing() {
    let fixture = company(40, sizes(&[0, 1, 3, 40])).await;
    let report = once_all(&fixture).await;
    assert_eq!(report["resources"]["organizations"]["created"], 4);
    assert_eq!(report["resources"]["organization_memberships"]["created"], 44);
    assert_all_in_sync(&fixture).await;
    let members = "SELECT count(*) FROM clerk.members WHERE organization_name IS NOT NULL AND role IS NOT NULL";
    assert_eq!(fixture.db.number(members).await, 44);
    let report = once_all(&fixture).await;
    for (resource, report) in report["resources"].as_object().unwrap() {
        assert_eq!(report["outcome"], "in_sync", "{resource}");
        assert_eq!(report["created"], 0, "{resource}");
        assert_eq!(report["updated"], 0, "{resource}");
    }
    let written = "SELECT sum(created + updated + refreshed + deleted) FROM clerk.sync_runs
                   WHERE id > (SELECT max(id) / 2 FROM clerk.sync_runs)";
    assert_eq!(fixture.db.number(&format!("SELECT ({written})::bigint")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_all_kinds_are_mirrored_by_a_full_sync() {
    let fixture = mirrored_company(30, sizes(&[2, 5, 9])).await;
    let sim = &fixture.sim;
    let (organizations, users) = (sim.ids(Kind::Organizations), sim.user_ids());
    let new = sim.create_organization("New");
    sim.add_member(&new, &users[3], "org:admin").unwrap();
    sim.update_object(Kind::Organizations, &organizations[1], |organization| {
        organization["name"] = json!("Renamed");
    });
    let member = |organization: &str, at: usize| {
        let id = &sim.memberships_of(organization)[at];
        let membership = sim.object(Kind::OrganizationMemberships, id).unwrap();
        membership["public_user_data"]["user_id"].as_str().unwrap().to_owned()
    };
    let (promoted, leaving) = (member(&organizations[2], 0), member(&organizations[2], 1));
    assert!(
        sim.change_role(&organizations[2], &promoted, "org:admin")
            || sim.change_role(&organizations[2], &promoted, "org:member")
    );
    assert!(sim.remove_member(&organizations[2], &leaving));
    let invitation = sim.invite(&new, "somebody@example.com", "org:member").unwrap();
    assert!(sim.delete_organization(&organizations[0]));
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
    let types = "SELECT string_agg(DISTINCT type, ' ' ORDER BY type) FROM clerk.events";
    assert_eq!(
        fixture.db.text(types).await.unwrap(),
        "organization.created organization.deleted organization.updated organizationInvitation.created \
         organizationInvitation.deleted organizationMembership.created organizationMembership.deleted \
         organizationMembership.updated"
    );
    assert!(sim.revoke_invitation(&invitation));
    once_all(&fixture).await;
    let revoked = "SELECT count(*) FROM clerk.events WHERE type = 'organizationInvitation.revoked'";
    assert_eq!(fixture.db.number(revoked).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_an_organization_is_one_change() {
    let fixture = mirrored_company(30, sizes(&[30])).await;
    let organization = fixture.sim.ids(Kind::Organizations)[0].clone();
    fixture
        .sim
        .update_object(Kind::Organizations, &organization, |organization| {
            organization["name"] = json!("Renamed");
        });
    let report = once_all(&fixture).await;
    assert_eq!(report["resources"]["organizations"]["updated"], 1);
    assert_eq!(report["resources"]["organization_memberships"]["unchanged"], 30);
    assert_eq!(fixture.db.number("SELECT count(*) FROM clerk.events").await, 1);
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_takes_its_memberships_along() {
    let fixture = mirrored_company(30, sizes(&[9, 4])).await;
    let organization = fixture.sim.ids(Kind::Organizations)[0].clone();
    let members = fixture.sim.memberships_of(&organization).len() as i64;
    assert!(fixture.sim.delete_organization(&organization));
    let report = once_all(&fixture).await;
    assert_eq!(report["resources"]["organizations"]["deleted"], 1);
    // Nobody has to ask for them one by one.
    assert_eq!(report["resources"]["organization_memberships"]["deleted"], 0);
    assert_all_in_sync(&fixture).await;
    let deleted = "SELECT count(*) FROM clerk.events WHERE type = 'organizationMembership.deleted'
                   AND payload->'data'->'organization'->>'name' IS NOT NULL AND payload->'data'->>'role' IS NOT NULL";
    assert_eq!(fixture.db.number(deleted).await, members);
    let order = "SELECT max(id) FILTER (WHERE type = 'organizationMembership.deleted')
                      < min(id) FILTER (WHERE type = 'organization.deleted') FROM clerk.events";
    assert_eq!(fixture.db.number(&format!("SELECT ({order})::int::bigint")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_takes_his_memberships_along() {
    let fixture = mirrored_company(12, sizes(&[12, 12, 12])).await;
    fixture.age_rows().await;
    let user = fixture.sim.user_ids()[4].clone();
    fixture.sim.delete(&user);
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
    let types = "SELECT string_agg(type, ' ' ORDER BY id) FROM clerk.events WHERE type LIKE '%.deleted'";
    let left = "organizationMembership.deleted";
    assert_eq!(
        fixture.db.text(types).await.unwrap(),
        format!("{left} {left} {left} user.deleted")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_member_leaves() {
    let fixture = mirrored_company(12, sizes(&[1, 3])).await;
    let sim = &fixture.sim;
    for organization in sim.ids(Kind::Organizations) {
        for id in sim.memberships_of(&organization) {
            sim.delete_object(Kind::OrganizationMemberships, &id);
        }
    }
    let ran = fixture.once_with(&[ALL]).await;
    // Clerk shows no membership at all, which is more likely an outage.
    ran.assert_exit(Exit::Held);
    let held = &ran.json()["resources"]["organization_memberships"];
    assert_eq!((&held["held"], &held["deleted"]), (&json!(4), &json!(0)));
    let approved = fixture
        .run_with(&["approve", held["plan"].as_str().unwrap()], &[ALL])
        .await;
    approved.assert_exit(Exit::Ok);
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_longer_than_a_page_are_mirrored() {
    let fixture = company(600, sizes(&[600, 501, 500, 1])).await;
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
    age(&fixture.db).await;
    let sim = &fixture.sim;
    let organizations = sim.ids(Kind::Organizations);
    for organization in &organizations[..3] {
        for id in sim.memberships_of(organization).iter().step_by(100) {
            sim.delete_object(Kind::OrganizationMemberships, id);
        }
    }
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_that_are_switched_off_cost_one_request() {
    let fixture = Fixture::new(3).await;
    let with_users = fixture.once().await.json();
    let report = once_all(&fixture).await;
    assert_eq!(report["resources"], Value::Null);
    let requests = |report: &Value| report["requests"].as_i64().unwrap();
    assert!(requests(&report) <= requests(&with_users) + 1, "{report:#}");
}

/// What happens to organizations, and is to be mirrored by incremental syncs.
async fn everything_happens(fixture: &Fixture) {
    let sim = &fixture.sim;
    let in_sync = async |kind: Kind| is_in_sync(fixture, kind).await;
    let check = async |what: &str, kind: Kind| eventually(what, async || in_sync(kind).await).await;
    let (organizations, users) = (sim.ids(Kind::Organizations), sim.user_ids());
    let first = &organizations[0];
    let new = sim.create_organization("New");
    sim.add_member(&new, &users[0], "org:admin").unwrap();
    check("a new organization", Kind::Organizations).await;
    check("its first member", Kind::OrganizationMemberships).await;
    let oldest = sim.memberships_of(first)[0].clone();
    sim.update_object(Kind::OrganizationMemberships, &oldest, |membership| {
        membership["role"] = json!("org:accountant");
    });
    check("another role", Kind::OrganizationMemberships).await;
    for at in [1, 200, 499] {
        let members = sim.memberships_of(first);
        if let Some(id) = members.get(at) {
            sim.delete_object(Kind::OrganizationMemberships, id);
            check("a member who left", Kind::OrganizationMemberships).await;
        }
    }
    let invitation = sim.invite(first, "somebody@example.com", "org:member").unwrap();
    check("an invitation", Kind::OrganizationInvitations).await;
    sim.accept_invitation(&invitation).unwrap();
    check("that is accepted", Kind::OrganizationInvitations).await;
    check("and makes a member", Kind::OrganizationMemberships).await;
    sim.delete_organization(first);
    check("an organization that goes", Kind::Organizations).await;
    check("with its members", Kind::OrganizationMemberships).await;
}

async fn check_incremental_syncs(users: usize, members: &[usize]) {
    let fixture = mirrored_company(users, sizes(members)).await;
    let daemon = fixture.start_incremental(&[ALL]).await;
    everything_happens(&fixture).await;
    eventually("the users are in sync", async || {
        fixture.users().await == fixture.sim.count() as i64
    })
    .await;
    assert_all_in_sync(&fixture).await;
    // One full sync at the start.
    let full = "SELECT count(*) FROM clerk.sync_runs WHERE kind = 'full' AND resource = 'organization_memberships'";
    assert_eq!(fixture.db.number(full).await, 2);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_compare_short_lists_whole() {
    check_incremental_syncs(30, &[12, 5, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_find_what_happens_in_long_lists() {
    check_incremental_syncs(700, &[700, 501, 1]).await;
}

/// Removes members, and waits until the mirror has lost them. Returns the requests for pages of the list
/// of all memberships since then, with their queries.
async fn remove(fixture: &Fixture, gone: &[&String]) -> Vec<String> {
    let before = fixture.sim.log().len();
    for id in gone {
        fixture.sim.delete_object(Kind::OrganizationMemberships, id);
    }
    eventually("they are gone", async || {
        is_in_sync(fixture, Kind::OrganizationMemberships).await
    })
    .await;
    pages(fixture, before)
}

/// The queries for pages of the list of all memberships in ascending order, after some requests.
fn pages(fixture: &Fixture, before: usize) -> Vec<String> {
    let log = fixture.sim.log();
    let queries = log[before..].iter().filter_map(|request| request.path.split_once('?'));
    queries
        .filter(|(path, query)| *path == "/v1/organization_memberships" && !query.contains("=-created_at"))
        .map(|(_, query)| query.to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_leave_a_long_list_are_searched_for_with_small_requests() {
    let fixture = mirrored_company(2000, sizes(&[2000, 2000, 2000])).await;
    let daemon = fixture.start_incremental(&[ALL]).await;
    let mut members = fixture.sim.ids(Kind::OrganizationMemberships);
    let created_at = |id: &String| {
        let membership = fixture.sim.object(Kind::OrganizationMemberships, id).unwrap();
        membership["created_at"].as_i64()
    };
    members.sort_by_key(created_at);
    // The newest page shows them.
    let asked = remove(&fixture, &[&members[5_990], &members[5_700]]).await;
    assert!(!asked.iter().any(|query| query.contains("limit=20")), "{asked:#?}");
    let asked = remove(&fixture, &[&members[1], &members[2_500], &members[4_800]]).await;
    assert!(asked.iter().any(|query| query.contains("limit=20")), "{asked:#?}");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_read_once_in_as_many_syncs_as_it_has_pages() {
    let fixture = mirrored_company(800, sizes(&[750, 750])).await;
    let before = fixture.sim.log().len();
    let daemon = fixture.start_incremental(&[ALL]).await;
    eventually("some syncs", async || pages(&fixture, before).len() > 12).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let offset = |query: String| {
        let offset = query.split('&').find_map(|pair| pair.strip_prefix("offset="));
        offset.map_or(0, |offset| offset.parse::<u64>().unwrap())
    };
    let offsets: Vec<u64> = pages(&fixture, before).into_iter().map(offset).collect();
    let rolled = &offsets[offsets.len() - 6..];
    assert_eq!(rolled[..3], rolled[3..], "{offsets:?}");
    assert_eq!(rolled.iter().filter(|offset| **offset == 0).count(), 2, "{offsets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_hold_what_clerks_event_schemas_require() {
    let fixture = mirrored_company(9, sizes(&[2, 3, 2])).await;
    let sim = &fixture.sim;
    let (organizations, users) = (sim.ids(Kind::Organizations), sim.user_ids());
    let touch =
        |kind: Kind, id: &str, key: &str| assert!(sim.update_object(kind, id, |object| object[key] = json!("x")));
    let new = sim.create_organization("New");
    sim.add_member(&new, &users[0], "org:admin").unwrap();
    touch(Kind::Organizations, &organizations[0], "name");
    touch(
        Kind::OrganizationMemberships,
        &sim.memberships_of(&organizations[0])[0],
        "role",
    );
    let [accepted, revoked] = ["one@example.com", "two@example.com"]
        .map(|address| sim.invite(&organizations[0], address, "org:member").unwrap());
    touch(Kind::OrganizationRoles, &sim.ids(Kind::OrganizationRoles)[0], "name");
    touch(
        Kind::OrganizationPermissions,
        &sim.ids(Kind::OrganizationPermissions)[0],
        "name",
    );
    once_all(&fixture).await;
    sim.accept_invitation(&accepted).unwrap();
    assert!(sim.revoke_invitation(&revoked));
    assert!(sim.delete_organization(&organizations[1]));
    once_all(&fixture).await;
    let sql = "SELECT type, payload::text FROM clerk.events ORDER BY id";
    let rows = fixture.db.client.query(sql, &[]).await.unwrap();
    let events: Vec<(String, Value)> = rows
        .iter()
        .map(|row| (row.get(0), serde_json::from_str(row.get(1)).unwrap()))
        .collect();
    for kind in [
        "organization.created",
        "organization.updated",
        "organization.deleted",
        "organizationInvitation.created",
        "organizationInvitation.accepted",
        "organizationInvitation.revoked",
        "organizationMembership.created",
        "organizationMembership.updated",
        "organizationMembership.deleted",
        "role.updated",
        "permission.updated",
    ] {
        assert!(events.iter().any(|(of, _)| of == kind), "no {kind}");
    }
    // Clerk has no such events.
    let ours = ["organizationInvitation.updated", "organizationInvitation.deleted"];
    let specified = events.iter().filter(|(kind, _)| !ours.contains(&kind.as_str()));
    assert_as_specified(specified.map(|(kind, payload)| (kind.as_str(), payload)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_asks_for_what_it_waits_for() {
    let fixture = mirrored_company(700, sizes(&[700])).await;
    let environment = [
        ALL,
        ("CLERK2PG_SCHEDULE__INCREMENTAL", ""),
        ("CLERK2PG_SCHEDULE__FULL", ""),
    ];
    let daemon = fixture.start_daemon(&environment);
    daemon.wait_for_log("full sync").await;
    let sim = &fixture.sim;
    let organization = sim.ids(Kind::Organizations)[0].clone();
    let notify = async |id: &str| fixture.db.execute(&format!("NOTIFY clerk2pg, '{id}'")).await;
    let in_sync = async |kind: Kind| is_in_sync(&fixture, kind).await;
    let oldest = sim.memberships_of(&organization)[0].clone();
    sim.update_object(Kind::OrganizationMemberships, &oldest, |membership| {
        membership["role"] = json!("org:accountant");
    });
    notify(&oldest).await;
    eventually("another role", async || in_sync(Kind::OrganizationMemberships).await).await;
    let user = sim.create_random();
    let new = sim.add_member(&organization, &user, "org:member").unwrap();
    notify(&new).await;
    eventually("a new member", async || in_sync(Kind::OrganizationMemberships).await).await;
    sim.delete_object(Kind::OrganizationMemberships, &oldest);
    notify(&oldest).await;
    eventually("a member who left", async || {
        in_sync(Kind::OrganizationMemberships).await
    })
    .await;
    let another = sim.create_organization("Another");
    notify(&another).await;
    eventually("a new organization", async || in_sync(Kind::Organizations).await).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn mass_deletions_of_each_resource_are_held_by_themselves() {
    let fixture = mirrored_company(40, sizes(&[40, 1])).await;
    let sim = &fixture.sim;
    let organizations = sim.ids(Kind::Organizations);
    let largest = organizations.iter().max_by_key(|id| sim.memberships_of(id).len());
    for id in sim.memberships_of(largest.unwrap()).iter().skip(1) {
        sim.delete_object(Kind::OrganizationMemberships, id);
    }
    let ran = fixture.once_with(&[ALL]).await;
    ran.assert_exit(Exit::Held);
    let report = ran.json();
    assert_eq!(report["held"], 0);
    let memberships = &report["resources"]["organization_memberships"];
    assert!(memberships["held"].as_i64().unwrap() >= 39, "{memberships}");
    let plan = memberships["plan"].as_str().unwrap();
    let status = fixture.run_with(&["status"], &[ALL]).await;
    status.assert_exit(Exit::Ok);
    assert!(
        status.stdout.contains(&format!("clerk2pg approve {plan}")),
        "{}",
        status.stdout
    );
    let dry = fixture.run_with(&["--dry-run"], &[ALL]).await;
    assert!(dry.stdout.contains("organization memberships"), "{}", dry.stdout);
    assert!(dry.stdout.contains(plan), "{}", dry.stdout);
    assert_eq!(
        fixture
            .db
            .number("SELECT count(*) FROM clerk.organization_memberships")
            .await,
        41
    );
    let approved = fixture.run_with(&["approve", plan], &[ALL]).await;
    approved.assert_exit(Exit::Ok);
    assert!(
        approved.stdout.contains("organization memberships"),
        "{}",
        approved.stdout
    );
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_what_a_sync_would_do() {
    let fixture = mirrored_company(12, sizes(&[5, 7])).await;
    let sim = &fixture.sim;
    let organizations = sim.ids(Kind::Organizations);
    sim.update_object(Kind::Organizations, &organizations[0], |organization| {
        organization["name"] = json!("Renamed");
    });
    let new = sim.create_organization("New");
    assert!(sim.delete_organization(&organizations[1]));
    let dry = fixture.run_with(&["--dry-run"], &[ALL]).await;
    dry.assert_exit(Exit::Ok);
    for line in [
        format!("+ {new}"),
        format!("~ {} name, updated_at", organizations[0]),
        format!("- {}", organizations[1]),
    ] {
        assert!(dry.stdout.contains(&line), "{line}: {}", dry.stdout);
    }
    assert_eq!(fixture.db.number("SELECT count(*) FROM clerk.organizations").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_leaves_300_organizations() {
    let fixture = mirrored_company(3, sizes(&[3; 300])).await;
    fixture.age_rows().await;
    fixture.sim.delete(&fixture.sim.user_ids()[0]);
    let report = once_all(&fixture).await;
    assert_eq!(report["deleted"], 1);
    assert_eq!(report["resources"]["organization_memberships"]["unchanged"], 600);
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_that_is_cut_off_goes_on() {
    let fixture = company(1000, sizes(&[1000, 1000, 500])).await;
    let memberships = "SELECT count(*) FROM clerk.organization_memberships";
    slow_down_memberships(&fixture.sim, 300);
    let run = fixture.start_full_sync(&[ALL]);
    let migrated = "SELECT (to_regclass('clerk.members') IS NOT NULL)::int";
    eventually("there is a schema", async || fixture.db.number(migrated).await == 1).await;
    eventually("they are walked", async || {
        fixture.runs("resource = 'organization_memberships'").await == 1
    })
    .await;
    eventually("some are stored", async || fixture.db.number(memberships).await >= 1000).await;
    run.kill().await;
    fixture.sim.clear_faults();
    once_all(&fixture).await;
    let resumed =
        "SELECT count(*) FROM clerk.sync_runs WHERE resource = 'organization_memberships' AND resumed IS NOT NULL";
    assert_eq!(fixture.db.number(resumed).await, 1);
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_over_a_long_list_gives_way_to_users() {
    let fixture = company(1000, sizes(&[1000, 1000, 1000, 1000, 1000])).await;
    let sim = &fixture.sim;
    // All pages together take at least 10 s.
    slow_down_memberships(sim, 1000);
    let daemon = fixture.start_incremental(&[ALL]).await;
    let walked = "resource = 'organization_memberships' AND kind = 'full' AND outcome IN ('in_sync', 'changed')";
    let mut created = 0;
    while fixture.runs(walked).await == 0 {
        let user = sim.create_random();
        eventually("a new user", async || fixture.has_user(&user).await).await;
        created += 1;
    }
    assert!(created >= 3, "{created}");
    sim.clear_faults();
    eventually("the members", async || {
        is_in_sync(&fixture, Kind::OrganizationMemberships).await
    })
    .await;
    assert_all_in_sync(&fixture).await;
    let events = "SELECT count(*) FROM clerk.events WHERE resource = 'organization_memberships'";
    assert_eq!(fixture.db.number(events).await, 0, "the first import makes no events");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_over_an_unchanged_list_gives_way_and_ends() {
    let fixture = mirrored_company(1000, sizes(&[1000, 1000, 1000, 1000, 1000])).await;
    let sim = &fixture.sim;
    slow_down_memberships(sim, 1000);
    let walked = "resource = 'organization_memberships' AND kind = 'full' AND outcome IN ('in_sync', 'changed')";
    let before = fixture.runs(walked).await;
    let daemon = fixture.start_incremental(&[ALL]).await;
    // A new member does not wait for the end of the walk.
    let organization = sim.ids(Kind::Organizations)[0].clone();
    let user = sim.create_random();
    let new = sim.add_member(&organization, &user, "org:member").unwrap();
    let sql = format!("SELECT count(*) FROM clerk.organization_memberships WHERE id = '{new}'");
    eventually("the new member", async || fixture.db.number(&sql).await == 1).await;
    assert_eq!(fixture.runs(walked).await, before);
    eventually("the end of the walk", async || fixture.runs(walked).await > before).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    sim.clear_faults();
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_that_gave_way_goes_on_without_a_schedule() {
    let fixture = mirrored_company(1000, sizes(&[1000, 1000, 1000, 1000, 1000])).await;
    let sim = &fixture.sim;
    slow_down_memberships(sim, 1000);
    let runs = "resource = 'organization_memberships' AND kind = 'full' AND outcome";
    let ended = format!("{runs} IN ('in_sync', 'changed')");
    let before = fixture.runs(&ended).await;
    let daemon = fixture.start_daemon(&[
        ALL,
        ("CLERK2PG_SCHEDULE__INCREMENTAL", ""),
        ("CLERK2PG_SCHEDULE__FULL", ""),
    ]);
    eventually("the walk", async || {
        fixture.runs(&format!("{runs} = 'running'")).await == 1
    })
    .await;
    let user = sim.create_random();
    fixture.db.execute(&format!("NOTIFY clerk2pg, '{user}'")).await;
    eventually("the user", async || fixture.has_user(&user).await).await;
    assert_eq!(fixture.runs(&ended).await, before, "the walk has given way");
    eventually("the end of the walk", async || fixture.runs(&ended).await > before).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_walks_a_list_with_a_third_of_its_budget() {
    let fixture = mirrored_company(1000, sizes(&[1000, 1000, 1000, 1000, 1000])).await;
    let ended = "resource = 'organization_memberships' AND kind = 'full' AND outcome IN ('in_sync', 'changed')";
    let before = (fixture.runs(ended).await, fixture.sim.log().len());
    let daemon = fixture.start_daemon(&[
        ALL,
        ("CLERK2PG_CLERK__RATE_LIMIT", "30"),
        ("CLERK2PG_SCHEDULE__INCREMENTAL", ""),
        ("CLERK2PG_SCHEDULE__FULL", ""),
    ]);
    eventually("the end of the walk", async || fixture.runs(ended).await > before.0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let log = fixture.sim.log();
    let walked =
        |request: &&Request| request.path.contains("organization_memberships?") && request.path.contains("limit=500");
    let walked: Vec<i64> = log[before.1..]
        .iter()
        .filter(walked)
        .map(|request| request.at)
        .collect();
    assert!(walked.len() >= 11, "{walked:?}");
    let within = |from: &i64| walked.iter().filter(|at| (*from..from + 10_000).contains(*at)).count();
    assert!(walked.iter().all(|from| within(from) <= 10), "{walked:?}");
}

/// Removes members so that no sync of a daemon, which has just started, sees a part of them. Returns how
/// many requests there were before it could see any.
async fn remove_together(fixture: &Fixture, members: impl Iterator<Item = String>) -> usize {
    let sim = &fixture.sim;
    let ended = "resource = 'organization_memberships' AND kind = 'full' AND outcome <> 'running'";
    eventually("the daemon's first full sync", async || fixture.runs(ended).await == 2).await;
    sim.set_faults(Rule::new(Effect::DropBefore).on([Endpoint::OrganizationList]));
    let before = sim.log().len();
    let is_dropped = |request: &Request| request.status == 0 && request.path.contains("organization_memberships");
    eventually("the list is not being read", async || {
        sim.log()[before..].iter().any(is_dropped)
    })
    .await;
    for id in members {
        sim.delete_object(Kind::OrganizationMemberships, &id);
    }
    let before = sim.log().len();
    sim.clear_faults();
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_leave_together_are_asked_for_together() {
    let fixture = mirrored_company(700, sizes(&[700, 3])).await;
    let sim = &fixture.sim;
    let daemon = fixture.start_incremental(&[ALL]).await;
    let organizations = sim.ids(Kind::Organizations);
    let largest = organizations.iter().max_by_key(|id| sim.memberships_of(id).len());
    let members = sim.memberships_of(largest.unwrap());
    let before = remove_together(&fixture, members.into_iter().step_by(3)).await;
    let held = "SELECT count(*) FROM clerk.missing WHERE hold = 'held'";
    eventually("they are held", async || fixture.db.number(held).await == 234).await;
    let rows = "SELECT count(*) FROM clerk.organization_memberships";
    assert_eq!(
        fixture.db.number(rows).await,
        703,
        "none goes before a person approves all"
    );
    let log = sim.log();
    let asked = log[before..]
        .iter()
        .filter(|request| request.path.contains("/memberships?"));
    let asked: Vec<&String> = asked.map(|request| &request.path).collect();
    assert!(asked.len() <= 12, "{asked:#?}");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_leave_a_long_list_together_are_held_together() {
    let fixture = mirrored_company(1000, sizes(&[1000, 1000, 1000])).await;
    let sim = &fixture.sim;
    let daemon = fixture.start_incremental(&[ALL]).await;
    let members = sim.ids(Kind::OrganizationMemberships);
    remove_together(&fixture, members.into_iter().step_by(4)).await;
    let held = "SELECT count(*) FROM clerk.missing WHERE hold = 'held'";
    eventually("they are held", async || fixture.db.number(held).await == 750).await;
    let rows = "SELECT count(*) FROM clerk.organization_memberships";
    assert_eq!(
        fixture.db.number(rows).await,
        3000,
        "none goes before a person approves all"
    );
    let plan = fixture.run(&["--format", "json", "status"]).await.json();
    let resources = plan["resources"].as_array().unwrap();
    let plan = resources.iter().find_map(|resource| resource["plan"].as_str()).unwrap();
    fixture.run(&["approve", plan]).await.assert_exit(Exit::Ok);
    eventually("they go", async || fixture.db.number(rows).await == 2250).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_members_are_held_with_their_organization() {
    let fixture = mirrored_company(300, sizes(&[300])).await;
    let organization = fixture.sim.ids(Kind::Organizations)[0].clone();
    assert!(fixture.sim.delete_organization(&organization));
    let ran = fixture.once_with(&[ALL]).await;
    ran.assert_exit(Exit::Held);
    let held = "SELECT count(*) FROM clerk.missing WHERE hold = 'held' AND resource = 'organization_memberships'";
    assert_eq!(fixture.db.number(held).await, 300);
    // They are asked about once more, and neither deleted nor released.
    fixture.once_with(&[ALL]).await.assert_exit(Exit::Held);
    assert_eq!(fixture.db.number(held).await, 300);
    let rows = "SELECT count(*) FROM clerk.organization_memberships";
    assert_eq!(fixture.db.number(rows).await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_goes_while_its_list_is_walked() {
    let fixture = mirrored_company(700, sizes(&[700, 700, 700])).await;
    let sim = &fixture.sim;
    slow_down_memberships(sim, 300);
    let before = sim.requests();
    let run = fixture.start_full_sync(&[ALL, ("CLERK2PG_DELETES__MIN_COUNT", "10000")]);
    eventually("the walk has begun", async || {
        let memberships = |(path, count): (&String, &u64)| path.contains("organization_memberships").then_some(*count);
        sim.requests_by_path().iter().filter_map(memberships).sum::<u64>() > 0 && sim.requests() > before + 12
    })
    .await;
    let organizations = sim.ids(Kind::Organizations);
    assert!(sim.delete_organization(&organizations[0]));
    run.wait_for_exit().await;
    sim.clear_faults();
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_fails_keeps_no_other_from_being_synced() {
    let fixture = mirrored_company(12, sizes(&[5, 7])).await;
    let sim = &fixture.sim;
    let organization = sim.create_organization("New");
    sim.add_member(&organization, &sim.user_ids()[0], "org:admin").unwrap();
    let user = sim.create_random();
    sim.set_faults(
        Rule::new(Effect::DropBefore)
            .on([Endpoint::OrganizationList])
            .about("organizations?"),
    );
    let ran = fixture.once_with(&[ALL, ("CLERK2PG_CLERK__TIMEOUT", "300ms")]).await;
    ran.assert_exit(Exit::Failed);
    let report = ran.json();
    assert_eq!(report["resources"]["organizations"]["outcome"], "failed", "{report:#}");
    assert!(fixture.has_user(&user).await);
    assert!(is_in_sync(&fixture, Kind::OrganizationMemberships).await);
    sim.clear_faults();
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_instance_are_held() {
    let fixture = mirrored_company(9, sizes(&[2, 3])).await;
    let other = Sim::start(Options {
        users: 9,
        seed: 2,
        secret_key: fixture.sim.secret_key().to_owned(),
        organizations: sizes(&[4]),
        ..Options::default()
    })
    .await
    .unwrap();
    let (url, key) = (other.url(), other.secret_key().to_owned());
    let there = [ALL, ("CLERK_API_URL", url.as_str()), ("CLERK_SECRET_KEY", key.as_str())];
    let repinned = fixture.run_with(&["repin", other.instance_id()], &there).await;
    repinned.assert_exit(Exit::Ok);
    let ran = fixture.once_with(&there).await;
    ran.assert_exit(Exit::Held);
    let resources = &ran.json()["resources"];
    assert_eq!(resources["organizations"]["held"], 2, "{resources:#}");
    assert_eq!(resources["organization_memberships"]["held"], 5, "{resources:#}");
    let rows = "SELECT count(*) FROM clerk.organization_memberships";
    assert_eq!(fixture.db.number(rows).await, 5 + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sync_asks_once_for_each_short_list() {
    let fixture = mirrored_company(12, sizes(&[5, 7])).await;
    let daemon = fixture.start_incremental(&[ALL]).await;
    let sim = &fixture.sim;
    let asked = |what: &str| -> u64 {
        let paths = sim.requests_by_path();
        paths
            .iter()
            .filter(|(path, _)| path.ends_with(what))
            .map(|(_, count)| count)
            .sum()
    };
    let lists = [
        "/v1/organizations",
        "/v1/organization_memberships",
        "/v1/organization_invitations",
    ];
    let rare = ["/v1/organization_roles", "/v1/organization_permissions"];
    eventually("an incremental sync", async || asked("/v1/users/count") > 6).await;
    let (users, before, rarely) = (asked("/v1/users/count"), lists.map(asked), rare.map(asked));
    eventually("some more", async || asked("/v1/users/count") >= users + 5).await;
    for (list, before) in lists.iter().zip(before) {
        let count = asked(list) - before;
        assert!((4..=6).contains(&count), "{list}: {count}");
    }
    assert_eq!(rare.map(asked), rarely);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_held_together_with_their_organization() {
    let fixture = mirrored_company(9, sizes(&[4])).await;
    let sim = &fixture.sim;
    let organization = sim.ids(Kind::Organizations)[0].clone();
    let daemon = fixture.start_incremental(&[ALL]).await;
    // Without any organization left, the deletion is held.
    assert!(sim.delete_organization(&organization));
    let held = "SELECT count(*) FROM clerk.missing WHERE hold = 'held' AND resource = 'organization_memberships'";
    eventually("the members are held", async || fixture.db.number(held).await == 4).await;
    // Nothing is asked for again and again.
    let runs = async || fixture.runs("resource LIKE 'organization%'").await;
    eventually("syncs find no reason any more", async || {
        let (before, requests) = (runs().await, sim.requests());
        eventually("more syncs", async || sim.requests() > requests + 30).await;
        runs().await == before
    })
    .await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_left_and_came_back_are_stored_under_a_unique_constraint() {
    let fixture = mirrored_company(700, sizes(&[5, 700])).await;
    let unique = "CREATE UNIQUE INDEX ON clerk.organization_memberships (organization_id, user_id)";
    fixture.db.execute(unique).await;
    let sim = &fixture.sim;
    let daemon = fixture.start_incremental(&[ALL]).await;
    for organization in sim.ids(Kind::Organizations) {
        let oldest = sim.memberships_of(&organization)[0].clone();
        let membership = sim.object(Kind::OrganizationMemberships, &oldest).unwrap();
        let user = membership["public_user_data"]["user_id"].as_str().unwrap().to_owned();
        fixture
            .while_frozen(&[&daemon], || {
                assert!(sim.remove_member(&organization, &user));
                sim.add_member(&organization, &user, "org:member").unwrap();
            })
            .await;
        eventually("the new membership", async || {
            is_in_sync(&fixture, Kind::OrganizationMemberships).await
        })
        .await;
    }
    let full = "SELECT count(*) FROM clerk.sync_runs WHERE kind = 'full' AND resource = 'organization_memberships'";
    assert_eq!(fixture.db.number(full).await, 2);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newest_page_that_cannot_be_read_is_walked_around() {
    let fixture = mirrored_company(12, sizes(&[5])).await;
    let sim = &fixture.sim;
    let daemon = fixture.start_incremental(&[ALL]).await;
    sim.set_faults(
        Rule::new(Effect::Html)
            .on([Endpoint::OrganizationList])
            .about("organization_memberships?order_by=-created_at&limit=500"),
    );
    let organization = sim.ids(Kind::Organizations)[0].clone();
    let user = sim.create_random();
    sim.add_member(&organization, &user, "org:member").unwrap();
    eventually("the new membership", async || {
        is_in_sync(&fixture, Kind::OrganizationMemberships).await
    })
    .await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_of_20000_members() {
    let fixture = company(20_000, sizes(&[20_000, 1])).await;
    once_all(&fixture).await;
    age(&fixture.db).await;
    let sim = &fixture.sim;
    let daemon = fixture.start_incremental(&[ALL]).await;
    let organizations = sim.ids(Kind::Organizations);
    let largest = organizations
        .iter()
        .max_by_key(|id| sim.memberships_of(id).len())
        .unwrap();
    let members = sim.memberships_of(largest);
    let has = async |id: &str| {
        let sql = format!("SELECT count(*) FROM clerk.organization_memberships WHERE id = '{id}'");
        fixture.db.number(&sql).await == 1
    };
    for at in [0, 9_999, members.len() - 1] {
        sim.delete_object(Kind::OrganizationMemberships, &members[at]);
        eventually("a member leaves", async || !has(&members[at]).await).await;
    }
    let user = sim.create_random();
    let new = sim.add_member(largest, &user, "org:member").unwrap();
    eventually("a new member", async || has(&new).await).await;
    assert!(sim.delete_organization(largest));
    let rows = "SELECT count(*) FROM clerk.organization_memberships";
    eventually("the organization goes with its members", async || {
        fixture.db.number(rows).await <= 1
    })
    .await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_all_in_sync(&fixture).await;
}
