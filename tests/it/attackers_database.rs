//! What roles of the database can do to clerk2pg, and what they cannot.

use rustix::process::Signal;
use tokio_postgres::error::SqlState;

use crate::support::{
    app_table::{AppTable, USER_MAPPING, USER_TABLE},
    database::connect,
    delivery::Delivering,
    events::listen,
    fixture::{Fixture, mirrored},
    receiver::{Receiver, SECRET},
    roles::Role,
    summary::{Exit, changed, in_sync},
};

/// The key of the advisory lock that earlier versions took before migrations.
const ADVISORY: i64 = 0x636c_6572_6b32_7067;

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_connect_reads_nothing_and_stops_nothing() {
    let fixture = Fixture::new(20).await;
    let role = Role::new(&fixture).await;
    let (attacker, mut events) = listen(&role.url, "clerk_user_events").await;
    let (_other, mut requests) = listen(&role.url, "clerk2pg").await;
    // Any role can hold an advisory lock for ever.
    let hold = format!("SELECT pg_advisory_lock({ADVISORY}); BEGIN; SELECT 1");
    attacker.batch_execute(&hold).await.unwrap();
    fixture.once().await.assert(Exit::Ok, changed().created(20));
    attacker.batch_execute("COMMIT").await.unwrap();

    for sql in [
        "SELECT count(*) FROM clerk.users",
        "SELECT count(*) FROM clerk.user_events",
        "DO 'BEGIN LOCK TABLE clerk.users IN ACCESS SHARE MODE; END'",
        "SELECT clerk.cuid()",
        "CREATE TABLE clerk.mine (id int)",
    ] {
        let refused = attacker.batch_execute(sql).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}");
    }
    // It may send what it likes, and hears that something has changed.
    let daemon = fixture.start_incremental(&[]).await;
    let forged = "SELECT pg_notify(c, t) FROM unnest(ARRAY['clerk2pg', 'clerk_user_events']) AS c,
        unnest(ARRAY['full', 'sync', 'user_x', 'approve', '-1', repeat('x', 7999)]) AS t";
    attacker.batch_execute(forged).await.unwrap();
    let id = fixture.sim.user_ids()[0].clone();
    fixture.rename(&id, "Ann");
    fixture.wait_until_mirrored().await;
    assert_eq!(fixture.users().await, 20);
    let mut heard = Vec::new();
    while let Ok(payload) = events.try_recv() {
        heard.push(payload);
    }
    let last = fixture.last_event().await.to_string();
    assert!(heard.contains(&last), "{heard:?}");
    while let Ok(payload) = requests.try_recv() {
        heard.push(payload);
    }
    assert!(
        heard
            .iter()
            .all(|payload| !payload.contains(&id) && !payload.contains('@')),
        "{heard:?}"
    );
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    role.end(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_approval_deletes_no_user_that_clerk_knows() {
    let app = AppTable::new(30, USER_TABLE, USER_MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    let fixture = &app.fixture;
    fixture.age_rows().await;
    let role = Role::new(fixture).await;
    let name = &role.name;
    fixture
        .db
        .execute(&format!(
            "GRANT USAGE ON SCHEMA clerk TO {name}; GRANT SELECT, INSERT, UPDATE ON clerk.missing, clerk.departures TO {name};
             GRANT SELECT (id) ON clerk.users TO {name}"
        ))
        .await;
    let attacker = connect(&role.url).await;
    attacker
        .batch_execute(
            "INSERT INTO clerk.missing (resource, object_id, walk, state, hold, held_at, approved_at)
                 SELECT 'users', id, 1, 'absent', 'approved', now(), now() FROM clerk.users;
             INSERT INTO clerk.departures (table_name, object_id, reason, found_at, hold, held_at, approved_at)
                 SELECT 'public.\"User\"', id, r, now() - interval '1 hour', 'approved', now(), now()
                 FROM (SELECT id, CASE WHEN row_number() OVER (ORDER BY id) % 2 = 0 THEN 'unknown' ELSE 'excluded' END AS r
                       FROM clerk.users) AS u",
        )
        .await
        .unwrap();
    for _ in 0..2 {
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(fixture.users().await, 30);
        assert_eq!(fixture.db.number("SELECT count(*) FROM \"User\"").await, 30);
    }
    fixture.assert_in_sync().await;
    role.end(fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_write_users_misleads_readers_until_clerk_shows_another_document() {
    let fixture = mirrored(30).await;
    let role = Role::new(&fixture).await;
    let name = &role.name;
    fixture
        .db
        .execute(&format!(
            "GRANT USAGE ON SCHEMA clerk TO {name}; GRANT SELECT, INSERT, UPDATE, DELETE ON clerk.users TO {name}"
        ))
        .await;
    let ids = fixture.sim.user_ids();
    let attacker = connect(&role.url).await;
    let (changed_id, removed) = (&ids[0], &ids[1]);
    attacker
        .batch_execute(&format!(
            "DELETE FROM clerk.users WHERE id = '{removed}';
             INSERT INTO clerk.users SELECT (jsonb_populate_record(u, '{{\"id\": \"user_forged\"}}')).* FROM clerk.users AS u LIMIT 1;
             UPDATE clerk.users SET first_name = 'Eve' WHERE id = '{changed_id}'"
        ))
        .await
        .unwrap();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(1).deleted(1).unchanged(29));
    assert_eq!(fixture.first_name(changed_id).await, "Eve", "the digest is Clerk's");
    fixture.rename(changed_id, "Ann");
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(29));
    fixture.assert_in_sync().await;
    // Nothing was sent to Clerk but questions.
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(30));
    assert_eq!(fixture.sim.user_ids(), ids);
    role.end(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_write_events_forges_some_and_sends_them_nowhere_else() {
    let (receiver, attackers) = tokio::join!(Receiver::start(), Receiver::start());
    let delivering = Delivering::new(5, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let fixture = &delivering.fixture;
    let role = Role::new(fixture).await;
    let name = &role.name;
    fixture
        .db
        .execute(&format!(
            "GRANT USAGE ON SCHEMA clerk TO {name}; GRANT INSERT ON clerk.events TO {name};
             GRANT SELECT, INSERT, UPDATE ON clerk.endpoints, clerk.deliveries TO {name}"
        ))
        .await;
    let attacker = connect(&role.url).await;
    let digest = "'0000'";
    attacker
        .batch_execute(&format!(
            "UPDATE clerk.endpoints SET url_digest = {digest};
             INSERT INTO clerk.endpoints (name, url_digest, types, position) VALUES ('{}', {digest}, '{{*}}', 0);
             INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload)
                 VALUES ('users', 'user.created', 'user_forged', now(), '{{\"type\": \"user.created\", \"data\": {{\"id\": \"user_forged\"}}}}')",
            attackers.url()
        ))
        .await
        .unwrap();
    let id = fixture.sim.create_random();
    let events = receiver.wait_for_accepted(2).await;
    let mut objects: Vec<String> = events.iter().map(|event| event.object()).collect();
    objects.sort();
    let mut expected = vec!["user_forged".to_owned(), id];
    expected.sort();
    assert_eq!(objects, expected);
    assert!(events.iter().all(|event| event.is_signed_with(SECRET)));
    assert!(attackers.requests().is_empty());
    assert_eq!(fixture.users().await, 6, "a forged event changes no user");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    role.end(fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_owns_a_mapped_table_runs_code_as_clerk2pg_and_a_writer_does_not() {
    let app = AppTable::new(3, USER_TABLE, USER_MAPPING).await;
    let fixture = &app.fixture;
    let role = Role::new(fixture).await;
    let name = &role.name;
    fixture
        .db
        .execute(&format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON \"User\" TO {name}; CREATE SCHEMA evil AUTHORIZATION {name};
             CREATE TABLE public.who (name text); GRANT INSERT ON public.who TO {name}"
        ))
        .await;
    let attacker = connect(&role.url).await;
    let function = "CREATE FUNCTION evil.run() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.who VALUES (current_user); RETURN NEW; END $$";
    attacker.batch_execute(function).await.unwrap();
    let trigger = "CREATE TRIGGER run BEFORE INSERT ON \"User\" FOR EACH ROW EXECUTE FUNCTION evil.run()";
    let refused = attacker.batch_execute(trigger).await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    fixture
        .db
        .execute(&format!("ALTER TABLE \"User\" OWNER TO {name}"))
        .await;
    attacker.batch_execute(trigger).await.unwrap();
    app.once().await.assert_exit(Exit::Ok);
    let ran_as = "SELECT count(*) FROM public.who WHERE name = current_user";
    assert_eq!(fixture.db.number(ran_as).await, 3);
    role.end(fixture).await;
}

/// Clerk is asked about each key that the mirror does not know, with the secret key.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_mapped_table_lead_no_request_elsewhere() {
    let app = AppTable::new(5, USER_TABLE, USER_MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    let fixture = &app.fixture;
    fixture.age_rows().await;
    let keys = [
        "",
        ".",
        "..",
        "%2e%2E",
        "../organizations",
        "x?user_id=y",
        "x#y",
        "a/../../b",
        "\\..\\x",
        "user_ø\r\nx: y",
        "zzz",
    ];
    for (at, key) in keys.iter().enumerate() {
        let sql = format!(
            "INSERT INTO \"User\" (id, \"clerkId\", email, name, role, \"updatedAt\") VALUES ('{at}', '{}', '', '', 'USER', now())",
            key.replace('\'', "''")
        );
        fixture.db.execute(&sql).await;
    }
    app.once().await.assert_exit(Exit::Ok);
    app.age_departures().await;
    app.once().await.assert_exit(Exit::Ok);
    // Clerk cannot be asked about some keys: their rows stay.
    let left =
        "SELECT string_agg(\"clerkId\", ',' ORDER BY \"clerkId\") FROM \"User\" WHERE \"clerkId\" NOT LIKE 'user\\_%'";
    assert_eq!(fixture.db.text(left).await.as_deref(), Some(",.,.."));
    assert_eq!(fixture.db.number("SELECT count(*) FROM \"User\"").await, 8);
    for request in fixture.sim.log() {
        let path = request.path.split('?').next().unwrap();
        let is_usual = path == "/v1/instance" || path == "/v1/users" || path == "/v1/users/count";
        let is_one = path
            .strip_prefix("/v1/users/")
            .is_some_and(|id| !id.is_empty() && !id.contains(['/', '.']));
        assert!(is_usual || is_one, "{}", request.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_keys_cost_a_request_for_99_of_them() {
    let app = AppTable::new(5, USER_TABLE, USER_MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture
        .db
        .execute(
            "INSERT INTO \"User\" (id, \"clerkId\", email, name, role, \"updatedAt\")
             SELECT n, 'user_forged_' || n, '', '', 'USER', now() FROM generate_series(1, 250) AS n",
        )
        .await;
    let asked = || {
        app.fixture
            .sim
            .log()
            .iter()
            .filter(|request| request.path.contains("user_id="))
            .count()
    };
    let before = asked();
    app.once().await;
    assert_eq!(asked() - before, 3);
}
