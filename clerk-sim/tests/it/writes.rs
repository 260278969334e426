//! Authentication, and requests that change users.

use clerk_sim::{Options, Quirks};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Clerk;

#[tokio::test]
async fn a_key_is_needed_and_a_version_must_be_known() {
    let clerk = Clerk::users(2).await;
    let url = format!("{}/v1/users", clerk.sim.url());
    let code = async |request: reqwest::RequestBuilder| -> (u16, String) {
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let body: Value = response.json().await.expect("JSON");
        if status != 200 {
            assert!(body["clerk_trace_id"].is_string());
        }
        (
            status,
            body["errors"][0]["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(
        code(clerk.client.get(&url)).await,
        (401, "authentication_invalid".to_owned())
    );
    assert_eq!(
        code(clerk.client.get(&url).bearer_auth("sk_test_other")).await,
        (401, "clerk_key_invalid".to_owned())
    );
    let with_version = |version: &str| {
        clerk
            .client
            .get(&url)
            .bearer_auth(clerk.sim.secret_key())
            .header("Clerk-API-Version", version)
    };
    assert_eq!(
        code(with_version("2021-02-05")).await,
        (400, "api_version_invalid".to_owned())
    );
    for version in ["2025-04-10", "2025-11-10", "2026-05-12"] {
        assert_eq!(code(with_version(version)).await.0, 200);
    }
    assert_eq!(
        clerk.sim.log().last().expect("a request").headers["clerk-api-version"],
        "2026-05-12"
    );
    assert_eq!(clerk.refused("/sessions").await, (404, "resource_not_found".to_owned()));
}

#[tokio::test]
async fn created_users_are_found_listed_and_unique() {
    let clerk = Clerk::users(10).await;
    let body = json!({"email_address": ["Ada@Example.com"], "username": "ada", "external_id": "1", "phone_number": ["+15555550100"], "created_at": "1999-12-31T23:59:59.999Z"});
    let created = clerk.write(Method::POST, "/users", body).await;
    assert_eq!(created.status, 200);
    let user = created.json();
    let id = user["id"].as_str().expect("an id");
    assert_eq!(user["created_at"], 946_684_799_999_i64);
    assert_eq!(user["primary_email_address_id"], user["email_addresses"][0]["id"]);
    assert_eq!(
        clerk.list("order_by=created_at&limit=1").await,
        [id],
        "imported users arrive with old dates"
    );
    assert_eq!(clerk.list("order_by=-updated_at&limit=1").await, [id]);
    for body in [
        json!({"email_address": ["new@example.com", "ADA@example.com"]}),
        json!({"phone_number": ["+15555550100"]}),
        json!({"username": "Ada"}),
        json!({"username": "new", "external_id": "1"}),
    ] {
        let refused = clerk.write(Method::POST, "/users", body.clone()).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (422, "form_identifier_exists".to_owned()),
            "{body}"
        );
    }
    for (body, code) in [
        (json!({}), "form_param_missing"),
        (json!({"email_address": ["nonsense"]}), "form_param_format_invalid"),
        (
            json!({"username": "x", "password": "short"}),
            "form_password_length_too_short",
        ),
        (
            json!({"username": "x", "created_at": "yesterday"}),
            "form_param_value_invalid",
        ),
        (json!({"username": "x", "shoe_size": 44}), "form_param_unknown"),
    ] {
        let refused = clerk.write(Method::POST, "/users", body.clone()).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (422, code),
            "{body}"
        );
    }
    assert_eq!(clerk.sim.count(), 11);
    assert_eq!(
        clerk
            .write(Method::DELETE, &format!("/users/{id}"), json!({}))
            .await
            .json(),
        json!({"id": id, "object": "user", "deleted": true})
    );
    assert_eq!(clerk.get(&format!("/users/{id}")).await.status, 404);
    assert_eq!(
        clerk
            .write(Method::DELETE, &format!("/users/{id}"), json!({}))
            .await
            .status,
        404
    );
    assert_eq!(
        clerk
            .write(Method::POST, "/users", json!({"username": "ada"}))
            .await
            .status,
        200,
        "free again"
    );
}

#[tokio::test]
async fn patches_move_updated_at_and_can_move_created_at() {
    let clerk = Clerk::users(10).await;
    let ids = clerk.sim.user_ids();
    let path = format!("/users/{}", ids[0]);
    let before = clerk.sim.document(&ids[0]).expect("a user");
    let patched = clerk
        .write(
            Method::PATCH,
            &path,
            json!({"first_name": "New", "created_at": "2030-01-01T00:00:00Z"}),
        )
        .await
        .json();
    assert_eq!(patched["first_name"], "New");
    assert!(patched["updated_at"].as_i64() > before["updated_at"].as_i64());
    assert_eq!(clerk.list("order_by=-created_at&limit=1").await, ids[..1]);
    let refused = clerk.write(Method::PATCH, &path, json!({"public_metadata": {}})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (422, "form_param_unknown".to_owned())
    );
    let url = format!("{}/v1{path}", clerk.sim.url());
    let older = clerk
        .client
        .patch(url)
        .bearer_auth(clerk.sim.secret_key())
        .header("Clerk-API-Version", "2025-11-10");
    let older = older
        .json(&json!({"public_metadata": {"replaced": true}}))
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        older.json::<Value>().await.expect("a user")["public_metadata"],
        json!({"replaced": true})
    );
    let unknown = clerk
        .write(Method::PATCH, &path, json!({"primary_email_address_id": "idn_nobody"}))
        .await;
    assert_eq!(unknown.status, 422);
    assert_eq!(
        clerk.write(Method::PATCH, "/users/user_nobody", json!({})).await.status,
        404
    );
}

#[tokio::test]
async fn metadata_is_merged_or_replaced() {
    let clerk = Clerk::users(0).await;
    let body =
        json!({"username": "m", "public_metadata": {"a": {"x": 1, "y": 2}, "b": [1]}, "private_metadata": {"p": 1}});
    let id = clerk.write(Method::POST, "/users", body).await.json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/users/{id}/metadata");
    let merged = clerk
        .write(
            Method::PATCH,
            &path,
            json!({"public_metadata": {"a": {"x": null, "z": {"deep": null, "kept": 3}}, "b": [2]}}),
        )
        .await;
    assert_eq!(
        merged.json()["public_metadata"],
        json!({"a": {"y": 2, "z": {"kept": 3}}, "b": [2]})
    );
    let replaced = clerk
        .write(Method::PUT, &path, json!({"public_metadata": {"only": null}}))
        .await
        .json();
    assert_eq!(replaced["public_metadata"], json!({"only": null}));
    assert_eq!(replaced["private_metadata"], json!({"p": 1}));
}

#[tokio::test]
async fn bans_and_locks_do_not_move_updated_at_unless_a_quirk_says_so() {
    let clerk = Clerk::users(0).await;
    let id = clerk
        .write(Method::POST, "/users", json!({"username": "b"}))
        .await
        .json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert!(
        clerk
            .sim
            .update(&id, |user| user["updated_at"] = 1_700_000_000_000_i64.into())
    );
    for (action, key, value) in [
        ("ban", "banned", true),
        ("unban", "banned", false),
        ("lock", "locked", true),
        ("unlock", "locked", false),
    ] {
        let user = clerk
            .write(Method::POST, &format!("/users/{id}/{action}"), json!({}))
            .await
            .json();
        assert_eq!(
            (&user[key], &user["updated_at"]),
            (&value.into(), &1_700_000_000_000_i64.into()),
            "{action}"
        );
        assert_eq!(user["lockout_expires_in_seconds"].is_number(), action == "lock");
    }
    clerk.sim.set_faults(Quirks {
        bans_move_updated_at: true,
        ..Quirks::default()
    });
    let user = clerk
        .write(Method::POST, &format!("/users/{id}/ban"), json!({}))
        .await
        .json();
    assert!(user["updated_at"].as_i64() > Some(1_700_000_000_000));
}

#[tokio::test]
async fn a_lock_counts_down_and_ends_and_nothing_else_changes() {
    let clerk = Clerk::users(0).await;
    let id = clerk
        .write(Method::POST, "/users", json!({"username": "l"}))
        .await
        .json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert!(clerk.sim.update(&id, |user| {
        user["locked"] = true.into();
        user["lockout_expires_in_seconds"] = 2.into();
    }));
    let first = clerk.sim.document(&id).expect("a user");
    let seconds = first["lockout_expires_in_seconds"].as_i64();
    assert!(matches!(seconds, Some(1 | 2)), "{seconds:?}");
    let ends = async {
        loop {
            let user = clerk.get(&format!("/users/{id}")).await.json();
            let mut same = user.clone();
            (same["locked"], same["lockout_expires_in_seconds"]) =
                (first["locked"].clone(), first["lockout_expires_in_seconds"].clone());
            assert_eq!(same, first);
            if user["locked"] == false {
                return user;
            }
            assert!(user["lockout_expires_in_seconds"].as_i64() <= seconds);
        }
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), ends)
        .await
        .expect("it ends");
    assert!(ended["lockout_expires_in_seconds"].is_null());
}

#[tokio::test]
async fn an_edit_that_changes_nothing_changes_no_bytes() {
    let clerk = Clerk::users(300).await;
    for id in clerk.sim.user_ids() {
        let served = clerk.sim.raw(&id).expect("a user");
        let updated_at = clerk.sim.document(&id).expect("a user")["updated_at"].clone();
        // Moving it and moving it back renders the same document anew.
        assert!(clerk.sim.update(&id, |user| user["updated_at"] = 0.into()));
        assert!(clerk.sim.update(&id, |user| user["updated_at"] = updated_at));
        let again = clerk.sim.raw(&id).expect("a user");
        if !String::from_utf8_lossy(&served).contains("\"locked\":true") {
            assert_eq!(String::from_utf8_lossy(&served), String::from_utf8_lossy(&again));
        }
    }
}

#[tokio::test]
async fn random_changes_depend_on_the_seed_and_not_on_requests() {
    let (a, b) = (Clerk::users(40).await, Clerk::users(40).await);
    assert_eq!(a.get("/users/user_nobody").await.status, 404);
    for _ in 0..20 {
        assert_eq!(a.sim.update_random(), b.sim.update_random());
        assert_eq!(a.sim.delete_random(), b.sim.delete_random());
    }
    assert_eq!(a.sim.create_random(), b.sim.create_random());
}

#[tokio::test]
async fn odd_documents_are_served_verbatim_in_order() {
    let clerk = Clerk::users(0).await;
    clerk
        .sim
        .insert(json!({"id": "user_b", "created_at": 2000, "anything": [1.10, {"z": null}]}));
    clerk
        .sim
        .insert_raw("user_a", 1000, 1000, b"{\"id\": broken \xff".to_vec());
    let list = clerk.get("/users?order_by=created_at").await;
    assert_eq!(
        list.bytes,
        [
            b"[".as_slice(),
            b"{\"id\": broken \xff,",
            br#"{"id":"user_b","created_at":2000,"anything":[1.1,{"z":null}]}"#,
            b"]"
        ]
        .concat()
    );
    assert_eq!(clerk.count("").await, 2);
    assert_eq!(
        clerk.list("order_by=created_at&created_at_after=1000").await,
        ["user_b"]
    );
    let refused = clerk
        .write(Method::PATCH, "/users/user_a", json!({"first_name": "x"}))
        .await;
    assert_eq!(refused.status, 500);
    assert!(!clerk.sim.update("user_a", |_| {}));
}

#[tokio::test]
async fn stopping_closes_the_listener_and_all_connections() {
    let clerk = Clerk::with(Options {
        users: 1,
        ..Options::default()
    })
    .await;
    clerk.get("/users").await;
    let url = clerk.sim.url();
    let other = clerk.sim.clone();
    clerk.sim.stop().await;
    assert!(clerk.client.get(&url).send().await.is_err());
    drop(other);
    let sim = Clerk::users(1).await.sim;
    let url = sim.url();
    drop(sim);
    let gone = async { while clerk.client.get(&url).send().await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone)
        .await
        .expect("dropping the last handle stops it");
}

#[tokio::test]
async fn answers_are_compressed_if_the_client_accepts_it() {
    use std::io::Read as _;
    let clerk = Clerk::users(20).await;
    let get = async |accepts: &str| {
        let request = clerk
            .client
            .get(format!("{}/v1/users?limit=20", clerk.sim.url()))
            .bearer_auth(clerk.sim.secret_key());
        let response = request
            .header("accept-encoding", accepts)
            .send()
            .await
            .expect("an answer");
        let encoding = response
            .headers()
            .get("content-encoding")
            .map(|value| value.to_str().unwrap_or("?").to_owned());
        (encoding, response.bytes().await.expect("a body").to_vec())
    };
    let (plain, whole) = get("identity").await;
    let (gzip, packed) = get("br, gzip;q=0.8").await;
    assert_eq!((plain, gzip.as_deref()), (None, Some("gzip")));
    assert_eq!(get("gzip;q=0").await.0, None);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_end(&mut unpacked)
        .expect("gzip");
    let same = |bytes: &[u8]| -> Vec<Value> { serde_json::from_slice(bytes).expect("a list") };
    assert_eq!(same(&unpacked).len(), same(&whole).len());
    assert!(packed.len() < whole.len() / 2);
}
