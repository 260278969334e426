//! The SQLSTATE decides what an error means. Its text decides nothing, as it depends on users' data
//! and the server's language.

use std::collections::BTreeSet;

use clerk_sim::{Options, Sim};

use crate::support::{
    database::{Database, connect},
    fixture::{Fixture, mirrored_ids},
    summary::{Exit, changed},
};

/// Words of PostgreSQL errors that concern all users.
const WORDS: [&str; 9] = [
    "permission denied",
    "permission denied for table users",
    "must be owner of table users",
    "deadlock detected",
    "canceling statement due to user request",
    "canceling statement due to statement timeout",
    "could not extend file",
    "out of memory",
    "current transaction is aborted",
];

async fn rejected_ids(fixture: &Fixture) -> BTreeSet<String> {
    let rows = fixture
        .db
        .client
        .query("SELECT user_id FROM clerk.rejected_users", &[])
        .await;
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn assert_rejected(fixture: &Fixture, expected: &BTreeSet<String>) {
    assert_eq!(rejected_ids(fixture).await, *expected, "others are rejected");
    let all: BTreeSet<String> = fixture.sim.user_ids().into_iter().collect();
    let good: BTreeSet<String> = all.difference(expected).cloned().collect();
    assert_eq!(mirrored_ids(fixture).await, good, "others are in the mirror");
}

#[tokio::test(flavor = "multi_thread")]
async fn error_words_in_user_data_reject_that_user_only() {
    let fixture = Fixture::new(30).await;
    fixture.run(&["migrate"]).await.assert_exit(Exit::Ok);
    let index = "CREATE INDEX ON clerk.users (((unsafe_metadata->>'age')::int))";
    fixture.db.execute(index).await;
    let ids = fixture.sim.user_ids();
    let mut expected = BTreeSet::new();
    let set_age = |id: &str, age: &str| {
        assert!(
            fixture
                .sim
                .update(id, |user| user["unsafe_metadata"] = serde_json::json!({ "age": age }))
        );
    };
    // In a first import and in later syncs.
    for (id, word) in ids.iter().zip(WORDS) {
        set_age(id, word);
        expected.insert(id.clone());
    }
    fixture.once().await.assert(Exit::Ok, changed().created(21).rejected(9));
    assert_rejected(&fixture, &expected).await;
    for (id, word) in ids.iter().skip(9).zip(WORDS) {
        set_age(id, word);
        fixture.once().await;
        let sql = format!("SELECT reason FROM clerk.rejected_users WHERE user_id = '{id}'");
        let reason = fixture
            .db
            .text(&sql)
            .await
            .unwrap_or_else(|| panic!("{word:?} is not listed"));
        assert!(reason.contains("integer"), "{word:?}: {reason}");
        set_age(id, "30");
        fixture.once().await.assert_exit(Exit::Ok);
    }
    assert_rejected(&fixture, &expected).await;
}

/// A trigger that refuses each user whose first name is a SQLSTATE, with that SQLSTATE.
const REFUSING: &str = "
    CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.first_name ~ '^[0-9A-Z]{5}$' THEN
            RAISE EXCEPTION 'Zugriff verweigert: Verklemmung, Abbruch' USING ERRCODE = NEW.first_name;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON clerk.users FOR EACH ROW EXECUTE FUNCTION public.refuse()";

#[tokio::test(flavor = "multi_thread")]
async fn any_error_of_one_row_rejects_that_row_only() {
    let fixture = Fixture::new(30).await;
    fixture.run(&["migrate"]).await.assert_exit(Exit::Ok);
    fixture.db.execute(REFUSING).await;
    let codes = [
        "0A000", "21000", "22003", "22P02", "23502", "23505", "23514", "38000", "42501", "42703", "42883", "42P01",
        "3F000", "54000", "55000", "55P04", "P0001", "P0002", "XX000",
    ];
    let ids = fixture.sim.user_ids();
    let mut expected = BTreeSet::new();
    for (id, code) in ids.iter().zip(codes) {
        assert!(fixture.sim.update(id, |user| user["first_name"] = code.into()));
        expected.insert(id.clone());
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(11).rejected(19));
    assert_rejected(&fixture, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_privilege_fails_the_sync() {
    let (db, sim) = tokio::join!(
        Database::new(),
        Sim::start(Options {
            users: 20,
            secret_key: "sk_live_test".to_owned(),
            ..Options::default()
        })
    );
    let fixture = Fixture { db, sim: sim.unwrap() };
    let role = fixture
        .db
        .text("SELECT replace(current_database(), 'test', 'role')")
        .await
        .unwrap();
    fixture.once().await.assert_exit(Exit::Ok);
    fixture
        .db
        .execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA clerk TO {role};
             GRANT ALL ON ALL TABLES IN SCHEMA clerk TO {role}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA clerk TO {role};
             REVOKE UPDATE, DELETE ON clerk.users FROM {role}"
        ))
        .await;
    let url = {
        let (_, place) = fixture.db.url.split_once('@').unwrap();
        format!("postgres://{role}:secret@{place}")
    };
    connect(&url).await;
    let ids = fixture.sim.user_ids();
    let environment = [("DATABASE_URL", url.as_str()), ("CLERK2PG_DATABASE__MIGRATE", "false")];
    let mut refused = Vec::new();
    fixture
        .sim
        .update(&ids[0], |user| user["first_name"] = "Changed".into());
    refused.push(fixture.once_with(&environment).await);
    fixture
        .db
        .execute(&format!("GRANT UPDATE ON clerk.users TO {role}"))
        .await;
    fixture.sim.delete(&ids[1]);
    refused.push(fixture.once_with(&environment).await);
    for ran in refused {
        ran.assert_exit(Exit::Failed);
        assert!(ran.stderr.contains("the database role lacks a privilege"), "{ran:#?}");
    }
    assert!(rejected_ids(&fixture).await.is_empty(), "nobody's data was to blame");
    fixture
        .db
        .execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}
