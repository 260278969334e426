//! Checks answers against Clerk's OpenAPI document, if there is a copy of it.

use std::collections::BTreeSet;

use clerk_sim::{Oddity, Options};
use reqwest::Method;
use serde_json::json;

use crate::specification::{Spec, assert_valid, errors};
use crate::support::Clerk;

#[tokio::test]
async fn generated_users_are_valid_except_odd_ones_in_one_way() {
    let Some(spec) = Spec::read() else { return };
    let user = spec.validator("User");
    let clerk = Clerk::with(Options {
        users: 2500,
        ..Options::default()
    })
    .await;
    let mut oddities = BTreeSet::new();
    let mut listed = 0;
    for offset in (0..2500).step_by(500) {
        let page = clerk.get(&format!("/users?limit=500&offset={offset}")).await.json();
        for document in page.as_array().expect("a list") {
            listed += 1;
            let id = document["id"].as_str().expect("an id");
            let Some(oddity) = clerk.sim.oddity(id) else {
                assert_valid(&user, document);
                continue;
            };
            oddities.insert(oddity);
            let errors = errors(&user, document);
            assert!(!errors.is_empty(), "{oddity:?} should break the schema: {document:#}");
            for (path, what) in errors {
                // A missing or unknown key is reported at the user itself, with the name of the
                // key.
                let is_meant =
                    path.starts_with(&format!("/{}", oddity.key())) || (path.is_empty() && what.contains(oddity.key()));
                assert!(is_meant, "{oddity:?} breaks {path:?} as well: {what}");
            }
        }
    }
    assert_eq!(listed, 2500);
    assert_eq!(oddities, BTreeSet::from(Oddity::ALL));
    let odd = clerk
        .sim
        .user_ids()
        .iter()
        .filter(|id| clerk.sim.oddity(id).is_some())
        .count();
    assert!((25..150).contains(&odd), "{odd} of 2500 are odd");
}

#[tokio::test]
async fn users_created_and_changed_at_random_are_valid() {
    let Some(spec) = Spec::read() else { return };
    let user = spec.validator("User");
    let clerk = Clerk::users(150).await;
    for _ in 0..150 {
        clerk.sim.create_random();
        clerk.sim.update_random();
        clerk.sim.update_random();
    }
    for id in clerk.sim.user_ids().iter().filter(|id| clerk.sim.oddity(id).is_none()) {
        assert_valid(&user, &clerk.sim.document(id).expect("a user"));
    }
}

#[tokio::test]
async fn every_answer_has_its_schema() {
    let Some(spec) = Spec::read() else { return };
    let (user, error) = (spec.validator("User"), spec.validator("ClerkErrors"));
    let clerk = Clerk::users(20).await;
    assert_valid(&spec.validator("TotalCount"), &clerk.get("/users/count").await.json());
    assert_valid(&spec.validator("Instance"), &clerk.get("/instance").await.json());
    let created = clerk.write(
        Method::POST,
        "/users",
        json!({
            "email_address": ["a@example.com", "b@example.com"], "email_address_identification_status": ["verified", "reserved"],
            "phone_number": ["+15555550100"], "web3_wallet": ["0xabc"], "username": "abc", "password": "correct horse",
            "first_name": "A", "public_metadata": {"deep": {"a": 1, "b": 2}}, "created_at": "2020-01-02T03:04:05.678+02:00",
            "locked": true, "totp_secret": "JBSWY3DPEHPK3PXP", "legal_accepted_at": "2020-01-02T03:04:05Z",
        }),
    )
    .await;
    assert_eq!(created.status, 200);
    assert_valid(&user, &created.json());
    let path = format!("/users/{}", created.json()["id"].as_str().expect("an id"));
    let second_email = created.json()["email_addresses"][0]["id"].clone();
    for (method, path, body) in [
        (
            Method::PATCH,
            path.clone(),
            json!({"first_name": null, "username": "", "primary_email_address_id": second_email}),
        ),
        (
            Method::PATCH,
            format!("{path}/metadata"),
            json!({"public_metadata": {"deep": {"a": null, "c": [3]}}}),
        ),
        (
            Method::PUT,
            format!("{path}/metadata"),
            json!({"private_metadata": {"only": true}}),
        ),
        (Method::POST, format!("{path}/ban"), json!({})),
        (Method::POST, format!("{path}/unban"), json!({})),
        (Method::POST, format!("{path}/lock"), json!({})),
        (Method::POST, format!("{path}/unlock"), json!({})),
        (Method::GET, path.clone(), json!({})),
    ] {
        let answer = clerk.write(method.clone(), &path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}");
        assert_valid(&user, &answer.json());
    }
    let deleted = clerk.write(Method::DELETE, &path, json!({})).await;
    assert_valid(&spec.validator("DeletedObject"), &deleted.json());
    for (method, path, body, status) in [
        (Method::GET, path.clone(), json!({}), 404),
        (Method::GET, "/users?limit=0".to_owned(), json!({}), 422),
        (Method::POST, "/users".to_owned(), json!({"shoe_size": 1}), 422),
        (Method::POST, "/users".to_owned(), json!([]), 400),
        (Method::GET, "/nowhere".to_owned(), json!({}), 404),
    ] {
        let answer = clerk.write(method, &path, body).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_valid(&error, &answer.json());
    }
}

#[tokio::test]
async fn the_known_parameters_of_bodies_are_those_of_the_specification() {
    let Some(spec) = Spec::read() else { return };
    let clerk = Clerk::users(1).await;
    let path = format!("/users/{}", clerk.sim.user_ids()[0]);
    for (template, method, path) in [
        ("/users", Method::POST, "/users".to_owned()),
        ("/users/{user_id}", Method::PATCH, path.clone()),
        ("/users/{user_id}/metadata", Method::PATCH, format!("{path}/metadata")),
        ("/users/{user_id}/metadata", Method::PUT, format!("{path}/metadata")),
    ] {
        let properties = spec.properties(template, &method.as_str().to_lowercase());
        for name in properties.keys() {
            // No parameter takes an object within a list, so this shows only whether the name is
            // known.
            let answer = clerk.write(method.clone(), &path, json!({name: [{}]})).await;
            assert_eq!(answer.code(), "form_param_value_invalid", "{method} {template}: {name}");
        }
        let answer = clerk.write(method.clone(), &path, json!({"shoe_size": 1})).await;
        assert_eq!(answer.code(), "form_param_unknown", "{method} {template}");
    }
}
