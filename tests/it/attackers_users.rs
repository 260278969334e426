//! What a user can do to clerk2pg with an account at Clerk, and what not.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{
    app_table::AppTable,
    changes::{now, rename, set_address},
    fixture::Fixture,
    monitored::{ANY, MonitoredDaemon},
    summary::Exit,
    wait::within,
};

/// A part of each hostile text.
const MARK: &str = "m4rk";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_writes_is_stored_as_it_is_and_shown_nowhere() {
    let fixture = Fixture::new(8).await;
    let texts = [
        format!("=cmd|' /C {MARK}'!A0"),
        format!("<script>{MARK}</script>"),
        format!("'; DROP TABLE clerk.users; -- {MARK}"),
        format!("\u{1b}]0;{MARK}\u{7}\r\n\u{202e}"),
        format!("${{jndi:ldap://{MARK}}} {{{{{MARK}}}}} %s%n $1 \\1"),
        format!("\u{430}dmin {MARK} \u{200b}\u{feff}"),
    ];
    for (id, text) in fixture.sim.user_ids().iter().zip(&texts) {
        let changed = fixture.sim.update(id, |user| {
            for field in ["first_name", "last_name", "username"] {
                user[field] = text.clone().into();
            }
            let mut metadata = json!({"__proto__": {"admin": text}, "constructor": {"prototype": {"admin": true}}});
            metadata[text] = json!([text, null]);
            user["unsafe_metadata"] = metadata;
        });
        assert!(changed);
    }
    let daemon = MonitoredDaemon::new(fixture.start_incremental(&[ANY, ("RUST_LOG", "clerk2pg=trace")]).await).await;
    fixture.assert_in_sync().await;
    for (id, text) in fixture.sim.user_ids().iter().zip(&texts) {
        let metadata = fixture.sim.document(id).unwrap()["unsafe_metadata"].clone();
        rename(&fixture, id, &format!("{text}!"), now());
        assert!(metadata["__proto__"]["admin"].is_string());
    }
    fixture.wait_until_mirrored().await;
    for event in fixture.events(0).await {
        let text = event.payload["data"]["username"].as_str().unwrap();
        assert!(texts.iter().any(|own| own == text), "{event:?}");
        assert_eq!(event.payload["data"]["unsafe_metadata"]["__proto__"]["admin"], text);
    }
    for path in ["/", "/metrics", "/readyz", "/livez"] {
        let answer = daemon.get(path).await;
        assert!(!answer.body.contains(MARK), "{path}: {answer:?}");
    }
    let ran = daemon.daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert!(!ran.stderr.contains(MARK) && !ran.stdout.contains(MARK), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_changes_all_the_time_delays_no_other() {
    let fixture = Fixture::new(2_000).await;
    let daemon = fixture.start_incremental(&[]).await;
    let ids = fixture.sim.user_ids();
    let (restless, other) = (ids[0].clone(), ids[1].clone());
    let stored = format!("SELECT first_name FROM clerk.users WHERE id = '{other}'");
    let stop = CancellationToken::new();
    let changing = stop.run_until_cancelled(async {
        for n in 0_u64.. {
            rename(&fixture, &restless, &format!("name {n}"), now());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let following = async {
        for name in ["Ann", "Bea", "Cid"] {
            let before = fixture.sim.requests();
            rename(&fixture, &other, name, now());
            within(
                Duration::from_secs(20),
                "the other user's change is there",
                async || fixture.db.text(&stored).await.as_deref() == Some(name),
            )
            .await;
            // A few requests a second, whatever that user does.
            assert!(fixture.sim.requests() - before < 150);
        }
        stop.cancel();
    };
    tokio::join!(changing, following);
    fixture.wait_until_mirrored().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

const ACCOUNTS: &str = "CREATE TABLE accounts (clerk_id text UNIQUE, email text UNIQUE)";

/// Makes a user with an address that is not verified, and then one who has verified it, and returns
/// who has the address in the table.
async fn who_has_the_address(set: &str) -> [bool; 2] {
    let mapping = format!("[[tables]]\nname = 'accounts'\nkey = 'clerk_id'\n[tables.set]\nemail = '{set}'\n");
    let app = AppTable::new(3, ACCOUNTS, &mapping).await;
    app.once().await.assert_exit(Exit::Ok);
    let sim = &app.fixture.sim;
    let squatter = sim.create_random();
    set_address(&app.fixture, &squatter, "ann@x.test");
    assert!(sim.update(&squatter, |user| {
        user["email_addresses"][0]["verification"] = json!({"status": "unverified", "strategy": "email_code"});
    }));
    app.once().await.assert_exit(Exit::Ok);
    let owner = sim.create_random();
    set_address(&app.fixture, &owner, "ann@x.test");
    app.once().await;
    let holder = app
        .fixture
        .db
        .text("SELECT clerk_id FROM accounts WHERE email = 'ann@x.test'")
        .await;
    assert_eq!(app.fixture.users().await, 5, "the mirror has both");
    [squatter, owner].map(|id| holder.as_ref() == Some(&id))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_verified_holds_a_place_unless_the_mapping_asks() {
    let (as_it_is, verified) = tokio::join!(
        who_has_the_address("u.primary_email"),
        who_has_the_address("CASE WHEN u.primary_email_verified THEN u.primary_email END")
    );
    assert_eq!(
        as_it_is,
        [true, false],
        "the first one keeps the place, and the owner's row is listed"
    );
    assert_eq!(verified, [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_verified_takes_no_place_from_its_owner() {
    let mapping = "[[tables]]\nname = 'accounts'\nkey = 'clerk_id'\n[tables.set]\nemail = 'u.primary_email'\n";
    let app = AppTable::new(12, ACCOUNTS, mapping).await;
    let fixture = &app.fixture;
    let ids = fixture.sim.user_ids();
    let (owner, squatter) = (&ids[3], &ids[1]);
    set_address(fixture, owner, "ann@x.test");
    app.once().await.assert_exit(Exit::Ok);
    fixture
        .db
        .execute("CREATE UNIQUE INDEX ON clerk.users (primary_email)")
        .await;
    let who = [
        "SELECT clerk_id FROM accounts WHERE email = 'ann@x.test'",
        "SELECT id FROM clerk.users WHERE primary_email = 'ann@x.test'",
    ];
    for name in ["Ann", "Bea", "Cid"] {
        set_address(fixture, squatter, "ann@x.test");
        assert!(fixture.sim.update(squatter, |user| {
            user["email_addresses"][0]["verification"] = json!({"status": "unverified", "strategy": "email_code"});
        }));
        // Both change in one page, and others exchange values.
        rename(fixture, owner, name, now());
        rename(fixture, squatter, name, now());
        app.once().await;
        for sql in who {
            assert_eq!(fixture.db.text(sql).await.as_ref(), Some(owner), "{name}: {sql}");
        }
    }
}
