//! Requests that change memberships, and what memberships show.

use clerk_sim::Kind;
use reqwest::Method;
use serde_json::json;

use crate::support::{Clerk, id};

#[tokio::test]
async fn members_are_added_changed_and_removed() {
    let clerk = Clerk::no_organizations(5).await;
    let users = clerk.sim.user_ids();
    let organization = clerk.sim.create_organization("Acme");
    let path = format!("/organizations/{organization}/memberships");
    let body =
        json!({"user_id": users[0], "role": "org:admin", "public_metadata": {"seat": 1}, "private_metadata": null});
    let added = clerk.done(Method::POST, &path, body).await;
    assert_eq!(
        (&added["role"], &added["role_name"]),
        (&json!("org:admin"), &json!("Admin"))
    );
    assert!(
        added["permissions"]
            .as_array()
            .is_some_and(|keys| keys.contains(&json!("org:sys_memberships:manage")))
    );
    assert_eq!(
        (&added["public_metadata"], &added["private_metadata"]),
        (&json!({"seat": 1}), &json!({}))
    );
    assert_eq!(added["organization"]["members_count"], 1);
    assert_eq!(clerk.sim.membership_id(&organization, &users[0]), Some(id(&added)));

    let member = format!("{path}/{}", users[0]);
    let changed = clerk.done(Method::PATCH, &member, json!({"role": "org:member"})).await;
    assert_eq!(
        (&changed["role"], &changed["role_name"]),
        (&json!("org:member"), &json!("Member"))
    );
    assert!(changed["updated_at"].as_i64() >= added["updated_at"].as_i64());
    assert_eq!(changed["created_at"], added["created_at"]);
    let body = json!({"public_metadata": {"seat": null, "desk": 2}});
    let merged = clerk.done(Method::PATCH, &format!("{member}/metadata"), body).await;
    assert_eq!(merged["public_metadata"], json!({"desk": 2}));
    let removed = clerk.done(Method::DELETE, &member, json!({})).await;
    assert_eq!(
        (&removed["id"], &removed["organization"]["members_count"]),
        (&added["id"], &json!(0))
    );
    assert_eq!(clerk.total_list(&path).await.total(), 0);
    assert_eq!(clerk.sim.count_of(Kind::OrganizationMemberships), 0);
    let again = clerk
        .done(Method::POST, &path, json!({"user_id": users[0], "role": "org:member"}))
        .await;
    assert_ne!(again["id"], added["id"], "a new membership has a new id");
}

#[tokio::test]
async fn refusals_are_those_that_clerk_documents() {
    let clerk = Clerk::no_organizations(9).await;
    let users = clerk.sim.user_ids();
    let created = clerk
        .done(
            Method::POST,
            "/organizations",
            json!({"name": "Acme", "created_by": users[0]}),
        )
        .await;
    let path = format!("/organizations/{}/memberships", id(&created));
    let add = async |body| clerk.fails(Method::POST, &path, body).await;
    for (body, status, code) in [
        (
            json!({"user_id": users[0], "role": "org:admin"}),
            400,
            "already_a_member_in_organization",
        ),
        (
            json!({"user_id": users[1], "role": "org:nothing"}),
            404,
            "resource_not_found",
        ),
        (
            json!({"user_id": "user_nobody", "role": "org:admin"}),
            404,
            "resource_not_found",
        ),
        (json!({"user_id": users[1]}), 422, "form_param_missing"),
        (json!({"role": "org:admin"}), 422, "form_param_missing"),
        (
            json!({"user_id": users[1], "role": "org:admin", "shoe_size": 1}),
            422,
            "form_param_unknown",
        ),
    ] {
        assert_eq!(add(body.clone()).await, (status, code.to_owned()), "{body}");
    }
    let body = json!({"user_id": users[1], "role": "org:admin"});
    let nowhere = clerk
        .fails(Method::POST, "/organizations/org_nobody/memberships", body)
        .await;
    assert_eq!(nowhere, (404, "resource_not_found".to_owned()));
    for method in [Method::PATCH, Method::DELETE] {
        let answer = clerk
            .fails(method, &format!("{path}/{}", users[5]), json!({"role": "org:member"}))
            .await;
        assert_eq!(answer, (404, "resource_not_found".to_owned()), "no member");
    }
    // A new organization may have five members.
    for user in &users[1..5] {
        clerk
            .done(Method::POST, &path, json!({"user_id": user, "role": "org:member"}))
            .await;
    }
    let full = (403, "organization_membership_quota_exceeded".to_owned());
    assert_eq!(add(json!({"user_id": users[5], "role": "org:member"})).await, full);
    assert!(
        clerk.sim.add_member(&id(&created), &users[5], "org:member").is_some(),
        "limits are for requests"
    );
}

#[tokio::test]
async fn a_membership_shows_its_organization_user_and_role_as_they_are() {
    let clerk = Clerk::no_organizations(0).await;
    let user = clerk
        .done(
            Method::POST,
            "/users",
            json!({"email_address": ["ada@example.com"], "username": "ada", "first_name": "Ada"}),
        )
        .await;
    let (sim, user_id) = (&clerk.sim, id(&user));
    let organization = sim.create_organization("Acme");
    let membership = sim
        .add_member(&organization, &user_id, "org:member")
        .expect("a membership");
    let shown = async || clerk.total_list("/organization_memberships").await.data().remove(0);
    let before = shown().await;
    assert_eq!(
        before["organization"],
        sim.object(Kind::Organizations, &organization).expect("it is there")
    );
    let public = &before["public_user_data"];
    assert_eq!(
        (
            &public["user_id"],
            &public["identifier"],
            &public["first_name"],
            &public["last_name"]
        ),
        (&user["id"], &json!("ada@example.com"), &json!("Ada"), &json!(null))
    );
    assert!(sim.update(&user_id, |user| user["first_name"] = "Augusta".into()));
    assert!(sim.update_object(Kind::Organizations, &organization, |one| one["name"] = "Acme II".into()));
    let roles = sim.ids(Kind::OrganizationRoles);
    assert!(
        sim.update_object(Kind::OrganizationRoles, &roles[1], |role| role["name"] =
            "Fellow".into())
    );
    let after = shown().await;
    assert_eq!(after["public_user_data"]["first_name"], "Augusta");
    assert_eq!(
        (&after["organization"]["name"], &after["role_name"]),
        (&json!("Acme II"), &json!("Fellow"))
    );
    assert_eq!(
        after["updated_at"], before["updated_at"],
        "nobody has changed the membership"
    );
    assert!(
        sim.update_object(Kind::OrganizationMemberships, &membership, |one| one["role"] =
            "org:gone".into())
    );
    let unknown = shown().await;
    assert_eq!((unknown.get("role_name"), &unknown["permissions"]), (None, &json!([])));
}

#[tokio::test]
async fn an_organization_of_20000_members_can_be_walked_searched_and_deleted() {
    let clerk = Clerk::no_organizations(600).await;
    let (sim, users) = (&clerk.sim, clerk.sim.user_ids());
    let organization = sim.create_organization("Large");
    for n in 0..20_000 {
        assert!(
            sim.add_member(&organization, &format!("user_{n}"), "org:member")
                .is_some()
        );
    }
    assert!(sim.add_member(&organization, &users[7], "org:admin").is_some());
    let path = format!("/organizations/{organization}/memberships");
    let page = clerk
        .total_list(&format!("{path}?limit=500&offset=19999&order_by=created_at"))
        .await;
    assert_eq!((page.total(), page.data().len()), (20_001, 2));
    let found = clerk
        .total_list(&format!("{path}?user_id={}&user_id=user_3", users[7]))
        .await;
    assert_eq!((found.total(), found.data().len()), (2, 2));
    assert!(sim.delete_organization(&organization));
    assert_eq!(sim.count_of(Kind::OrganizationMemberships), 0);
}
