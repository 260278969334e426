//! Values that the application declares unique are released, taken and exchanged in any order
//! within one sync.

use rustix::process::Signal;

use crate::support::{
    changes::set_address,
    fixture::{World, mirrored},
    on_demand::start_on_demand,
    polling::PollingDaemon,
    summary::{Exit, changed, in_sync},
    wait::eventually,
};

const UNIQUE: &str = "CREATE UNIQUE INDEX one_user_per_address ON clerk.users (primary_email)";

/// Returns mirrored users that all have an address.
async fn addressed(users: usize) -> World {
    let world = World::new(users).await;
    for (n, id) in world.sim.user_ids().iter().enumerate() {
        set_address(&world, id, &address(n));
    }
    let ran = world.once().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    world
}

fn address(n: usize) -> String {
    format!("Person.{n}@example.com")
}

async fn assert_nobody_is_rejected(world: &World) {
    let listed = "SELECT string_agg(user_id || ': ' || reason, ', ') FROM clerk.rejected_users";
    let nobody = format!("SELECT coalesce(({listed}), '')");
    assert_eq!(world.db.text(&nobody).await.unwrap(), "");
    let rejected = "SELECT rejected FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
    assert_eq!(world.db.number(rejected).await, 0);
}

/// Gives each user the address of the next one, and the last one the first address or a new one.
/// One sync stores all.
async fn check_moves(world: &World, ids: &[&String], is_cycle: bool, what: &str) {
    let email = async |id: &str| {
        let sql = format!("SELECT primary_email FROM clerk.users WHERE id = '{id}'");
        world.db.text(&sql).await.unwrap()
    };
    let mut addresses = Vec::new();
    for id in ids {
        addresses.push(email(id).await);
    }
    let first = addresses.remove(0);
    addresses.push(if is_cycle { first } else { format!("new.{first}") });
    for (id, address) in ids.iter().zip(&addresses) {
        set_address(world, id, address);
    }
    let users = world.sim.count();
    let ran = world.once().await;
    let (moved, others) = (ids.len(), users - ids.len());
    ran.assert_named(what, Exit::Ok, changed().updated(moved).unchanged(others));
    assert_nobody_is_rejected(world).await;
    world.assert_in_sync().await;
    for (id, address) in ids.iter().zip(&addresses) {
        assert_eq!(email(id).await, *address, "{what}");
    }
}

/// Runs chains and cycles in every order under a constraint of the application.
async fn check_all_moves(ddl: &str) {
    let world = addressed(12).await;
    world.db.execute(ddl).await;
    let ids = world.sim.user_ids();
    let [a, b, c] = [&ids[2], &ids[5], &ids[9]];
    check_moves(&world, &[a, b], false, "taken before it is given up").await;
    check_moves(&world, &[b, a], false, "given up before it is taken").await;
    check_moves(&world, &[a, b, c], false, "a chain").await;
    check_moves(&world, &[c, a, b], false, "a chain in another order").await;
    check_moves(&world, &[a, b], true, "a cycle of two").await;
    check_moves(&world, &[a, c, b], true, "a cycle of three").await;
    check_moves(&world, &ids.iter().collect::<Vec<_>>(), true, "a cycle of all").await;
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
    let world = addressed(700).await;
    world.db.execute(UNIQUE).await;
    let ids = world.sim.user_ids();
    let [first, middle, last] = [&ids[0], &ids[300], &ids[699]];
    check_moves(&world, &[first, last], false, "taken before it is given up").await;
    check_moves(&world, &[first, last], true, "an exchange").await;
    check_moves(&world, &[last, first, middle], true, "a cycle of three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_user_keeps_its_value_and_users_that_need_it_wait() {
    let world = addressed(12).await;
    world.db.execute(UNIQUE).await;
    world
        .db
        .execute("ALTER TABLE clerk.users ADD CONSTRAINT not_this CHECK (first_name IS DISTINCT FROM 'Refused')")
        .await;
    let ids = world.sim.user_ids();
    let before = world.db.documents().await;
    // Two users exchange, and one of them is refused for another reason. Two others exchange as
    // well.
    for (id, n) in [(&ids[1], 2), (&ids[2], 1), (&ids[3], 4), (&ids[4], 3)] {
        set_address(&world, id, &address(n));
    }
    world.sim.update(&ids[2], |user| user["first_name"] = "Refused".into());
    world
        .once()
        .await
        .assert(Exit::Ok, changed().updated(2).unchanged(8).rejected(2));
    let after = world.db.documents().await;
    assert_eq!(after[&ids[1]], before[&ids[1]]);
    assert_eq!(after[&ids[2]], before[&ids[2]]);
    let codes = "SELECT string_agg(sqlstate, ',' ORDER BY sqlstate) FROM clerk.rejected_users";
    assert_eq!(world.db.text(codes).await.unwrap(), "23505,23514");

    world.sim.update(&ids[2], |user| user["first_name"] = "Fine".into());
    world.once().await.assert(Exit::Ok, changed().updated(2).unchanged(10));
    assert_nobody_is_rejected(&world).await;
    world.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_show_only_the_end_of_an_exchange() {
    let world = addressed(6).await;
    world.db.execute(UNIQUE).await;
    let ids = world.sim.user_ids();
    check_moves(&world, &[&ids[1], &ids[2]], true, "an exchange").await;
    let events = "SELECT string_agg(type, ',') FROM clerk.user_events";
    assert_eq!(world.db.text(events).await.unwrap(), "user.updated,user.updated");
}

/// Deletes a user at Clerk, and creates another one with that address.
fn sign_up_again(world: &World, old: &str, new: &str) {
    let mut document = world.sim.document(old).unwrap();
    assert!(world.sim.delete(old));
    let now = chrono::Utc::now().timestamp_millis();
    document["id"] = new.into();
    document["created_at"] = now.into();
    document["updated_at"] = now.into();
    world.sim.insert(document);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_deleted_user_is_free_in_the_same_sync() {
    let world = addressed(20).await;
    world.db.execute(UNIQUE).await;
    let ids = world.sim.user_ids();
    sign_up_again(&world, &ids[3], "user_signed_up_again");
    let ran = world.once().await;
    ran.assert(Exit::Ok, changed().created(1).deleted(1).unchanged(19));
    assert!(!ran.stderr.contains('@'), "{ran:#?}");
    assert_nobody_is_rejected(&world).await;
    world.assert_in_sync().await;
}

/// Asserts that incremental syncs send no reads by id and list no sync.
async fn assert_is_quiet(polling: &PollingDaemon) {
    polling.sync_incrementally(1).await;
    let done = async || (polling.requests(), polling.world.runs("true").await);
    let before = done().await;
    polling.sync_incrementally(3).await;
    assert_eq!(done().await, before, "{}", polling.daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_store_exchanges() {
    let polling = PollingDaemon::in_world(addressed(20).await, &[]).await;
    let world = &polling.world;
    world.db.execute(UNIQUE).await;
    let ids = world.sim.user_ids();
    sign_up_again(world, &ids[3], "user_signed_up_again");
    polling.wait_until_mirrored_user("user_signed_up_again").await;
    assert!(!polling.is_mirrored(&ids[3]).await);
    // An exchange over two syncs: the first one finds the address in use.
    set_address(world, &ids[4], &address(5));
    eventually("a rejection", async || {
        world.db.number("SELECT count(*) FROM clerk.rejected_users").await == 1
    })
    .await;
    assert_is_quiet(&polling).await;
    set_address(world, &ids[5], &address(4));
    eventually("nobody is rejected", async || {
        world.db.number("SELECT count(*) FROM clerk.rejected_users").await == 0
    })
    .await;
    assert_is_quiet(&polling).await;
    polling.stop_in_sync(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_retries_the_same_document() {
    let (world, daemon) = start_on_demand(5).await;
    let ids = world.sim.user_ids();
    for (n, id) in ids.iter().enumerate() {
        set_address(&world, id, &address(n));
        world.notify(id).await;
    }
    eventually("all have addresses", async || {
        let like = "SELECT count(*) FROM clerk.users WHERE primary_email LIKE 'Person.%'";
        world.db.number(like).await == 5
    })
    .await;
    world.db.execute(UNIQUE).await;
    set_address(&world, &ids[0], &address(1));
    world.notify(&ids[0]).await;
    let listed = "SELECT count(*) FROM clerk.rejected_users";
    eventually("a rejection", async || world.db.number(listed).await == 1).await;
    world.db.execute("DROP INDEX clerk.one_user_per_address").await;
    world.notify(&ids[0]).await;
    eventually("the user is stored", async || world.db.number(listed).await == 0).await;
    world.assert_in_sync().await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_with_one_address_cost_one_of_them() {
    let world = mirrored(20).await;
    let ids = world.sim.user_ids();
    for id in &ids[4..9] {
        world.sim.update(id, |user| user["username"] = "same".into());
    }
    world.db.execute("CREATE UNIQUE INDEX ON clerk.users (username)").await;
    world
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(15).rejected(4));
    world.once().await.assert(Exit::Ok, in_sync().unchanged(16).rejected(4));
}
