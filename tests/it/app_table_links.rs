//! Rows that exist before their user are linked by a verified address, if exactly one row and one
//! user have it.

use clerk_sim::{Options, Sim};
use serde_json::json;

use crate::support::{app_table::AppTable, changes::set_address, database::Database, fixture::Fixture, summary::Exit};

const TABLE: &str =
    "CREATE TABLE members (id serial PRIMARY KEY, clerk_id text UNIQUE, email text NOT NULL, name text)";

const MAPPING: &str = "
    [[tables]]
    name = 'members'
    key = 'clerk_id'
    link = 'email'
    where = 'u.primary_email IS NOT NULL'
    [tables.set]
    email = 'u.primary_email'
    name = 'u.username'";

/// Starts with four users who have the addresses `a@x.test` to `d@x.test`, and with these rows
/// without a key. Applies the mapping only if `is_applied`, before the rows exist.
async fn start(rows: &[&str], is_applied: bool) -> (AppTable, Vec<String>) {
    let app = AppTable::new(0, TABLE, MAPPING).await;
    if is_applied {
        app.once().await.assert_exit(Exit::Ok);
    }
    for email in rows {
        let sql = format!("INSERT INTO members (email, name) VALUES ('{email}', 'invited')");
        app.fixture.db.execute(&sql).await;
    }
    let mut ids = Vec::new();
    for address in ["a", "b", "c", "d"] {
        let id = app.fixture.sim.create_random();
        set_address(&app.fixture, &id, &format!("{address}@x.test"));
        ids.push(id);
    }
    (app, ids)
}

/// The rows: id of the row, number of the user, address.
async fn rows(app: &AppTable, ids: &[String]) -> Vec<(i64, Option<usize>, String)> {
    let rows = app
        .fixture
        .db
        .client
        .query("SELECT id::bigint, clerk_id, email FROM members ORDER BY id", &[])
        .await;
    rows.unwrap()
        .iter()
        .map(|row| {
            let key: Option<String> = row.get(1);
            let user = key.map(|key| ids.iter().position(|id| *id == key).unwrap());
            (row.get(0), user, row.get(2))
        })
        .collect()
}

fn row(id: i64, user: usize, address: &str) -> (i64, Option<usize>, String) {
    (id, Some(user), format!("{address}@x.test"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_becomes_the_row_of_the_user_with_its_address() {
    for is_applied in [false, true] {
        let (app, ids) = start(&["C@X.test", "nobody@x.test", "a@x.test"], is_applied).await;
        app.once().await;
        // Changes of existing rows are held if they are many; approve them.
        if let Some(plan) = app.once().await.json()["tables"]["public.members"]["plan"].as_str() {
            app.run(&["approve", plan]).await.assert_exit(Exit::Ok);
            app.once().await.assert_exit(Exit::Ok);
        }
        let mut found = rows(&app, &ids).await;
        let others = found.split_off(3);
        let nobody = (2, None, "nobody@x.test".to_owned());
        assert_eq!(found, [row(1, 2, "c"), nobody, row(3, 0, "a")], "{is_applied}");
        let mut inserted: Vec<usize> = others.into_iter().map(|(_, user, _)| user.unwrap()).collect();
        inserted.sort_unstable();
        assert_eq!(inserted, [1, 3], "{is_applied}");
        let updated = "SELECT count(*) FROM members m JOIN clerk.users u ON u.id = m.clerk_id WHERE m.name IS DISTINCT FROM u.username";
        assert_eq!(app.fixture.db.number(updated).await, 0, "{is_applied}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_two_rows_have_links_nothing() {
    for is_applied in [false, true] {
        let (app, ids) = start(&["a@x.test", "A@x.test", "b@x.test"], is_applied).await;
        app.once().await;
        if let Some(plan) = app.once().await.json()["tables"]["public.members"]["plan"].as_str() {
            app.run(&["approve", plan]).await.assert_exit(Exit::Ok);
            app.once().await.assert_exit(Exit::Ok);
        }
        let found = rows(&app, &ids).await;
        assert_eq!(found[0], (1, None, "a@x.test".to_owned()), "{is_applied}");
        assert_eq!(found[1], (2, None, "A@x.test".to_owned()), "{is_applied}");
        assert_eq!(found[2], row(3, 1, "b"), "{is_applied}");
        assert!(found.iter().all(|(_, user, _)| *user != Some(0)), "{is_applied}");
        let rejected =
            "SELECT string_agg(object_id, ',') FROM clerk.rejected_rows WHERE reason LIKE '2 rows without a key%'";
        assert_eq!(
            app.fixture.db.text(rejected).await.as_ref(),
            Some(&ids[0]),
            "{is_applied}"
        );
        // A person gives one of the rows the key.
        let by_hand = format!("UPDATE members SET clerk_id = '{}' WHERE id = 2", ids[0]);
        app.fixture.db.execute(&by_hand).await;
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(
            app.fixture.db.number("SELECT count(*) FROM clerk.rejected_rows").await,
            0,
            "{is_applied}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_verified_links_nothing() {
    let (app, ids) = start(&["a@x.test"], true).await;
    assert!(app.fixture.sim.update(&ids[0], |user| {
        user["email_addresses"][0]["verification"] = json!({"status": "unverified", "strategy": "email_code"});
    }));
    app.once().await.assert_exit(Exit::Ok);
    let found = rows(&app, &ids).await;
    assert_eq!(found[0], (1, None, "a@x.test".to_owned()));
    assert!(found.iter().any(|(id, user, _)| *user == Some(0) && *id != 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_row_is_counted_once() {
    let (app, _) = start(&["a@x.test"], true).await;
    let report = app.once().await.json();
    let counts = &report["tables"]["public.members"];
    let counts = ["linked", "updated", "inserted"].map(|count| counts[count].as_u64().unwrap());
    assert_eq!(counts, [1, 0, 3], "{report}");
}

/// Some databases make these letters `k` and `i` in lower case.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_looks_the_same_links_nothing() {
    let options = Options {
        users: 0,
        secret_key: "sk_live_test".to_owned(),
        ..Options::default()
    };
    let locale = "TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'";
    let (db, sim) = tokio::join!(Database::with_options(locale), Sim::start(options));
    let fixture = Fixture { db, sim: sim.unwrap() };
    let same = "SELECT (lower(U&'\\212A\\0130') = 'ki')::int";
    assert_eq!(
        fixture.db.number(same).await,
        1,
        "this database tells the letters apart"
    );
    let app = AppTable::with(fixture, TABLE, MAPPING).await;
    for row in ["mike@x.test", "\u{212a}im@x.test", "KIRK@x.test"] {
        let sql = format!("INSERT INTO members (email, name) VALUES ('{row}', 'invited')");
        app.fixture.db.execute(&sql).await;
    }
    let mut ids = Vec::new();
    for address in [
        "m\u{130}\u{212a}e@x.test",
        "kim@x.test",
        "kirk@x.test",
        "\u{212a}irk@x.test",
    ] {
        let id = app.fixture.sim.create_random();
        set_address(&app.fixture, &id, address);
        ids.push(id);
    }
    app.once().await;
    if let Some(plan) = app.once().await.json()["tables"]["public.members"]["plan"].as_str() {
        app.run(&["approve", plan]).await.assert_exit(Exit::Ok);
    }
    app.once().await.assert_exit(Exit::Ok);
    let found = rows(&app, &ids).await;
    let unlinked: Vec<_> = found
        .iter()
        .filter(|(_, user, _)| user.is_none())
        .map(|row| row.0)
        .collect();
    assert_eq!(unlinked, [1, 2], "{found:?}");
    assert_eq!(found[2].1, Some(2), "{found:?}");
    assert_eq!(found.len(), 6, "{found:?}");
}
