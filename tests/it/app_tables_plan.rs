//! What a person sees of the application's tables before and after a sync: the plan of a dry run, and
//! the report.

use serde_json::json;

use crate::support::{
    app_table::AppTable, changes::set_address, fixture::Fixture, program::ProgramOutput, summary::Exit,
};

const SCHEMA: &str = r#"
    CREATE SEQUENCE numbers;
    CREATE TABLE "User" (
        id bigint PRIMARY KEY DEFAULT nextval('numbers'),
        "clerkId" text UNIQUE,
        email text NOT NULL,
        name text,
        age integer
    );"#;

const MAPPING: &str = r#"
    [[tables]]
    name = "User"
    key = "clerkId"
    link = "email"
    where = "coalesce(u.public_metadata->>'kind', '') <> 'robot'"
    [tables.set]
    email = "coalesce(u.primary_email, '')"
    name = "u.first_name"
    age = "(u.public_metadata->>'age')::integer"
"#;

const TABLE: &str = r#"public."User""#;

/// Returns users called `Name 0` and so on, each with an address of their own, in the order of their
/// ids, and an application without rows.
async fn application(users: usize) -> (AppTable, Vec<String>) {
    let fixture = Fixture::new(users).await;
    let mut ids = fixture.sim.user_ids();
    ids.sort();
    for (number, id) in ids.iter().enumerate() {
        set_address(&fixture, id, &format!("user{number}@example.com"));
        fixture.rename(id, &format!("Name {number}"));
        set_metadata(&fixture, id, json!({}));
    }
    (AppTable::with(fixture, SCHEMA, MAPPING).await, ids)
}

fn set_metadata(fixture: &Fixture, id: &str, metadata: serde_json::Value) {
    assert!(fixture.sim.update(id, |user| user["public_metadata"] = metadata));
}

/// Inserts a row of the application.
async fn insert(app: &AppTable, key: Option<&str>, email: &str, name: &str) {
    let key = key.map_or_else(|| "NULL".to_owned(), |key| format!("'{key}'"));
    let sql = format!(r#"INSERT INTO "User" ("clerkId", email, name) VALUES ({key}, '{email}', '{name}')"#);
    app.fixture.db.execute(&sql).await;
}

/// Everything that a dry run must leave as it is.
async fn contents(app: &AppTable) -> Option<String> {
    let sql = r#"SELECT concat(
        (SELECT string_agg(concat(t, t.xmin, t.xmax), ';' ORDER BY t.id) FROM "User" t),
        (SELECT concat(last_value, is_called) FROM numbers),
        (SELECT count(*) FROM pg_class))"#;
    app.fixture.db.text(sql).await
}

/// Runs a dry run, and asserts that it writes nothing.
async fn dry_run(app: &AppTable) -> ProgramOutput {
    let before = contents(app).await;
    let ran = app.run(&["--dry-run"]).await;
    assert_eq!(contents(app).await, before, "a dry run writes nothing: {ran:#?}");
    ran
}

/// The lines of a dry run about the table.
fn plan(ran: &ProgramOutput) -> Vec<&str> {
    let lines = ran.stdout.lines().skip_while(|line| *line != TABLE).skip(1);
    lines.take_while(|line| !line.is_empty()).collect()
}

/// Asserts the lines of a dry run about the table, in the order of the ids.
#[track_caller]
fn assert_plan(ran: &ProgramOutput, expected: &[String]) {
    let mut expected = expected.to_vec();
    expected.sort_by_key(|line| line.split(' ').nth(1).unwrap().to_owned());
    assert_eq!(plan(ran), expected, "{ran:#?}");
}

/// The checksum that a line about something held names.
fn checksum(ran: &ProgramOutput) -> &str {
    let line = ran.stdout.lines().find(|line| line.contains("clerk2pg approve"));
    let line = line.unwrap_or_else(|| panic!("nothing is held: {ran:#?}"));
    line.rsplit(' ').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_use_has_a_plan_before_there_is_a_mirror() {
    let (app, ids) = application(10).await;
    insert(&app, Some(&ids[0]), "user0@example.com", "Name 0").await;
    insert(&app, Some(&ids[1]), "old@example.com", "Old").await;
    insert(&app, None, "USER2@example.com", "Free").await;
    insert(&app, None, "user3@example.com", "One").await;
    insert(&app, None, "user3@example.com", "Two").await;
    insert(&app, None, "guest@example.com", "Guest").await;
    insert(&app, Some("user_of_another_instance"), "gone@example.com", "Gone").await;
    set_metadata(&app.fixture, &ids[4], json!({"age": "old"}));
    set_metadata(&app.fixture, &ids[5], json!({"kind": "robot"}));
    let planned = dry_run(&app).await;
    planned.assert_exit(Exit::Ok);
    let mut expected = vec![
        format!("~ {} email, name", ids[1]),
        format!("= {}", ids[2]),
        format!(
            "! {} 2 rows without a key have the address, and 1 user: set the key of the right row by hand",
            ids[3]
        ),
        format!("! {} Postgres: invalid input syntax for type integer: \"…\"", ids[4]),
        "- user_of_another_instance (held) Clerk does not know it".to_owned(),
    ];
    expected.extend(ids[6..].iter().map(|id| format!("+ {id}")));
    assert_plan(&planned, &expected);
    let totals = format!("{TABLE}: 4 to insert, 1 to update, 1 to link, 1 to remove.\n2 rows cannot be written.");
    assert!(planned.stdout.contains(&totals), "{planned:#?}");

    let ran = app.once().await;
    ran.assert_exit(Exit::Held);
    let report = &ran.json()["tables"][TABLE];
    let counts = ["inserted", "linked", "removed", "rejected", "held"].map(|key| report[key].as_u64().unwrap());
    assert_eq!(counts, [4, 1, 0, 2, 1], "{ran:#?}");
    assert_eq!(
        report["plan"],
        checksum(&planned),
        "the plan names the checksum of what a sync holds"
    );
    app.run(&["approve", checksum(&planned)]).await.assert_exit(Exit::Ok);
    app.age_departures().await;
    let again = dry_run(&app).await;
    assert!(
        plan(&again).contains(&"- user_of_another_instance Clerk does not know it"),
        "{again:#?}"
    );
    let ran = app.once().await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(ran.json()["tables"][TABLE]["removed"], 1, "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_is_what_a_sync_does_with_a_table_that_it_keeps() {
    let (app, ids) = application(12).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let nothing = dry_run(&app).await;
    assert!(plan(&nothing).is_empty(), "{nothing:#?}");
    assert!(
        nothing.stdout.contains(&format!("{TABLE}: no changes.")),
        "{nothing:#?}"
    );

    app.fixture.rename(&ids[0], "Ada");
    app.fixture.sim.delete(&ids[1]);
    set_metadata(&app.fixture, &ids[2], json!({"kind": "robot"}));
    // Nothing that the table shows.
    set_metadata(&app.fixture, &ids[3], json!({"plan": "pro"}));
    let sql = format!(
        r#"UPDATE "User" SET age = 7 WHERE "clerkId" = '{}'; DELETE FROM "User" WHERE "clerkId" = '{}'"#,
        ids[4], ids[5]
    );
    app.fixture.db.execute(&sql).await;
    let new = app.fixture.sim.create_random();
    let planned = dry_run(&app).await;
    assert_plan(
        &planned,
        &[
            format!("~ {} name", ids[0]),
            format!("- {} deleted at Clerk", ids[1]),
            format!("- {} `where` excludes it; it exists at Clerk", ids[2]),
            format!("~ {} age", ids[4]),
            format!("+ {}", ids[5]),
            format!("+ {new}"),
        ],
    );
    let differs = app.run(&["--dry-run", "--exit-code", "--format", "json"]).await;
    differs.assert_exit(Exit::Differences);
    let ran = app.once().await;
    ran.assert_exit(Exit::Ok);
    let [planned, done] = [&differs, &ran].map(|ran| ran.json()["tables"][TABLE].clone());
    assert_eq!(planned, done, "the plan is what the sync does");
    assert!(plan(&dry_run(&app).await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_changes_many_rows_is_held_with_the_checksum_of_its_plan() {
    let (app, ids) = application(20).await;
    for (number, id) in ids.iter().enumerate() {
        insert(&app, Some(id), &format!("user{number}@example.com"), "Old").await;
    }
    insert(&app, Some("user_of_another_instance"), "gone@example.com", "Gone").await;
    let planned = dry_run(&app).await;
    let mut expected: Vec<_> = ids.iter().map(|id| format!("~ {id} name")).collect();
    expected.push("- user_of_another_instance (held) Clerk does not know it".to_owned());
    assert_plan(&planned, &expected);
    let held = format!("The mapping of {TABLE} is held: it changes 20 rows, more than max_change_percent allows.");
    assert!(planned.stdout.contains(&held), "{planned:#?}");
    let totals = format!("{TABLE}: 0 to insert, 20 to update, 0 to link, 1 to remove.");
    assert!(planned.stdout.contains(&totals), "{planned:#?}");

    let ran = app.run(&["--once"]).await;
    ran.assert_exit(Exit::Held);
    assert!(
        ran.stdout.starts_with("Rows of tables are held, otherwise in sync"),
        "{ran:#?}"
    );
    assert!(ran.stdout.contains(&held), "{ran:#?}");
    assert_eq!(checksum(&ran), checksum(&planned));
    let unchanged = r#"SELECT count(*) FROM "User" WHERE name = 'Old'"#;
    assert_eq!(app.fixture.db.number(unchanged).await, 20);

    app.run(&["approve", checksum(&ran)]).await.assert_exit(Exit::Ok);
    let approved = dry_run(&app).await;
    assert!(!approved.stdout.contains("The mapping of"), "{approved:#?}");
    let ran = app.run(&["--once"]).await;
    ran.assert_exit(Exit::Held);
    let counts = format!("  {TABLE}: 0 inserted, 20 updated, 0 linked, 0 removed");
    assert!(ran.stdout.contains(&counts), "{ran:#?}");
    assert_eq!(checksum(&ran), checksum(&approved), "now the row that is to go is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_kept_in_sync_makes_the_outcome_incomplete() {
    let (app, _) = application(3).await;
    app.set_mapping(&MAPPING.replace("age =", "years ="));
    let why = format!("{TABLE} is not kept in sync: there is no column \"years\", which [tables.set] names");
    for arguments in [&["--dry-run", "--format", "json"], &["--once", "--format", "json"]] {
        let ran = app.run(arguments).await;
        ran.assert_exit(Exit::Failed);
        assert_eq!(
            (&ran.json()["outcome"], &ran.json()["error"]),
            (&json!("incomplete"), &json!(why))
        );
    }
    assert_eq!(app.fixture.users().await, 3, "the mirror is in sync");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_two_pages_with_the_address_of_one_row_are_not_linked() {
    let (app, ids) = application(600).await;
    for id in [&ids[0], &ids[599]] {
        set_address(&app.fixture, id, "both@example.com");
    }
    insert(&app, None, "both@example.com", "Free").await;
    let planned = dry_run(&app).await;
    for id in [&ids[0], &ids[599]] {
        let line =
            format!("! {id} 1 row without a key has the address, and 2 users: set the key of the right row by hand");
        assert!(plan(&planned).contains(&line.as_str()), "{:#?}", planned.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_planned_with_the_values_that_they_will_have() {
    let schema = "CREATE TABLE people (id text PRIMARY KEY, row jsonb NOT NULL)";
    // Without moments of the database, a digest with a key of its own, and the seconds that go on
    // counting down between two requests.
    let mapping = r#"
        [[tables]]
        name = "people"
        key = "id"
        [tables.set]
        row = "to_jsonb(u) - '{first_seen_at,changed_at,digest,lockout_expires_in_seconds}'::text[]"
    "#;
    let app = AppTable::with(Fixture::new(700).await, schema, mapping).await;
    for (at, id) in app.fixture.sim.user_ids().iter().enumerate().take(40) {
        app.fixture.sim.update(id, |user| match at % 4 {
            0 => user["banned"] = json!("a string"),
            1 => user["brand_new"] = json!({"a": [1.50, "\u{1F600}", "\"'\\"]}),
            2 => user["last_sign_in_at"] = json!(253_402_300_800_000_i64),
            _ => drop(user.as_object_mut().unwrap().remove("locked")),
        });
    }
    app.once().await.assert_exit(Exit::Ok);
    let unchanged = "public.people: no changes.";
    app.fixture
        .db
        .execute("UPDATE clerk.users SET first_name = 'Other', extra = NULL, digest = '\\x00'")
        .await;
    let over_the_mirror = app.run(&["--dry-run"]).await;
    assert!(
        over_the_mirror.stdout.contains("clerk.users: 0 to create, "),
        "{over_the_mirror:#?}"
    );
    assert!(over_the_mirror.stdout.contains(unchanged), "{over_the_mirror:#?}");
    app.fixture.db.execute("DROP SCHEMA clerk CASCADE").await;
    let without = app.run(&["--dry-run"]).await;
    assert!(without.stdout.contains("clerk.users: 700 to create, "), "{without:#?}");
    assert!(without.stdout.contains(unchanged), "{without:#?}");
}
