//! What the status, the metrics and the status page show of the application's tables.

use serde_json::json;

use crate::support::{app_table::AppTable, fixture::Fixture, summary::Exit, wait::eventually};

const SCHEMA: &str = r#"
    CREATE TABLE "User" ("clerkId" text UNIQUE NOT NULL, name text NOT NULL);
    CREATE TABLE profiles (user_id text PRIMARY KEY, name text);"#;

const MAPPING: &str = r#"
    [[tables]]
    name = "User"
    key = "clerkId"
    [tables.set]
    name = "u.first_name"
    [[tables]]
    name = "profiles"
    key = "user_id"
    [tables.set]
    name = "u.first_name"
"#;

async fn application(users: usize) -> (AppTable, Vec<String>) {
    let fixture = Fixture::new(users).await;
    let mut ids = fixture.sim.user_ids();
    ids.sort();
    ids.iter().for_each(|id| fixture.rename(id, "Ada"));
    (AppTable::with(fixture, SCHEMA, MAPPING).await, ids)
}

async fn tables(app: &AppTable) -> serde_json::Value {
    let status = app.run(&["status", "--format", "json"]).await;
    status.assert_exit(Exit::Ok);
    status.json()["tables"].clone()
}

async fn status(app: &AppTable) -> String {
    let status = app.run(&["status"]).await;
    status.assert_exit(Exit::Ok);
    status.stdout
}

#[track_caller]
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_rows_repairs_and_rejected_rows() {
    let (app, ids) = application(8).await;
    app.fixture.once().await.assert_exit(Exit::Ok);
    assert_contains(
        &status(&app).await,
        &["\npublic.\"User\": waits for the next full sync\n"],
    );
    let waiting = tables(&app).await;
    assert_eq!(
        waiting[0],
        json!({"table": "public.\"User\"", "state": "pending", "problem": null, "rows": null, "repaired": null,
            "rejected": 0, "held": 0, "mapping_plan": null, "plan": null, "rejected_rows": []})
    );

    assert!(app.fixture.sim.update(&ids[0], |user| user["first_name"] = json!(null)));
    app.once().await.assert_exit(Exit::Ok);
    app.fixture
        .db
        .execute("UPDATE profiles SET name = 'Eve'; DELETE FROM \"User\"")
        .await;
    app.once().await.assert_exit(Exit::Ok);
    let shown = tables(&app).await;
    assert_eq!(
        [
            &shown[0]["state"],
            &shown[0]["rows"],
            &shown[0]["repaired"],
            &shown[0]["rejected"]
        ],
        [&json!("applied"), &json!(7), &json!(7), &json!(1)]
    );
    assert_eq!([&shown[1]["rows"], &shown[1]["repaired"]], [&json!(8), &json!(8)]);
    let [id, reason] = [0, 1].map(|at| shown[0]["rejected_rows"][0][at].as_str().unwrap());
    assert_eq!(id, ids[0]);
    assert!(reason.contains("null value in column"), "{reason}");
    assert_contains(
        &status(&app).await,
        &[
            "\npublic.\"User\": kept in sync\n  7 rows at the last full sync, which repaired 7\n  1 row rejected\n",
            &format!("    {id}  {reason}\n"),
            "\npublic.profiles: kept in sync\n  8 rows at the last full sync, which repaired 8\n",
        ],
    );
    // A program without the mapping shows none.
    let without = app.fixture.run(&["status", "--format", "json"]).await;
    assert_eq!(without.json().get("tables"), None, "{without:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_what_is_held_and_what_is_broken() {
    let (app, ids) = application(20).await;
    for id in &ids {
        let sql = format!("INSERT INTO \"User\" VALUES ('{id}', 'Old'); INSERT INTO profiles VALUES ('{id}', 'Ada')");
        app.fixture.db.execute(&sql).await;
    }
    app.fixture
        .db
        .execute("INSERT INTO profiles VALUES ('user_of_another_instance', 'Eve')")
        .await;
    let ran = app.once().await;
    ran.assert_exit(Exit::Held);
    let shown = tables(&app).await;
    let plans = ["public.\"User\"", "public.profiles"].map(|table| ran.json()["tables"][table]["plan"].clone());
    let keys = ["state", "held", "mapping_plan", "plan"];
    let of = |at: usize| keys.map(|key| shown[at][key].clone());
    assert_eq!(of(0), [json!("held"), json!(20), plans[0].clone(), json!(null)]);
    assert_eq!(of(1), [json!("applied"), json!(1), json!(null), plans[1].clone()]);
    let [mapping, departures] = plans.each_ref().map(|plan| plan.as_str().unwrap());
    assert_contains(
        &status(&app).await,
        &[
            &format!(
                "\npublic.\"User\": mapping held\n  the mapping changes 20 rows; if that is correct, run: clerk2pg approve {mapping}\n"
            ),
            &format!("removals are held; if they are correct, run: clerk2pg approve {departures}\n"),
        ],
    );
    app.run(&["approve", mapping]).await.assert_exit(Exit::Ok);
    assert_eq!(tables(&app).await[0]["state"], "approved");

    app.set_mapping(&MAPPING.replace("name = \"profiles\"", "name = \"nowhere\""));
    app.once().await.assert_exit(Exit::Failed);
    let shown = tables(&app).await;
    assert_eq!(
        [&shown[1]["state"], &shown[1]["problem"]],
        [&json!("broken"), &json!("there is no such table")]
    );
    assert_contains(
        &status(&app).await,
        &["\npublic.nowhere: not kept in sync: there is no such table\n"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_page_show_each_table() {
    let (app, ids) = application(8).await;
    assert!(app.fixture.sim.update(&ids[0], |user| user["first_name"] = json!(null)));
    app.once().await.assert_exit(Exit::Ok);
    app.fixture
        .db
        .execute("UPDATE profiles SET name = 'Eve' WHERE name = 'Ada'")
        .await;
    let watched = app.monitored().await;
    watched.wait_until_ready("in sync").await;
    let expected = [
        ("in_sync", 1.0, 1.0),
        ("rows", 7.0, 8.0),
        ("repaired_rows", 0.0, 7.0),
        ("rejected_rows", 1.0, 0.0),
        ("held_rows", 0.0, 0.0),
    ];
    eventually("the metrics show the full sync", async || {
        let metrics = watched.metrics().await;
        expected.iter().all(|(name, users, profiles)| {
            let all = metrics.all(&format!("clerk2pg_table_{name}"));
            let values: Vec<f64> = all.values().copied().collect();
            let tables: Vec<&str> = all.keys().map(String::as_str).collect();
            assert_eq!(tables, [r#"table="public.\"User\"""#, r#"table="public.profiles""#]);
            values == [*users, *profiles]
        })
    })
    .await;
    let page = watched.get("/").await.body;
    assert_contains(
        &page,
        &[
            "<tr><td>public.&quot;User&quot;<td>kept in sync<td>7<td>0<td>1<td>0</tr>",
            "<tr><td>public.profiles<td>kept in sync<td>8<td>7<td>0<td>0</tr>",
        ],
    );
}
