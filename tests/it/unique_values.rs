//! Values that the application declares unique are released, taken and exchanged in any order
//! within one sync.

use rustix::process::Signal;

use crate::support::{
    changes::set_address,
    fixture::{Fixture, mirrored},
    on_demand::start_on_demand,
    polling::PollingDaemon,
    summary::{Exit, changed, in_sync},
    wait::eventually,
};

const UNIQUE: &str = "CREATE UNIQUE INDEX one_user_per_address ON clerk.users (primary_email)";

/// Returns mirrored users that all have an address.
async fn addressed(users: usize) -> Fixture {
    let fixture = Fixture::new(users).await;
    for (n, id) in fixture.sim.user_ids().iter().enumerate() {
        set_address(&fixture, id, &address(n));
    }
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    fixture
}

fn address(n: usize) -> String {
    format!("Person.{n}@example.com")
}

async fn assert_nobody_is_rejected(fixture: &Fixture) {
    let listed = "SELECT string_agg(user_id || ': ' || reason, ', ') FROM clerk.rejected_users";
    let nobody = format!("SELECT coalesce(({listed}), '')");
    assert_eq!(fixture.db.text(&nobody).await.unwrap(), "");
    let rejected = "SELECT rejected FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
    assert_eq!(fixture.db.number(rejected).await, 0);
}

/// Gives each user the address of the next one, and the last one the first address or a new one.
/// One sync stores all.
async fn check_moves(fixture: &Fixture, ids: &[&String], is_cycle: bool, what: &str) {
    let email = async |id: &str| {
        let sql = format!("SELECT primary_email FROM clerk.users WHERE id = '{id}'");
        fixture.db.text(&sql).await.unwrap()
    };
    let mut addresses = Vec::new();
    for id in ids {
        addresses.push(email(id).await);
    }
    let first = addresses.remove(0);
    addresses.push(if is_cycle { first } else { format!("new.{first}") });
    for (id, address) in ids.iter().zip(&addresses) {
        set_address(fixture, id, address);
    }
    let users = fixture.sim.count();
    let ran = fixture.once().await;
    let (moved, others) = (ids.len(), users - ids.len());
    ran.assert_named(what, Exit::Ok, changed().updated(moved).unchanged(others));
    assert_nobody_is_rejected(fixture).await;
    fixture.assert_in_sync().await;
    for (id, address) in ids.iter().zip(&addresses) {
        assert_eq!(email(id).await, *address, "{what}");
    }
}

/// Runs chains and cycles in every order under a constraint of the application.
async fn check_all_moves(ddl: &str) {
    let fixture = addressed(12).await;
    fixture.db.execute(ddl).await;
    let ids = fixture.sim.user_ids();
    let [a, b, c] = [&ids[2], &ids[5], &ids[9]];
    check_moves(&fixture, &[a, b], false, "taken before it is given up").await;
    check_moves(&fixture, &[b, a], false, "given up before it is taken").await;
    check_moves(&fixture, &[a, b, c], false, "a chain").await;
    check_moves(&fixture, &[c, a, b], false, "a chain in another order").await;
    check_moves(&fixture, &[a, b], true, "a cycle of two").await;
    check_moves(&fixture, &[a, c, b], true, "a cycle of three").await;
    check_moves(&fixture, &ids.iter().collect::<Vec<_>>(), true, "a cycle of all").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_index_allows_any_exchange() {
    check_all_moves(UNIQUE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_expression_index_allows_any_exchange() {
    check_all_moves(
        "CREATE UNIQUE INDEX ON clerk.users (lower(primary_email)) WHERE primary_email_verified AND deleted_at IS NULL",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_not_null_column_allows_any_exchange() {
    check_all_moves(&format!(
        "{UNIQUE}; ALTER TABLE clerk.users ALTER primary_email SET NOT NULL,
             ADD CONSTRAINT reads_as_an_address CHECK (primary_email LIKE '%@%.%')"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusion_constraint_allows_any_exchange() {
    check_all_moves(
        "ALTER TABLE clerk.users ADD COLUMN handle text GENERATED ALWAYS AS (lower(primary_email)) STORED,
             ADD CONSTRAINT one_handle EXCLUDE USING btree (handle WITH =)",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_constraint_allows_any_exchange() {
    check_all_moves("ALTER TABLE clerk.users ADD UNIQUE (primary_email) DEFERRABLE INITIALLY DEFERRED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_across_pages_is_stored() {
    let fixture = addressed(700).await;
    fixture.db.execute(UNIQUE).await;
    let ids = fixture.sim.user_ids();
    let [first, middle, last] = [&ids[0], &ids[300], &ids[699]];
    check_moves(&fixture, &[first, last], false, "taken before it is given up").await;
    check_moves(&fixture, &[first, last], true, "an exchange").await;
    check_moves(&fixture, &[last, first, middle], true, "a cycle of three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_user_keeps_its_value_and_users_that_need_it_wait() {
    let fixture = addressed(12).await;
    fixture.db.execute(UNIQUE).await;
    fixture
        .db
        .execute("ALTER TABLE clerk.users ADD CONSTRAINT not_this CHECK (first_name IS DISTINCT FROM 'Refused')")
        .await;
    let ids = fixture.sim.user_ids();
    let before = fixture.db.documents().await;
    // Two users exchange, and one of them is refused for another reason. Two others exchange as
    // well.
    for (id, n) in [(&ids[1], 2), (&ids[2], 1), (&ids[3], 4), (&ids[4], 3)] {
        set_address(&fixture, id, &address(n));
    }
    fixture
        .sim
        .update(&ids[2], |user| user["first_name"] = "Refused".into());
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(2).unchanged(8).rejected(2));
    let after = fixture.db.documents().await;
    assert_eq!(after[&ids[1]], before[&ids[1]]);
    assert_eq!(after[&ids[2]], before[&ids[2]]);
    let codes = "SELECT string_agg(sqlstate, ',' ORDER BY sqlstate) FROM clerk.rejected_users";
    assert_eq!(fixture.db.text(codes).await.unwrap(), "23505,23514");

    fixture.sim.update(&ids[2], |user| user["first_name"] = "Fine".into());
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(2).unchanged(10));
    assert_nobody_is_rejected(&fixture).await;
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_show_only_the_end_of_an_exchange() {
    let fixture = addressed(6).await;
    fixture.db.execute(UNIQUE).await;
    let ids = fixture.sim.user_ids();
    check_moves(&fixture, &[&ids[1], &ids[2]], true, "an exchange").await;
    let events = "SELECT string_agg(type, ',') FROM clerk.user_events";
    assert_eq!(fixture.db.text(events).await.unwrap(), "user.updated,user.updated");
}

/// Deletes a user at Clerk, and creates another one with that address.
fn sign_up_again(fixture: &Fixture, old: &str, new: &str) {
    let mut document = fixture.sim.document(old).unwrap();
    assert!(fixture.sim.delete(old));
    let now = chrono::Utc::now().timestamp_millis();
    document["id"] = new.into();
    document["created_at"] = now.into();
    document["updated_at"] = now.into();
    fixture.sim.insert(document);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_deleted_user_is_free_in_the_same_sync() {
    let fixture = addressed(20).await;
    fixture.db.execute(UNIQUE).await;
    let ids = fixture.sim.user_ids();
    sign_up_again(&fixture, &ids[3], "user_signed_up_again");
    let ran = fixture.once().await;
    ran.assert(Exit::Ok, changed().created(1).deleted(1).unchanged(19));
    assert!(!ran.stderr.contains('@'), "{ran:#?}");
    assert_nobody_is_rejected(&fixture).await;
    fixture.assert_in_sync().await;
}

/// Asserts that incremental syncs send no reads by id and list no sync.
async fn assert_is_quiet(polling: &PollingDaemon) {
    polling.sync_incrementally(1).await;
    let done = async || (polling.requests(), polling.fixture.runs("true").await);
    let before = done().await;
    polling.sync_incrementally(3).await;
    assert_eq!(done().await, before, "{}", polling.daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_store_exchanges() {
    let polling = PollingDaemon::with_fixture(addressed(20).await, &[]).await;
    let fixture = &polling.fixture;
    fixture.db.execute(UNIQUE).await;
    let ids = fixture.sim.user_ids();
    sign_up_again(fixture, &ids[3], "user_signed_up_again");
    polling.wait_until_mirrored_user("user_signed_up_again").await;
    assert!(!polling.is_mirrored(&ids[3]).await);
    // An exchange over two syncs: the first one finds the address in use.
    set_address(fixture, &ids[4], &address(5));
    eventually("a rejection", async || {
        fixture.db.number("SELECT count(*) FROM clerk.rejected_users").await == 1
    })
    .await;
    assert_is_quiet(&polling).await;
    set_address(fixture, &ids[5], &address(4));
    eventually("nobody is rejected", async || {
        fixture.db.number("SELECT count(*) FROM clerk.rejected_users").await == 0
    })
    .await;
    assert_is_quiet(&polling).await;
    polling.stop_in_sync(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_retries_the_same_document() {
    let (fixture, daemon) = start_on_demand(5).await;
    let ids = fixture.sim.user_ids();
    for (n, id) in ids.iter().enumerate() {
        set_address(&fixture, id, &address(n));
        fixture.notify(id).await;
    }
    eventually("all have addresses", async || {
        let like = "SELECT count(*) FROM clerk.users WHERE primary_email LIKE 'Person.%'";
        fixture.db.number(like).await == 5
    })
    .await;
    fixture.db.execute(UNIQUE).await;
    set_address(&fixture, &ids[0], &address(1));
    fixture.notify(&ids[0]).await;
    let listed = "SELECT count(*) FROM clerk.rejected_users";
    eventually("a rejection", async || fixture.db.number(listed).await == 1).await;
    fixture.db.execute("DROP INDEX clerk.one_user_per_address").await;
    fixture.notify(&ids[0]).await;
    eventually("the user is stored", async || fixture.db.number(listed).await == 0).await;
    fixture.assert_in_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_with_one_address_cost_one_of_them() {
    let fixture = mirrored(20).await;
    let ids = fixture.sim.user_ids();
    for id in &ids[4..9] {
        fixture.sim.update(id, |user| user["username"] = "same".into());
    }
    fixture
        .db
        .execute("CREATE UNIQUE INDEX ON clerk.users (username)")
        .await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(15).rejected(4));
    fixture
        .once()
        .await
        .assert(Exit::Ok, in_sync().unchanged(16).rejected(4));
}
