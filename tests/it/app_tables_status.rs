//! What the status, the metrics and the status page show of the application's tables.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    app_table::AppTable, fixture::Fixture, monitored::MonitoredDaemon, summary::Exit, wait::eventually,
};

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
        json!({"table": "public.\"User\"", "state": "pending", "problem": null, "compared_at": null, "rows": null,
            "repaired": null, "rejected": 0, "held": 0, "mapping_plan": null, "held_removals": 0, "plan": null, "rejected_rows": []})
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
    for table in [0, 1] {
        let compared_at = shown[table]["compared_at"].as_str().unwrap();
        let is_recent = format!(
            "SELECT count(*) FROM (SELECT now() - '{compared_at}' AS age) a
            WHERE age > '0'::interval AND age < '1 minute'::interval"
        );
        assert_eq!(app.fixture.db.number(&is_recent).await, 1, "{compared_at}");
    }
    let [id, reason] = [0, 1].map(|at| shown[0]["rejected_rows"][0][at].as_str().unwrap());
    assert_eq!(id, ids[0]);
    assert!(reason.contains("null value in column"), "{reason}");
    assert_contains(
        &status(&app).await,
        &[
            "\npublic.\"User\": kept in sync\n  7 rows, 7 of them repaired, when last compared ",
            &format!(" UTC)\n  1 row rejected\n    {id}  {reason}\n"),
            "\npublic.profiles: kept in sync\n  8 rows, 8 of them repaired, when last compared ",
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
            &format!("1 removal is held; if that is correct, run: clerk2pg approve {departures}\n"),
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
    let compared = watched
        .metrics()
        .await
        .all("clerk2pg_table_last_compared_timestamp_seconds");
    let now = chrono::Utc::now().timestamp() as f64;
    assert!(
        compared.values().all(|at| (now - 60.0..now + 1.0).contains(at)),
        "{compared:?}"
    );
    let page = watched.get("/").await.body;
    assert_contains(
        &page,
        &[
            "<h1>In sync, but 1 row of a table is rejected</h1>",
            "<strong>public.&quot;User&quot;: 1 row is rejected</strong><p>To see each row with the reason, run <code>clerk2pg status</code></p>",
            "<tr><th scope=\"row\">public.&quot;User&quot;<td>kept in sync<td>",
            " ago<td>7<td>0<td>1<td>0</tr>",
            "<tr><th scope=\"row\">public.profiles<td>kept in sync<td>",
            " ago<td>8<td>7<td>0<td>0</tr></tbody>",
        ],
    );
    // A daemon without tables has neither.
    let without = MonitoredDaemon::start(&app.fixture, &[]).await;
    without.wait_until_ready("").await;
    let metrics = without.get("/metrics").await.body;
    assert!(!metrics.contains("clerk2pg_table_"), "{metrics}");
    let page = without.get("/").await.body;
    assert!(!page.contains("Tables of the application"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_held_rows_and_tables_that_are_not_kept_in_sync() {
    let (app, _) = application(3).await;
    app.fixture
        .db
        .execute("INSERT INTO profiles VALUES ('user_of_another_instance', 'Eve')")
        .await;
    let watched = app.monitored().await;
    watched
        .wait_until_ready("in sync, but rows of tables are held: see `clerk2pg status`")
        .await;
    assert_eq!(of_profiles(&watched, "held_rows").await, 1.0);
    assert_eq!(of_profiles(&watched, "in_sync").await, 1.0, "the mapping is applied");
    let page = watched.get("/").await.body;
    let plan = tables(&app).await[1]["plan"].as_str().unwrap().to_owned();
    assert_contains(
        &page,
        &[
            "<h1>In sync, but 1 row of a table is held</h1>",
            &format!(
                "<strong>public.profiles: 1 removal is held</strong><p>To see them, run <code>clerk2pg --dry-run</code></p><p>If they are correct, run <code>clerk2pg approve {plan}</code></p>"
            ),
            " ago<td>4<td>0<td>0<td>1</tr>",
        ],
    );
    watched.daemon.stop(Signal::TERM).await;

    app.set_mapping(&MAPPING.replace("[tables.set]\n    name =", "[tables.set]\n    nickname ="));
    let broken = app.monitored().await;
    let problem = "there is no column \"nickname\", which [tables.set] names";
    broken
        .wait_until_not_ready(&format!(
            "the last full sync was incomplete: public.\"User\" is not kept in sync: {problem}"
        ))
        .await;
    assert_eq!(of_profiles(&broken, "in_sync").await, 0.0);
    let page = broken.get("/").await.body;
    assert_contains(
        &page,
        &[
            "<td class=\"bad\">not kept in sync<td>",
            "there is no column &quot;nickname&quot;, which [tables.set] names</tr>",
        ],
    );
}

/// Returns a metric of the table `profiles`.
async fn of_profiles(watched: &MonitoredDaemon, name: &str) -> f64 {
    let metrics = watched.metrics().await;
    metrics.value(&format!("clerk2pg_table_{name}{{table=\"public.profiles\"}}"))
}
