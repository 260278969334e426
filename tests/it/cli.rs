//! The commands, and what they print as text and as JSON.

use std::{collections::BTreeSet, process::Stdio};

use clerk_sim::{OrganizationOptions, Unstorable};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{
    app_table::AppTable,
    changes::{now, rename},
    delivery::Delivering,
    fixture::{Fixture, mirrored},
    organizations::{mirrored_company, once_all},
    receiver::Receiver,
    summary::{Exit, changed, failed, in_sync, planned},
};

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

const REPORT: [&str; 10] = [
    "outcome",
    "created",
    "updated",
    "deleted",
    "unchanged",
    "held",
    "rejected",
    "requests",
    "duration_ms",
    "plan",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_one_object_with_these_keys() {
    let fixture = Fixture::new(10).await;
    for arguments in [
        &["--dry-run", "--format", "json"][..],
        &["--once", "--format", "json"],
        &["--format=json", "--once"],
    ] {
        let before = fixture.sim.requests();
        let ran = fixture.run(arguments).await;
        assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 1), "{ran:#?}");
        let json = ran.json();
        assert_eq!(keys(&json), BTreeSet::from(REPORT));
        assert_eq!(json["requests"], fixture.sim.requests() - before);
        assert_eq!(json["plan"], Value::Null);
        assert!(json["duration_ms"].as_u64().unwrap() > 0);
    }
    // A failed sync reports the same keys and an error.
    let ran = fixture
        .run_with(
            &["--once", "--format", "json"],
            &[("CLERK_SECRET_KEY", "sk_live_other")],
        )
        .await;
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(1), 1), "{ran:#?}");
    let json = ran.json();
    assert!(BTreeSet::from(REPORT).is_subset(&keys(&json)), "{json}");
    assert_eq!(json["outcome"], "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_shown_again_until_a_signal() {
    let fixture = mirrored(3).await;
    let arguments = ["status", "--watch", "100ms", "--format", "json"];
    let mut child = fixture.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut users = async || {
        let line = lines.next_line().await.unwrap().expect("another status");
        serde_json::from_str::<Value>(&line).unwrap()["users"].clone()
    };
    assert_eq!(users().await, 3);
    fixture.sim.create_random();
    fixture.once().await.assert_exit(Exit::Ok);
    while users().await != 4 {}
    let id = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(id, Signal::INT).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn manual_pages_and_completions_need_no_configuration() {
    let fixture = Fixture::new(0).await;
    let folder = tempfile::tempdir().unwrap();
    let folder_name = folder.path().to_str().unwrap();
    let none = [
        ("DATABASE_URL", ""),
        ("CLERK_SECRET_KEY", ""),
        ("CLERK2PG_HTTP__LISTEN", "nonsense"),
    ];
    fixture
        .run_with(&["man", folder_name], &none)
        .await
        .assert_exit(Exit::Ok);
    for page in ["clerk2pg.1", "clerk2pg-status.1", "clerk2pg-redeliver.1"] {
        let page = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(page.contains(".TH clerk2pg"), "{page}");
    }
    fixture
        .run_with(&["man", "/nonexistent"], &none)
        .await
        .assert_exit(Exit::Failed);
    for shell in ["bash", "zsh", "fish"] {
        let ran = fixture.run_with(&["completions", shell], &none).await;
        assert!(
            ran.stdout.contains("dry-run") && ran.stdout.contains("redeliver"),
            "{shell}: {ran:?}"
        );
    }
    // What a format is for decides.
    for arguments in [
        &["status", "--format", "prisma"][..],
        &["print-schema", "--format", "json"],
    ] {
        fixture.run_with(arguments, &none).await.assert_exit(Exit::Usage);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_an_empty_database_leaves_it_empty() {
    let fixture = Fixture::new(12).await;
    let ran = fixture.run(&["--dry-run"]).await;
    ran.assert_exit(Exit::Ok);
    let mut expected: BTreeSet<String> = fixture.sim.user_ids().iter().map(|id| format!("+ {id}")).collect();
    expected.insert(String::new());
    expected.insert("clerk.users: 12 to create, 0 to update, 0 to delete, 0 unchanged.".to_owned());
    assert_eq!(ran.stdout.lines().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    fixture
        .run(&["--dry-run", "--exit-code"])
        .await
        .assert_exit(Exit::Differences);
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'clerk'";
    assert_eq!(fixture.db.number(schemas).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_does_what_the_dry_run_before_it_printed() {
    let fixture = mirrored(30).await;
    let ids = fixture.sim.user_ids();
    let in_sync = fixture.run(&["--dry-run", "--exit-code"]).await;
    in_sync.assert_exit(Exit::Ok);
    let expected = format!(
        "No changes. The mirror is in sync with {} (30 users).\n",
        fixture.sim.instance_id()
    );
    assert_eq!(in_sync.stdout, expected);

    for at in [3, 9] {
        fixture.sim.delete(&ids[at]);
    }
    fixture.sim.update(&ids[5], |user| {
        user["first_name"] = "Changed".into();
        user["public_metadata"] = serde_json::json!({"changed": true});
        user["updated_at"] = (user["updated_at"].as_i64().unwrap() + 1).into();
    });
    // Clerk does not always change `updated_at`.
    let mut banned = fixture.sim.document(&ids[6]).unwrap();
    banned["banned"] = (banned["banned"] != true).into();
    banned["brand_new_key"] = 1.into();
    fixture.sim.insert(banned);
    let new = fixture.sim.create_random();
    let bad = fixture.sim.insert_unstorable(Unstorable::ManyKeys);
    let versions = fixture.db.versions().await;
    let runs = "SELECT count(*) FROM clerk.sync_runs";
    let before = fixture.db.number(runs).await;

    let ran = fixture.run(&["--dry-run"]).await;
    ran.assert_exit(Exit::Ok);
    let (lines, totals) = ran.stdout.split_once("\n\n").unwrap();
    let lines: BTreeSet<&str> = lines.lines().collect();
    let changed_id = format!("~ {} first_name, public_metadata, updated_at", ids[5]);
    let expected = [
        format!("+ {new}"),
        changed_id,
        format!("~ {} banned, brand_new_key", ids[6]),
        format!("- {}", ids[3]),
        format!("- {}", ids[9]),
        format!("! {bad} the document has more than 1000 keys"),
    ];
    assert_eq!(lines, expected.iter().map(String::as_str).collect());
    let json = fixture.run(&["--dry-run", "--format", "json"]).await;
    json.assert(
        Exit::Ok,
        planned().created(1).updated(2).deleted(2).unchanged(26).rejected(1),
    );
    let sum = json.json()["plan"].as_str().unwrap().to_owned();
    assert_eq!(
        totals,
        format!(
            "clerk.users: 1 to create, 2 to update, 2 to delete, 26 unchanged.\n1 user cannot be stored or deleted.\nChecksum of the deletions: {sum}\n"
        )
    );
    fixture
        .run(&["--dry-run", "--exit-code"])
        .await
        .assert_exit(Exit::Differences);
    assert_eq!(
        (fixture.db.versions().await, fixture.db.number(runs).await),
        (versions, before)
    );

    fixture.once().await.assert(
        Exit::Ok,
        changed().created(1).updated(2).deleted(2).unchanged(26).rejected(1),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_as_text() {
    let fixture = Fixture::new(12).await;
    let ran = fixture.run(&["status"]).await;
    ran.assert_exit(Exit::Failed);
    assert!(
        ran.stderr
            .contains("there is no mirror in this database yet\nhint: start clerk2pg, or run `clerk2pg --once`, first"),
        "{ran:#?}"
    );

    let bad = fixture.sim.insert_unstorable(Unstorable::CreatedAtAsWord);
    fixture.once().await.assert(Exit::Ok, changed().created(12).rejected(1));
    fixture
        .once_with(&[("CLERK_SECRET_KEY", "sk_live_other")])
        .await
        .assert(Exit::Failed, failed());
    let ran = fixture.run_with(&["status"], &[("CLERK_SECRET_KEY", "")]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:#?}");
    for part in [
        &format!("12 users of {} (production)", fixture.sim.instance_id()),
        "Last successful full sync",
        "1 user rejected",
        &bad,
        "changed",
        "failed",
        "Clerk refused the secret key",
    ] {
        assert!(ran.stdout.contains(part), "nothing of {part:?}: {ran:#?}");
    }
    assert!(
        !ran.stdout.contains("is syncing") && !ran.stdout.contains("held"),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_as_json() {
    let fixture = mirrored(12).await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(12));
    let ran = fixture.run(&["status", "--format", "json"]).await;
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 1), "{ran:#?}");
    let json = ran.json();
    for (key, expected) in [
        ("instance_id", Value::from(fixture.sim.instance_id())),
        ("environment_type", "production".into()),
        ("users", 12.into()),
        ("held", 0.into()),
        ("plan", Value::Null),
        ("approved", 0.into()),
        ("rejected", 0.into()),
        ("lease_holder", Value::Null),
    ] {
        assert_eq!(json[key], expected, "{key}");
    }
    let runs = json["runs"].as_array().unwrap();
    let outcomes: Vec<_> = runs.iter().map(|run| run["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["in_sync", "changed"], "newest first");
    assert_eq!((&runs[1]["created"], &runs[0]["unchanged"]), (&12.into(), &12.into()));
    assert_eq!(json["last_success_at"], runs[0]["ended_at"]);
}

/// Returns the keys in the first column of the table that follows a text in docs/commands.md.
fn documented_keys(place: &str) -> BTreeSet<String> {
    let page = include_str!("../../docs/commands.md");
    let (_, behind) = page.split_once(place).unwrap_or_else(|| panic!("no {place:?}"));
    let table = behind.lines().skip_while(|line| !line.starts_with("| Key |"));
    let rows = table.skip(2).map_while(|line| line.strip_prefix("| "));
    let mut keys = BTreeSet::new();
    for column in rows.map(|row| row.split(" | ").next().unwrap()) {
        for key in column.split(", ") {
            let key = key.trim_matches('`').to_owned();
            assert!(keys.insert(key.clone()), "{place} has {key} twice");
        }
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn every_json_key_is_documented() {
    let check = |place: &str, found: &Value| {
        let documented = documented_keys(place);
        assert_eq!(
            documented.iter().map(String::as_str).collect::<BTreeSet<_>>(),
            keys(found),
            "{place}"
        );
    };
    let mapping = "[[tables]]\nname = \"people\"\nkey = \"id\"\n[tables.set]\nname = \"u.first_name\"";
    let table = "CREATE TABLE people (id text PRIMARY KEY, name text)";
    let app = AppTable::with(mirrored(12).await, table, mapping).await;
    let fixture = &app.fixture;
    rename(fixture, &fixture.sim.user_ids()[0], "Renamed", now());
    let ran = app.once().await;
    ran.assert(Exit::Ok, changed().updated(1).unchanged(11));
    let tables = ran.json()["tables"].clone();
    check("Each object in `tables` is about", &tables["public.people"]);
    let company = mirrored_company(3, OrganizationOptions::number(2)).await;
    let resources = once_all(&company).await["resources"].clone();
    // A failed sync has all keys but those of tables and other resources.
    let mut failed = fixture.once_with(&[("CLERK_SECRET_KEY", "sk_live_other")]).await.json();
    failed["tables"] = tables;
    failed["resources"] = resources.clone();
    check("### A sync", &failed);
    let mut of_resource = documented_keys("### A sync");
    of_resource.retain(|key| !["tables", "resources", "hint", "error"].contains(&key.as_str()));
    let found = keys(&resources["organizations"]);
    assert_eq!(of_resource.iter().map(String::as_str).collect::<BTreeSet<_>>(), found);
    let endpoint = "INSERT INTO clerk.endpoints (name, url_digest, types, position) VALUES ('app', '', '{}', 0)";
    fixture.db.execute(endpoint).await;
    let mut status = app.run(&["status", "--format", "json"]).await.json();
    check("Each object in `tables`:", &status["tables"][0]);
    let of_company = company.run(&["status", "--format", "json"]).await.json();
    status["resources"] = of_company["resources"].clone();
    check("Each object in `resources`:", &status["resources"][0]);
    check("### The status", &status);
    check("The object `freshness`", &status["freshness"]);
    check("Each object in `runs`", &status["runs"][0]);
    every_key_of_deliveries_is_documented(&check).await;
}

async fn every_key_of_deliveries_is_documented(check: &impl Fn(&str, &Value)) {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let dead = "INSERT INTO clerk.deliveries (endpoint, resource, object_id, event_id, attempts, dead_at, last_error)
        VALUES ('app', 'users', 'user_a', 1, 8, now(), 'it answered 400')";
    delivering.fixture.db.execute(dead).await;
    let json = async |arguments: &[&str]| {
        delivering
            .run(&[arguments, &["--format", "json"]].concat())
            .await
            .json()
    };
    let place = "Each object in `endpoints`:";
    check(place, &json(&["status"]).await["endpoints"][0]);
    let listed = json(&["endpoints"]).await;
    assert_eq!(keys(&listed), BTreeSet::from(["endpoints"]));
    let mut endpoint = listed["endpoints"][0].clone();
    check("Each object in `dead_events`:", &endpoint["dead_events"][0]);
    let of_status = documented_keys(place);
    let object = endpoint.as_object_mut().unwrap();
    object.retain(|key, _| !of_status.contains(key));
    check("### The endpoints", &endpoint);
    let others = [
        (&["redeliver", "app"][..], &["endpoint", "queued"][..]),
        (
            &["send-test", "app"],
            &["duration_ms", "endpoint", "error", "id", "status"],
        ),
    ];
    for (arguments, expected) in others {
        let printed = json(arguments).await;
        assert_eq!(keys(&printed), expected.iter().copied().collect(), "{arguments:?}");
        let row = format!("| `{}` |", arguments[0]);
        let page = include_str!("../../docs/commands.md");
        let row = page.lines().find(|line| line.starts_with(&row)).unwrap();
        for key in expected {
            assert!(row.contains(&format!("`{key}`")), "{key} is not in {row}");
        }
    }
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_follow_the_variables() {
    let fixture = mirrored(3).await;
    let has_colours = async |environment: &[(&str, &str)]| {
        let all = [&[("RUST_LOG", "clerk2pg=debug")], environment].concat();
        let ran = fixture.run_with(&["--once"], &all).await;
        ran.assert_exit(Exit::Ok);
        assert!(ran.stderr.contains("DEBUG"), "no log: {ran:#?}");
        [ran.stdout, ran.stderr].map(|text| text.contains('\x1b'))
    };
    let forced = ("CLICOLOR_FORCE", "1");
    assert_eq!(has_colours(&[]).await, [false; 2], "without a terminal");
    assert_eq!(has_colours(&[forced]).await, [true; 2]);
    assert_eq!(has_colours(&[forced, ("NO_COLOR", "")]).await, [true; 2]);
    assert_eq!(has_colours(&[forced, ("NO_COLOR", "1")]).await, [false; 2]);
}

/// Returns everything that the program logs at a level, and the password in the database URL: the
/// server's own, or any password if it asks for none.
async fn everything_said(fixture: &Fixture, level: &str) -> (String, String) {
    let (scheme, rest) = fixture.db.url.split_once("://").unwrap();
    let (who, place) = rest.rsplit_once('@').unwrap_or(("postgres", rest));
    let (user, password) = who.split_once(':').unwrap_or((who, "hidden_password"));
    let url = format!("{scheme}://{user}:{password}@{place}");
    let mut said = String::new();
    for arguments in [&["--dry-run"][..], &["--once"], &["status"], &["migrate"]] {
        let ran = fixture
            .run_with(arguments, &[("DATABASE_URL", &url), ("RUST_LOG", level)])
            .await;
        ran.assert_exit(Exit::Ok);
        said += &ran.stdout;
        said += &ran.stderr;
    }
    (said, password.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_at_any_level() {
    let fixture = Fixture::new(10).await;
    fixture.sim.insert_unstorable(Unstorable::CreatedAtAsList);
    let (said, password) = everything_said(&fixture, "trace").await;
    assert!(
        said.contains("TRACE") && said.contains("DEBUG"),
        "the test would not see what it looks for"
    );
    for secret in [&password, fixture.sim.secret_key()] {
        let place = said
            .find(secret)
            .map(|at| said[at.saturating_sub(300)..].lines().take(3).collect::<Vec<_>>());
        assert_eq!(place, None, "{secret} is said");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_personal_data_is_logged_above_debug() {
    let fixture = Fixture::new(40).await;
    for kind in [
        Unstorable::CreatedAtAsList,
        Unstorable::CreatedAtTooLate,
        Unstorable::InvalidUtf8,
        Unstorable::CreatedAtAsWord,
    ] {
        fixture.sim.insert_unstorable(kind);
    }
    let (mut said, _) = everything_said(&fixture, "info").await;
    fixture.sim.delete(&fixture.sim.user_ids()[3]);
    for id in &fixture.sim.user_ids()[5..15] {
        fixture.sim.update(id, |user| user["first_name"] = "Somebody".into());
    }
    said += &everything_said(&fixture, "info").await.0;
    assert!(!said.contains('@') && !said.contains("Somebody"), "{said}");
    let names = fixture
        .db
        .client
        .query("SELECT last_name FROM clerk.users WHERE length(last_name) > 4", &[])
        .await
        .unwrap();
    assert!(names.len() > 5);
    for name in names {
        assert!(!said.contains(name.get::<_, &str>(0)), "{said}");
    }
}
