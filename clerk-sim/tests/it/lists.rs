//! Paging, orders and filters of lists and counts.

use clerk_sim::{Options, Sim};
use serde_json::{Value, json};

use crate::support::Clerk;

fn with_ties(sim: &Sim) {
    for n in 0..700 {
        sim.insert(json!({"id": format!("user_tie{n:04}"), "object": "user", "created_at": 1_700_000_000_000_i64, "updated_at": 1_700_000_000_000_i64 + n % 3}));
    }
}

#[tokio::test]
async fn a_walk_returns_each_user_once_even_if_ties_cross_a_page() {
    let clerk = Clerk::users(800).await;
    with_ties(&clerk.sim);
    let expected = clerk.sim.user_ids();
    assert_eq!(expected.len(), 1500);
    for limit in [500, 137] {
        assert_eq!(clerk.walk("order_by=created_at", limit).await, expected);
        assert_eq!(clerk.walk("order_by=%2Bcreated_at", limit).await, expected);
    }
    let newest_first: Vec<_> = expected.iter().rev().cloned().collect();
    assert_eq!(clerk.walk("", 500).await, newest_first);
    assert_eq!(clerk.walk("order_by=-created_at", 333).await, newest_first);
}

#[tokio::test]
async fn a_walk_survives_changes_behind_and_ahead_of_it() {
    let clerk = Clerk::users(100).await;
    let ids = clerk.sim.user_ids();
    let first = clerk.list("order_by=created_at&limit=50").await;
    assert_eq!(first, ids[..50]);
    assert!(clerk.sim.delete(&ids[10]));
    assert!(clerk.sim.delete(&ids[70]));
    let new = clerk.sim.create_random();
    let rest = clerk
        .list(&format!("order_by=created_at&limit=500&starting_after={}", ids[49]))
        .await;
    let expected: Vec<_> = ids[50..]
        .iter()
        .filter(|id| **id != ids[70])
        .cloned()
        .chain([new])
        .collect();
    assert_eq!(rest, expected);
    // With offsets the deletion moves a user across the page border, where no page shows it.
    // Cursors exist for this reason.
    let offset = clerk.list("order_by=created_at&limit=500&offset=50").await;
    assert_eq!(offset[0], ids[51]);
}

#[tokio::test]
async fn limits_are_clamped_as_observed_and_refused_as_guessed() {
    let clerk = Clerk::users(600).await;
    assert_eq!(clerk.list("").await.len(), 10);
    assert_eq!(clerk.list("limit=500").await.len(), 500);
    assert_eq!(clerk.list("limit=501").await.len(), 10);
    assert_eq!(clerk.list("limit=500&offset=500").await.len(), 100);
    assert_eq!(clerk.list("limit=500&offset=600").await.len(), 0);
    for query in [
        "limit=0",
        "limit=-1",
        "limit=ten",
        "offset=-1",
        "offset=x",
        "order_by=+created_at",
        "order_by=shoe_size",
        "created_at_after=yesterday",
        "banned=maybe",
    ] {
        let refused = clerk.refused(&format!("/users?{query}")).await;
        assert_eq!(refused, (422, "form_param_value_invalid".to_owned()), "{query}");
    }
    let cursor = clerk.sim.user_ids()[3].clone();
    for query in ["order_by=-updated_at", "order_by=username", "offset=1"] {
        let refused = clerk.refused(&format!("/users?{query}&starting_after={cursor}")).await;
        assert_eq!(refused.0, 422, "{query}");
    }
    assert_eq!(clerk.list(&format!("offset=0&starting_after={cursor}")).await.len(), 3);
}

fn sorted(sim: &Sim, key: impl Fn(&Value) -> Value) -> Vec<Value> {
    let mut keys: Vec<Value> = sim
        .user_ids()
        .iter()
        .map(|id| key(&sim.document(id).expect("a user")))
        .collect();
    // Nulls last, as in Postgres.
    keys.sort_by_key(|key| (key.is_null(), key.as_i64(), key.as_str().map(str::to_lowercase)));
    keys
}

#[tokio::test]
async fn every_order_sorts_both_ways() {
    let clerk = Clerk::users(300).await;
    for property in [
        "created_at",
        "updated_at",
        "first_name",
        "last_name",
        "username",
        "last_active_at",
        "last_sign_in_at",
    ] {
        let expected = sorted(&clerk.sim, |user| user.get(property).cloned().unwrap_or(Value::Null));
        for (sign, reverse) in [("", false), ("%2B", false), ("-", true)] {
            let listed = clerk
                .get(&format!("/users?limit=500&order_by={sign}{property}"))
                .await
                .json();
            let mut keys: Vec<Value> = listed
                .as_array()
                .expect("a list")
                .iter()
                .map(|user| user.get(property).cloned().unwrap_or(Value::Null))
                .collect();
            if reverse {
                keys.reverse();
            }
            let lower =
                |keys: &[Value]| -> Vec<String> { keys.iter().map(|key| key.to_string().to_lowercase()).collect() };
            assert_eq!(lower(&keys), lower(&expected), "{sign}{property}");
        }
    }
    for property in ["email_address", "web3wallet", "phone_number"] {
        let mut up = clerk.list(&format!("limit=500&order_by={property}")).await;
        let down = clerk.list(&format!("limit=500&order_by=-{property}")).await;
        up.reverse();
        assert_eq!(up, down, "{property}");
    }
    let first_counts = clerk.list("limit=500&order_by=username&order_by=created_at").await;
    assert_eq!(first_counts, clerk.list("limit=500&order_by=username").await);
}

/// Checks that a list and a count with this filter mean the users whose documents match.
async fn check(clerk: &Clerk, query: &str, matches: impl Fn(&Value) -> bool) {
    let is_meant = |id: &String| matches(&clerk.sim.document(id).expect("a user"));
    let expected: Vec<_> = clerk.sim.user_ids().into_iter().filter(is_meant).collect();
    assert!(!expected.is_empty(), "{query} should mean some users");
    assert!(expected.len() < clerk.sim.count(), "{query} should not mean all users");
    assert_eq!(
        clerk.walk(&format!("order_by=created_at&{query}"), 500).await,
        expected,
        "{query}"
    );
    assert_eq!(clerk.count(query).await, expected.len() as u64, "{query}");
    let mut updated = clerk.list(&format!("order_by=updated_at&limit=500&{query}")).await;
    updated.sort();
    let mut expected: Vec<_> = expected.into_iter().collect();
    expected.sort();
    assert_eq!(updated, expected, "{query} by updated_at");
}

fn any(user: &Value, list: &str, key: &str, matches: impl Fn(&str) -> bool) -> bool {
    user[list]
        .as_array()
        .is_some_and(|items| items.iter().any(|item| item[key].as_str().is_some_and(&matches)))
}

fn contains(user: &Value, key: &str, part: &str) -> bool {
    user[key]
        .as_str()
        .is_some_and(|text| text.to_lowercase().contains(part))
}

#[tokio::test]
async fn every_filter_means_the_matching_users() {
    let clerk = Clerk::users(400).await;
    let documents: Vec<Value> = clerk
        .sim
        .user_ids()
        .iter()
        .filter_map(|id| clerk.sim.document(id))
        .collect();
    let value = |list: &str, key: &str| -> String {
        let mut all = documents.iter().filter_map(|user| user[list][0][key].as_str());
        all.next().expect("a user has one").to_owned()
    };
    let encode = |text: &str| text.replace('+', "%2B").replace(' ', "%20");

    let email = value("email_addresses", "email_address");
    check(
        &clerk,
        &format!(
            "email_address={}&email_address=nobody@example.com",
            encode(&email.to_uppercase())
        ),
        |u| any(u, "email_addresses", "email_address", |e| e == email),
    )
    .await;
    let phone = value("phone_numbers", "phone_number");
    check(&clerk, &format!("phone_number={}", encode(&phone)), |u| {
        any(u, "phone_numbers", "phone_number", |p| p == phone)
    })
    .await;
    let wallet = value("web3_wallets", "web3_wallet");
    check(&clerk, &format!("web3_wallet={wallet}"), |u| {
        any(u, "web3_wallets", "web3_wallet", |w| w == wallet)
    })
    .await;
    let account = documents
        .iter()
        .find_map(|user| user["external_accounts"].get(0))
        .expect("a user has one");
    let (provider, uid) = (
        account["provider"].as_str().unwrap(),
        account["provider_user_id"].as_str().unwrap(),
    );
    check(
        &clerk,
        &format!("provider={provider}&provider_user_id={uid}&provider_user_id=x"),
        |u| any(u, "external_accounts", "provider_user_id", |id| id == uid),
    )
    .await;
    let username = documents
        .iter()
        .find_map(|user| user["username"].as_str())
        .expect("a user has one");
    check(&clerk, &format!("username={username}"), |u| u["username"] == username).await;
    let external = documents
        .iter()
        .find_map(|user| user["external_id"].as_str())
        .expect("a user has one");
    check(&clerk, &format!("external_id={external}"), |u| {
        u["external_id"] == external
    })
    .await;
    check(&clerk, &format!("external_id=%2B{external}"), |u| {
        u["external_id"] == external
    })
    .await;
    check(&clerk, &format!("external_id=-{external}"), |u| {
        u["external_id"] != external
    })
    .await;

    let (a, b) = (documents[5]["id"].clone(), documents[200]["id"].clone());
    let (a_id, b_id) = (a.as_str().unwrap(), b.as_str().unwrap());
    check(
        &clerk,
        &format!("user_id={a_id}&user_id=%2B{b_id}&user_id={a_id}&user_id=user_nobody"),
        |u| u["id"] == a || u["id"] == b,
    )
    .await;
    check(&clerk, &format!("user_id=-{a_id}"), |u| u["id"] != a).await;

    check(&clerk, "query=lovelace", |u| {
        contains(u, "last_name", "lovelace") || contains(u, "first_name", "lovelace")
    })
    .await;
    check(&clerk, "email_address_query=CORP", |u| {
        any(u, "email_addresses", "email_address", |e| e.contains("corp"))
    })
    .await;
    check(&clerk, "phone_number_query=155500", |u| {
        any(u, "phone_numbers", "phone_number", |p| p.contains("155500"))
    })
    .await;
    check(&clerk, "username_query=ADA", |u| contains(u, "username", "ada")).await;
    check(&clerk, "name_query=ada", |u| {
        contains(u, "first_name", "ada") || contains(u, "last_name", "ada")
    })
    .await;
    check(&clerk, "banned=true", |u| u["banned"] == true).await;
    check(&clerk, "banned=false", |u| u["banned"] == false).await;

    for key in ["created_at", "last_active_at", "last_sign_in_at"] {
        // The bounds are the times of two users. Bounds are exclusive, so neither is meant.
        let mut times: Vec<i64> = documents.iter().filter_map(|user| user[key].as_i64()).collect();
        times.sort_unstable();
        let (low, high) = (times[times.len() / 4], times[times.len() / 2]);
        check(&clerk, &format!("{key}_after={low}"), |u| {
            u[key].as_i64().is_some_and(|t| t > low)
        })
        .await;
        check(&clerk, &format!("{key}_before={high}"), |u| {
            u[key].as_i64().is_some_and(|t| t < high)
        })
        .await;
        check(
            &clerk,
            &format!("{key}_after={low}&{key}_before={high}&banned=false"),
            |u| u["banned"] == false && u[key].as_i64().is_some_and(|t| t > low && t < high),
        )
        .await;
    }
    let since = documents[100]["last_active_at"].as_i64().unwrap_or(1_760_000_000_000);
    check(&clerk, &format!("last_active_at_since={since}"), |u| {
        u["last_active_at"].as_i64().is_some_and(|t| t >= since)
    })
    .await;

    assert_eq!(clerk.count("organization_id=org_1").await, 0);
    let membership = json!([{"organization": {"id": "org_1"}}]);
    assert!(
        clerk
            .sim
            .update(a_id, |user| user["organization_memberships"] = membership)
    );
    check(&clerk, "organization_id=org_1", |u| u["id"] == a).await;
    check(&clerk, "organization_id=-org_1", |u| u["id"] != a).await;
}

#[tokio::test]
async fn invalid_filters_are_refused_or_ignored() {
    let clerk = Clerk::users(30).await;
    let many: String = (0..101).map(|n| format!("user_id=user_{n}&")).collect();
    assert_eq!(clerk.refused(&format!("/users?{many}")).await.0, 422);
    assert_eq!(clerk.refused(&format!("/users/count?{many}")).await.0, 422);
    assert_eq!(clerk.list(&many["user_id=user_0&".len()..]).await.len(), 0);
    assert_eq!(
        clerk.refused("/users?provider=oauth_google").await,
        (422, "form_param_missing".to_owned())
    );
    // All users are returned (observed).
    assert_eq!(
        clerk
            .list("limit=500&user_id[0]=user_1&user_id%5B1%5D=user_2")
            .await
            .len(),
        30
    );
    assert_eq!(clerk.count("no_such_filter=1").await, 30);
}

#[tokio::test]
async fn a_seed_gives_the_same_users_whatever_their_number() {
    let few = Clerk::users(50).await;
    let many = Clerk::users(500).await;
    let other = Clerk::with(Options {
        users: 50,
        seed: 2,
        ..Options::default()
    })
    .await;
    let mut locked = 0;
    for id in few.sim.user_ids() {
        assert!(other.sim.document(&id).is_none());
        let (mut a, mut b) = (
            few.sim.document(&id).expect("a user"),
            many.sim.document(&id).expect("the same user"),
        );
        if a["lockout_expires_in_seconds"].is_number() {
            locked += 1;
            (a["lockout_expires_in_seconds"], b["lockout_expires_in_seconds"]) = (Value::Null, Value::Null);
        }
        assert_eq!(a, b);
    }
    assert!(locked < 10, "only locks depend on the clock");
    assert_eq!(few.sim.instance_id(), many.sim.instance_id());
    assert_ne!(few.sim.instance_id(), other.sim.instance_id());
}

#[tokio::test]
async fn a_large_import_has_more_users_in_a_millisecond_than_a_page_holds() {
    let clerk = Clerk::users(5000).await;
    let mut at_once = std::collections::BTreeMap::<i64, usize>::new();
    for id in clerk.sim.user_ids() {
        let created_at = clerk.sim.document(&id).expect("a user")["created_at"]
            .as_i64()
            .expect("a time");
        *at_once.entry(created_at).or_default() += 1;
    }
    assert!(at_once.values().any(|users| *users > 500));
    assert!(at_once.values().filter(|users| (2..=8).contains(*users)).count() > 10);
    assert_eq!(clerk.walk("order_by=created_at", 500).await, clerk.sim.user_ids());
}
