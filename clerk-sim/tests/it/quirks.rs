//! Quirks: what all answers say.

use clerk_sim::{DeletedCursor, Effect, Endpoint, Quirks, Rule, Shuffle, WrongCount};

use crate::support::Clerk;

#[tokio::test]
async fn parameters_are_ignored() {
    let clerk = Clerk::users(40).await;
    let ids = clerk.sim.user_ids();
    let first = clerk.list("order_by=created_at&limit=10").await;
    clerk.sim.set_faults(Quirks {
        ignore_starting_after: true,
        ..Quirks::default()
    });
    assert_eq!(
        clerk
            .list(&format!("order_by=created_at&limit=10&starting_after={}", first[9]))
            .await,
        first
    );
    clerk.sim.set_faults(Quirks {
        ignore_created_at: true,
        ..Quirks::default()
    });
    assert_eq!(
        clerk
            .list("order_by=created_at&limit=10&created_at_after=9000000000000")
            .await,
        first
    );
    assert_eq!(clerk.count("created_at_after=9000000000000").await, 40);
    clerk.sim.set_faults(Quirks {
        ignore_user_id: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.list(&format!("limit=500&user_id={}", ids[0])).await.len(), 40);
    clerk.sim.set_faults(Quirks {
        ignore_offset: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.list("order_by=created_at&limit=10&offset=10").await, first);
    clerk.sim.set_faults(Quirks {
        ignore_order_by: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.list("order_by=created_at&limit=1").await, ids[39..]);
}

#[tokio::test]
async fn an_unknown_plus_orders_by_updated_at() {
    let clerk = Clerk::users(40).await;
    let ids = clerk.sim.user_ids();
    assert!(clerk.sim.update(&ids[3], |user| user["first_name"] = "Changed".into()));
    clerk.sim.set_faults(Quirks {
        unknown_plus: true,
        ..Quirks::default()
    });
    let plus = clerk.list("order_by=%2Bcreated_at&limit=500").await;
    assert_eq!(plus.last(), Some(&ids[3]));
    assert_eq!(plus, clerk.list("order_by=updated_at&limit=500").await);
    assert_eq!(clerk.list("order_by=created_at&limit=500").await, ids);
}

#[tokio::test]
async fn ties_or_whole_lists_are_shuffled() {
    let clerk = Clerk::users(60).await;
    let ids = clerk.sim.user_ids();
    let shuffle = |shuffle| {
        clerk.sim.set_faults(Quirks {
            shuffle: Some(shuffle),
            ..Quirks::default()
        });
    };
    ids[20..50].iter().for_each(|id| {
        clerk
            .sim
            .update(id, |user| user["updated_at"] = 1_900_000_000_000i64.into());
    });
    shuffle(Shuffle::Ties);
    let by_update = "order_by=-updated_at&limit=500";
    let (once, again) = (clerk.list(by_update).await, clerk.list(by_update).await);
    assert_ne!(once[..30], again[..30]);
    assert_eq!(once[30..], again[30..]);
    assert!(once[..30].iter().all(|id| ids[20..50].contains(id)));
    assert_eq!(clerk.walk("order_by=created_at", 7).await, ids, "no users share a time");
    shuffle(Shuffle::All);
    let by_creation = "order_by=created_at&limit=500";
    let (once, again) = (clerk.list(by_creation).await, clerk.list(by_creation).await);
    assert_ne!(once, again);
    let (mut once, mut ids) = (once, ids);
    once.sort();
    ids.sort();
    assert_eq!(once, ids);
}

#[tokio::test]
async fn a_deleted_cursor_has_four_answers() {
    let clerk = Clerk::users(40).await;
    let ids = clerk.sim.user_ids();
    assert!(clerk.sim.delete(&ids[9]));
    let path = format!("/users?order_by=created_at&limit=5&starting_after={}", ids[9]);
    assert_eq!(
        clerk.refused(&path).await,
        (404, "resource_not_found".to_owned()),
        "the default"
    );
    let set = |deleted_cursor| {
        clerk.sim.set_faults(Quirks {
            deleted_cursor,
            ..Quirks::default()
        })
    };
    set(DeletedCursor::Unprocessable);
    assert_eq!(clerk.refused(&path).await, (422, "form_param_value_invalid".to_owned()));
    set(DeletedCursor::EmptyPage);
    assert!(clerk.get(&path).await.ids().is_empty());
    set(DeletedCursor::Restart);
    assert_eq!(clerk.get(&path).await.ids(), ids[..5]);
}

#[tokio::test]
async fn pages_are_short_or_empty_and_counts_wrong() {
    let clerk = Clerk::users(60).await;
    let ids = clerk.sim.user_ids();
    clerk.sim.set_faults(Quirks {
        max_page: Some(7),
        ..Quirks::default()
    });
    assert_eq!(clerk.list("limit=50").await.len(), 7);
    clerk.sim.set_faults(Quirks {
        random_pages: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.walk("order_by=created_at", 20).await, ids);
    clerk.sim.set_faults(
        Rule::new(Effect::Quirks(Box::new(Quirks {
            empty_lists: true,
            ..Quirks::default()
        })))
        .on([Endpoint::List])
        .next(1),
    );
    assert!(clerk.list("").await.is_empty());
    assert_eq!(clerk.list("").await.len(), 10, "only once");
    for (count, expected) in [
        (WrongCount::Offset(-5), 55),
        (WrongCount::Offset(-500), 0),
        (WrongCount::Fixed(3), 3),
    ] {
        clerk.sim.set_faults(Quirks {
            count: Some(count),
            ..Quirks::default()
        });
        assert_eq!(clerk.count("").await, expected);
    }
}

#[tokio::test]
async fn emulators_lack_endpoints_wrap_lists_and_use_upper_case() {
    let clerk = Clerk::users(30).await;
    clerk.sim.set_faults(Quirks {
        missing_instance: true,
        missing_count: true,
        wrapped_lists: true,
        upper_case_codes: true,
        times_in_seconds: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.refused("/instance").await, (404, "RESOURCE_NOT_FOUND".to_owned()));
    assert_eq!(clerk.refused("/users/count").await.0, 404);
    let list = clerk.get("/users?limit=7").await.json();
    assert_eq!(list["total_count"], 30);
    let users = list["data"].as_array().expect("a list");
    assert_eq!(users.len(), 7);
    for user in users {
        assert!(user["created_at"].as_i64().expect("a time") < 100_000_000_000);
        let whole = clerk
            .sim
            .document(user["id"].as_str().expect("an id"))
            .expect("the user");
        assert_eq!(
            user["created_at"].as_i64(),
            whole["created_at"].as_i64().map(|time| time / 1000)
        );
        assert_eq!(user["public_metadata"], whole["public_metadata"]);
    }
    clerk.sim.set_faults(Quirks {
        html_not_found: true,
        ..Quirks::default()
    });
    let answer = clerk.get("/users/user_nobody").await;
    assert_eq!(answer.status, 404);
    assert!(answer.bytes.starts_with(b"<!DOCTYPE html>"));
    clerk.sim.set_faults(Quirks {
        unauthorized: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.refused("/users").await, (401, "clerk_key_invalid".to_owned()));
}

#[tokio::test]
async fn users_are_hidden_from_lists_or_from_single_reads() {
    let clerk = Clerk::users(30).await;
    let ids = clerk.sim.user_ids();
    clerk.sim.set_faults(Quirks {
        hidden_from_lists: vec![ids[3].clone()],
        not_found_by_id: vec![ids[4].clone()],
        ..Quirks::default()
    });
    let listed = clerk.list("limit=500&order_by=created_at").await;
    assert_eq!(listed.len(), 29);
    assert!(!listed.contains(&ids[3]) && listed.contains(&ids[4]));
    assert!(clerk.list(&format!("user_id={}", ids[3])).await.is_empty());
    assert_eq!(clerk.count("").await, 30);
    assert_eq!(clerk.get(&format!("/users/{}", ids[3])).await.status, 200);
    assert_eq!(
        clerk.refused(&format!("/users/{}", ids[4])).await,
        (404, "resource_not_found".to_owned())
    );
}
