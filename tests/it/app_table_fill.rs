//! A table that lacks many rows is filled with few statements, and one row costs no other.

use crate::support::{app_table::AppTable, program::ProgramOutput, summary::Exit};

/// More than differ in one comparison.
const USERS: usize = 50_500;

const TABLE: &str = "CREATE TABLE accounts (clerk_id text UNIQUE, name text)";

const MAPPING: &str = "
    [[tables]]
    name = 'accounts'
    key = 'clerk_id'
    [tables.set]
    name = 'u.first_name'";

/// The users who have the right row.
const RIGHT: &str = "SELECT count(*) FROM clerk.users u
    JOIN accounts a ON a.clerk_id = u.id AND a.name IS NOT DISTINCT FROM u.first_name";

/// Asserts how many rows a sync inserted and rejected.
#[track_caller]
fn assert_counts(ran: &ProgramOutput, inserted: usize, rejected: u64) {
    let counts = &ran.json()["tables"]["public.accounts"];
    assert_eq!(counts["inserted"], inserted, "{ran:#?}");
    assert_eq!(counts["rejected"], rejected, "{ran:#?}");
}

/// Asserts that all users but one have the right row, and that this one is listed with this SQLSTATE.
async fn assert_lacks(app: &AppTable, id: &str, sqlstate: &str) {
    let db = &app.fixture.db;
    assert_eq!(db.number(RIGHT).await, USERS as i64 - 1);
    let listed = "SELECT string_agg(object_id || ' ' || sqlstate, ',') FROM clerk.rejected_rows";
    assert_eq!(db.text(listed).await, Some(format!("{id} {sqlstate}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_lacks_many_rows_is_filled() {
    let app = AppTable::new(USERS, TABLE, MAPPING).await;
    let db = &app.fixture.db;
    let ids = app.fixture.sim.user_ids();
    app.fixture.rename(&ids[3], "Refused");
    assert_counts(&app.once().await, USERS, 0);
    assert_eq!(db.number(RIGHT).await, USERS as i64);

    // One row that is refused costs no other.
    db.execute("TRUNCATE accounts; ALTER TABLE accounts ADD CONSTRAINT polite CHECK (name IS DISTINCT FROM 'Refused')")
        .await;
    assert_counts(&app.once().await, USERS - 1, 1);
    assert_lacks(&app, &ids[3], "23514").await;

    // The same with a condition that excludes a user, and with one that fails for a user.
    let last = db
        .text("SELECT id FROM clerk.users ORDER BY ctid DESC LIMIT 1")
        .await
        .unwrap();
    let with = |condition: &str| MAPPING.replace("key =", &format!("where = \"{condition}\"\n    key ="));
    app.set_mapping(&with(&format!("u.id <> '{last}'")));
    db.execute("TRUNCATE accounts").await;
    assert_counts(&app.once().await, USERS - 2, 1);
    assert_eq!(db.number(RIGHT).await, USERS as i64 - 2);
    app.set_mapping(&with(&format!(
        "u.id <> '{last}' OR 1 / (length(u.id) - length(u.id)) > 0"
    )));
    db.execute("TRUNCATE accounts; ALTER TABLE accounts DROP CONSTRAINT polite")
        .await;
    assert_counts(&app.once().await, USERS - 1, 1);
    assert_lacks(&app, &last, "22012").await;

    // A trigger may change what was inserted.
    app.set_mapping(MAPPING);
    db.execute(&format!(
        "TRUNCATE accounts;
         CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE accounts SET name = 'Another' WHERE clerk_id = NEW.clerk_id;
             RETURN NULL;
         END $$;
         CREATE TRIGGER change AFTER INSERT ON accounts FOR EACH ROW WHEN (NEW.clerk_id = '{}')
             EXECUTE FUNCTION change()",
        ids[6]
    ))
    .await;
    let ran = app.once().await;
    assert_counts(&ran, USERS, 0);
    assert_eq!(ran.json()["tables"]["public.accounts"]["updated"], 1, "{ran:#?}");
    assert_eq!(db.number(RIGHT).await, USERS as i64);

    // A trigger that leaves a row out says nothing, and may be that of a partition.
    db.execute(&format!(
        "DROP TABLE accounts; CREATE TABLE accounts (clerk_id text UNIQUE, name text) PARTITION BY HASH (clerk_id);
         CREATE TABLE even PARTITION OF accounts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE odd PARTITION OF accounts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RETURN CASE WHEN NEW.clerk_id <> '{}' THEN NEW END;
         END $$;
         CREATE TRIGGER skip BEFORE INSERT ON even FOR EACH ROW EXECUTE FUNCTION skip();
         CREATE TRIGGER skip BEFORE INSERT ON odd FOR EACH ROW EXECUTE FUNCTION skip()",
        ids[4]
    ))
    .await;
    assert_counts(&app.once().await, USERS - 1, 1);
    assert_lacks(&app, &ids[4], "02000").await;

    // Rows that the application has are left alone.
    db.execute(
        "DROP TRIGGER skip ON even; DROP TRIGGER skip ON odd;
         DELETE FROM accounts WHERE clerk_id <> (SELECT min(clerk_id) FROM accounts);
         CREATE TABLE statements (at timestamptz DEFAULT now());
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO statements DEFAULT VALUES; RETURN NULL; END $$;
         CREATE TRIGGER note BEFORE INSERT ON accounts FOR EACH STATEMENT EXECUTE FUNCTION note()",
    )
    .await;
    assert_counts(&app.once().await, USERS - 1, 0);
    assert_eq!(db.number(RIGHT).await, USERS as i64);
    let blocks = "SELECT pg_relation_size('clerk.users') / current_setting('block_size')::bigint";
    let blocks = db.number(blocks).await as u64;
    let statements = db.number("SELECT count(*) FROM statements").await as u64;
    assert!(
        statements == blocks.div_ceil(2_000) && statements > 2,
        "{blocks}: {statements}"
    );
    let unchanged = app.once().await;
    unchanged.assert_exit(Exit::Ok);
    assert_counts(&unchanged, 0, 0);

    // Neither does it cost other rows if the application inserts one meanwhile.
    db.execute(&format!(
        "TRUNCATE accounts; CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF pg_trigger_depth() = 1 AND pg_try_advisory_xact_lock(1) THEN
                 INSERT INTO accounts VALUES ('{last}', 'Another') ON CONFLICT DO NOTHING;
             END IF;
             RETURN NULL;
         END $$"
    ))
    .await;
    let ran = app.once().await;
    assert_counts(&ran, USERS - 1, 0);
    assert_eq!(ran.json()["tables"]["public.accounts"]["updated"], 1, "{ran:#?}");
    assert_eq!(db.number(RIGHT).await, USERS as i64);
}
