//! Checks answers about organizations against Clerk's OpenAPI document, if there is a copy of it.

use std::collections::BTreeSet;

use clerk_sim::{Kind, OrganizationOptions, PerOrganization};
use reqwest::Method;
use serde_json::json;

use crate::specification::{Spec, assert_valid, errors};
use crate::support::Clerk;

async fn generated() -> Clerk {
    let options = OrganizationOptions {
        members: PerOrganization::Sizes(vec![0, 1, 3, 30]),
        ..OrganizationOptions::number(200)
    };
    // Enough users for all ways in which they deviate from the specification.
    Clerk::organizations(1000, options).await
}

/// Checks all pages of a list, and returns how many objects there were.
async fn check_list(clerk: &Clerk, spec: &Spec, template: &str, path: &str, query: &str) -> usize {
    let validator = spec.answer(template, "get");
    let broken = json!({"data": [{"id": 1}], "total_count": 1});
    assert!(!errors(&validator, &broken).is_empty(), "the schema is checked");
    let mut checked = 0;
    loop {
        let page = clerk
            .total_list(&format!("{path}?limit=500&offset={checked}{query}"))
            .await;
        assert_valid(&validator, &page.json());
        let objects = page.data().len();
        if objects == 0 {
            assert_eq!(page.total(), checked as u64, "{path}");
            return checked;
        }
        checked += objects;
    }
}

#[tokio::test]
async fn generated_and_randomly_changed_objects_are_valid() {
    let Some(spec) = Spec::read() else { return };
    let clerk = generated().await;
    for round in 0..2 {
        let all = "&include_members_count=true&include_missing_member_with_elevated_permissions=true";
        for (path, query, kind) in [
            ("/organizations", "", Kind::Organizations),
            ("/organizations", all, Kind::Organizations),
            ("/organization_memberships", "", Kind::OrganizationMemberships),
            ("/organization_invitations", "", Kind::OrganizationInvitations),
            ("/organization_roles", "", Kind::OrganizationRoles),
            ("/organization_permissions", "", Kind::OrganizationPermissions),
        ] {
            let checked = check_list(&clerk, &spec, path, path, query).await;
            assert!(
                checked > 0 && checked == clerk.sim.count_of(kind),
                "{path} in round {round}"
            );
        }
        for _ in 0..500 {
            clerk.sim.change_organizations_at_random();
        }
    }
}

/// Objects whose ids replace the names in the paths of the specification.
struct Paths(Vec<(&'static str, String)>);

impl Paths {
    /// A user who is the admin of an organization, with a pending invitation to it.
    async fn prepare(clerk: &Clerk) -> Self {
        let user = clerk.sim.user_ids()[0].clone();
        let organization = clerk.sim.create_organization("Acme");
        assert!(clerk.sim.add_member(&organization, &user, "org:admin").is_some());
        let address = clerk
            .total_list(&format!("/users/{user}/organization_memberships"))
            .await
            .data();
        let address = address[0]["public_user_data"]["identifier"]
            .as_str()
            .expect("an address");
        let invited = clerk.sim.create_organization("Other");
        assert!(
            clerk.sim.invite(&invited, address, "org:member").is_some(),
            "for the list of the user"
        );
        let invitation = clerk.sim.invite(&organization, "a@example.com", "org:member");
        let [role, permission] =
            [Kind::OrganizationRoles, Kind::OrganizationPermissions].map(|kind| clerk.sim.ids(kind)[0].clone());
        Self(vec![
            ("{organization_id}", organization),
            ("{user_id}", user),
            ("{invitation_id}", invitation.expect("an invitation")),
            ("{organization_role_id}", role),
            ("{permission_id}", permission),
        ])
    }

    fn fill(&self, template: &str) -> String {
        let fill = |path: String, (name, id): &(&str, String)| path.replace(name, id);
        self.0.iter().fold(template.to_owned(), fill)
    }
}

#[tokio::test]
async fn every_read_has_its_schema() {
    let Some(spec) = Spec::read() else { return };
    let clerk = generated().await;
    let paths = Paths::prepare(&clerk).await;
    for template in [
        "/organizations/{organization_id}",
        "/organizations/{organization_id}/memberships",
        "/organizations/{organization_id}/invitations",
        "/organizations/{organization_id}/invitations/pending",
        "/organizations/{organization_id}/invitations/{invitation_id}",
        "/users/{user_id}/organization_memberships",
        "/users/{user_id}/organization_invitations",
        "/organization_roles/{organization_role_id}",
        "/organization_permissions/{permission_id}",
    ] {
        for query in ["", "?include_members_count=true"] {
            let answer = clerk.get(&format!("{}{query}", paths.fill(template))).await;
            assert_eq!(answer.status, 200, "{template}");
            assert_valid(&spec.answer(template, "get"), &answer.json());
            assert_ne!(answer.json()["total_count"], 0, "{template}");
        }
    }
    let errors = spec.validator("ClerkErrors");
    for path in [
        "/organizations/org_nobody",
        "/organizations?limit=0",
        "/organization_roles/role_nobody",
    ] {
        let answer = clerk.get(path).await;
        assert_ne!(answer.status, 200);
        assert_valid(&errors, &answer.json());
    }
    clerk.sim.enable_organizations(false);
    assert_valid(&errors, &clerk.get("/organizations").await.json());
}

#[tokio::test]
async fn every_write_is_answered_with_its_schema() {
    let Some(spec) = Spec::read() else { return };
    let clerk = generated().await;
    let mut paths = Paths::prepare(&clerk).await;
    let body = json!({
        "name": "Acme", "slug": "acme-2026", "created_by": paths.0[1].1, "max_allowed_memberships": 0, "role_set_key": "role_set:x",
    });
    let created = clerk.done(Method::POST, "/organizations", body).await;
    assert_valid(&spec.answer("/organizations", "post"), &created);
    let (admin, member) = (paths.0[1].1.clone(), clerk.sim.user_ids()[1].clone());
    paths.0[1].1 = member.clone();
    let invite = |name: &str| json!({"email_address": format!("{name}@example.com"), "role": "org:member", "inviter_user_id": admin});
    let metadata = json!({"public_metadata": {"a": 1}});
    for (method, rest, body) in [
        (Method::PATCH, "/metadata", metadata.clone()),
        (Method::PUT, "/metadata", metadata.clone()),
        (Method::PATCH, "", json!({"name": "New"})),
        (
            Method::POST,
            "/memberships",
            json!({"user_id": member, "role": "org:member"}),
        ),
        (Method::PATCH, "/memberships/{user_id}", json!({"role": "org:admin"})),
        (Method::PATCH, "/memberships/{user_id}/metadata", metadata),
        (Method::DELETE, "/memberships/{user_id}", json!({})),
        (Method::POST, "/invitations", invite("b")),
        (Method::POST, "/invitations/bulk", json!([invite("c"), invite("d")])),
        (Method::POST, "/invitations/{invitation_id}/revoke", json!({})),
        (Method::DELETE, "", json!({})),
    ] {
        let template = format!("/organizations/{{organization_id}}{rest}");
        let answer = clerk.done(method.clone(), &paths.fill(&template), body).await;
        assert_valid(&spec.answer(&template, &method.as_str().to_lowercase()), &answer);
    }
}

#[tokio::test]
async fn the_known_parameters_of_bodies_are_those_of_the_specification() {
    let Some(spec) = Spec::read() else { return };
    let clerk = generated().await;
    let paths = Paths::prepare(&clerk).await;
    for (template, method, names) in [
        ("/organizations", Method::POST, 8),
        ("/organizations/{organization_id}", Method::PATCH, 6),
        ("/organizations/{organization_id}/metadata", Method::PATCH, 2),
        ("/organizations/{organization_id}/metadata", Method::PUT, 2),
        ("/organizations/{organization_id}/memberships", Method::POST, 4),
        (
            "/organizations/{organization_id}/memberships/{user_id}",
            Method::PATCH,
            1,
        ),
        (
            "/organizations/{organization_id}/memberships/{user_id}/metadata",
            Method::PATCH,
            2,
        ),
        ("/organizations/{organization_id}/invitations", Method::POST, 8),
    ] {
        let properties = spec.properties(template, &method.as_str().to_lowercase());
        assert_eq!(properties.len(), names, "{method} {template}");
        for name in properties.keys() {
            // No parameter takes an object within a list, so this shows only whether the name is
            // known.
            let answer = clerk
                .write(method.clone(), &paths.fill(template), json!({name: [{}]}))
                .await;
            assert_eq!(answer.code(), "form_param_value_invalid", "{method} {template}: {name}");
        }
        let answer = clerk
            .write(method.clone(), &paths.fill(template), json!({"shoe_size": 1}))
            .await;
        assert_eq!(answer.code(), "form_param_unknown", "{method} {template}");
    }
}

#[test]
fn the_tests_of_lists_know_all_parameters_of_the_specification() {
    let Some(spec) = Spec::read() else { return };
    let names = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let known = [
        (
            "/organizations",
            names(&[
                "include_members_count",
                "include_missing_member_with_elevated_permissions",
                "query",
                "user_id",
                "organization_id",
                "order_by",
            ]),
        ),
        ("/organization_memberships", names(&["order_by"])),
        (
            "/organizations/{organization_id}/memberships",
            names(&[
                "order_by",
                "user_id",
                "email_address",
                "phone_number",
                "username",
                "web3_wallet",
                "role",
                "query",
                "email_address_query",
                "phone_number_query",
                "username_query",
                "name_query",
                "last_active_at_before",
                "last_active_at_after",
                "created_at_before",
                "created_at_after",
            ]),
        ),
        ("/users/{user_id}/organization_memberships", names(&[])),
        ("/organization_invitations", names(&["order_by", "status", "query"])),
        (
            "/organizations/{organization_id}/invitations",
            names(&["order_by", "status", "email_address"]),
        ),
        ("/organizations/{organization_id}/invitations/pending", names(&[])),
        ("/users/{user_id}/organization_invitations", names(&["status"])),
        ("/organization_roles", names(&["query", "order_by"])),
        ("/organization_permissions", names(&["query", "order_by"])),
    ];
    for (path, known) in known {
        assert_eq!(spec.parameters(path), known, "{path}");
    }
}
