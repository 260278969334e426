//! Requests that change invitations, and what becomes of invitations.

use clerk_sim::Kind;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Clerk, id, ids};

/// A simulator with an organization of one admin, whose path is returned with the admin's id.
async fn organization() -> (Clerk, String, String) {
    let clerk = Clerk::no_organizations(5).await;
    let admin = clerk.sim.user_ids()[0].clone();
    let organization = clerk.sim.create_organization("Acme");
    assert!(clerk.sim.add_member(&organization, &admin, "org:admin").is_some());
    (clerk, format!("/organizations/{organization}"), admin)
}

#[tokio::test]
async fn an_invitation_is_sent_read_and_revoked() {
    let (clerk, path, admin) = organization().await;
    let body = json!({
        "email_address": "New@Example.com", "role": "org:accountant", "inviter_user_id": admin, "expires_in_days": 3,
        "public_metadata": {"team": 1}, "redirect_url": "https://app.example.com", "notify": false,
    });
    let sent = clerk.done(Method::POST, &format!("{path}/invitations"), body).await;
    assert_eq!(
        (&sent["email_address"], &sent["status"]),
        (&json!("new@example.com"), &json!("pending"))
    );
    assert_eq!(
        (&sent["role_name"], &sent["public_inviter_data"]["user_id"]),
        (&json!("Accountant"), &json!(admin))
    );
    let validity = sent["expires_at"]
        .as_i64()
        .zip(sent["created_at"].as_i64())
        .map(|(end, start)| end - start);
    assert_eq!(validity, Some(3 * 24 * 60 * 60 * 1000));
    let one = format!("{path}/invitations/{}", id(&sent));
    assert_eq!(clerk.get(&one).await.json(), sent);
    let listed = clerk.total_list("/organization_invitations").await.data().remove(0);
    assert_eq!(listed["public_organization_data"]["name"], "Acme");
    assert_eq!(clerk.refused(&format!("{path}/invitations/orginv_nobody")).await.0, 404);
    let other = clerk.sim.create_organization("Other");
    assert_eq!(
        clerk
            .refused(&format!("/organizations/{other}/invitations/{}", id(&sent)))
            .await
            .0,
        404
    );

    // Libraries send no body here.
    let revoke = clerk
        .send(Method::POST, &format!("{one}/revoke"), None)
        .await
        .expect("an answer");
    assert_eq!(
        (revoke.status.as_u16(), &revoke.json()["status"]),
        (200, &json!("revoked"))
    );
    let again = clerk
        .fails(
            Method::POST,
            &format!("{one}/revoke"),
            json!({"requesting_user_id": admin}),
        )
        .await;
    assert_eq!(again, (404, "organization_invitation_not_pending".to_owned()));
    assert_eq!(
        clerk.total_list(&format!("{path}/invitations/pending")).await.total(),
        0
    );
    assert_eq!(
        clerk.ids(&format!("{path}/invitations?status=revoked")).await,
        [id(&sent)]
    );
}

#[tokio::test]
async fn accepting_makes_a_member_of_a_user_who_may_be_new() {
    let (clerk, path, _) = organization().await;
    let user = clerk
        .done(Method::POST, "/users", json!({"email_address": ["ada@example.com"]}))
        .await;
    let organization = path.trim_start_matches("/organizations/").to_owned();
    let mut users = clerk.sim.count();
    for (address, is_new) in [("ADA@example.com", false), ("new@example.com", true)] {
        let body = json!({"email_address": address, "role": "org:member", "private_metadata": {"from": address}});
        let sent = clerk.done(Method::POST, &format!("{path}/invitations"), body).await;
        let of_user = format!("/users/{}/organization_invitations?status=pending", id(&user));
        assert_eq!(clerk.ids(&of_user).await.len(), usize::from(!is_new));
        let membership = clerk.sim.accept_invitation(&id(&sent)).expect("a membership");
        users += usize::from(is_new);
        assert_eq!(clerk.sim.count(), users);
        let member = clerk
            .sim
            .object(Kind::OrganizationMemberships, &membership)
            .expect("a membership");
        assert_eq!(
            member["private_metadata"],
            json!({"from": address}),
            "metadata is transferred"
        );
        assert_eq!(member["public_user_data"]["identifier"], address.to_lowercase());
        assert!(clerk.sim.memberships_of(&organization).contains(&membership));
        let accepted = clerk.get(&format!("{path}/invitations/{}", id(&sent))).await.json();
        assert_eq!(
            (&accepted["status"], &accepted["url"]),
            (&json!("accepted"), &Value::Null)
        );
        assert_eq!(clerk.sim.accept_invitation(&id(&sent)), None, "once is enough");
        let body = json!({"email_address": address, "role": "org:member"});
        let refused = clerk.fails(Method::POST, &format!("{path}/invitations"), body).await;
        assert_eq!(refused, (400, "already_a_member_in_organization".to_owned()));
    }
    let nobody = clerk.sim.user_ids();
    let without_invitations = format!("/users/{}/organization_invitations", nobody[1]);
    assert_eq!(clerk.total_list(&without_invitations).await.total(), 0);
}

#[tokio::test]
async fn refusals_are_those_that_clerk_documents() {
    let (clerk, path, _) = organization().await;
    let invitations = format!("{path}/invitations");
    let body = json!({"email_address": "a@example.com", "role": "org:member"});
    clerk.done(Method::POST, &invitations, body).await;
    for (change, status, code) in [
        (json!({}), 400, "organization_invitation_not_unique"),
        (
            json!({"email_address": "A@EXAMPLE.com"}),
            400,
            "organization_invitation_not_unique",
        ),
        (json!({"email_address": "nonsense"}), 422, "form_param_format_invalid"),
        (json!({"email_address": null}), 422, "form_param_missing"),
        (
            json!({"email_address": "b@example.com", "role": "org:nothing"}),
            404,
            "resource_not_found",
        ),
        (
            json!({"email_address": "b@example.com", "inviter_user_id": "user_nobody"}),
            404,
            "resource_not_found",
        ),
        (
            json!({"email_address": "b@example.com", "expires_in_days": 366}),
            422,
            "form_param_value_invalid",
        ),
        (
            json!({"email_address": "b@example.com", "expires_in_days": 0}),
            422,
            "form_param_value_invalid",
        ),
        (json!({"shoe_size": 1}), 422, "form_param_unknown"),
    ] {
        let mut body = json!({"email_address": "a@example.com", "role": "org:member"});
        change
            .as_object()
            .expect("an object")
            .iter()
            .for_each(|(key, value)| body[key] = value.clone());
        assert_eq!(
            clerk.fails(Method::POST, &invitations, body.clone()).await,
            (status, code.to_owned()),
            "{body}"
        );
        let many = clerk
            .fails(Method::POST, &format!("{invitations}/bulk"), json!([body]))
            .await;
        assert_eq!(many, (status, code.to_owned()), "{body}");
    }
    assert_eq!(clerk.sim.count_of(Kind::OrganizationInvitations), 1);
}

#[tokio::test]
async fn up_to_ten_are_sent_together_or_none() {
    let (clerk, path, _) = organization().await;
    let bulk = format!("{path}/invitations/bulk");
    let to = |names: std::ops::Range<u32>| -> Value {
        names
            .map(|n| json!({"email_address": format!("{n}@example.com"), "role": "org:member"}))
            .collect()
    };
    let sent = clerk.done(Method::POST, &bulk, to(0..10)).await;
    assert_eq!(
        (sent["data"].as_array().map(Vec::len), &sent["total_count"]),
        (Some(10), &json!(10))
    );
    let mut listed = clerk.ids(&format!("{path}/invitations?limit=500")).await;
    let mut sent = ids(sent["data"].as_array().expect("a list"));
    listed.sort();
    sent.sort();
    assert_eq!(listed, sent);
    for body in [to(10..21), json!([]), json!({})] {
        assert_eq!(clerk.fails(Method::POST, &bulk, body).await.0, 400);
    }
    assert_eq!(
        clerk.fails(Method::POST, &bulk, to(9..12)).await.1,
        "organization_invitation_not_unique"
    );
    let twice = json!([to(20..21)[0], to(20..21)[0]]);
    assert_eq!(
        clerk.fails(Method::POST, &bulk, twice).await.1,
        "organization_invitation_not_unique"
    );
    assert_eq!(clerk.sim.count_of(Kind::OrganizationInvitations), 10);
    clerk
        .done(Method::PATCH, &path, json!({"max_allowed_memberships": 12}))
        .await;
    let full = (403, "organization_membership_quota_exceeded".to_owned());
    assert_eq!(
        clerk.fails(Method::POST, &bulk, to(30..32)).await,
        full,
        "members and invitations count"
    );
    clerk.done(Method::POST, &bulk, to(30..31)).await;
}
