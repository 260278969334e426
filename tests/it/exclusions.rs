//! `mirror.exclude`: fields that are stored nowhere, are erased when they are left out, and come back.

use clerk_sim::{Kind, Options, OrganizationOptions, PerOrganization};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    app_table::AppTable,
    fixture::Fixture,
    organizations::{ALL, KINDS, assert_all_in_sync, company, once_all},
    program::ProgramOutput,
    summary::{Exit, changed},
    wait::eventually,
};

/// In every value that is left out.
const SECRET: &str = "a value that stays at Clerk";

const EXCLUDE: &str = "CLERK2PG_MIRROR__EXCLUDE";

/// Fields of users and organizations.
const FIELDS: &str = "private_metadata, phone_numbers,last_name, username,slug,public_inviter_data";

/// The same, with an excerpt that says which user it is of.
const EXCERPTS: &str = "private_metadata,phone_numbers,last_name,username,slug,public_inviter_data,public_user_data";

/// A company whose objects have values to leave out.
async fn company_with_secrets() -> Fixture {
    let organizations = OrganizationOptions {
        members: PerOrganization::Sizes(vec![4, 3]),
        ..OrganizationOptions::number(2)
    };
    let fixture = company(6, organizations).await;
    for id in fixture.sim.user_ids() {
        put_secrets(&fixture, &id);
    }
    for (kind, ..) in KINDS {
        for id in fixture.sim.ids(kind) {
            fixture.sim.update_object(kind, &id, |object| {
                for key in ["private_metadata", "slug"] {
                    if object.get(key).is_some() {
                        object[key] = json!(format!("{key}: {SECRET}"));
                    }
                }
                for (excerpt, key) in [
                    ("public_user_data", "identifier"),
                    ("public_user_data", "last_name"),
                    ("public_inviter_data", "first_name"),
                ] {
                    if object.get(excerpt).is_some_and(serde_json::Value::is_object) {
                        object[excerpt][key] = json!(format!("{excerpt}: {SECRET}"));
                    }
                }
            });
        }
    }
    // An object that cannot be stored, and one whose document is no valid text.
    const AT: i64 = 1_700_000_000_000;
    let odd = format!(r#"{{"id":"user_without_time","created_at":"never","last_name":"{SECRET}"}}"#);
    fixture.sim.insert_raw("user_without_time", AT, AT, odd.into_bytes());
    let mangled = format!(r#"{{"id":"user_mangled","created_at":{AT},"last_n\u0061me":"{SECRET}"#);
    let mangled = [mangled.as_bytes(), b"\xff\"}"].concat();
    fixture.sim.insert_raw("user_mangled", AT, AT, mangled);
    fixture
}

fn put_secrets(fixture: &Fixture, id: &str) {
    fixture.sim.update(id, |user| {
        user["private_metadata"] = json!({ "secret": SECRET });
        user["phone_numbers"] = json!([{"id": "idn_1", "phone_number": format!("+{SECRET}")}]);
        user["primary_phone_number_id"] = json!("idn_1");
        user["last_name"] = json!(SECRET);
        user["username"] = json!(SECRET);
        user["external_accounts"] = json!([{"id": "eac_1", "last_name": SECRET, "username": SECRET}]);
    });
}

/// Returns the tables that hold a secret, with the number of their rows that do.
async fn leaks(fixture: &Fixture) -> Vec<String> {
    let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'clerk'::regnamespace AND relkind = 'r'";
    let tables = fixture.db.text(tables).await.unwrap();
    let mut found = Vec::new();
    for table in tables.split(' ') {
        let rows = format!("SELECT count(*) FROM clerk.{table} AS t WHERE strpos(t::text, '{SECRET}') > 0");
        match fixture.db.number(&rows).await {
            0 => {}
            rows => found.push(format!("{table} {rows}")),
        }
    }
    found
}

async fn events(fixture: &Fixture) -> i64 {
    fixture.db.number("SELECT count(*) FROM clerk.events").await
}

async fn once_without(fixture: &Fixture, fields: &str) -> ProgramOutput {
    let marks = ("CLERK2PG_DELETES__MODE", "mark");
    let ran = fixture.once_with(&[ALL, marks, (EXCLUDE, fields)]).await;
    ran.assert_exit(Exit::Ok);
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excluded_field_is_stored_nowhere() {
    let fixture = company_with_secrets().await;
    once_without(&fixture, FIELDS).await;
    assert_eq!(leaks(&fixture).await, [""; 0]);
    assert_eq!(
        fixture
            .db
            .number("SELECT count(*) FROM clerk.rejected WHERE document IS NOT NULL")
            .await,
        2
    );
    assert_eq!(fixture.users().await, 6);
    let members = "SELECT count(*) FROM clerk.members WHERE display_name IS NOT NULL";
    assert_eq!(fixture.db.number(members).await, 7);

    // Changes, and their events.
    for id in fixture.sim.user_ids().iter().filter(|id| id.len() > 20) {
        fixture.sim.update(id, |user| user["first_name"] = json!("Ann"));
    }
    let organization = fixture.sim.ids(Kind::Organizations)[0].clone();
    let memberships = fixture.sim.memberships_of(&organization);
    for membership in &memberships {
        fixture
            .sim
            .update_object(Kind::OrganizationMemberships, membership, |membership| {
                membership["public_metadata"] = json!({"seat": 1});
            });
    }
    once_without(&fixture, FIELDS).await;
    let types = "SELECT string_agg(type || ' ' || n, ', ' ORDER BY type) FROM (SELECT type, count(*) AS n FROM clerk.events GROUP BY 1) AS t";
    assert_eq!(
        fixture.db.text(types).await.as_deref(),
        Some(format!("organizationMembership.updated {}, user.updated 6", memberships.len()).as_str())
    );
    assert_eq!(leaks(&fixture).await, [""; 0]);
    let excerpts = "SELECT count(*) FROM clerk.events WHERE payload #>> '{data,organization,name}' IS NOT NULL
        AND payload #>> '{data,public_user_data,user_id}' LIKE 'user_%'";
    assert_eq!(fixture.db.number(excerpts).await, memberships.len() as i64);

    // A change of an excluded field alone is no change of the mirror.
    let seen = events(&fixture).await;
    for id in fixture.sim.user_ids().iter().filter(|id| id.len() > 20) {
        fixture
            .sim
            .update(id, |user| user["private_metadata"] = json!({"other": SECRET}));
    }
    once_without(&fixture, FIELDS).await;
    assert_eq!(leaks(&fixture).await, [""; 0]);
    let changed = "SELECT string_agg(DISTINCT changed::text, ' ') FROM clerk.events WHERE id > ";
    let of_last = fixture.db.text(&format!("{changed} {seen}")).await;
    assert_eq!(of_last.as_deref(), Some("{updated_at}"));
    let again = once_without(&fixture, FIELDS).await.json();
    assert_eq!(
        (again["created"].as_u64(), again["updated"].as_u64()),
        (Some(0), Some(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_is_erased_when_it_is_left_out_and_comes_back() {
    let fixture = company_with_secrets().await;
    let initial = [ALL, ("CLERK2PG_EVENTS__INITIAL", "true")];
    fixture.once_with(&initial).await.assert_exit(Exit::Ok);
    let leaking = leaks(&fixture).await;
    for table in ["users 6", "organizations 2", "organization_memberships 7", "rejected 2"] {
        assert!(leaking.iter().any(|leak| leak == table), "{table}: {leaking:?}");
    }
    assert!(leaking.iter().any(|leak| leak.starts_with("events ")), "{leaking:?}");
    // A row that no sync writes any more.
    fixture.db.execute("INSERT INTO clerk.users SELECT (r).* FROM (SELECT jsonb_populate_record(u, '{\"id\": \"user_marked\", \"deleted_at\": \"2026-01-01\"}') AS r FROM clerk.users u LIMIT 1) AS rows").await;
    let emitted = events(&fixture).await;

    let ran = once_without(&fixture, EXCERPTS).await;
    assert!(
        ran.stderr.contains("what was stored of them is erased"),
        "{}",
        ran.stderr
    );
    assert_eq!(leaks(&fixture).await, [""; 0]);
    assert_eq!(events(&fixture).await, emitted, "an erasure is no change of an object");
    // Those of all rows, also of the one that is marked.
    let names = "SELECT count(*) FROM clerk.users WHERE full_name = first_name AND display_name = first_name AND primary_phone IS NULL";
    assert_eq!(fixture.db.number(names).await, 7);
    assert_eq!(
        fixture
            .db
            .number("SELECT count(*) FROM clerk.users WHERE deleted_at IS NOT NULL")
            .await,
        1
    );
    let absent = "SELECT count(*) FROM clerk.users AS u WHERE clerk.user_document(u) ? 'private_metadata'";
    assert_eq!(fixture.db.number(absent).await, 0);
    let left = "SELECT count(*) FROM clerk.organization_memberships WHERE public_user_data = jsonb_build_object('user_id', user_id)";
    assert_eq!(fixture.db.number(left).await, 7);
    let again = once_without(&fixture, EXCERPTS).await;
    assert!(!again.stderr.contains("mirror.exclude"), "{}", again.stderr);
    assert_eq!(again.json()["updated"], 0);
    assert_eq!(events(&fixture).await, emitted);

    let back = fixture.once_with(&[ALL]).await;
    back.assert_exit(Exit::Ok);
    assert!(back.stderr.contains("they are stored again"), "{}", back.stderr);
    fixture.sim.delete("user_without_time");
    fixture.sim.delete("user_mangled");
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
    let listed = format!(
        "SELECT count(*) FROM clerk.events WHERE id > {emitted} AND type = 'user.updated'
        AND changed @> '{{private_metadata}}'"
    );
    assert_eq!(fixture.db.number(&listed).await, 6);
}

/// Mirrors 20 users, and makes the application refuse to change an event and a row.
async fn refusing() -> (Fixture, [(&'static str, &'static str); 1]) {
    let fixture = Fixture::new(20).await;
    let initial = [("CLERK2PG_EVENTS__INITIAL", "true")];
    fixture.once_with(&initial).await.assert_exit(Exit::Ok);
    let first = fixture.db.text("SELECT min(id) FROM clerk.users").await.unwrap();
    let refuse = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON clerk.events FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION refuse();
         CREATE TRIGGER refuse BEFORE UPDATE ON clerk.users FOR EACH ROW WHEN (NEW.id = '{first}') EXECUTE FUNCTION refuse()"
    );
    fixture.db.execute(&refuse).await;
    (fixture, [(EXCLUDE, "private_metadata,email_addresses")])
}

const ALLOW: &str = "DROP TRIGGER refuse ON clerk.events; DROP TRIGGER refuse ON clerk.users";

const STORED: &str = "SELECT (SELECT count(*) FROM clerk.users WHERE private_metadata IS NOT NULL)
    + (SELECT count(*) FROM clerk.events WHERE payload -> 'data' ? 'private_metadata')";

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_refused_in_part_goes_on_with_the_next_sync() {
    let (fixture, without) = refusing().await;
    for _ in 0..2 {
        let ran = fixture.once_with(&without).await;
        ran.assert_exit(Exit::Failed);
        let report = ran.json();
        assert_eq!(report["outcome"], "incomplete", "{ran:#?}");
        assert!(
            report["error"]
                .as_str()
                .unwrap()
                .contains("are still stored in 2 places,"),
            "{ran:#?}"
        );
        assert_eq!(fixture.db.number(STORED).await, 2);
    }
    fixture.db.execute(ALLOW).await;
    fixture.once_with(&without).await.assert_exit(Exit::Ok);
    assert_eq!(fixture.db.number(STORED).await, 0);
    assert_eq!(fixture.db.number("SELECT count(*) FROM clerk.rejected").await, 0);
    assert_eq!(
        fixture
            .db
            .text("SELECT erasing::text FROM clerk.sync_state")
            .await
            .as_deref(),
        Some("{}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_erasure_has_left_is_tried_again_once_in_a_sync() {
    let fixture = company(6, OrganizationOptions::number(2)).await;
    once_all(&fixture).await;
    let first = fixture.db.text("SELECT min(id) FROM clerk.users").await.unwrap();
    let refuse =
        format!("ALTER TABLE clerk.users ADD CONSTRAINT keeps CHECK (id <> '{first}' OR image_url IS NOT NULL)");
    fixture.db.execute(&refuse).await;
    for _ in 0..2 {
        let ran = fixture.once_with(&[ALL, (EXCLUDE, "image_url")]).await;
        ran.assert_exit(Exit::Failed);
        let report = ran.json();
        assert_eq!(report["outcome"], "incomplete", "{report}");
        for (resource, report) in report["resources"].as_object().unwrap() {
            assert!(report.get("error").is_none(), "{resource}: {report}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_taken_back_loses_nothing() {
    let (fixture, without) = refusing().await;
    fixture.once_with(&without).await.assert_exit(Exit::Failed);
    fixture.db.execute(ALLOW).await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(19).unchanged(1));
    fixture.assert_in_sync().await;
    let state =
        "SELECT concat(excluded, erasing, (SELECT bool_or(rereads) FROM clerk.resource_state WHERE resource = 'users'))
        FROM clerk.sync_state";
    assert_eq!(fixture.db.text(state).await.as_deref(), Some("{}{}f"));
}

/// A table of names, which the exclusion would replace.
const NAMES: &str = "[[tables]]\nname = \"people\"\nkey = \"clerk_id\"\n[tables.set]\nname = \"u.display_name\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_application_wait_for_a_person_before_they_change() {
    let table = "CREATE TABLE people (clerk_id text PRIMARY KEY, name text)";
    let app = AppTable::new(30, table, NAMES).await;
    app.once().await.assert_exit(Exit::Ok);
    let names = "SELECT string_agg(name, ', ' ORDER BY clerk_id) FROM people";
    let before = app.fixture.db.text(names).await;
    let mapping = |exclude: &str| format!("[mirror]\nexclude = [{exclude}]\n{NAMES}");
    app.set_mapping(&mapping("\"first_name\", \"last_name\""));
    app.once().await.assert_exit(Exit::Held);
    assert_eq!(app.fixture.db.text(names).await, before);
    let empty = "SELECT count(*) FROM clerk.users WHERE display_name IS NULL";
    assert_eq!(app.fixture.db.number(empty).await, 0);
    app.set_mapping(&mapping("\"email_addresses\"").replace("u.display_name", "u.primary_email"));
    let refused = app.once().await;
    refused.assert_error(
        Exit::Usage,
        "set.name reads u.primary_email",
        "take the field out of exclude",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reloaded_daemon_erases_and_restores() {
    let fixture = Fixture::with(Options {
        users: 30,
        ..Options::default()
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    let write = |exclude: &str| {
        let text = format!("[mirror]\nexclude = [{exclude}]\n[schedule]\nfull = \"\"\nincremental = \"* * * * * *\"\n");
        std::fs::write(&config, text).unwrap();
    };
    write("");
    let daemon = crate::support::process::Process::spawn(fixture.command(&["--config", config.to_str().unwrap()]));
    fixture.syncs(1).await;
    let stored = "SELECT count(*) FROM clerk.users WHERE email_addresses IS NOT NULL";
    eventually("all is stored", async || fixture.db.number(stored).await == 30).await;
    write("\"email_addresses\"");
    daemon.signal(Signal::HUP);
    eventually("the field is erased", async || fixture.db.number(stored).await == 0).await;
    let id = fixture.sim.create_random();
    eventually("a new user is stored", async || fixture.has_user(&id).await).await;
    assert_eq!(fixture.db.number(stored).await, 0);
    write("");
    daemon.signal(Signal::HUP);
    eventually("the field is back", async || fixture.db.number(stored).await == 31).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    fixture.once().await.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
}
