//! An address that several users or rows share, or that another row holds, costs one row until the
//! conflict is gone.

use crate::support::{
    app_table::AppTable,
    changes::set_address,
    database::connect,
    process::{EVERY_SECOND, NEVER},
    summary::Exit,
    wait::eventually,
};

const TABLE: &str = "CREATE TABLE members (id serial PRIMARY KEY, clerk_id text UNIQUE, email text, name text)";

const MAPPING: &str = "
    [[tables]]
    name = 'members'
    key = 'clerk_id'
    link = 'email'
    [tables.set]
    email = 'u.primary_email'
    name = 'u.first_name'";

/// Starts with a table that is in sync with four users.
async fn applied(table: &str, mapping: &str) -> (AppTable, Vec<String>) {
    let app = AppTable::new(4, table, mapping).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let ids = app.fixture.sim.user_ids();
    (app, ids)
}

/// Adds a user with an address.
fn sign_up(app: &AppTable, address: &str) -> String {
    let id = app.fixture.sim.create_random();
    set_address(&app.fixture, &id, address);
    id
}

async fn invite(app: &AppTable, address: &str) {
    let sql = format!("INSERT INTO members (email, name) VALUES ('{address}', 'invited')");
    app.fixture.db.execute(&sql).await;
}

/// The ids of rows that cannot be linked or written because of other rows, in order.
async fn rejected(app: &AppTable) -> Option<String> {
    let sql = "SELECT string_agg(object_id, ' ' ORDER BY object_id) FROM clerk.rejected_rows
        WHERE table_name = 'public.members' AND action = 'write' AND sqlstate = '23505' AND reason LIKE '_% _%'";
    app.fixture.db.text(sql).await
}

/// The key of the row that was invited first.
async fn invited(app: &AppTable) -> Option<String> {
    let sql = "SELECT clerk_id FROM members WHERE id = (SELECT min(id) FROM members WHERE id > 4)";
    app.fixture.db.text(sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_address_two_users_have_waits_until_one_is_gone() {
    let (app, _) = applied(TABLE, MAPPING).await;
    invite(&app, "a@x.test").await;
    let mut users = [sign_up(&app, "a@x.test"), sign_up(&app, "A@x.test")];
    users.sort();
    for _ in 0..2 {
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(rejected(&app).await, Some(users.join(" ")));
        assert_eq!(invited(&app).await, None);
        assert_eq!(app.fixture.db.number("SELECT count(*) FROM members").await, 5);
    }
    app.fixture.age_rows().await;
    app.fixture.sim.delete(&users[0]);
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(rejected(&app).await, None);
    assert_eq!(invited(&app).await.as_ref(), Some(&users[1]));
    assert_eq!(app.fixture.db.number("SELECT count(*) FROM members").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_address_two_rows_have_waits_until_one_is_gone() {
    let (app, _) = applied(TABLE, MAPPING).await;
    invite(&app, "a@x.test").await;
    invite(&app, "A@x.test").await;
    let user = sign_up(&app, "a@x.test");
    for _ in 0..2 {
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(rejected(&app).await.as_ref(), Some(&user));
        assert_eq!(app.fixture.db.number("SELECT count(*) FROM members").await, 6);
    }
    app.fixture
        .db
        .execute("DELETE FROM members WHERE email = 'A@x.test'")
        .await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(rejected(&app).await, None);
    assert_eq!(invited(&app).await, Some(user));
    assert_eq!(app.fixture.db.number("SELECT count(*) FROM members").await, 5);
}

/// A table whose column `name` gets its value from a function that waits, if the table `gate` says so,
/// until it is open.
const GATED: &str = "
    CREATE TABLE gate (open boolean);
    INSERT INTO gate VALUES (true);
    CREATE FUNCTION wait_for_gate() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        WHILE current_setting('transaction_read_only') = 'off' AND EXISTS (SELECT FROM public.gate WHERE NOT open) LOOP
            PERFORM pg_catalog.pg_sleep(0.01);
        END LOOP;
        RETURN 'passed';
    END $$;";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_inserted_while_another_is_being_linked_gets_no_key() {
    let mapping = MAPPING.replace("'u.first_name'", "'public.wait_for_gate()'");
    let (app, _) = applied(&format!("{GATED}{TABLE}"), &mapping).await;
    invite(&app, "a@x.test").await;
    let user = sign_up(&app, "a@x.test");
    let db = &app.fixture.db;
    // Counts each row that is given a key, also if that is undone.
    db.execute(
        "CREATE SEQUENCE linked MINVALUE 0 START 0;
        SELECT nextval('linked');
        CREATE FUNCTION count_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('linked'); RETURN NEW; END $$;
        CREATE TRIGGER count_row BEFORE UPDATE OF clerk_id ON members FOR EACH ROW EXECUTE FUNCTION count_row();
        UPDATE gate SET open = false",
    )
    .await;
    let (ran, ()) = tokio::join!(app.once(), async {
        eventually("the plan waits", async || {
            let waiting =
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
            db.number(waiting).await > 0
        })
        .await;
        let application = connect(&db.url).await;
        application
            .batch_execute("INSERT INTO members (email) VALUES ('A@x.test'); UPDATE gate SET open = true")
            .await
            .unwrap();
    });
    ran.assert_exit(Exit::Ok);
    assert_eq!(
        db.number("SELECT count(*) FROM members WHERE clerk_id IS NULL").await,
        2
    );
    assert_eq!(db.number("SELECT last_value FROM linked").await, 0);
    let reason = "SELECT string_agg(object_id || ' ' || reason, ',') FROM clerk.rejected_rows";
    let expected = format!("{user} 2 rows without a key have the address, and 1 user:");
    let reason = db.text(reason).await.unwrap_or_default();
    assert!(reason.starts_with(&expected), "{reason}");
}

/// A mapping that does not link.
const PLAIN: &str = "
    [[tables]]
    name = 'members'
    key = 'clerk_id'
    [tables.set]
    email = 'u.primary_email'";

const UNIQUE: &str = "CREATE TABLE members (id serial PRIMARY KEY, clerk_id text UNIQUE, email text UNIQUE)";

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_row_of_the_application_holds_is_written_when_it_is_free() {
    let (app, _) = applied(UNIQUE, PLAIN).await;
    let db = &app.fixture.db;
    db.execute("INSERT INTO members (email) VALUES ('a@x.test')").await;
    let user = sign_up(&app, "a@x.test");
    for _ in 0..2 {
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(rejected(&app).await.as_ref(), Some(&user));
        assert_eq!(db.number("SELECT count(*) FROM members").await, 5);
    }
    db.execute("DELETE FROM members WHERE clerk_id IS NULL").await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(rejected(&app).await, None);
    assert_eq!(db.number("SELECT count(*) FROM members").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_sync_with_changes_writes_what_was_refused() {
    let (app, ids) = applied(UNIQUE, PLAIN).await;
    let db = &app.fixture.db;
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    eventually("a second full sync", async || {
        app.fixture.runs("kind = 'full' AND ended_at IS NOT NULL").await > 1
    })
    .await;
    db.execute("INSERT INTO members (email) VALUES ('a@x.test')").await;
    set_address(&app.fixture, &ids[0], "a@x.test");
    eventually("the row is refused", async || {
        rejected(&app).await.as_ref() == Some(&ids[0])
    })
    .await;
    db.execute("DELETE FROM members WHERE clerk_id IS NULL").await;
    app.fixture.rename(&ids[1], "Other");
    eventually("the row is written", async || {
        let written = format!(
            "SELECT count(*) FROM members WHERE clerk_id = '{}' AND email = 'a@x.test'",
            ids[0]
        );
        db.number(&written).await == 1
    })
    .await;
    assert_eq!(rejected(&app).await, None, "{}", daemon.log());
    let full = app.fixture.runs("kind = 'full'").await;
    assert_eq!(full, 2, "a full sync wrote the row: {}", daemon.log());
}
