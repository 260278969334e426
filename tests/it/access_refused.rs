//! Clerk or Postgres refuses clerk2pg: exit code 1, a message, a hint, and nothing is written.

use std::time::{Duration, Instant};

use clerk_sim::{Effect, Endpoint, Options, Quirks, Rule, Sim};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    fixture::{Fixture, mirrored},
    summary::{Exit, in_sync},
};

async fn has_schema(fixture: &Fixture) -> bool {
    fixture
        .db
        .number("SELECT count(*) FROM pg_namespace WHERE nspname = 'clerk'")
        .await
        > 0
}

async fn last_run(fixture: &Fixture) -> String {
    let sql = "SELECT concat_ws(' ', outcome, error) FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
    fixture.db.text(sql).await.unwrap()
}

fn unauthorized() -> Quirks {
    Quirks {
        unauthorized: true,
        ..Quirks::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_writes_nothing() {
    let fixture = Fixture::new(10).await;
    fixture.sim.set_faults(unauthorized());
    for arguments in [&["--once"][..], &["--dry-run"], &[]] {
        let ran = fixture.run(arguments).await;
        ran.assert_error(Exit::Failed, "Clerk refused the secret key", "CLERK_SECRET_KEY");
        assert!(ran.stderr.contains("401 clerk_key_invalid"), "{ran:#?}");
        assert!(!has_schema(&fixture).await, "{arguments:?}");
    }
    let json = fixture.once().await.json();
    assert_eq!(json["outcome"], "failed");
    assert!(
        json["error"].as_str().unwrap().contains("refused the secret key"),
        "{json}"
    );
    // No request is sent again.
    assert_eq!(fixture.sim.requests(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_refused_later_leaves_the_mirror_alone() {
    let fixture = mirrored(30).await;
    let versions = fixture.db.versions().await;
    fixture.sim.delete(&fixture.sim.user_ids()[3]);
    fixture.sim.set_faults(unauthorized());
    fixture
        .run(&["--once"])
        .await
        .assert_error(Exit::Failed, "Clerk refused the secret key", "CLERK_SECRET_KEY");
    assert!(
        last_run(&fixture)
            .await
            .starts_with("failed Clerk refused the secret key")
    );
    // Also in the middle of a sync.
    for requests in 1..6 {
        let mut faults = clerk_sim::Faults::from(Rule::new(Effect::Quirks(Box::new(unauthorized()))).skip(requests));
        faults.quirks.max_page = Some(10);
        fixture.sim.set_faults(faults);
        fixture
            .run(&["--once"])
            .await
            .assert_error(Exit::Failed, "Clerk refused the secret key", "CLERK_SECRET_KEY");
        assert!(
            last_run(&fixture)
                .await
                .starts_with("failed Clerk refused the secret key")
        );
    }
    assert_eq!(fixture.db.versions().await, versions);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instances_key_is_refused() {
    let fixture = mirrored(10).await;
    let versions = fixture.db.versions().await;
    let other = Sim::start(Options {
        users: 5,
        seed: 2,
        secret_key: fixture.sim.secret_key().to_owned(),
        ..Options::default()
    })
    .await
    .unwrap();
    let url = other.url();
    for arguments in [&["--once"][..], &["--dry-run"], &[]] {
        let ran = fixture.run_with(arguments, &[("CLERK_API_URL", &url)]).await;
        ran.assert_error(Exit::Failed, fixture.sim.instance_id(), "another database");
        ran.assert_error(Exit::Failed, other.instance_id(), "that instance's key");
    }
    assert_eq!(fixture.db.versions().await, versions);
    assert!(
        last_run(&fixture)
            .await
            .starts_with("failed this database mirrors the Clerk instance")
    );
    let asked = other.requests_by_path();
    assert_eq!(
        asked.keys().collect::<Vec<_>>(),
        ["GET /v1/instance"],
        "more was read than who it is"
    );
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_or_foreign_clerk_is_reported() {
    let patience = ("CLERK2PG_CLERK__TIMEOUT", "200ms");
    let fixture = mirrored(10).await;
    let versions = fixture.db.versions().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let ran = fixture
        .run_with(&["--once"], &[patience, ("CLERK_API_URL", &closed)])
        .await;
    ran.assert_error(Exit::Failed, &closed, "clerk.api_url (CLERK_API_URL)");
    // A server that does not name its instance and has none of the users.
    let other = Sim::start(Options {
        users: 5,
        seed: 2,
        secret_key: fixture.sim.secret_key().to_owned(),
        ..Options::default()
    })
    .await
    .unwrap();
    let instance = |effect| Rule::new(effect).on([Endpoint::Instance]);
    for (effect, what) in [
        (Effect::Html, "HTML page"),
        (Effect::Truncate, "Clerk cannot be reached"),
        (Effect::Stall, "in time"),
    ] {
        other.set_faults(instance(effect));
        let ran = fixture
            .run_with(&["--once"], &[patience, ("CLERK_API_URL", &other.url())])
            .await;
        ran.assert_error(Exit::Failed, what, "clerk.api_url (CLERK_API_URL)");
    }
    assert_eq!(fixture.db.versions().await, versions);
}

/// Runs every command against a database that does not exist or refuses the connection.
async fn check_database(url: &str, what: &str, hint: &str) {
    let fixture = Fixture::new(3).await;
    for arguments in [
        &["--once"][..],
        &["--dry-run"],
        &["status"],
        &["migrate"],
        &["approve", "0123456789ab"],
    ] {
        let started = Instant::now();
        let ran = fixture.run_with(arguments, &[("DATABASE_URL", url)]).await;
        ran.assert_error(Exit::Failed, what, hint);
        assert!(!ran.stderr.contains("hidden"), "{ran:#?}");
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "{arguments:?} took {:?}",
            started.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_is_reported() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = nobody.local_addr().unwrap();
    drop(nobody);
    let url = format!("postgres://app:hidden@{place}/app?connect_timeout=1");
    check_database(&url, &format!("at {place}/app"), "check that the server is running").await;
}

/// A server that sends the same bytes to everybody who connects.
async fn server_that_says(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = connection.read(&mut [0; 1024]).await;
                let _ = connection.write_all(answer).await;
                let _ = connection.read(&mut [0; 1024]).await;
            });
        }
    });
    format!("postgres://app:hidden@{place}/app?connect_timeout=1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_reported() {
    let url = server_that_says(
        b"E\x00\x00\x00\x56SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"app\"\0Rauth_failed\0\0",
    )
    .await;
    check_database(
        &url,
        "password authentication failed for user \"app\"",
        "check user, password and database name",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_postgres_is_reported() {
    let url = server_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    check_database(&url, "Postgres cannot be reached", "check that the server is running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_database_or_role_is_reported() {
    let fixture = Fixture::new(1).await;
    let url = crate::support::database::with_database(&fixture.db.url, "clerk2pg_no_such_database");
    check_database(
        &url,
        "database \"clerk2pg_no_such_database\" does not exist",
        "check user, password and database name",
    )
    .await;
    let (scheme, rest) = fixture.db.url.split_once("://").unwrap();
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let url = format!("{scheme}://clerk2pg_nobody:hidden@{place}");
    check_database(&url, "clerk2pg_nobody", "check user, password and database name").await;
}
