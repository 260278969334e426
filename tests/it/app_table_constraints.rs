//! What the application's table refuses costs one row, and whatever it can store is stored as it is.

use serde_json::json;

use crate::support::{app_table::AppTable, summary::Exit};

/// The rejected rows: id, action and SQLSTATE.
async fn rejected(app: &AppTable) -> Option<String> {
    let sql = "SELECT string_agg(concat_ws(' ', object_id, action, sqlstate), ',' ORDER BY object_id) FROM clerk.rejected_rows";
    app.fixture.db.text(sql).await
}

fn set(app: &AppTable, id: &str, field: &str, value: serde_json::Value) {
    assert!(app.fixture.sim.update(id, |user| user[field] = value));
}

/// Starts with a table whose column `name` has `constraint`, and one user named `name`. Asserts
/// that the row of this user alone is refused, and is written once the user has another name.
async fn check(constraint: &str, name: serde_json::Value, sqlstate: &str) {
    let table = format!("CREATE TABLE accounts (clerk_id text PRIMARY KEY, name {constraint})");
    let mapping = "
        [[tables]]
        name = 'accounts'
        key = 'clerk_id'
        [tables.set]
        name = 'u.username'";
    let app = AppTable::new(12, &table, mapping).await;
    let ids = app.fixture.sim.user_ids();
    for (at, id) in ids.iter().enumerate() {
        set(&app, id, "username", json!(format!("n{at}")));
    }
    set(&app, &ids[4], "username", name.clone());
    let db = &app.fixture.db;
    for _ in 0..2 {
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(
            rejected(&app).await,
            Some(format!("{} write {sqlstate}", ids[4])),
            "{constraint}"
        );
        assert_eq!(db.number("SELECT count(*) FROM accounts").await, 11, "{constraint}");
        assert_eq!(app.fixture.users().await, 12, "{constraint}");
    }
    set(&app, &ids[4], "username", json!("fine"));
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(rejected(&app).await, None, "{constraint}");
    // And as a change of an existing row.
    set(&app, &ids[4], "username", name);
    set(&app, &ids[5], "username", json!("other"));
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(
        rejected(&app).await,
        Some(format!("{} write {sqlstate}", ids[4])),
        "{constraint}"
    );
    assert_eq!(
        db.number("SELECT count(*) FROM accounts WHERE name::text IN ('fine', 'other')")
            .await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_value_costs_one_row() {
    check("text NOT NULL", json!(null), "23502").await;
    check("text CHECK (name <> 'bad')", json!("bad"), "23514").await;
    check("varchar(6)", json!("longer than six"), "22001").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_triggers_refuse_or_skip_costs_one_row() {
    let table = "
        CREATE TABLE words (word text);
        INSERT INTO words VALUES ('refused');
        CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text);
        CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- Names without a schema: the application's search path holds for its triggers.
            IF EXISTS (SELECT FROM words WHERE word = NEW.name) THEN RAISE EXCEPTION 'no'; END IF;
            IF NEW.name = 'skipped' THEN RETURN NULL; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION judge()";
    let mapping = "
        [[tables]]
        name = 'accounts'
        key = 'clerk_id'
        [tables.set]
        name = 'u.username'";
    let app = AppTable::new(12, table, mapping).await;
    let ids = app.fixture.sim.user_ids();
    set(&app, &ids[2], "username", json!("refused"));
    set(&app, &ids[3], "username", json!("skipped"));
    app.once().await.assert_exit(Exit::Ok);
    let mut expected = [format!("{} write P0001", ids[2]), format!("{} write 02000", ids[3])];
    expected.sort();
    assert_eq!(rejected(&app).await, Some(expected.join(",")));
    assert_eq!(app.fixture.db.number("SELECT count(*) FROM accounts").await, 10);
    app.fixture.db.execute("DROP TRIGGER judge ON accounts").await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(rejected(&app).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_are_stored_and_do_not_differ_afterwards() {
    let table = r#"
        CREATE SCHEMA "My App";
        CREATE TYPE "My App"."Role" AS ENUM ('USER', 'ADMIN');
        CREATE TYPE "My App".pair AS (a text, b integer);
        CREATE DOMAIN "My App".short AS varchar(40) CHECK (VALUE <> '');
        CREATE TABLE "My App"."a.b ""c""" (
            "Clerk Id" varchar(64) NOT NULL UNIQUE,
            id bigint GENERATED ALWAYS AS IDENTITY,
            number serial,
            role "My App"."Role" NOT NULL,
            roles "My App"."Role"[],
            tags varchar(20)[],
            created timestamp(3) NOT NULL,
            seen timestamptz(0),
            day date,
            amount numeric(6,2),
            real_amount real,
            meta jsonb,
            raw json,
            place point,
            combined "My App".pair,
            label "My App".short,
            fixed char(50),
            shout text GENERATED ALWAYS AS (upper(label)) STORED
        ) PARTITION BY HASH ("Clerk Id");
        CREATE TABLE "My App".p0 PARTITION OF "My App"."a.b ""c""" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE "My App".p1 PARTITION OF "My App"."a.b ""c""" FOR VALUES WITH (MODULUS 2, REMAINDER 1)"#;
    // A partitioned table takes no identity column in older versions of PostgreSQL.
    let table = table.replace("id bigint GENERATED ALWAYS AS IDENTITY,", "");
    let mapping = r#"
        [[tables]]
        schema = "My App"
        name = 'a.b "c"'
        key = "Clerk Id"
        [tables.set]
        role = "CASE upper(u.public_metadata->>'role') WHEN 'ADMIN' THEN 'ADMIN' ELSE 'USER' END"
        roles = "ARRAY['USER', 'ADMIN']"
        tags = "ARRAY[u.first_name, NULL]"
        created = "u.created_at AT TIME ZONE 'UTC'"
        seen = "u.changed_at"
        day = "u.created_at AT TIME ZONE 'UTC'"
        amount = "123.456"
        real_amount = "1.0 / 3"
        meta = "u.public_metadata"
        raw = "u.public_metadata"
        place = "'(1,2)'"
        combined = "ROW(u.first_name, 5)"
        label = "coalesce(u.full_name, 'none') -- a comment"
        fixed = "u.id"
    "#;
    let app = AppTable::new(15, &table, mapping).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(rejected(&app).await, None);
    let db = &app.fixture.db;
    let rows =
        r#"SELECT count(*) FROM "My App"."a.b ""c""" WHERE amount = 123.46 AND shout = upper(label) AND number > 0"#;
    assert_eq!(db.number(rows).await, 15);
    let versions = r#"SELECT string_agg(xmin::text, ',' ORDER BY "Clerk Id") FROM "My App"."a.b ""c""""#;
    let before = db.text(versions).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.text(versions).await, before);
}
