//! Organizations that are switched off, and faults of the lists of organizations and what belongs
//! to them.

use clerk_sim::{
    Effect, Endpoint, ErrorBody, Kind, OrganizationOptions, OrganizationsOff, PerOrganization, Quirks, Replicas, Rule,
    Shuffle, WrongCount,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Clerk, error, id, ids};

const LISTS: [&str; 5] = [
    "/organizations",
    "/organization_memberships",
    "/organization_invitations",
    "/organization_roles",
    "/organization_permissions",
];

async fn some() -> Clerk {
    let options = OrganizationOptions {
        members: PerOrganization::Sizes(vec![5]),
        invitations: PerOrganization::Sizes(vec![3]),
        ..OrganizationOptions::number(30)
    };
    Clerk::organizations(40, options).await
}

#[tokio::test]
async fn organizations_are_off_unless_they_are_asked_for() {
    let clerk = Clerk::users(3).await;
    let user = clerk.sim.user_ids()[0].clone();
    let of_user = format!("/users/{user}/organization_memberships");
    let refused = (403, "organization_not_enabled_in_instance".to_owned());
    for path in LISTS.into_iter().chain(["/organizations/org_1", &of_user]) {
        assert_eq!(clerk.refused(path).await, refused, "{path}");
    }
    assert_eq!(
        clerk.fails(Method::POST, "/organizations", json!({"name": "x"})).await,
        refused
    );
    clerk.sim.enable_organizations(true);
    assert_eq!(clerk.total_list("/organizations").await.total(), 0);
    assert_eq!(clerk.total_list(&of_user).await.total(), 0);
    clerk.sim.create_organization("Acme");
    clerk.sim.enable_organizations(false);
    assert_eq!(clerk.refused("/organizations").await, refused);
    clerk.sim.enable_organizations(true);
    assert_eq!(
        clerk.total_list("/organizations").await.total(),
        1,
        "nothing was deleted"
    );
    for (how, status, code) in [
        (OrganizationsOff::Forbidden, 403, "organization_not_enabled_in_instance"),
        (OrganizationsOff::NotFound, 404, "organization_not_enabled_in_instance"),
        (OrganizationsOff::Missing, 404, "resource_not_found"),
    ] {
        clerk.sim.set_faults(Quirks {
            organizations_off: Some(how),
            ..Quirks::default()
        });
        assert_eq!(clerk.refused("/organizations").await, (status, code.to_owned()));
        assert_eq!(clerk.list("").await.len(), 3, "users stay");
    }
}

#[tokio::test]
async fn rules_choose_lists_reads_and_writes_of_organizations() {
    let clerk = some().await;
    let organization = clerk.sim.ids(Kind::Organizations)[0].clone();
    let one = format!("/organizations/{organization}");
    let status = async |path: &str| clerk.get(path).await.status.as_u16();
    clerk
        .sim
        .set_faults(Rule::new(error(503, Some(1), ErrorBody::Json)).on([Endpoint::OrganizationList]));
    for path in LISTS
        .into_iter()
        .chain([&*format!("{one}/memberships"), &*format!("{one}/invitations")])
    {
        assert_eq!(status(path).await, 503, "{path}");
    }
    assert_eq!([status("/users").await, status(&one).await], [200, 200]);
    clerk
        .sim
        .set_faults(Rule::new(error(503, None, ErrorBody::Json)).on([Endpoint::List, Endpoint::Get]));
    assert_eq!(
        [
            status("/users").await,
            status("/organizations").await,
            status(&one).await
        ],
        [503, 200, 200]
    );
    let rule = Rule::new(error(500, None, ErrorBody::Html)).on([Endpoint::OrganizationGet]);
    clerk.sim.set_faults(rule.skip(1).next(1));
    assert_eq!(
        [status(&one).await, status(&one).await, status(&one).await],
        [200, 500, 200]
    );
    clerk
        .sim
        .set_faults(Rule::new(error(500, None, ErrorBody::Json)).on([Endpoint::Write]));
    assert_eq!(clerk.fails(Method::DELETE, &one, json!({})).await.0, 500);
    assert_eq!(status(&one).await, 200);
    let about = Rule::new(error(502, None, ErrorBody::Json)).about("/organization_memberships");
    clerk.sim.set_faults(about);
    assert_eq!(
        [status(LISTS[0]).await, status(LISTS[1]).await, status(LISTS[2]).await],
        [200, 502, 200]
    );
    for effect in [Effect::Truncate, Effect::DropBefore, Effect::DropDuring] {
        clerk
            .sim
            .set_faults(Rule::new(effect.clone()).on([Endpoint::OrganizationList]));
        assert!(clerk.send(Method::GET, LISTS[1], None).await.is_err(), "{effect:?}");
        assert_eq!(status("/users").await, 200);
    }
    let by_path = clerk.sim.requests_by_path();
    assert_eq!(by_path["GET /v1/organizations/{organization_id}/memberships"], 1);
}

#[tokio::test]
async fn quirks_change_lists_as_for_users() {
    let clerk = some().await;
    let newest_first: Vec<_> = clerk.sim.ids(Kind::OrganizationMemberships).into_iter().rev().collect();
    let list = "/organization_memberships?limit=20&offset=10";
    let set = |quirks: Quirks| clerk.sim.set_faults(quirks);
    set(Quirks {
        ignore_offset: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.ids(list).await, newest_first[..20]);
    set(Quirks {
        ignore_order_by: true,
        ..Quirks::default()
    });
    assert_eq!(
        clerk.ids(&format!("{list}&order_by=created_at")).await,
        newest_first[10..30]
    );
    set(Quirks {
        max_page: Some(7),
        ..Quirks::default()
    });
    assert_eq!(clerk.ids(list).await, newest_first[10..17]);
    set(Quirks {
        random_pages: true,
        ..Quirks::default()
    });
    assert_eq!(
        clerk.walk_by_offset("/organization_memberships", 20).await,
        newest_first
    );
    set(Quirks {
        empty_lists: true,
        ..Quirks::default()
    });
    let answer = clerk.total_list(list).await;
    assert_eq!((answer.data().len(), answer.total()), (0, 150));
    for (count, expected) in [(WrongCount::Offset(-5), 145), (WrongCount::Fixed(3), 3)] {
        set(Quirks {
            count: Some(count),
            ..Quirks::default()
        });
        assert_eq!(clerk.total_list(list).await.total(), expected);
    }
    set(Quirks {
        shuffle: Some(Shuffle::All),
        ..Quirks::default()
    });
    let (once, again) = (
        clerk.ids("/organizations?limit=500").await,
        clerk.ids("/organizations?limit=500").await,
    );
    assert_ne!(once, again);
}

#[tokio::test]
async fn ids_are_ignored_and_values_are_in_other_forms() {
    let clerk = some().await;
    let organizations = clerk.sim.ids(Kind::Organizations);
    let set = |quirks: Quirks| clerk.sim.set_faults(quirks);
    set(Quirks {
        ignore_organization_id: true,
        ..Quirks::default()
    });
    assert_eq!(
        clerk
            .ids(&format!(
                "/organizations?limit=500&organization_id={}",
                organizations[0]
            ))
            .await
            .len(),
        30
    );
    assert_eq!(clerk.count(&format!("organization_id={}", organizations[0])).await, 40);
    set(Quirks {
        ignore_user_id: true,
        ..Quirks::default()
    });
    let members = format!("/organizations/{}/memberships?user_id=user_nobody", organizations[0]);
    assert_eq!(clerk.ids(&members).await.len(), 5, "those of the organization");
    assert_eq!(
        clerk.ids("/organizations?limit=500&user_id=user_nobody").await.len(),
        30
    );
    set(Quirks {
        times_in_seconds: true,
        upper_case_codes: true,
        ..Quirks::default()
    });
    let membership = clerk
        .total_list("/organization_memberships?limit=1")
        .await
        .data()
        .remove(0);
    for time in [&membership["created_at"], &membership["organization"]["created_at"]] {
        assert!(time.as_i64().is_some_and(|time| time < 100_000_000_000));
    }
    assert_eq!(
        clerk.refused("/organizations/org_nobody").await,
        (404, "RESOURCE_NOT_FOUND".to_owned())
    );
}

#[tokio::test]
async fn objects_of_any_kind_are_hidden_from_lists_or_from_single_reads() {
    let clerk = some().await;
    let organizations = clerk.sim.ids(Kind::Organizations);
    let memberships = clerk.sim.memberships_of(&organizations[0]);
    let invitations = clerk.sim.invitations_to(&organizations[0]);
    clerk.sim.set_faults(Quirks {
        hidden_from_lists: vec![organizations[0].clone(), memberships[0].clone()],
        not_found_by_id: vec![organizations[1].clone(), invitations[0].clone()],
        ..Quirks::default()
    });
    let listed = clerk.total_list("/organizations?limit=500").await;
    assert_eq!((listed.data().len(), listed.total()), (29, 30));
    assert_eq!(
        clerk
            .ids(&format!("/organizations?organization_id={}", organizations[0]))
            .await
            .len(),
        0
    );
    assert_eq!(
        clerk.get(&format!("/organizations/{}", organizations[0])).await.status,
        200
    );
    let of_organization = clerk
        .ids(&format!("/organizations/{}/memberships", organizations[0]))
        .await;
    assert!(of_organization.len() == 4 && !of_organization.contains(&memberships[0]));
    let gone = (404, "resource_not_found".to_owned());
    assert_eq!(
        clerk.refused(&format!("/organizations/{}", organizations[1])).await,
        gone
    );
    let slug = clerk
        .sim
        .object(Kind::Organizations, &organizations[1])
        .expect("it is there")["slug"]
        .clone();
    assert_eq!(
        clerk
            .refused(&format!("/organizations/{}", slug.as_str().expect("a slug")))
            .await,
        gone
    );
    let invitation = format!("/organizations/{}/invitations/{}", organizations[0], invitations[0]);
    assert_eq!(clerk.refused(&invitation).await, gone);
}

/// What lists of all kinds show, in all orders, and what organizations show by id.
async fn everything(clerk: &Clerk, organizations: &[String], user: &str) -> Vec<(u16, Value)> {
    let mut paths = vec![
        "/organizations?limit=500&include_members_count=true&order_by=-members_count".to_owned(),
        "/organizations?limit=500&order_by=name".to_owned(),
        format!("/organizations?limit=500&user_id={user}"),
        "/organization_memberships?limit=500".to_owned(),
        "/organization_memberships?limit=500&offset=20&order_by=first_name".to_owned(),
        "/organization_invitations?limit=500&status=pending".to_owned(),
        format!("/users/{user}/organization_memberships?limit=500"),
        format!("/users?limit=500&organization_id={}", organizations[0]),
    ];
    for organization in organizations {
        paths.push(format!("/organizations/{organization}?include_members_count=true"));
        paths.push(format!(
            "/organizations/{organization}/memberships?limit=500&role=org:member"
        ));
        paths.push(format!("/organizations/{organization}/invitations?limit=500"));
    }
    let mut answers = Vec::new();
    for path in paths {
        let answer = clerk.get(&path).await;
        answers.push(strip(answer.status.as_u16(), answer.json()));
    }
    answers
}

#[tokio::test]
async fn lagging_replicas_show_one_older_state_in_every_read() {
    let clerk = some().await;
    let (sim, users) = (&clerk.sim, clerk.sim.user_ids());
    let organizations = sim.ids(Kind::Organizations);
    let at = std::time::Instant::now();
    let member = sim.object(Kind::OrganizationMemberships, &sim.memberships_of(&organizations[0])[0]);
    let user = member.expect("a member")["public_user_data"]["user_id"]
        .as_str()
        .expect("a user")
        .to_owned();
    let before = everything(&clerk, &organizations[..4], &user).await;

    assert!(sim.update(&user, |user| user["first_name"] = "New".into()));
    assert!(sim.update_object(Kind::Organizations, &organizations[0], |one| one["name"] = "New".into()));
    assert!(sim.delete_organization(&organizations[1]));
    assert!(sim.change_role(&organizations[0], &user, "org:accountant"));
    assert!(
        sim.remove_member(&organizations[2], &users[0])
            || sim.add_member(&organizations[2], &users[0], "org:member").is_some()
    );
    let invitation = sim
        .invite(&organizations[3], "new@example.com", "org:member")
        .expect("an invitation");
    let new = sim.create_organization("Newest");
    assert!(sim.add_member(&new, &user, "org:admin").is_some());
    assert!(sim.accept_invitation(&invitation).is_some());
    assert!(sim.delete(&users[9]));
    let after = everything(&clerk, &organizations[..4], &user).await;
    assert_ne!(after, before);

    // Ten seconds more, because time passes while the lists are read.
    let lag_ms = u64::try_from(at.elapsed().as_millis()).expect("a short time") + 10_000;
    sim.set_faults(Quirks {
        replicas: Some(Replicas { lag_ms, share: 1.0 }),
        ..Quirks::default()
    });
    assert_eq!(everything(&clerk, &organizations[..4], &user).await, before);
    assert_eq!(clerk.refused(&format!("/organizations/{new}")).await.0, 404);
    assert_eq!(
        clerk.get(&format!("/organizations/{}", organizations[1])).await.status,
        200
    );
    sim.set_faults(Quirks {
        stale_lists_ms: lag_ms,
        ..Quirks::default()
    });
    let listed = clerk.ids("/organizations?limit=500").await;
    assert!(listed.contains(&organizations[1]) && !listed.contains(&new));
    assert_eq!(
        clerk.get(&format!("/organizations/{new}")).await.status,
        200,
        "single reads show the present"
    );
    sim.clear_faults();
    assert_eq!(everything(&clerk, &organizations[..4], &user).await, after);
}

/// An answer without what differs each time: the locks of users, which count down, and trace ids.
fn strip(status: u16, mut body: Value) -> (u16, Value) {
    if let Some(users) = body.as_array() {
        return (status, ids(users).into());
    }
    body.as_object_mut().map(|body| body.remove("clerk_trace_id"));
    (status, body)
}

#[tokio::test]
async fn an_organization_that_goes_shifts_the_list_behind_it() {
    let clerk = some().await;
    let expected = clerk.sim.ids(Kind::Organizations);
    let first = clerk.ids("/organizations?limit=10&order_by=created_at").await;
    assert!(clerk.sim.delete_organization(&expected[3]));
    let second = clerk
        .total_list("/organizations?limit=10&offset=10&order_by=created_at")
        .await
        .data();
    assert_eq!(
        (first.last(), id(&second[0])),
        (expected.get(9), expected[11].clone()),
        "one is on no page"
    );
}
