//! Random changes of organizations, and requests under `/_sim` about them.

use std::collections::BTreeMap;
use std::time::Duration;

use clerk_sim::{Kind, OrganizationOptions};
use serde_json::{Value, json};

use crate::support::Clerk;

async fn post(clerk: &Clerk, path: &str, body: Value) -> Value {
    let request = clerk.client.post(format!("{}/_sim{path}", clerk.sim.url()));
    let answer = request.json(&body).send().await.expect("an answer");
    answer.json().await.expect("JSON")
}

async fn get(clerk: &Clerk, path: &str) -> Value {
    let request = clerk.client.get(format!("{}/_sim{path}", clerk.sim.url()));
    request.send().await.expect("an answer").json().await.expect("JSON")
}

#[tokio::test]
async fn random_changes_are_of_all_kinds_and_leave_a_whole_instance() {
    let clerk = Clerk::organizations(80, OrganizationOptions::number(40)).await;
    let sim = &clerk.sim;
    let mut changes = BTreeMap::<Kind, usize>::new();
    for _ in 0..1500 {
        if let Some((kind, _)) = sim.change_organizations_at_random() {
            *changes.entry(kind).or_default() += 1;
        }
    }
    assert!(
        changes.values().all(|changes| *changes > 50) && changes.len() == 3,
        "{changes:?}"
    );
    let (organizations, members) = (
        sim.count_of(Kind::Organizations),
        sim.count_of(Kind::OrganizationMemberships),
    );
    assert!(
        (10..80).contains(&organizations) && (20..2000).contains(&members),
        "{organizations} {members}"
    );
    for kind in [Kind::OrganizationMemberships, Kind::OrganizationInvitations] {
        for id in sim.ids(kind) {
            let object = sim.object(kind, &id).expect("JSON");
            let organization = match kind {
                Kind::OrganizationMemberships => &object["organization"]["id"],
                _ => &object["organization_id"],
            };
            let organization = organization.as_str().expect("an organization");
            assert!(sim.object(Kind::Organizations, organization).is_some(), "{object}");
        }
    }
    let listed = clerk
        .total_list("/organizations?limit=500&include_members_count=true")
        .await
        .data();
    for organization in listed {
        let members = sim.memberships_of(organization["id"].as_str().expect("an id"));
        assert_eq!(organization["members_count"], members.len());
    }
}

#[tokio::test]
async fn random_changes_depend_on_the_seed_and_leave_those_of_users_alone() {
    let with = async || Clerk::organizations(40, OrganizationOptions::number(10)).await;
    let (a, b, without) = (with().await, with().await, Clerk::users(40).await);
    for _ in 0..20 {
        let [from_a, from_b] = [&a, &b].map(|clerk| clerk.sim.change_organizations_at_random());
        assert_eq!(from_a.map(|(kind, _)| kind), from_b.map(|(kind, _)| kind));
    }
    for _ in 0..20 {
        assert_eq!(a.sim.update_random(), without.sim.update_random());
        assert_eq!(a.sim.delete_random(), without.sim.delete_random());
    }
}

#[tokio::test]
async fn organizations_change_by_churn_and_on_demand() {
    let clerk = Clerk::organizations(50, OrganizationOptions::number(20)).await;
    let stats = get(&clerk, "/stats").await;
    for (name, kind) in [
        ("organizations", Kind::Organizations),
        ("organization_memberships", Kind::OrganizationMemberships),
        ("organization_invitations", Kind::OrganizationInvitations),
    ] {
        assert_eq!(stats[name], clerk.sim.count_of(kind));
    }
    let changed = post(&clerk, "/organizations/random", json!({"changes": 30})).await;
    assert!(
        changed["changed"].as_array().is_some_and(|changed| changed.len() > 15),
        "{changed}"
    );
    let state = || Kind::ALL.map(|kind| clerk.sim.ids(kind));
    let before = state();
    assert_eq!(
        post(&clerk, "/organizations/churn", json!({"rate": 500})).await,
        json!({"rate": 500.0})
    );
    assert_eq!(get(&clerk, "/organizations/churn").await, json!({"rate": 500.0}));
    assert_eq!(
        get(&clerk, "/churn").await,
        json!({"rate": null}),
        "users have a rate of their own"
    );
    let changes = async {
        while state() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), changes)
        .await
        .expect("something changes");
    post(&clerk, "/organizations/churn", json!({"rate": null})).await;
    let organization = clerk.sim.create_organization("Acme");
    let invitation = clerk
        .sim
        .invite(&organization, "a@example.com", "org:member")
        .expect("an invitation");
    let shown = get(&clerk, &format!("/organizations/{organization}")).await;
    assert_eq!(Some(shown), clerk.sim.object(Kind::Organizations, &organization));
    for nothing in ["/organizations/org_nobody", "/planets/earth"] {
        assert!(get(&clerk, nothing).await["error"].is_string(), "{nothing}");
    }
    let path = format!("/organization_invitations/{invitation}/accept");
    let accepted = post(&clerk, &path, json!({})).await;
    assert_eq!(
        clerk.sim.memberships_of(&organization),
        [accepted["id"].as_str().expect("an id")]
    );
    assert!(post(&clerk, &path, json!({})).await["error"].is_string());
}
