//! Clerk's own library for backends works against the simulated Clerk, for organizations and what
//! belongs to them.

use clerk_sim::{Kind, Options, OrganizationOptions, PerOrganization, Sim};
use serde_json::{Value, json};

use crate::support::node_app::NodeApp;

/// Makes calls of the library, and returns their answers.
async fn call(app: &NodeApp, sim: &Sim, calls: Value) -> Vec<Value> {
    let input = json!({"url": sim.url(), "key": sim.secret_key(), "calls": calls});
    let output = app.answer("calls.mjs", &[], input.to_string().as_bytes()).await;
    serde_json::from_slice(&output).unwrap()
}

/// What the API answered, before the library put it into its own form.
fn raw(answer: &Value) -> Value {
    answer["_raw"].clone()
}

/// The ids of a list.
fn ids(answer: &Value) -> Vec<&str> {
    let data = answer["data"].as_array().unwrap_or_else(|| panic!("no list: {answer}"));
    data.iter().map(|one| one["id"].as_str().unwrap()).collect()
}

async fn start(organizations: OrganizationOptions) -> Sim {
    let options = Options {
        users: 30,
        organizations,
        ..Options::default()
    };
    Sim::start(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_library_reads_all_lists() {
    let Some(app) = NodeApp::install_from("tests/it/clerk_backend").await else {
        return;
    };
    let sim = start(OrganizationOptions {
        members: PerOrganization::Sizes(vec![0, 1, 12]),
        invitations: PerOrganization::Sizes(vec![3]),
        ..OrganizationOptions::number(6)
    })
    .await;
    let organizations = sim.ids(Kind::Organizations);
    let largest = organizations
        .iter()
        .max_by_key(|id| sim.memberships_of(id).len())
        .unwrap();
    let invitation = &sim.invitations_to(largest)[0];
    let member = sim
        .object(Kind::OrganizationMemberships, &sim.memberships_of(largest)[0])
        .unwrap();
    let user = member["public_user_data"]["user_id"].as_str().unwrap();
    let role = &sim.ids(Kind::OrganizationRoles)[0];
    let permission = &sim.ids(Kind::OrganizationPermissions)[0];
    let answers = call(
        &app,
        &sim,
        json!([
            ["organizations", "getOrganizationList", [
                {"limit": 500, "includeMembersCount": true, "orderBy": "+created_at"},
            ]],
            ["organizations", "getOrganizationList", [
                {"limit": 500, "userId": [user], "organizationId": [largest, "org_nobody"]},
            ]],
            ["organizations", "getOrganization", [{"organizationId": largest, "includeMembersCount": true}]],
            ["organizations", "getOrganization", [{"slug": "$2.slug"}]],
            ["organizations", "getInstanceOrganizationMembershipList", [{"limit": 500, "orderBy": "-created_at"}]],
            ["organizations", "getOrganizationMembershipList", [{"organizationId": largest, "limit": 5, "offset": 10}]],
            ["organizations", "getOrganizationMembershipList", [
                {"organizationId": largest, "userId": [user], "role": ["org:admin", "org:member", "org:accountant"]},
            ]],
            ["users", "getOrganizationMembershipList", [{"userId": user, "limit": 500}]],
            ["organizations", "getOrganizationInvitationList", [
                {"organizationId": largest, "status": ["pending", "accepted", "revoked", "expired"]},
            ]],
            ["organizations", "getOrganizationInvitation", [{"organizationId": largest, "invitationId": invitation}]],
            ["users", "getOrganizationInvitationList", [{"userId": user}]],
            ["organizationRoles", "getOrganizationRoleList", [{"limit": 500, "query": "admin"}]],
            ["organizationRoles", "getOrganizationRole", [role]],
            ["organizationPermissions", "getOrganizationPermissionList", [{"limit": 500}]],
            ["organizationPermissions", "getOrganizationPermission", [permission]],
            ["organizations", "getOrganization", [{"organizationId": "org_nobody"}]],
        ]),
    )
    .await;
    assert_eq!(ids(&answers[0]), organizations);
    assert_eq!(answers[0]["totalCount"], 6);
    assert_eq!(ids(&answers[1]), [largest]);
    assert_eq!(raw(&answers[2]), sim.object(Kind::Organizations, largest).unwrap());
    assert_eq!(answers[2]["membersCount"], 12);
    assert_eq!(answers[3]["id"], answers[2]["id"]);
    let newest_first: Vec<_> = sim.ids(Kind::OrganizationMemberships).into_iter().rev().collect();
    assert_eq!(ids(&answers[4]), newest_first);
    assert_eq!((ids(&answers[5]).len(), &answers[5]["totalCount"]), (2, &json!(12)));
    assert_eq!(raw(&answers[6]["data"][0]), member);
    assert_eq!(answers[6]["data"][0]["publicUserData"]["userId"], user);
    assert_eq!(ids(&answers[7]).len(), sim.memberships_of_user(user).len());
    assert_eq!(ids(&answers[8]).len(), 3);
    assert_eq!(
        raw(&answers[9]),
        sim.object(Kind::OrganizationInvitations, invitation).unwrap()
    );
    assert_eq!(answers[10]["totalCount"], 0);
    assert_eq!(ids(&answers[11]), [role]);
    assert_eq!(answers[12]["key"], "org:admin");
    assert_eq!(ids(&answers[13]).len(), sim.count_of(Kind::OrganizationPermissions));
    assert_eq!(answers[14]["id"], json!(permission));
    assert_eq!(
        answers[15]["error"],
        json!({"status": 404, "code": "resource_not_found"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_library_writes() {
    let Some(app) = NodeApp::install_from("tests/it/clerk_backend").await else {
        return;
    };
    let sim = start(OrganizationOptions::number(0)).await;
    let users = sim.user_ids();
    let invite = |name: &str| {
        let address = format!("{name}@example.com");
        json!({"emailAddress": address, "role": "org:member", "inviterUserId": users[0]})
    };
    let with = |mut invitation: Value| {
        invitation["organizationId"] = "$0.id".into();
        invitation
    };
    let answers = call(
        &app,
        &sim,
        json!([
            ["organizations", "createOrganization", [
                {
                    "name": "Acme", "slug": "acme", "createdBy": users[0], "maxAllowedMemberships": 9,
                    "publicMetadata": {"plan": "pro"},
                },
            ]],
            ["organizations", "updateOrganization", ["$0.id", {"name": "Acme II", "adminDeleteEnabled": false}]],
            ["organizations", "updateOrganizationMetadata", ["$0.id", {"publicMetadata": {"plan": null, "seats": 3}}]],
            ["organizations", "replaceOrganizationMetadata", ["$0.id", {"privateMetadata": {"crm": 7}}]],
            ["organizations", "createOrganizationMembership", [
                {"organizationId": "$0.id", "userId": users[1], "role": "org:member"},
            ]],
            ["organizations", "createOrganizationMembership", [
                {"organizationId": "$0.id", "userId": users[1], "role": "org:member"},
            ]],
            ["organizations", "updateOrganizationMembership", [
                {"organizationId": "$0.id", "userId": users[1], "role": "org:admin"},
            ]],
            ["organizations", "updateOrganizationMembershipMetadata", [
                {"organizationId": "$0.id", "userId": users[1], "publicMetadata": {"desk": 4}},
            ]],
            ["organizations", "deleteOrganizationMembership", [{"organizationId": "$0.id", "userId": users[0]}]],
            ["organizations", "createOrganizationInvitation", [with(invite("a"))]],
            ["organizations", "createOrganizationInvitationBulk", ["$0.id", [invite("b"), invite("c")]]],
            ["organizations", "revokeOrganizationInvitation", [{"organizationId": "$0.id", "invitationId": "$9.id"}]],
            ["organizations", "createOrganization", [{"name": "Short-lived"}]],
            ["organizations", "deleteOrganization", ["$12.id"]],
        ]),
    )
    .await;
    for answer in &answers {
        assert!(answer.get("error").is_none() || answer == &answers[5], "{answer}");
    }
    let organization = answers[0]["id"].as_str().unwrap();
    assert_eq!(
        (&answers[0]["slug"], &answers[0]["createdBy"]),
        (&json!("acme"), &json!(users[0]))
    );
    let held = sim.object(Kind::Organizations, organization).unwrap();
    assert_eq!(
        (&held["name"], &held["admin_delete_enabled"]),
        (&json!("Acme II"), &json!(false))
    );
    assert_eq!(
        (&held["public_metadata"], &held["private_metadata"]),
        (&json!({"seats": 3}), &json!({"crm": 7}))
    );
    assert_eq!(
        (&held["members_count"], &held["pending_invitations_count"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        answers[5]["error"],
        json!({"status": 400, "code": "already_a_member_in_organization"})
    );
    let member = sim
        .object(Kind::OrganizationMemberships, &sim.memberships_of(organization)[0])
        .unwrap();
    assert_eq!(member["id"], answers[4]["id"]);
    assert_eq!(
        (&member["role"], &member["public_metadata"]),
        (&json!("org:admin"), &json!({"desk": 4}))
    );
    assert_eq!(answers[8]["publicUserData"]["userId"], json!(users[0]));
    assert_eq!(answers[11]["status"], "revoked");
    assert_eq!(answers[10]["totalCount"], 2);
    assert_eq!(sim.ids(Kind::Organizations), [organization]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_library_is_refused_while_organizations_are_off() {
    let Some(app) = NodeApp::install_from("tests/it/clerk_backend").await else {
        return;
    };
    let sim = start(OrganizationOptions::default()).await;
    let calls = json!([
        ["organizations", "getOrganizationList", [{}]],
        ["users", "getCount", [{}]]
    ]);
    let answers = call(&app, &sim, calls).await;
    let off = json!({"status": 403, "code": "organization_not_enabled_in_instance"});
    assert_eq!(answers[0]["error"], off);
    assert_eq!(answers[1], 30);
}
