//! Migrations: each one up and down over loaded data, beside other schemas, and by roles with few
//! rights.

use std::collections::BTreeSet;

use clerk2pg::mirror::MIGRATIONS;
use diesel::{
    migration::{Migration, MigrationSource},
    pg::Pg,
};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::MigrationHarness;
use tokio_postgres::error::SqlState;

use crate::support::{
    database::{Database, connect},
    fixture::Fixture,
    program::ProgramOutput,
    summary::{Exit, changed, in_sync},
    wait::eventually,
};

fn migrations() -> Vec<Box<dyn Migration<Pg>>> {
    let mut migrations = MIGRATIONS.migrations().unwrap();
    migrations.sort_by_key(|migration| migration.name().version().as_owned());
    migrations
}

/// Returns diesel's own migration harness, with its bookkeeping where clerk2pg has it.
async fn harness(db: &Database) -> AsyncMigrationHarness<AsyncPgConnection> {
    let mut connection = AsyncPgConnection::establish(&db.url).await.unwrap();
    connection
        .batch_execute("CREATE SCHEMA IF NOT EXISTS clerk; SET search_path = clerk, pg_catalog")
        .await
        .unwrap();
    AsyncMigrationHarness::new(connection)
}

/// Returns everything in the schema by kind and name, without diesel's bookkeeping.
async fn objects(db: &Database) -> BTreeSet<String> {
    let sql = "SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'clerk'::regnamespace
        UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'clerk'::regnamespace
        UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'clerk'::regnamespace
        UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
            WHERE relnamespace = 'clerk'::regnamespace AND NOT tgisinternal";
    let rows = db.client.query(sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| row.get::<_, String>(0))
        .filter(|name| !name.contains("__diesel_schema_migrations"))
        .collect()
}

/// Returns objects of clerk2pg outside of its schema.
async fn elsewhere(db: &Database) -> Option<String> {
    db.text("SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        .await
}

async fn migrate(fixture: &Fixture) -> ProgramOutput {
    fixture.run(&["migrate"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_migration_goes_up_and_down_over_loaded_data() {
    let fixture = Fixture::new(50).await;
    // After each step down, the pending migrations restore the complete schema.
    for steps in 1..=migrations().len() {
        fixture.once().await;
        fixture.assert_in_sync().await;
        let whole = objects(&fixture.db).await;
        let mut harness = harness(&fixture.db).await;
        for migration in migrations().iter().rev().take(steps) {
            harness.revert_migration(migration).unwrap();
        }
        drop(harness);
        if steps == migrations().len() {
            assert_eq!(objects(&fixture.db).await, BTreeSet::new(), "left behind");
        }
        let ran = migrate(&fixture).await;
        ran.assert_exit(Exit::Ok);
        assert_eq!(ran.stdout.matches("applied ").count(), steps, "{ran:#?}");
        assert_eq!(objects(&fixture.db).await, whole);
    }
    fixture.once().await.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
    assert_eq!(elsewhere(&fixture.db).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_one_by_one_give_the_expected_schema() {
    let fixture = Fixture::new(20).await;
    let mut harness = harness(&fixture.db).await;
    for migration in migrations() {
        let applied = harness.run_next_migration(MIGRATIONS).unwrap();
        assert_eq!(applied, migration.name().version());
    }
    drop(harness);
    let ran = fixture.once_with(&[("CLERK2PG_DATABASE__MIGRATE", "false")]).await;
    ran.assert(Exit::Ok, changed().created(20));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_down_migration_removes_rows_of_the_application() {
    let fixture = Fixture::new(20).await;
    fixture.once().await.assert_exit(Exit::Ok);
    fixture
        .db
        .execute(
            "CREATE TABLE orders (id int PRIMARY KEY, user_id text REFERENCES clerk.users ON DELETE CASCADE);
             INSERT INTO orders SELECT row_number() OVER (), id FROM clerk.users",
        )
        .await;
    let before = objects(&fixture.db).await;
    let mut harness = harness(&fixture.db).await;
    let reverted: Result<Vec<_>, _> = migrations()
        .iter()
        .rev()
        .map(|migration| harness.revert_migration(migration))
        .collect();
    let error = reverted.unwrap_err().to_string();
    assert!(
        error.contains("cannot drop table users because other objects depend on it"),
        "{error}"
    );
    drop(harness);
    assert_eq!(fixture.db.number("SELECT count(*) FROM orders").await, 20);
    let ran = fixture.once().await;
    assert_eq!(
        (ran.code, ran.json()["unchanged"].as_i64()),
        (Some(0), Some(20)),
        "{ran:#?}"
    );
    // Nothing of the earlier schemas is left.
    assert_eq!(objects(&fixture.db).await, before);
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_may_migrate_at_once() {
    let fixture = Fixture::new(10).await;
    let (one, other, run) = tokio::join!(migrate(&fixture), migrate(&fixture), fixture.once());
    let applied = |ran: &ProgramOutput| ran.stdout.matches("applied ").count();
    for ran in [&one, &other] {
        ran.assert_exit(Exit::Ok);
        assert!(ran.stdout.contains("The schema \"clerk\" is up to date"), "{ran:#?}");
    }
    assert!(applied(&one) + applied(&other) <= migrations().len());
    run.assert(Exit::Ok, changed().created(10));
    let again = migrate(&fixture).await;
    assert_eq!((again.code, applied(&again)), (Some(0), 0), "{again:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_automatic_migration_where_it_is_turned_off() {
    const OFF: (&str, &str) = ("CLERK2PG_DATABASE__MIGRATE", "false");
    let fixture = Fixture::new(10).await;
    let ran = fixture.once_with(&[OFF]).await;
    ran.assert_exit(Exit::Failed);
    assert!(
        ran.stderr.contains("error: the schema \"clerk\" is missing"),
        "{ran:#?}"
    );
    assert!(ran.stderr.contains("hint: run `clerk2pg migrate`"), "{ran:#?}");
    assert_eq!(
        fixture
            .db
            .number("SELECT count(*) FROM pg_namespace WHERE nspname = 'clerk'")
            .await,
        0
    );

    migrate(&fixture).await.assert_exit(Exit::Ok);
    fixture.once_with(&[OFF]).await.assert(Exit::Ok, changed().created(10));

    // An older schema is not mistaken for a missing one.
    let mut harness = harness(&fixture.db).await;
    harness.revert_migration(migrations().last().unwrap()).unwrap();
    drop(harness);
    let ran = fixture.once_with(&[OFF]).await;
    ran.assert_exit(Exit::Failed);
    assert!(ran.stderr.contains("is older than this clerk2pg"), "{ran:#?}");
}

/// The version of the migration that adds `primary_phone_verified`. A later one fills it in for
/// existing rows.
pub const PRIMARY_PHONE_VERIFIED: &str = "20261127000003";

/// Reverts the migration with this version and all later ones.
pub async fn revert_from(db: &Database, version: &str) {
    let mut harness = harness(db).await;
    for migration in migrations().iter().rev() {
        if migration.name().version().to_string().as_str() >= version {
            harness.revert_migration(migration).unwrap();
        }
    }
}

/// Returns the derived columns of each user, ordered by id.
async fn derived(db: &Database) -> String {
    let sql = "SELECT string_agg(concat_ws(' ', id, primary_email, primary_email_verified, primary_phone, primary_phone_verified),
        E'\\n' ORDER BY id) FROM clerk.users";
    db.text(sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_rows_get_derived_columns() {
    let fixture = Fixture::new(60).await;
    let shapes = [
        r#"{"id":"p","email_address":"a@x","phone_number":"+1"}"#,
        r#"{"id":"p","email_address":"a@x","phone_number":null,"verification":{"status":"verified"}}"#,
        r#"{"id":"p","email_address":null,"phone_number":"+1","verification":{"status":"verified"}}"#,
        r#"{"id":"p","email_address":"a@x","phone_number":"+1","verification":"verified"}"#,
        r#"{"id":"p","email_address":"a@x","phone_number":"+1","verification":["verified"]}"#,
        r#"{"id":"p","email_address":"a@x","phone_number":"+1","verification":{"status":42}}"#,
        r#"{"id":"p","email_address":7,"phone_number":["+1"]}"#,
        r#"{"id":"q","email_address":"a@x","phone_number":"+1"}"#,
        r#"7,null,["p"],{"id":["p"]},{"id":"p"},{"id":"p","email_address":"a@x","phone_number":"+1"},{"id":"p","email_address":"b@x"}"#,
        "",
    ];
    for (n, entries) in shapes.iter().enumerate() {
        for (suffix, list) in [
            ("", format!("[{entries}]")),
            ("_odd", r#""none""#.to_owned()),
            ("_object", r#"{"p":1}"#.to_owned()),
        ] {
            let id = format!("user_{n}{suffix}");
            let document = format!(
                r#"{{"id":"{id}","created_at":1790000000000,"primary_email_address_id":"p","primary_phone_number_id":"p",
                "email_addresses":{list},"phone_numbers":{list},"external_id":42}}"#
            );
            fixture
                .sim
                .insert_raw(&id, 1_790_000_000_000, 1_790_000_000_000, document.into_bytes());
        }
    }
    fixture.once().await.assert_exit(Exit::Ok);
    let expected = derived(&fixture.db).await;
    assert!(
        expected.contains("user_2 +1 t\n") && expected.contains("user_8 a@x f +1 f\n"),
        "{expected}"
    );
    let others =
        "SELECT md5(string_agg((to_jsonb(u) - 'primary_phone_verified')::text, '' ORDER BY id)) FROM clerk.users u";
    let before = fixture.db.text(others).await;

    revert_from(&fixture.db, PRIMARY_PHONE_VERIFIED).await;
    // The state that earlier versions leave.
    fixture
        .db
        .execute(
            "UPDATE clerk.users SET primary_email = NULL, primary_email_verified = NULL, primary_phone = primary_email",
        )
        .await;
    let ran = migrate(&fixture).await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(derived(&fixture.db).await, expected);
    assert_eq!(fixture.db.text(others).await, before);
    // The next sync has nothing to do.
    let versions = fixture.db.versions().await;
    assert_eq!(fixture.once().await.json()["outcome"], "in_sync");
    assert_eq!(fixture.db.versions().await, versions);
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_does_not_stop_the_derivation_of_others() {
    let fixture = Fixture::new(0).await;
    for n in 0..3 {
        let document = format!(
            r#"{{"id":"user_{n}","created_at":1790000000000,"primary_phone_number_id":"p",
            "phone_numbers":[{{"id":"p","phone_number":"+{n}"}}]}}"#
        );
        fixture.sim.insert_raw(
            &format!("user_{n}"),
            1_790_000_000_000,
            1_790_000_000_000,
            document.into_bytes(),
        );
    }
    fixture.once().await.assert(Exit::Ok, changed().created(3));
    revert_from(&fixture.db, PRIMARY_PHONE_VERIFIED).await;
    fixture
        .db
        .execute(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.id = 'user_1' THEN RAISE 'not this one'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON clerk.users FOR EACH ROW EXECUTE FUNCTION public.refuse()",
        )
        .await;
    let ran = migrate(&fixture).await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(derived(&fixture.db).await, "user_0 +0 f\nuser_1 +1\nuser_2 +2 f");
}

/// The version of the migration that gives bookkeeping a resource.
const RESOURCES: &str = "20261128000002";

#[tokio::test(flavor = "multi_thread")]
async fn missing_users_keep_their_state_and_readers_their_rights() {
    let fixture = Fixture::new(5).await;
    fixture.once().await.assert_exit(Exit::Ok);
    let (reader, _) = role(&fixture.db).await;
    revert_from(&fixture.db, RESOURCES).await;
    fixture
        .db
        .execute(&format!(
            "INSERT INTO clerk.missing_users (user_id, walk, absent, held_at, approved_at)
             SELECT id, 1, n >= 2, CASE WHEN n >= 3 THEN now() - interval '1 minute' END, CASE WHEN n >= 4 THEN now() END
             FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM clerk.users) AS u WHERE n <= 4;
             GRANT SELECT ON clerk.user_events, clerk.missing_users TO {reader};
             GRANT SELECT ON clerk.rejected_users TO PUBLIC"
        ))
        .await;
    let rows = "SELECT string_agg(to_jsonb(m)::text, E'\\n' ORDER BY user_id) FROM clerk.missing_users m";
    let before = fixture.db.text(rows).await;

    migrate(&fixture).await.assert_exit(Exit::Ok);
    assert_eq!(fixture.db.text(rows).await, before, "the view has what the table had");
    let states = "SELECT string_agg(concat_ws(' ', resource, state, hold), ', ' ORDER BY object_id) FROM clerk.missing";
    let expected = "users missing none, users absent none, users absent held, users absent approved";
    assert_eq!(fixture.db.text(states).await.as_deref(), Some(expected));
    let rights = format!(
        "SELECT concat_ws(' ', has_table_privilege('{reader}', 'clerk.user_events', 'SELECT'),
             has_table_privilege('{reader}', 'clerk.missing_users', 'SELECT'),
             has_table_privilege('{reader}', 'clerk.rejected_users', 'SELECT'),
             has_table_privilege('{reader}', 'clerk.sync_state', 'SELECT'))"
    );
    assert_eq!(fixture.db.text(&rights).await.as_deref(), Some("t t t f"));
    revert_from(&fixture.db, RESOURCES).await;
    assert_eq!(fixture.db.text(rows).await, before);
    migrate(&fixture).await.assert_exit(Exit::Ok);
    drop_role(&fixture.db, &reader).await;
    fixture.once().await.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
}

/// The version of the migration that adds the bookkeeping of projections.
const PROJECTIONS: &str = "20261128000003";

/// Rows of each table of that migration.
const PROJECTED: &str = r#"
    INSERT INTO clerk.projections (table_name, resource) VALUES ('public."User"', 'users');
    INSERT INTO clerk.departures (table_name, object_id, reason) VALUES ('public."User"', 'user_1', 'unknown'), ('public."User"', 'user_2', 'excluded');
    INSERT INTO clerk.rejected_rows (table_name, object_id, action, reason) VALUES ('public."User"', 'user_3', 'write', 'no'), ('public."User"', 'user_4', 'remove', 'no')"#;

#[tokio::test(flavor = "multi_thread")]
async fn projections_go_down_with_their_rows_and_come_up_empty() {
    let fixture = Fixture::new(5).await;
    fixture.once().await.assert_exit(Exit::Ok);
    let whole = objects(&fixture.db).await;
    let rows =
        "SELECT concat_ws(' ', (SELECT count(*) FROM clerk.projections), (SELECT count(*) FROM clerk.departures),
        (SELECT count(*) FROM clerk.rejected_rows))";
    fixture.db.execute(PROJECTED).await;
    assert_eq!(fixture.db.text(rows).await.as_deref(), Some("1 2 2"));
    revert_from(&fixture.db, PROJECTIONS).await;
    migrate(&fixture).await.assert_exit(Exit::Ok);
    assert_eq!(objects(&fixture.db).await, whole);
    assert_eq!(fixture.db.text(rows).await.as_deref(), Some("0 0 0"));
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(5));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_of_a_projection_and_its_times_agree() {
    let fixture = Fixture::new(0).await;
    migrate(&fixture).await.assert_exit(Exit::Ok);
    fixture.db.execute(PROJECTED).await;
    for table in ["projections", "departures"] {
        for (hold, held_at, approved_at, fits) in [
            ("held", "NULL", "NULL", false),
            ("held", "now()", "now()", false),
            ("held", "now()", "NULL", true),
            ("approved", "now()", "NULL", false),
            ("approved", "NULL", "now()", false),
            ("approved", "now()", "now()", true),
            ("released", "now()", "NULL", false),
            ("none", "now()", "NULL", false),
            ("none", "NULL", "now()", false),
            ("none", "NULL", "NULL", true),
        ] {
            let sql =
                format!("UPDATE clerk.{table} SET hold = '{hold}', held_at = {held_at}, approved_at = {approved_at}");
            let updated = fixture.db.client.batch_execute(&sql).await;
            let code = updated.err().and_then(|error| error.code().cloned());
            assert_eq!(code, (!fits).then_some(SqlState::CHECK_VIOLATION), "{sql}");
        }
    }
    for sql in [
        "UPDATE clerk.departures SET reason = 'other'",
        "UPDATE clerk.rejected_rows SET action = 'other'",
    ] {
        let error = fixture.db.client.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::CHECK_VIOLATION), "{sql}");
    }
}

/// Creates a role that can only log in, and returns its name and its URL.
async fn role(db: &Database) -> (String, String) {
    let name = format!("role_of_{}", db.text("SELECT current_database()").await.unwrap());
    db.execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'its password'"))
        .await;
    db.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let (_, rest) = db.url.split_once('@').unwrap();
    let url = format!("postgres://{name}:its%20password@{rest}");
    (name, url)
}

/// Drops a role, which would outlive the database, and keeps what it created.
async fn drop_role(db: &Database, name: &str) {
    db.execute(&format!(
        "REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_needs_only_an_empty_schema_of_its_own() {
    let fixture = Fixture::new(30).await;
    let (name, url) = role(&fixture.db).await;
    let mine = [("DATABASE_URL", url.as_str())];

    let denied = fixture.once_with(&mine).await;
    fixture
        .db
        .execute(&format!("CREATE SCHEMA clerk AUTHORIZATION {name}"))
        .await;
    let first = fixture.once_with(&mine).await;
    fixture.sim.delete_random();
    let second = fixture.once_with(&mine).await;
    drop_role(&fixture.db, &name).await;

    denied.assert_exit(Exit::Failed);
    let stderr = &denied.stderr;
    assert!(
        stderr.contains("error: the database role lacks a privilege: permission denied"),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: let the role own the schema: CREATE SCHEMA clerk AUTHORIZATION"),
        "{stderr}"
    );
    assert!(
        !stderr.contains("its password") && !stderr.contains("its%20password"),
        "{stderr}"
    );
    first.assert(Exit::Ok, changed().created(30));
    second.assert(Exit::Ok, changed().deleted(1).unchanged(29));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_of_the_application_are_left_alone() {
    let fixture = Fixture::new(10).await;
    let theirs = "20200101000000";
    fixture
        .db
        .execute(&format!(
            "CREATE TABLE public.__diesel_schema_migrations (version varchar(50) PRIMARY KEY, run_on timestamp NOT NULL DEFAULT now());
             INSERT INTO public.__diesel_schema_migrations (version) VALUES ('{theirs}')"
        ))
        .await;
    fixture.once().await.assert(Exit::Ok, changed().created(10));
    let versions = async |schema: &str| {
        let sql = format!("SELECT string_agg(version, ',' ORDER BY version) FROM {schema}.__diesel_schema_migrations");
        fixture.db.text(&sql).await.unwrap()
    };
    assert_eq!(versions("public").await, theirs);
    let ours: Vec<String> = migrations()
        .iter()
        .map(|migration| migration.name().version().to_string())
        .collect();
    assert_eq!(versions("clerk").await, ours.join(","));
    assert_eq!(
        elsewhere(&fixture.db).await.unwrap().matches(',').count(),
        1,
        "the table and its key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_path_of_the_role_does_not_mislead() {
    let fixture = Fixture::new(10).await;
    let database = fixture.db.text("SELECT current_database()").await.unwrap();
    fixture
        .db
        .execute(&format!(
            "CREATE SCHEMA app; CREATE TABLE app.users (id int); ALTER DATABASE {database} SET search_path = app"
        ))
        .await;
    fixture.once().await.assert(Exit::Ok, changed().created(10));
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(10));
    let fresh = connect(&fixture.db.url).await;
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace";
    assert_eq!(fresh.query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 1);
}

/// A reader in a long transaction blocks a migration, which must not block other readers.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_waiting_for_a_reader_blocks_no_other_reader() {
    let fixture = Fixture::new(20).await;
    fixture.once().await;
    let mut harness = harness(&fixture.db).await;
    for migration in migrations().iter().rev() {
        harness.revert_migration(migration).unwrap();
        if migration.name().to_string().contains("_values") && !migration.name().to_string().contains("backfill") {
            break;
        }
    }
    drop(harness);
    let (reader, other) = tokio::join!(connect(&fixture.db.url), connect(&fixture.db.url));
    let read = "SELECT count(*) FROM clerk.users";
    reader.batch_execute(&format!("BEGIN; {read}")).await.unwrap();
    other.batch_execute("SET statement_timeout = '4s'").await.unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'clerk.users'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted";
    let migrating = async {
        let ran = migrate(&fixture).await;
        ran.assert_exit(Exit::Ok);
    };
    let reading = async {
        for _ in 0..3 {
            eventually("the migration waits", async || fixture.db.number(waits).await > 0).await;
            other.batch_execute(read).await.expect("a reader waited too long");
        }
        reader.batch_execute("COMMIT").await.unwrap();
    };
    tokio::join!(migrating, reading);
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(20));
}

/// The version of the migration that adds `clerk.users.display_name`.
const DISPLAY_NAME: &str = "20261130000001";

#[tokio::test(flavor = "multi_thread")]
async fn the_display_names_of_existing_rows_are_those_that_a_sync_stores() {
    let fixture = Fixture::new(40).await;
    let odd = [
        r#""username":" annie ""#,
        r#""username":" ","primary_email_address_id":"e","email_addresses":[{"id":"e","email_address":"\"a@b\"@x.example"}]"#,
        r#""primary_email_address_id":"e","email_addresses":[{"id":"e","email_address":"@x.example"}],
           "primary_phone_number_id":"p","phone_numbers":[{"id":"p","phone_number":"+49"}]"#,
        r#""primary_email_address_id":"e","email_addresses":[{"id":"e","email_address":"no address"}]"#,
    ];
    for (at, fields) in odd.iter().enumerate() {
        let document =
            format!(r#"{{"id":"user_{at}","created_at":1700000000000,"updated_at":1700000000000,{fields}}}"#);
        let id = format!("user_{at}");
        fixture
            .sim
            .insert_raw(&id, 1_700_000_000_000, 1_700_000_000_000, document.into_bytes());
    }
    fixture.once().await.assert_exit(Exit::Ok);
    let names = "SELECT string_agg(concat(id, ' ', display_name), ', ' ORDER BY id) FROM clerk.users";
    let stored = fixture.db.text(names).await.unwrap();
    for name in ["user_0 annie", r#"user_1 "a@b""#, "user_2 +49", "user_3 ,"] {
        assert!(stored.contains(name), "{name}: {stored}");
    }
    revert_from(&fixture.db, DISPLAY_NAME).await;
    // The application refuses a name, which costs that row only.
    let refuse = "ALTER TABLE clerk.users ADD CONSTRAINT only_old CHECK (id <> 'user_0' OR to_jsonb(users) ->> 'display_name' IS NULL)";
    fixture.db.execute(refuse).await;
    migrate(&fixture).await.assert_exit(Exit::Ok);
    let upgraded = fixture.db.text(names).await.unwrap();
    assert_eq!(upgraded, stored.replace("user_0 annie", "user_0 "));
}
