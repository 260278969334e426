//! Paging and orders of the lists of organizations and what belongs to them.

use clerk_sim::{Kind, OrganizationOptions, PerOrganization, Sim};
use serde_json::Value;

use crate::support::{Clerk, id};

const ORGANIZATIONS: &str = "/organizations";
const MEMBERSHIPS: &str = "/organization_memberships";
const INVITATIONS: &str = "/organization_invitations";

async fn with(users: usize, number: usize, members: &[usize]) -> Clerk {
    let members = PerOrganization::Sizes(members.to_vec());
    let options = OrganizationOptions {
        members,
        ..OrganizationOptions::number(number)
    };
    Clerk::organizations(users, options).await
}

/// All objects of a kind in ascending (`created_at`, id) order.
fn all(sim: &Sim, kind: Kind) -> Vec<Value> {
    let ids = sim.ids(kind);
    ids.iter().filter_map(|id| sim.object(kind, id)).collect()
}

#[tokio::test]
async fn all_lists_are_paged_by_offset_and_hold_what_the_simulator_holds() {
    let clerk = with(600, 8, &[0, 1, 7, 501]).await;
    for (path, kind) in [
        (ORGANIZATIONS, Kind::Organizations),
        (MEMBERSHIPS, Kind::OrganizationMemberships),
        (INVITATIONS, Kind::OrganizationInvitations),
        ("/organization_roles", Kind::OrganizationRoles),
        ("/organization_permissions", Kind::OrganizationPermissions),
    ] {
        let expected = clerk.sim.ids(kind);
        assert_eq!(expected.len(), clerk.sim.count_of(kind));
        let newest_first: Vec<_> = expected.iter().rev().cloned().collect();
        assert_eq!(clerk.walk_by_offset(path, 500).await, newest_first, "{path}");
        for query in ["order_by=created_at", "order_by=%2Bcreated_at"] {
            assert_eq!(
                clerk.walk_by_offset(&format!("{path}?{query}"), 499).await,
                expected,
                "{path}"
            );
        }
        let page = clerk.total_list(&format!("{path}?limit=3&offset=1")).await;
        assert_eq!(page.total(), expected.len() as u64);
        for (document, id) in page.data().iter().zip(&newest_first[1..]) {
            let mut held = clerk.sim.object(kind, id).expect("it is there");
            if kind == Kind::Organizations {
                let held = held.as_object_mut().expect("an object");
                assert!(held.remove("members_count").is_some() && held.remove("pending_invitations_count").is_some());
            }
            let mut document = document.clone();
            if kind == Kind::OrganizationInvitations {
                let organization = document
                    .as_object_mut()
                    .expect("an object")
                    .remove("public_organization_data");
                assert_eq!(organization.expect("an organization")["id"], held["organization_id"]);
            }
            assert_eq!(document, held);
        }
    }
    // 2 × (0 + 1 + 7 + 501)
    assert_eq!(clerk.sim.count_of(Kind::OrganizationMemberships), 1018);
    for organization in clerk.sim.ids(Kind::Organizations) {
        let path = format!("/organizations/{organization}/memberships?order_by=created_at");
        assert_eq!(
            clerk.walk_by_offset(&path, 500).await,
            clerk.sim.memberships_of(&organization)
        );
        let path = format!("/organizations/{organization}/invitations?order_by=created_at");
        assert_eq!(
            clerk.walk_by_offset(&path, 500).await,
            clerk.sim.invitations_to(&organization)
        );
    }
    let user = clerk.sim.user_ids()[7].clone();
    let mut listed = clerk
        .ids(&format!("/users/{user}/organization_memberships?limit=500"))
        .await;
    listed.reverse();
    assert!(!listed.is_empty());
    assert_eq!(listed, clerk.sim.memberships_of_user(&user));
}

#[tokio::test]
async fn limits_are_those_of_users_and_a_cursor_is_ignored() {
    let clerk = with(600, 2, &[600]).await;
    let organization = clerk.sim.ids(Kind::Organizations)[0].clone();
    for path in [
        MEMBERSHIPS.to_owned(),
        format!("/organizations/{organization}/memberships"),
    ] {
        for (query, length) in [
            ("", 10),
            ("limit=500", 500),
            ("limit=501", 10),
            ("limit=500&offset=500", 100),
        ] {
            let expected = if path == MEMBERSHIPS && query.contains("offset") {
                500
            } else {
                length
            };
            assert_eq!(
                clerk.ids(&format!("{path}?{query}")).await.len(),
                expected,
                "{path}?{query}"
            );
        }
        let first = clerk.ids(&path).await;
        assert_eq!(clerk.ids(&format!("{path}?starting_after={}", first[9])).await, first);
    }
    for query in [
        "limit=0",
        "limit=-1",
        "offset=-1",
        "offset=x",
        "order_by=shoe_size",
        "include_members_count=maybe",
    ] {
        let refused = clerk.refused(&format!("/organizations?{query}")).await;
        assert_eq!(refused, (422, "form_param_value_invalid".to_owned()), "{query}");
    }
    for path in [ORGANIZATIONS, MEMBERSHIPS, INVITATIONS, "/organization_roles"] {
        assert_eq!(
            clerk.refused(&format!("{path}?order_by=-updated_at")).await.0,
            422,
            "{path}"
        );
    }
    assert_eq!(clerk.refused("/organizations/org_nobody/memberships").await.0, 404);
    assert_eq!(
        clerk.refused("/users/user_nobody/organization_memberships").await.0,
        404
    );
}

/// Checks that an order sorts by these keys, both ways. Absent keys come last in ascending order.
async fn check_order(clerk: &Clerk, path: &str, order: &str, kind: Kind, key: impl Fn(&Value) -> Value) {
    let sorted = |all: &[Value]| -> Vec<Value> {
        let mut keys: Vec<_> = all.iter().map(&key).collect();
        keys.sort_by_key(|key| (key.is_null(), key.as_i64(), key.as_str().map(str::to_lowercase)));
        keys
    };
    let expected = sorted(&all(&clerk.sim, kind));
    let lower = |keys: Vec<Value>| -> Vec<String> { keys.iter().map(|key| key.to_string().to_lowercase()).collect() };
    let expected = lower(expected);
    for (sign, reverse) in [("", false), ("%2B", false), ("-", true)] {
        let listed = clerk
            .total_list(&format!("{path}?limit=500&order_by={sign}{order}"))
            .await
            .data();
        let held = listed.iter().filter_map(|one| clerk.sim.object(kind, &id(one)));
        let mut keys: Vec<_> = held.map(|one| key(&one)).collect();
        if reverse {
            keys.reverse();
        }
        assert_eq!(lower(keys), expected, "{path} by {sign}{order}");
    }
}

#[tokio::test]
async fn every_order_sorts_both_ways() {
    let clerk = with(100, 30, &[0, 1, 2, 5, 12]).await;
    let property = |name: &'static str| move |one: &Value| one.get(name).cloned().unwrap_or(Value::Null);
    for order in ["name", "created_at", "members_count"] {
        check_order(&clerk, ORGANIZATIONS, order, Kind::Organizations, property(order)).await;
    }
    for order in ["created_at", "email_address"] {
        check_order(
            &clerk,
            INVITATIONS,
            order,
            Kind::OrganizationInvitations,
            property(order),
        )
        .await;
    }
    for order in ["created_at", "name", "key"] {
        check_order(
            &clerk,
            "/organization_roles",
            order,
            Kind::OrganizationRoles,
            property(order),
        )
        .await;
        let kind = Kind::OrganizationPermissions;
        check_order(&clerk, "/organization_permissions", order, kind, property(order)).await;
    }
    let of_user = |name: &'static str| {
        let sim = clerk.sim.clone();
        move |membership: &Value| {
            let user_id = membership["public_user_data"]["user_id"].as_str().expect("a user");
            let user = sim.document(user_id).expect("the user");
            let primary = |list: &str, reference: &str| {
                let items = user[list].as_array().into_iter().flatten();
                let mut primary = items.filter(|item| item["id"] == user[reference]);
                primary.next().map_or(Value::Null, |item| item[name].clone())
            };
            match name {
                "email_address" => primary("email_addresses", "primary_email_address_id"),
                "phone_number" => primary("phone_numbers", "primary_phone_number_id"),
                _ => user.get(name).cloned().unwrap_or(Value::Null),
            }
        }
    };
    let kind = Kind::OrganizationMemberships;
    check_order(&clerk, MEMBERSHIPS, "created_at", kind, property("created_at")).await;
    for order in ["email_address", "phone_number", "first_name", "last_name", "username"] {
        check_order(&clerk, MEMBERSHIPS, order, kind, of_user(order)).await;
    }
}
