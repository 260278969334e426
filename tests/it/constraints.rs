//! Constraints of the application on `clerk.users` reject one user and no other.

use crate::support::{
    fixture::{Fixture, mirrored, mirrored_ids},
    program::ProgramOutput,
    summary::{Exit, changed, in_sync, planned},
    wait::PATIENCE,
};

async fn reasons(fixture: &Fixture) -> Vec<(String, String)> {
    let sql = "SELECT user_id, reason FROM clerk.rejected_users ORDER BY user_id";
    let rows = fixture.db.client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The application adds `ddl`, which refuses users named "refused". `undo` removes it again.
async fn check_refused(ddl: &str, why: &str, undo: &str) {
    let fixture = mirrored(40).await;
    fixture.db.execute(ddl).await;
    let ids = fixture.sim.user_ids();
    let refuse = |id: &str| assert!(fixture.sim.update(id, |user| user["username"] = "refused".into()));
    refuse(&ids[17]);
    let new = fixture.sim.create_random();
    refuse(&new);
    assert!(fixture.sim.update(&ids[18], |user| user["username"] = "welcome".into()));
    let fine = fixture.sim.create_random();

    let before = fixture.db.documents().await;
    let ran = fixture.once().await;
    ran.assert(Exit::Ok, changed().created(1).updated(1).unchanged(38).rejected(2));
    assert!(ran.stderr.contains(why) && !ran.stderr.contains('@'), "{ddl}: {ran:#?}");
    let mirror = fixture.db.documents().await;
    assert_eq!(mirror[&ids[17]], before[&ids[17]], "{ddl}");
    assert!(mirror.contains_key(&fine) && !mirror.contains_key(&new), "{ddl}");
    let mut expected = [ids[17].clone(), new.clone()];
    expected.sort();
    let listed = reasons(&fixture).await;
    assert_eq!(
        listed.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(),
        expected,
        "{ddl}"
    );
    assert!(
        listed.iter().all(|(_, reason)| reason.contains(why)),
        "{ddl}: {listed:#?}"
    );

    fixture
        .once()
        .await
        .assert(Exit::Ok, in_sync().unchanged(40).rejected(2));
    fixture.db.execute(undo).await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(1).updated(1).unchanged(40));
    assert_eq!(reasons(&fixture).await, []);
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_constraint_rejects_one_user() {
    check_refused(
        "ALTER TABLE clerk.users ADD CONSTRAINT nobody_refused CHECK (username IS DISTINCT FROM 'refused')",
        "nobody_refused",
        "ALTER TABLE clerk.users DROP CONSTRAINT nobody_refused",
    )
    .await;
}

const RAISE: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.username = 'refused' THEN RAISE EXCEPTION 'nobody is called so here'; END IF;
    RETURN NEW;
    END $$;";

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_rejects_one_user() {
    check_refused(
        &format!(
            "{RAISE} CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON clerk.users FOR EACH ROW EXECUTE FUNCTION refuse()"
        ),
        "nobody is called so here",
        "DROP FUNCTION refuse CASCADE",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_trigger_rejects_one_user() {
    check_refused(
        &format!(
            "{RAISE} CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON clerk.users
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
        ),
        "nobody is called so here",
        "DROP FUNCTION refuse CASCADE",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_on_events_rejects_one_user() {
    check_refused(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.payload #>> '{data,username}' = 'refused' THEN RAISE EXCEPTION 'nobody is called so here'; END IF;
             RETURN NEW;
             END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON clerk.events FOR EACH ROW EXECUTE FUNCTION refuse()",
        "nobody is called so here",
        "DROP FUNCTION refuse CASCADE",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_of_a_generated_column_rejects_one_user() {
    check_refused(
        "CREATE DOMAIN name AS text CHECK (VALUE <> 'refused');
         ALTER TABLE clerk.users ADD COLUMN name public.name GENERATED ALWAYS AS (username) STORED",
        "domain public.name",
        "ALTER TABLE clerk.users DROP COLUMN name",
    )
    .await;
}

/// An order references one of two deleted users and keeps that row.
async fn check_held_back(on_delete: &str) {
    let fixture = mirrored(30).await;
    let ids = fixture.sim.user_ids();
    let [ordering, other] = [&ids[5], &ids[6]];
    fixture
        .db
        .execute(&format!(
            "CREATE TABLE orders (user_id text NOT NULL REFERENCES clerk.users {on_delete}); INSERT INTO orders VALUES ('{ordering}')"
        ))
        .await;
    fixture.sim.delete(ordering);
    fixture.sim.delete(other);
    fixture
        .sim
        .update(&ids[7], |user| user["first_name"] = "Changed".into());
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).deleted(1).unchanged(27).rejected(1));
    let mirror = mirrored_ids(&fixture).await;
    assert!(mirror.contains(ordering) && !mirror.contains(other), "{on_delete}");
    let listed = reasons(&fixture).await;
    assert!(
        listed.len() == 1 && listed[0].0 == *ordering && listed[0].1.contains("gone from Clerk"),
        "{listed:?}"
    );
    assert!(listed[0].1.contains("orders"), "{listed:?}");

    // A dry run says the same as the next sync does: the row stays.
    let plan = fixture.run(&["--dry-run", "--format", "json"]).await;
    plan.assert(Exit::Ok, planned().unchanged(28).rejected(1));
    assert!(plan.stdout.contains("\"plan\":null"), "{plan:#?}");
    let plan = fixture.run(&["--dry-run"]).await.stdout;
    assert!(plan.contains(&format!("! {ordering} gone from Clerk")), "{plan}");
    assert!(!plan.contains(&format!("- {ordering}")), "{plan}");

    fixture
        .once()
        .await
        .assert(Exit::Ok, in_sync().unchanged(28).rejected(1));
    fixture.db.execute("DELETE FROM orders").await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(28));
    assert_eq!(reasons(&fixture).await, []);
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_keeps_its_row() {
    check_held_back("").await;
    check_held_back("ON DELETE RESTRICT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_foreign_key_keeps_its_row() {
    check_held_back("DEFERRABLE INITIALLY DEFERRED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_may_cascade_or_be_set_to_null() {
    let fixture = mirrored(12).await;
    let ids = fixture.sim.user_ids();
    fixture
        .db
        .execute(&format!(
            "CREATE TABLE orders (user_id text REFERENCES clerk.users ON DELETE SET NULL);
             CREATE TABLE notes (user_id text REFERENCES clerk.users ON DELETE CASCADE);
             INSERT INTO orders VALUES ('{0}'), ('{1}'); INSERT INTO notes VALUES ('{0}'), ('{1}')",
            ids[5], ids[6]
        ))
        .await;
    fixture.sim.delete(&ids[5]);
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(11));
    assert_eq!(
        fixture
            .db
            .number("SELECT count(*) FROM orders WHERE user_id IS NULL")
            .await,
        1
    );
    assert_eq!(
        fixture
            .db
            .text("SELECT string_agg(user_id, ',') FROM notes")
            .await
            .as_ref(),
        Some(&ids[6])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_row_is_released_when_its_user_returns() {
    let fixture = mirrored(12).await;
    let id = fixture.sim.user_ids()[5].clone();
    let document = fixture.sim.document(&id).unwrap();
    fixture
        .db
        .execute(&format!(
            "CREATE TABLE orders (user_id text REFERENCES clerk.users); INSERT INTO orders VALUES ('{id}')"
        ))
        .await;
    fixture.sim.delete(&id);
    fixture
        .once()
        .await
        .assert(Exit::Ok, in_sync().unchanged(11).rejected(1));
    fixture.sim.insert(document);
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(12));
    assert_eq!(reasons(&fixture).await, []);
    fixture.assert_in_sync().await;
}

/// An expression of the application never returns for one user's document.
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_expression_rejects_one_user() {
    let fixture = mirrored(40).await;
    fixture
        .db
        .execute(
            "CREATE FUNCTION slow(name text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                 IF name = 'slow' THEN PERFORM pg_catalog.pg_sleep(3600); END IF; RETURN name; END $$;
             CREATE INDEX ON clerk.users (slow(username))",
        )
        .await;
    let ids = fixture.sim.user_ids();
    for id in &ids[3..9] {
        assert!(
            fixture
                .sim
                .update(id, |user| user["username"] = format!("fast_{id}").into())
        );
    }
    assert!(fixture.sim.update(&ids[17], |user| user["username"] = "slow".into()));
    // One statement for all users takes a minute.
    let once = fixture.command(&["--once", "--format", "json"]).output();
    let ran = tokio::time::timeout(4 * PATIENCE, once).await.expect("an end").unwrap();
    ProgramOutput::from(ran).assert(Exit::Ok, changed().updated(6).unchanged(33).rejected(1));
    let [(id, reason)] = &reasons(&fixture).await[..] else {
        panic!("{:?}", reasons(&fixture).await);
    };
    assert_eq!(id, &ids[17]);
    assert!(reason.contains("statement timeout"), "{reason}");
    assert!(fixture.sim.update(&ids[17], |user| user["username"] = "fast".into()));
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(39));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_deletions_are_spread_over_syncs() {
    let fixture = mirrored(40).await;
    fixture
        .db
        .execute(
            "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.pg_sleep(3); RETURN OLD; END $$;
             CREATE TRIGGER linger BEFORE DELETE ON clerk.users FOR EACH ROW EXECUTE FUNCTION linger()",
        )
        .await;
    for id in &fixture.sim.user_ids()[..20] {
        fixture.sim.delete(id);
    }
    let all = [("CLERK2PG_DELETES__MAX_PERCENT", "100")];
    let ran = fixture.once_with(&all).await;
    let json = ran.json();
    assert_eq!(
        (ran.code, &json["outcome"]),
        (Some(1), &"incomplete".into()),
        "{ran:#?}"
    );
    assert!(
        json["error"].as_str().unwrap().contains("are left to the next sync"),
        "{ran:#?}"
    );
    let left = fixture.users().await;
    assert!((21..40).contains(&left), "{left} are left: {ran:#?}");
    // The next sync carries out the rest.
    fixture.db.execute("DROP TRIGGER linger ON clerk.users").await;
    let ran = fixture.once_with(&all).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
}
