//! Databases that contain something already: a foreign schema, a newer one, or a role with few
//! rights.

use crate::support::{
    fixture::{Fixture, mirrored},
    program::ProgramOutput,
    roles::Role,
    summary::{Exit, changed, planned},
};

const COMMANDS: [&[&str]; 5] = [
    &["--once"],
    &["--dry-run"],
    &["status"],
    &["migrate"],
    &["approve", "0123456789ab"],
];

#[track_caller]
fn assert_refused(ran: &ProgramOutput, what: &str, hint: &str) {
    assert_eq!(ran.stdout, "", "{ran:#?}");
    ran.assert_error(Exit::Failed, what, hint);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_schema_is_refused() {
    let diesels = "CREATE TABLE clerk.__diesel_schema_migrations (version text PRIMARY KEY, run_on timestamp NOT NULL DEFAULT now());
        INSERT INTO clerk.__diesel_schema_migrations VALUES ('20200101000000')";
    for theirs in [
        "CREATE TABLE clerk.users (id text)",
        "CREATE VIEW clerk.sales AS SELECT 1 AS id",
        diesels,
    ] {
        let fixture = Fixture::new(3).await;
        fixture.db.execute(&format!("CREATE SCHEMA clerk; {theirs}")).await;
        let before = fixture.db.snapshot().await;
        for arguments in COMMANDS {
            let ran = fixture.run(arguments).await;
            assert_refused(
                &ran,
                "a schema \"clerk\" that is not clerk2pg's",
                "use another database",
            );
        }
        assert_eq!(fixture.db.snapshot().await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused() {
    let fixture = mirrored(3).await;
    fixture
        .db
        .execute("INSERT INTO clerk.__diesel_schema_migrations VALUES ('99991231000000')")
        .await;
    let before = fixture.db.snapshot().await;
    for arguments in COMMANDS {
        let ran = fixture.run(arguments).await;
        assert_refused(
            &ran,
            "newer than this clerk2pg: it has the migration 99991231000000",
            "run the newer clerk2pg",
        );
    }
    assert_eq!(fixture.db.snapshot().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_may_be_left_to_a_person() {
    let manual = [("CLERK2PG_DATABASE__MIGRATE", "false")];
    let fixture = Fixture::new(3).await;
    let ran = fixture.run_with(&["--once"], &manual).await;
    assert_refused(&ran, "the schema \"clerk\" is missing", "clerk2pg migrate");
    assert_eq!(
        fixture
            .db
            .number("SELECT count(*) FROM pg_namespace WHERE nspname = 'clerk'")
            .await,
        0
    );
    let applied = fixture.run_with(&["migrate"], &manual).await;
    applied.assert_exit(Exit::Ok);
    assert!(applied.stdout.starts_with("applied "), "{applied:#?}");
    fixture.once_with(&manual).await.assert(Exit::Ok, changed().created(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_changes_nothing() {
    let fixture = Fixture::new(3).await;
    let first = fixture.run(&["migrate", "--format", "json"]).await;
    first.assert_exit(Exit::Ok);
    let applied = first.json()["applied"].as_array().unwrap().len();
    let sql = "SELECT count(*) FROM clerk.__diesel_schema_migrations";
    assert_eq!(fixture.db.number(sql).await as usize, applied);
    let before = fixture.db.snapshot().await;
    let second = fixture.run(&["migrate"]).await;
    assert_eq!(
        (second.code, second.stdout.as_str()),
        (Some(0), "The schema \"clerk\" is up to date.\n"),
        "{second:#?}"
    );
    assert_eq!(
        fixture.run(&["migrate", "--format", "json"]).await.json()["applied"],
        serde_json::json!([])
    );
    assert_eq!(fixture.db.snapshot().await, before);
    let status = fixture.run(&["status"]).await;
    assert!(
        status.code == Some(0) && status.stdout.contains("No Clerk instance yet"),
        "{status:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_programs_may_migrate_at_once() {
    let fixture = Fixture::new(3).await;
    let migrate = || fixture.run(&["migrate", "--format", "json"]);
    let (a, b, c) = tokio::join!(migrate(), migrate(), migrate());
    for ran in [&a, &b, &c] {
        ran.assert_exit(Exit::Ok);
    }
    let applied: usize = [a, b, c]
        .iter()
        .map(|ran| ran.json()["applied"].as_array().unwrap().len())
        .sum();
    let sql = "SELECT count(*) FROM clerk.__diesel_schema_migrations";
    assert_eq!(fixture.db.number(sql).await as usize, applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_create_is_refused_with_a_hint() {
    let fixture = Fixture::new(3).await;
    let role = Role::new(&fixture).await;
    for arguments in [&["--once"][..], &["migrate"]] {
        let ran = role.run(&fixture, arguments).await;
        assert_refused(
            &ran,
            "the database role lacks a privilege: permission denied",
            "CREATE SCHEMA clerk AUTHORIZATION",
        );
    }
    // The hint's statement is enough.
    fixture
        .db
        .execute(&format!("CREATE SCHEMA clerk AUTHORIZATION {}", role.name))
        .await;
    let ran = role.run(&fixture, &["--once", "--format", "json"]).await;
    ran.assert(Exit::Ok, changed().created(3));
    fixture.assert_in_sync().await;
    role.end(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_read_is_refused_with_a_hint() {
    let fixture = mirrored(10).await;
    let role = Role::new(&fixture).await;
    let name = &role.name;
    fixture
        .db
        .execute(&format!(
            "GRANT USAGE ON SCHEMA clerk TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA clerk TO {name}"
        ))
        .await;
    fixture.sim.delete(&fixture.sim.user_ids()[4]);
    fixture.sim.create_random();
    let before = fixture.db.snapshot().await;
    let ran = role.run(&fixture, &["--dry-run", "--format", "json"]).await;
    ran.assert(Exit::Ok, planned().created(1).deleted(1).unchanged(9));
    role.run(&fixture, &["status"]).await.assert_exit(Exit::Ok);
    let ran = role.run(&fixture, &["--once"]).await;
    assert_refused(
        &ran,
        "the database role lacks a privilege: permission denied",
        "let the role own the schema",
    );
    assert_eq!(fixture.db.snapshot().await, before);
    role.end(&fixture).await;
}
