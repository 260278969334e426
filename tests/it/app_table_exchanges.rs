//! Unique values of an application's table: who gives a value up is written before who takes it.

use crate::support::{
    app_table::AppTable,
    changes::{import, set_address},
    summary::Exit,
};

const TABLE: &str = "CREATE TABLE accounts (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_id text UNIQUE, email text UNIQUE NOT NULL)";

const MAPPING: &str = "
    [[tables]]
    name = 'accounts'
    key = 'clerk_id'
    [tables.set]
    email = 'coalesce(u.primary_email, u.id)'";

/// Starts with a table that is in sync, whose users have the addresses `a@x.test`, `b@x.test`, ….
async fn applied(addresses: &[&str]) -> (AppTable, Vec<String>) {
    let app = AppTable::new(addresses.len(), TABLE, MAPPING).await;
    let ids = app.fixture.sim.user_ids();
    for (id, address) in ids.iter().zip(addresses) {
        set_address(&app.fixture, id, &format!("{address}@x.test"));
    }
    app.once().await.assert_exit(Exit::Ok);
    (app, ids)
}

/// Asserts the addresses of the rows, in the order of these users.
async fn assert_addresses(app: &AppTable, ids: &[String], expected: &[&str]) {
    for (id, address) in ids.iter().zip(expected) {
        let sql = format!("SELECT email FROM accounts WHERE clerk_id = '{id}'");
        assert_eq!(
            app.fixture.db.text(&sql).await,
            Some(format!("{address}@x.test")),
            "{id}"
        );
    }
    let rejected = "SELECT string_agg(reason, ',') FROM clerk.rejected_rows";
    assert_eq!(app.fixture.db.text(rejected).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_exchange_addresses_in_one_sync() {
    let (app, ids) = applied(&["a", "b", "c"]).await;
    set_address(&app.fixture, &ids[0], "b@x.test");
    set_address(&app.fixture, &ids[1], "a@x.test");
    app.once().await.assert_exit(Exit::Ok);
    assert_addresses(&app, &ids, &["b", "a", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_and_a_ring_are_right_in_one_sync() {
    let (app, ids) = applied(&["a", "b", "c", "d", "e"]).await;
    for (id, address) in [(0, "b"), (1, "c"), (2, "new"), (3, "e"), (4, "d")] {
        set_address(&app.fixture, &ids[id], &format!("{address}@x.test"));
    }
    app.once().await.assert_exit(Exit::Ok);
    assert_addresses(&app, &ids, &["b", "c", "new", "e", "d"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_a_deleted_user_is_free_in_the_same_sync() {
    let (app, mut ids) = applied(&["a", "b", "c"]).await;
    app.fixture.age_rows().await;
    app.fixture.sim.delete(&ids[0]);
    import(&app.fixture, "user_new", 1_790_000_000_000, 1_790_000_000_000);
    set_address(&app.fixture, "user_new", "a@x.test");
    app.once().await.assert_exit(Exit::Ok);
    ids[0] = "user_new".to_owned();
    assert_addresses(&app, &ids, &["a", "b", "c"]).await;
    assert_eq!(app.fixture.db.number("SELECT count(*) FROM accounts").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_were_exchanged_while_the_mapping_was_new_are_right() {
    let app = AppTable::new(3, TABLE, MAPPING).await;
    let ids = app.fixture.sim.user_ids();
    for (id, address) in ids.iter().zip(["a", "b", "c"]) {
        set_address(&app.fixture, id, &format!("{address}@x.test"));
    }
    let rows: Vec<String> = ids
        .iter()
        .zip(["b", "a", "c"])
        .map(|(id, address)| format!("('{id}', '{address}@x.test')"))
        .collect();
    let sql = format!("INSERT INTO accounts (clerk_id, email) VALUES {}", rows.join(", "));
    app.fixture.db.execute(&sql).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_addresses(&app, &ids, &["a", "b", "c"]).await;
}
