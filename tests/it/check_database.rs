//! `clerk2pg check`: the database, its privileges and its schema.

use clerk_sim::Unstorable;
use rustix::process::Signal;

use crate::support::{
    check::{CheckReport, check_with},
    connecting::url,
    fixture::{Fixture, mirrored},
    postgres::Postgres,
    program::{ProgramOutput, command},
    proxy::{Proxy, upstream},
    roles::Role,
    summary::{Exit, changed, held, in_sync},
};

const BY_HAND: (&str, &str) = ("CLERK2PG_DATABASE__MIGRATE", "false");

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_is_reported() {
    let fixture = mirrored(3).await;
    let check = async |url: &str, says: &str| {
        let checked = check_with(&fixture, &[("DATABASE_URL", url)]).await;
        checked
            .assert_failed(&["database"])
            .assert_check("database", "failed", says)
            .assert_check("clerk", "ok", "accepts the key")
            .assert_check("instance", "ok", "it is unknown whether this database mirrors it")
            .assert_check("clock", "ok", "Clerk's clock agrees");
        for name in ["tls", "permissions", "schema", "notifications", "lease"] {
            checked.assert_check(name, "skipped", "there is no connection to the database");
        }
    };
    let server = upstream(&fixture.db.url);
    let mut proxy = Proxy::refusing(server);
    let away = proxy.url(&fixture.db.url);
    check(&away, "Postgres cannot be reached").await;
    proxy.go_silent();
    check(&format!("{away}?connect_timeout=60"), "no answer within 12 s").await;
    let nowhere = format!("postgres://postgres:hidden@{server}/clerk2pg_no_such_database");
    check(&nowhere, "refused the connection").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_schema_is_reported() {
    let fixture = Fixture::new(3).await;
    let nothing = check_with(&fixture, &[BY_HAND]).await;
    nothing
        .assert_failed(&["schema"])
        .assert_check("permissions", "skipped", "")
        .assert_check("schema", "failed", "is missing")
        .assert_hint("schema", "clerk2pg migrate");
    fixture.db.execute("CREATE SCHEMA clerk").await;
    check_with(&fixture, &[])
        .await
        .assert_failed(&[])
        .assert_check("schema", "ok", "not there yet");

    fixture.db.execute("CREATE TABLE clerk.orders (id text)").await;
    check_with(&fixture, &[])
        .await
        .assert_failed(&["schema"])
        .assert_check("schema", "failed", "that is not clerk2pg's")
        .assert_check("permissions", "skipped", "")
        .assert_check("lease", "skipped", "");
    fixture.db.execute("DROP TABLE clerk.orders").await;

    fixture.once().await.assert_exit(Exit::Ok);
    // The state that an older version leaves.
    let older = "DELETE FROM clerk.__diesel_schema_migrations WHERE version = (SELECT max(version) FROM clerk.__diesel_schema_migrations)";
    fixture.db.execute(&format!("BEGIN; {older}; COMMIT")).await;
    let pending = check_with(&fixture, &[]).await;
    pending
        .assert_failed(&[])
        .assert_check("schema", "ok", "the next start applies the pending migrations")
        .assert_check("permissions", "ok", "may apply the pending migrations")
        .assert_check("instance", "ok", "this database mirrors it")
        .assert_check("lease", "skipped", "migrations are pending");
    check_with(&fixture, &[BY_HAND])
        .await
        .assert_failed(&["schema"])
        .assert_check("schema", "failed", "older than this clerk2pg")
        .assert_hint("schema", "clerk2pg migrate");
    fixture
        .db
        .execute("INSERT INTO clerk.__diesel_schema_migrations VALUES ('99991231000000')")
        .await;
    check_with(&fixture, &[]).await.assert_failed(&["schema"]).assert_check(
        "schema",
        "failed",
        "newer than this clerk2pg: it has the migration 99991231000000",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_privileges_are_listed_with_the_grant_that_adds_them() {
    let fixture = Fixture::new(10).await;
    let role = Role::new(&fixture).await;
    let name = &role.name;
    let check = async || check_with(&fixture, &[("DATABASE_URL", &role.url)]).await;
    let run = async |arguments: &[&str]| fixture.run_with(arguments, &[("DATABASE_URL", &role.url)]).await;

    let checked = check().await;
    checked
        .assert_failed(&["permissions"])
        .assert_check(
            "permissions",
            "failed",
            &format!("{name} may not create the schema clerk in "),
        )
        .assert_hint("permissions", &format!("CREATE SCHEMA clerk AUTHORIZATION {name}"));
    fixture.db.execute("CREATE SCHEMA clerk").await;
    check().await.assert_failed(&["permissions"]).assert_check(
        "permissions",
        "failed",
        &format!("{name} may not create in the schema clerk, which is "),
    );

    fixture.once().await.assert_exit(Exit::Ok);
    let lacking = check().await;
    lacking
        .assert_failed(&["permissions"])
        .assert_check("permissions", "failed", &format!("{name} lacks USAGE on SCHEMA clerk"))
        .assert_check("schema", "skipped", "the role may not read which version it is")
        .assert_check("instance", "ok", "it is unknown whether this database mirrors it")
        .assert_check("lease", "skipped", "");
    // The hint's grant is enough for a sync.
    grant(&fixture, &lacking).await;
    check()
        .await
        .assert_failed(&[])
        .assert_check("permissions", "ok", "has all rights that a sync needs; ")
        .assert_check("schema", "ok", "up to date")
        .assert_check("instance", "ok", "this database mirrors it")
        .assert_check("lease", "ok", "free");
    let ids = fixture.sim.user_ids();
    fixture.sim.delete(&ids[4]);
    fixture
        .sim
        .update(&ids[5], |user| user["first_name"] = "Changed".into());
    fixture.sim.create_random();
    run(&["--once", "--format", "json"])
        .await
        .assert(Exit::Ok, changed().created(1).updated(1).deleted(1).unchanged(8));
    fixture.assert_in_sync().await;

    let bad = fixture.sim.insert_unstorable(Unstorable::ManyKeys);
    run(&["--once", "--format", "json"])
        .await
        .assert(Exit::Ok, in_sync().unchanged(10).rejected(1));
    for id in [&bad, &ids[0], &ids[1], &ids[2], &ids[3], &ids[6], &ids[7]] {
        fixture.sim.delete(id);
    }
    let strict = [
        ("DATABASE_URL", role.url.as_str()),
        ("CLERK2PG_DELETES__MIN_COUNT", "1"),
        ("CLERK2PG_DELETES__MAX_COUNT", "1"),
    ];
    let ran = fixture.once_with(&strict).await;
    ran.assert(Exit::Held, held(6).unchanged(4));
    let sum = ran.json()["plan"].as_str().unwrap().to_owned();
    run(&["approve", &sum]).await.assert_exit(Exit::Ok);
    fixture
        .once_with(&strict)
        .await
        .assert(Exit::Ok, changed().deleted(6).unchanged(4));
    fixture.assert_in_sync().await;

    let daemon = fixture.start_daemon(&[("DATABASE_URL", &role.url)]);
    fixture.sim.create_random();
    fixture.wait_for_next_sync().await;
    assert_eq!(daemon.count_in_log("WARN"), 0, "{}", daemon.log());
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);

    // Exactly what is revoked is listed.
    fixture
        .db
        .execute(&format!(
            "REVOKE DELETE ON clerk.users FROM {name}; REVOKE UPDATE, DELETE ON clerk.missing FROM {name};
             REVOKE EXECUTE ON FUNCTION clerk.user_document FROM PUBLIC, {name}"
        ))
        .await;
    let partial = check().await;
    partial.assert_failed(&["permissions"]).assert_check(
        "permissions",
        "failed",
        &format!("{name} lacks DELETE on clerk.users; UPDATE, DELETE on clerk.missing; EXECUTE on FUNCTION clerk.user_document(clerk.users)"),
    );
    grant(&fixture, &partial).await;
    check().await.assert_failed(&[]);

    fixture
        .db
        .execute("ALTER TABLE clerk.users ENABLE ROW LEVEL SECURITY")
        .await;
    let hidden = check().await;
    hidden.assert_failed(&["permissions"]).assert_check(
        "permissions",
        "failed",
        &format!("{name} lacks a row-level security policy that shows it the rows of clerk.users"),
    );
    grant(&fixture, &hidden).await;
    check()
        .await
        .assert_failed(&[])
        .assert_check("permissions", "warn", "decides which rows of clerk.users");
    fixture.sim.create_random();
    let ran = run(&["--once", "--format", "json"]).await;
    ran.assert(Exit::Ok, changed().created(1).unchanged(5));
    fixture.assert_in_sync().await;

    // Tables of later versions are checked as well.
    fixture.db.execute("CREATE TABLE clerk.brand_new ()").await;
    check().await.assert_failed(&["permissions"]).assert_check(
        "permissions",
        "failed",
        &format!("{name} lacks SELECT, INSERT, UPDATE, DELETE on clerk.brand_new"),
    );
    let older = "DELETE FROM clerk.__diesel_schema_migrations WHERE version = (SELECT max(version) FROM clerk.__diesel_schema_migrations)";
    fixture.db.execute(older).await;
    check()
        .await
        .assert_failed(&["permissions"])
        .assert_check(
            "permissions",
            "failed",
            "may not apply the pending migrations: clerk.__diesel_schema_migrations is ",
        )
        .assert_hint("permissions", "run `clerk2pg migrate` as ");
    role.end(&fixture).await;
}

/// Runs the SQL of the hint.
async fn grant(fixture: &Fixture, checked: &CheckReport) {
    let hint = checked.find("permissions")["hint"].as_str().unwrap();
    let (_, sql) = hint.split_once(": ").unwrap();
    fixture.db.execute(sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_a_read_only_server_are_reported() {
    let fixture = mirrored(3).await;
    let server = Postgres::start().await;
    let check = async |url: &str| check_with(&fixture, &[("DATABASE_URL", url), ("PGSSLMODE", "")]).await;
    let wrong = format!(
        "postgres://plain:hidden_too@127.0.0.1:{}/postgres?sslmode=disable",
        server.port
    );
    check(&wrong)
        .await
        .assert_failed(&["database"])
        .assert_check(
            "database",
            "failed",
            "password authentication failed for user \"plain\"",
        )
        .assert_hint("database", "check user, password");

    let client = crate::support::database::connect(&server.admin()).await;
    client
        .batch_execute("ALTER ROLE plain SET default_transaction_read_only = on")
        .await
        .unwrap();
    let right = format!(
        "postgres://plain:hidden@127.0.0.1:{}/postgres?sslmode=disable",
        server.port
    );
    // All other checks still run.
    check(&right)
        .await
        .assert_failed(&["database"])
        .assert_check("database", "failed", "as plain: transactions are read-only")
        .assert_hint("database", "ALTER ROLE plain SET default_transaction_read_only = off")
        .assert_check("permissions", "ok", "may create the schema")
        .assert_check("schema", "ok", "not there yet")
        .assert_check("notifications", "ok", "NOTIFY clerk2pg arrives");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protection_of_the_connection_is_reported() {
    let (fixture, server) = (Fixture::new(3).await, Postgres::start().await);
    let roots = format!("sslrootcert={}", server.file("ca.pem", &server.authority.certificate));
    let check = async |role: &str, parameters: &str| {
        let url = url(&server, role, parameters);
        check_with(&fixture, &[("DATABASE_URL", &url), ("PGSSLMODE", "")]).await
    };
    let tls = async |role: &str, parameters: &str, status: &str, says: &str| {
        check(role, parameters)
            .await
            .assert_failed(&[])
            .assert_check("tls", status, says);
    };
    let verified = format!("sslmode=verify-full&{roots}");
    tls(
        "encrypted",
        &verified,
        "ok",
        "TLSv1.3; the server's certificate is checked, and the name in it (sslmode=verify-full)",
    )
    .await;
    let signed = format!("sslmode=verify-ca&{roots}");
    tls(
        "encrypted",
        &signed,
        "ok",
        "TLSv1.3; the server's certificate is checked, but not the name in it",
    )
    .await;
    tls(
        "encrypted",
        "sslmode=require",
        "ok",
        "TLSv1.3; the server's certificate is not checked (sslmode=require)",
    )
    .await;
    tls("encrypted", "", "ok", "not checked (sslmode=prefer)").await;
    tls("plain", "", "ok", "not encrypted, and nothing leaves this machine").await;
    // This address leads to this machine, but does not show it.
    tls(
        "plain",
        "hostaddr=0.0.0.0",
        "warn",
        "not encrypted (sslmode=prefer): anybody on the network path",
    )
    .await;
    check("plain", "sslmode=require")
        .await
        .assert_failed(&["database"])
        .assert_check("tls", "skipped", "");
    check("encrypted", "sslmode=disable")
        .await
        .assert_failed(&["database"])
        .assert_check("database", "failed", "no encryption")
        .assert_hint("database", "sslmode=verify-full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_drops_notifications_is_reported() {
    let fixture = mirrored(3).await;
    let pooler = Proxy::without_notifications(upstream(&fixture.db.url));
    check_with(&fixture, &[("DATABASE_URL", &pooler.url(&fixture.db.url))])
        .await
        .assert_failed(&[])
        .assert_check("notifications", "warn", "NOTIFY clerk2pg does not arrive")
        .assert_hint("notifications", "only NOTIFY needs this")
        .assert_check("lease", "ok", "free");
}

/// Reads the server's log of statements.
#[tokio::test(flavor = "multi_thread")]
async fn check_runs_no_statement_that_writes() {
    let (fixture, server) = (Fixture::new(3).await, Postgres::start().await);
    server.set("log_line_prefix = '%a says '").await;
    server.set("log_statement = 'all'").await;
    let url = url(&server, "plain", "sslmode=disable");
    let run = async |arguments: &[&str]| -> ProgramOutput {
        let mut command = command();
        command.args(arguments).envs([
            ("DATABASE_URL", url.as_str()),
            ("CLERK_SECRET_KEY", fixture.sim.secret_key()),
            ("CLERK_API_URL", &fixture.sim.url()),
        ]);
        command.output().await.unwrap().into()
    };
    for prepares in [&[][..], &["--once"]] {
        if !prepares.is_empty() {
            run(prepares).await.assert_exit(Exit::Ok);
        }
        let before = server.log().len();
        run(&["check"]).await.assert_exit(Exit::Ok);
        let log = server.log().split_off(before);
        let statements: Vec<&str> = log
            .lines()
            .filter_map(|line| line.strip_prefix("clerk2pg check says LOG:  "))
            .filter(|line| line.starts_with("statement: ") || line.starts_with("execute "))
            .map(|line| line.split_once(": ").unwrap().1)
            .collect();
        assert!(statements.len() > 5, "{log}");
        for statement in statements {
            let first = statement.split_whitespace().next().unwrap();
            assert!(
                ["SELECT", "BEGIN", "COMMIT", "SET", "LISTEN"].contains(&first),
                "{statement}"
            );
        }
        assert!(log.contains("SET TRANSACTION READ ONLY"), "{log}");
    }
}
