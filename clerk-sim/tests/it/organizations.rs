//! Requests that change organizations, and what follows from them.

use clerk_sim::{Kind, OrganizationOptions, PerOrganization};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Clerk, id};

#[tokio::test]
async fn created_organizations_have_a_creator_and_a_slug_of_their_own() {
    let clerk = Clerk::no_organizations(3).await;
    let user = &clerk.sim.user_ids()[0];
    let body = json!({
        "name": "Müller & Söhne", "created_by": user, "public_metadata": {"plan": "pro"}, "private_metadata": null,
        "created_at": "1999-12-31T23:59:59.999Z", "max_allowed_memberships": 7,
    });
    let created = clerk.done(Method::POST, "/organizations", body).await;
    assert_eq!(created["slug"], "m-ller-s-hne");
    assert_eq!(created["created_at"], 946_684_799_999_i64);
    assert_eq!(
        (&created["created_by"], &created["max_allowed_memberships"]),
        (&json!(user), &json!(7))
    );
    assert!(created.get("members_count").is_none(), "counts are shown on request");
    let organization = id(&created);
    let member = clerk
        .total_list(&format!("/organizations/{organization}/memberships"))
        .await
        .data();
    assert_eq!((member.len(), &member[0]["role"]), (1, &json!("org:admin")));
    assert_eq!(member[0]["public_user_data"]["user_id"], json!(user));

    let again = clerk
        .done(Method::POST, "/organizations", json!({"name": "Müller & Söhne"}))
        .await;
    assert_eq!(again["slug"], "m-ller-s-hne-1");
    assert_eq!(again["max_allowed_memberships"], 5);
    for path in [
        format!("/organizations/{organization}"),
        "/organizations/m-ller-s-hne".to_owned(),
    ] {
        assert_eq!(clerk.get(&path).await.json(), created);
    }
    let long = "x".repeat(257);
    for (body, refused) in [
        (json!({}), (422, "form_param_missing")),
        (json!({"name": ""}), (422, "form_param_missing")),
        (json!({"name": long}), (422, "form_param_value_invalid")),
        (
            json!({"name": "x", "slug": "m-ller-s-hne"}),
            (422, "form_identifier_exists"),
        ),
        (json!({"name": "x", "slug": "A b"}), (422, "form_param_format_invalid")),
        (
            json!({"name": "x", "max_allowed_memberships": -1}),
            (422, "form_param_value_invalid"),
        ),
        (
            json!({"name": "x", "created_by": "user_nobody"}),
            (400, "organization_creator_not_found"),
        ),
        (json!({"name": "x", "shoe_size": 44}), (422, "form_param_unknown")),
    ] {
        let answer = clerk.fails(Method::POST, "/organizations", body.clone()).await;
        assert_eq!(answer, (refused.0, refused.1.to_owned()), "{body}");
    }
    assert_eq!(clerk.sim.count_of(Kind::Organizations), 2);
}

#[tokio::test]
async fn patches_move_updated_at_and_metadata_is_merged_or_replaced() {
    let clerk = Clerk::organizations(5, OrganizationOptions::number(3)).await;
    let ids = clerk.sim.ids(Kind::Organizations);
    let path = format!("/organizations/{}", ids[0]);
    let before = clerk.get(&path).await.json();
    let body =
        json!({"name": "New", "slug": "new", "admin_delete_enabled": false, "created_at": "2030-01-01T00:00:00Z"});
    let patched = clerk.done(Method::PATCH, &path, body).await;
    assert_eq!(
        (&patched["name"], &patched["slug"], &patched["admin_delete_enabled"]),
        (&json!("New"), &json!("new"), &json!(false))
    );
    assert!(patched["updated_at"].as_i64() > before["updated_at"].as_i64());
    assert_eq!(clerk.ids("/organizations?limit=1").await, ids[..1]);
    let other = format!("/organizations/{}", ids[1]);
    assert_eq!(
        clerk.fails(Method::PATCH, &other, json!({"slug": "new"})).await.1,
        "form_identifier_exists"
    );
    let refused = clerk.fails(Method::PATCH, &path, json!({"public_metadata": {}})).await;
    assert_eq!(refused, (422, "form_param_unknown".to_owned()), "from 2026-05-12 on");

    let metadata = format!("{path}/metadata");
    let body = json!({"public_metadata": {"a": {"x": 1, "y": 2}}, "private_metadata": {"p": 1}});
    clerk.done(Method::PUT, &metadata, body).await;
    let body = json!({"public_metadata": {"a": {"x": null, "z": 3}}});
    let merged = clerk.done(Method::PATCH, &metadata, body).await;
    assert_eq!(merged["public_metadata"], json!({"a": {"y": 2, "z": 3}}));
    let replaced = clerk
        .done(Method::PUT, &metadata, json!({"public_metadata": {"only": null}}))
        .await;
    assert_eq!(replaced["public_metadata"], json!({"only": null}));
    assert_eq!(replaced["private_metadata"], json!({"p": 1}));
    for method in [Method::PATCH, Method::DELETE] {
        let answer = clerk.fails(method, "/organizations/org_nobody", json!({})).await;
        assert_eq!(answer, (404, "resource_not_found".to_owned()));
    }
    let membership = clerk.sim.memberships_of(&ids[0])[0].clone();
    let membership = clerk
        .sim
        .object(Kind::OrganizationMemberships, &membership)
        .expect("a membership");
    assert_eq!(
        membership["organization"]["name"], "New",
        "a membership embeds its organization as it is now"
    );
}

#[tokio::test]
async fn an_organization_goes_with_its_memberships_and_invitations() {
    let options = OrganizationOptions {
        members: PerOrganization::Sizes(vec![3, 30]),
        invitations: PerOrganization::Sizes(vec![4]),
        ..OrganizationOptions::number(4)
    };
    let clerk = Clerk::organizations(60, options).await;
    let ids = clerk.sim.ids(Kind::Organizations);
    let (members, invitations) = (clerk.sim.memberships_of(&ids[1]), clerk.sim.invitations_to(&ids[1]));
    let slug = clerk.get(&format!("/organizations/{}", ids[1])).await.json()["slug"].clone();
    let deleted = clerk
        .done(Method::DELETE, &format!("/organizations/{}", ids[1]), json!({}))
        .await;
    assert_eq!(
        deleted,
        json!({"object": "organization", "id": ids[1], "slug": slug, "deleted": true})
    );
    assert_eq!(clerk.get(&format!("/organizations/{}", ids[1])).await.status, 404);
    assert_eq!(
        clerk.refused(&format!("/organizations/{}/memberships", ids[1])).await.0,
        404
    );
    assert_eq!(clerk.sim.count_of(Kind::OrganizationMemberships), 66 - members.len());
    assert_eq!(clerk.sim.count_of(Kind::OrganizationInvitations), 12);
    let left = clerk.ids("/organization_memberships?limit=500").await;
    assert!(members.iter().all(|id| !left.contains(id)));
    let left = clerk.ids("/organization_invitations?limit=500").await;
    assert!(invitations.iter().all(|id| !left.contains(id)));
    assert!(clerk.sim.delete_organization(&ids[0]) && !clerk.sim.delete_organization(&ids[0]));
    let body = json!({"name": "Again", "slug": slug});
    assert_eq!(
        clerk.done(Method::POST, "/organizations", body).await["slug"],
        slug,
        "free again"
    );
}

#[tokio::test]
async fn a_user_goes_with_all_memberships() {
    let members = PerOrganization::Sizes(vec![20]);
    let options = OrganizationOptions {
        members,
        ..OrganizationOptions::number(300)
    };
    let clerk = Clerk::organizations(20, options).await;
    let users = clerk.sim.user_ids();
    assert_eq!(clerk.sim.memberships_of_user(&users[4]).len(), 300);
    clerk
        .done(Method::DELETE, &format!("/users/{}", users[4]), json!({}))
        .await;
    assert!(clerk.sim.delete(&users[5]));
    for user in &users[4..6] {
        assert_eq!(clerk.sim.memberships_of_user(user).len(), 0);
        assert_eq!(
            clerk
                .refused(&format!("/users/{user}/organization_memberships"))
                .await
                .0,
            404
        );
    }
    let organizations = clerk
        .total_list("/organizations?limit=500&include_members_count=true")
        .await;
    assert!(organizations.data().iter().all(|one| one["members_count"] == 18));
    assert_eq!(
        clerk.total_list("/organization_memberships?limit=1").await.total(),
        300 * 18
    );
    for membership in clerk.total_list("/organization_memberships?limit=500").await.data() {
        assert_eq!(membership["organization"]["members_count"], 18);
    }
}

/// The counts of an organization.
async fn counts(clerk: &Clerk, organization: &str) -> (Value, Value) {
    let path = format!("/organizations/{organization}?include_members_count=true");
    let shown = clerk.get(&path).await.json();
    (
        shown["members_count"].clone(),
        shown["pending_invitations_count"].clone(),
    )
}

#[tokio::test]
async fn counts_move_with_members_and_invitations_and_updated_at_does_not() {
    let clerk = Clerk::no_organizations(10).await;
    let (sim, users) = (&clerk.sim, clerk.sim.user_ids());
    let organization = sim.create_organization("Acme");
    let before = sim.object(Kind::Organizations, &organization).expect("it is there");
    let check = async |members: u64, pending: u64| {
        assert_eq!(counts(&clerk, &organization).await, (members.into(), pending.into()));
    };
    check(0, 0).await;
    for user in &users[..3] {
        assert!(sim.add_member(&organization, user, "org:member").is_some());
    }
    assert_eq!(
        sim.add_member(&organization, &users[0], "org:member"),
        None,
        "once is enough"
    );
    check(3, 0).await;
    assert!(sim.remove_member(&organization, &users[0]) && !sim.remove_member(&organization, &users[0]));
    check(2, 0).await;
    let invitations: Vec<_> = ["a@x.example", "b@x.example", "c@x.example"]
        .iter()
        .map(|address| sim.invite(&organization, address, "org:member").expect("an invitation"))
        .collect();
    check(2, 3).await;
    assert!(sim.accept_invitation(&invitations[0]).is_some());
    check(3, 2).await;
    assert!(sim.revoke_invitation(&invitations[1]) && sim.expire_invitation(&invitations[2]));
    check(3, 0).await;
    assert!(sim.delete(&users[1]));
    check(2, 0).await;
    assert!(sim.remove_member(&organization, &users[2]));
    for membership in sim.memberships_of(&organization) {
        assert!(sim.delete_object(Kind::OrganizationMemberships, &membership));
    }
    check(0, 0).await;
    let after = sim.object(Kind::Organizations, &organization).expect("it is there");
    assert_eq!(after, before, "nobody has changed the organization");
}

#[tokio::test]
async fn an_organization_says_whether_an_admin_is_missing() {
    let clerk = Clerk::no_organizations(3).await;
    let users = clerk.sim.user_ids();
    let organization = clerk.sim.create_organization("Acme");
    let query = "include_missing_member_with_elevated_permissions=true";
    let is_missing = async || {
        let listed = clerk.total_list(&format!("/organizations?{query}")).await.data();
        let shown = clerk
            .get(&format!("/organizations/{organization}?{query}"))
            .await
            .json();
        assert_eq!(listed[0], shown);
        shown["missing_member_with_elevated_permissions"].clone()
    };
    assert!(clerk.sim.add_member(&organization, &users[0], "org:member").is_some());
    assert_eq!(is_missing().await, true);
    assert!(clerk.sim.change_role(&organization, &users[0], "org:admin"));
    assert_eq!(is_missing().await, false);
}

#[tokio::test]
async fn a_seed_gives_the_same_organizations_whatever_their_number() {
    let of = async |users, number, seed| {
        Clerk::with(clerk_sim::Options {
            users,
            seed,
            organizations: OrganizationOptions::number(number),
            ..clerk_sim::Options::default()
        })
        .await
    };
    let (few, many, other) = (of(50, 20, 1).await, of(50, 90, 1).await, of(50, 20, 2).await);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Users) {
        assert!(few.sim.count_of(kind) > 0);
        for id in few.sim.ids(kind) {
            assert_eq!(
                few.sim.raw_object(kind, &id).is_some(),
                many.sim.raw_object(kind, &id).is_some()
            );
            // Locks of users count down, but memberships do not show them.
            assert_eq!(few.sim.object(kind, &id), many.sim.object(kind, &id));
            assert_eq!(other.sim.object(kind, &id), None);
        }
    }
    let without = Clerk::users(50).await;
    assert_eq!(
        without.sim.user_ids(),
        few.sim.user_ids(),
        "organizations change no users"
    );
}

#[tokio::test]
async fn odd_documents_are_served_verbatim() {
    let clerk = Clerk::no_organizations(1).await;
    let sim = &clerk.sim;
    sim.insert_object(
        Kind::Organizations,
        json!({"id": "org_b", "created_at": 2000, "members_count": "many"}),
    );
    sim.insert_raw_object(
        Kind::Organizations,
        "org_a",
        1000,
        1000,
        b"{\"id\": broken \xff".to_vec(),
    );
    let list = clerk
        .get("/organizations?include_members_count=true&order_by=created_at")
        .await;
    let served = b"{\"data\":[{\"id\": broken \xff,{\"id\":\"org_b\",\"created_at\":2000,\"members_count\":\"many\"}],\"total_count\":2}";
    assert_eq!(String::from_utf8_lossy(&list.bytes), String::from_utf8_lossy(served));
    let whole = json!({"id": "orgmem_1", "created_at": 1, "organization": {"id": "org_b", "name": null}, "role": 7});
    sim.insert_object(Kind::OrganizationMemberships, whole.clone());
    assert_eq!(sim.object(Kind::OrganizationMemberships, "orgmem_1"), Some(whole));
    sim.insert_object(
        Kind::OrganizationMemberships,
        json!({"id": "orgmem_2", "created_at": 2, "organization": {"id": "org_none"}, "role": "x"}),
    );
    assert_eq!(
        clerk.get("/organization_memberships?limit=1").await.json()["data"][0],
        json!({"id": "orgmem_2", "created_at": 2, "organization": {"id": "org_none"}, "role": "x", "permissions": []})
    );
    assert_eq!(
        clerk
            .fails(Method::PATCH, "/organizations/org_a", json!({"name": "x"}))
            .await
            .0,
        500
    );
    assert!(!sim.update_object(Kind::Organizations, "org_a", |_| {}));
}

#[tokio::test]
async fn an_edit_that_changes_nothing_changes_no_bytes() {
    let clerk = Clerk::organizations(50, OrganizationOptions::number(30)).await;
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Users) {
        for id in clerk.sim.ids(kind) {
            let served = clerk.sim.raw_object(kind, &id).expect("it is there");
            let updated_at = clerk.sim.object(kind, &id).expect("it is JSON")["updated_at"].clone();
            // Moving it and moving it back renders the same document anew.
            assert!(clerk.sim.update_object(kind, &id, |one| one["updated_at"] = 0.into()));
            assert!(clerk.sim.update_object(kind, &id, |one| one["updated_at"] = updated_at));
            let again = clerk.sim.raw_object(kind, &id).expect("it is there");
            assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&served));
        }
    }
}
