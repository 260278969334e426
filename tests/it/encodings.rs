//! Databases whose encoding cannot hold all of Unicode reject users with characters outside of it.

use clerk_sim::{Effect, Endpoint, Options, Rule, Sim};
use serde_json::{Value, json};

use crate::support::{
    check::check_with,
    database::Database,
    fixture::Fixture,
    summary::{Exit, changed, in_sync},
};

const LATER: i64 = 1_790_000_000_000;

async fn fixture(encoding: &str) -> Fixture {
    let options = Options {
        users: 0,
        secret_key: "sk_live_test".to_owned(),
        ..Options::default()
    };
    let made = format!("TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
    let (db, sim) = tokio::join!(Database::with_options(&made), Sim::start(options));
    Fixture { db, sim: sim.unwrap() }
}

fn user(id: &str, name: &str) -> Value {
    json!({"id": id, "object": "user", "created_at": LATER, "updated_at": LATER, "first_name": name, "public_metadata": {"name": name}})
}

async fn rejected(fixture: &Fixture) -> Vec<(String, String, String)> {
    let sql = "SELECT user_id, reason, document FROM clerk.rejected_users ORDER BY user_id";
    let rows = fixture.db.client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

async fn stored(fixture: &Fixture, id: &str) -> Option<String> {
    fixture
        .db
        .text(&format!("SELECT first_name FROM clerk.users WHERE id = '{id}'"))
        .await
}

/// Inserts users with a character raw and escaped, and one invalid user.
fn fill(fixture: &Fixture) {
    for at in 0..30 {
        fixture.sim.insert(user(&format!("user_plain{at}"), "Ann"));
    }
    fixture.sim.insert(user("user_raw", "Ann 😀"));
    let escaped = serde_json::to_string(&user("user_escaped", "Ann ?"))
        .unwrap()
        .replace('?', "\\ud83d\\ude00");
    fixture.sim.insert_raw("user_escaped", LATER, LATER, escaped.into());
    let odd = json!({"id": "user_odd", "object": "user", "public_metadata": {"name": "😀"}});
    fixture.sim.insert_raw("user_odd", LATER, LATER, odd.to_string().into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latin1_database_rejects_what_it_cannot_hold() {
    let fixture = fixture("LATIN1").await;
    fill(&fixture);
    fixture.sim.insert(user("user_latin", "Zoë"));
    let escaped = serde_json::to_string(&user("user_latin_escaped", "Zo?"))
        .unwrap()
        .replace('?', "\\u00eb");
    fixture
        .sim
        .insert_raw("user_latin_escaped", LATER, LATER, escaped.into());
    let initial = [("CLERK2PG_EVENTS__INITIAL", "true")];
    fixture
        .once_with(&initial)
        .await
        .assert(Exit::Ok, changed().created(32).rejected(3));
    for id in ["user_latin", "user_latin_escaped"] {
        assert_eq!(stored(&fixture, id).await.as_deref(), Some("Zoë"));
    }
    let listed = rejected(&fixture).await;
    let ids: Vec<&str> = listed.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, ["user_escaped", "user_odd", "user_raw"]);
    for (id, reason, document) in &listed {
        // The same JSON is kept, in a form that fits the encoding.
        let kept: Value = serde_json::from_str(document).unwrap();
        assert_eq!(
            kept["public_metadata"],
            serde_json::from_slice::<Value>(&fixture.sim.raw(id).unwrap()).unwrap()["public_metadata"]
        );
        assert!(id == "user_odd" || reason.contains("LATIN1"), "{id}: {reason}");
    }
    // Also when a stored user changes, there and back.
    fixture
        .sim
        .update("user_plain3", |user| user["first_name"] = "Ben 😀".into());
    fixture
        .once()
        .await
        .assert(Exit::Ok, in_sync().unchanged(31).rejected(4));
    fixture
        .sim
        .update("user_plain3", |user| user["first_name"] = "Ben".into());
    fixture.sim.update("user_raw", |user| {
        user["first_name"] = "Ann".into();
        user["public_metadata"] = json!({});
    });
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(1).updated(1).unchanged(31).rejected(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sql_ascii_database_stores_bytes_as_they_come() {
    let fixture = fixture("SQL_ASCII").await;
    fill(&fixture);
    let initial = [("CLERK2PG_EVENTS__INITIAL", "true")];
    // Bytes are stored as they come. Escapes in jsonb cannot become bytes.
    fixture
        .once_with(&initial)
        .await
        .assert(Exit::Ok, changed().created(31).rejected(2));
    assert_eq!(stored(&fixture, "user_raw").await.as_deref(), Some("Ann 😀"));
    let listed = rejected(&fixture).await;
    let ids: Vec<&str> = listed.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, ["user_escaped", "user_odd"]);
    fixture
        .once()
        .await
        .assert(Exit::Ok, in_sync().unchanged(31).rejected(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_failed_sync_fits_the_encoding() {
    let fixture = fixture("LATIN1").await;
    fixture.once().await;
    // The message contains quotes that LATIN1 does not have.
    fixture.sim.set_faults(Rule::new(Effect::Html).on([Endpoint::List]));
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Failed);
    let error = "SELECT error FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
    let error = fixture.db.text(error).await.unwrap();
    assert!(error.contains("an HTML page, \""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_what_the_encoding_cannot_hold() {
    for (encoding, says) in [
        ("LATIN1", "LATIN1, which cannot store all of Unicode"),
        ("SQL_ASCII", "SQL_ASCII"),
    ] {
        let fixture = fixture(encoding).await;
        let checked = check_with(&fixture, &[]).await;
        checked
            .assert_check("database", "warn", says)
            .assert_hint("database", "ENCODING 'UTF8'");
    }
}
