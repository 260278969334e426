//! What others write controls no terminal, and looks like no line of clerk2pg's own: texts of
//! Clerk's users, ids, names in the database, and messages of triggers.

use clerk_sim::{Options, Sim};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    app_table::AppTable,
    database::Database,
    fixture::{Fixture, mirrored},
    monitored::{ANY, MonitoredDaemon},
    process::NEVER,
    program::ProgramOutput,
    summary::Exit,
};

/// Sets the terminal's title, hides what follows, clears the screen, begins a line, and turns the
/// direction of the text around.
const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{1b}[8m\u{9b}2J\r\nFORGED\u{2028}\u{202e}";

/// With colours, as on a terminal.
const TERMINAL: (&str, &str) = ("CLICOLOR_FORCE", "1");

/// Asserts that a text has no control characters but colours and line ends of clerk2pg's own.
#[track_caller]
fn assert_harmless(what: &str, text: &str) {
    assert!(!text.contains("\u{1b}[8m"), "{what} hides text: {text:?}");
    let mut plain = String::new();
    for (at, piece) in text.split("\u{1b}[").enumerate() {
        let rest = match at {
            0 => piece,
            _ => piece
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == ';')
                .strip_prefix('m')
                .unwrap_or("\u{1b}"),
        };
        plain.push_str(rest);
    }
    let turns =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let found = plain.find(|c: char| (c.is_control() && c != '\n') || turns(c));
    assert_eq!(found, None, "{what}: {text:?}");
    assert!(
        !plain.lines().any(|line| line.trim_start().starts_with("FORGED")),
        "{what}: {text:?}"
    );
}

#[track_caller]
fn assert_harmless_output(what: &str, ran: &ProgramOutput) {
    assert_harmless(&format!("stdout of {what}"), &ran.stdout);
    assert_harmless(&format!("stderr of {what}"), &ran.stderr);
}

fn quoted(identifier: &str) -> String {
    format!("\"{identifier}\"")
}

/// A Clerk and a database with hostile texts everywhere, and a mapping of a table with a trigger that
/// repeats them.
async fn scene() -> AppTable {
    let options = Options {
        users: 12,
        secret_key: "sk_live_test".to_owned(),
        instance_id: format!("ins_{HOSTILE}"),
        ..Options::default()
    };
    let (db, sim) = tokio::join!(Database::new(), Sim::start(options));
    let fixture = Fixture { db, sim: sim.unwrap() };
    let mut odd = fixture.sim.document(&fixture.sim.user_ids()[0]).unwrap();
    odd["id"] = format!("user_{HOSTILE}").into();
    fixture.sim.insert(odd);
    for id in fixture.sim.user_ids() {
        fixture.sim.update(&id, |user| {
            user["first_name"] = HOSTILE.into();
            user["username"] = HOSTILE.into();
            user["unsafe_metadata"] = json!({ HOSTILE: HOSTILE });
        });
    }
    let table = quoted(&format!("users {HOSTILE}"));
    let column = quoted(&format!("name {HOSTILE}"));
    let schema = format!(
        "CREATE TABLE {table} (clerk_id text UNIQUE, {column} text, username text);
         CREATE FUNCTION public.complain() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not this one: %', NEW.username; END $$;
         CREATE TRIGGER complain BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION public.complain();
         CREATE TABLE plain (clerk_id text UNIQUE, username text)"
    );
    let escaped = |text: &str| serde_json::to_string(text).unwrap().replace("\u{7f}", "");
    let mapping = format!(
        "[[tables]]\nname = {}\nkey = \"clerk_id\"\n[tables.set]\n{} = \"u.first_name\"\nusername = \"u.username\"\n",
        escaped(&format!("users {HOSTILE}")),
        escaped(&format!("name {HOSTILE}"))
    );
    AppTable::with(fixture, &schema, &mapping).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_others_controls_the_terminal() {
    let app = scene().await;
    let config = app.config();
    let with_config = ["--config", config.to_str().unwrap()];
    let run = async |arguments: &[&str]| {
        let all = [&with_config, arguments].concat();
        let ran = app.fixture.run_with(&all, &[TERMINAL]).await;
        assert_harmless_output(&format!("{arguments:?}"), &ran);
        ran
    };
    run(&["--dry-run"]).await;
    let ran = run(&["--once"]).await;
    assert!(
        ran.stdout.contains("12 created") || ran.stdout.contains("13 created"),
        "{ran:#?}"
    );
    let name = HOSTILE.replace('\'', "''");
    app.fixture
        .db
        .execute(&format!(
            "INSERT INTO clerk.standbys (holder, expires_at, ttl) VALUES ('{name}', now() + interval '1 hour', interval '2 hours');
             UPDATE clerk.leader SET holder = '{name}', expires_at = now() + interval '1 hour', ttl = interval '2 hours';
             UPDATE clerk.sync_runs SET error = '{name}'"
        ))
        .await;
    let status = run(&["status"]).await;
    assert!(
        status.stdout.contains("not this one"),
        "the trigger's text is not there: {status:#?}"
    );
    run(&["check"]).await;
    let init = run(&["init"]).await;
    assert!(init.stdout.contains("seem to hold Clerk's ids"), "{init:#?}");
    for table in ["plain", &format!("users {HOSTILE}"), &format!("no such {HOSTILE}")] {
        run(&["init", "--table", table]).await;
    }
    let shown = run(&["init", "--table", "plain"]).await;
    assert!(shown.stdout.contains("Some rows that it makes"), "{shown:#?}");
    run(&["approve", HOSTILE]).await.assert_exit(Exit::Failed);
    run(&["send-test", HOSTILE]).await;
    run(&["redeliver", HOSTILE]).await;
    run(&["endpoints"]).await;
    app.fixture.sim.delete(&format!("user_{HOSTILE}"));
    app.fixture.age_rows().await;
    run(&["--dry-run"]).await;
    run(&["--once"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_others_looks_like_a_line_of_the_log() {
    for format in ["pretty", "json"] {
        let app = scene().await;
        let daemon = app.start_daemon(&[
            NEVER,
            ANY,
            TERMINAL,
            ("CLERK2PG_LOG__FORMAT", format),
            ("RUST_LOG", "debug"),
            ("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *"),
        ]);
        app.fixture.syncs(1).await;
        let quoted = HOSTILE.replace('\'', "''");
        let sql = format!("SELECT pg_notify('clerk2pg', '{quoted}'), pg_notify('clerk2pg', 'user_{quoted}')");
        app.fixture.db.execute(&sql).await;
        app.fixture.rename(&app.fixture.sim.user_ids()[0], "Ann");
        app.fixture.wait_for_next_sync().await;
        let ran = daemon.stop(Signal::TERM).await;
        assert_harmless_output(format, &ran);
        assert!(
            ran.stderr.contains("not this one"),
            "the trigger's text is not there: {ran:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_others_controls_the_terminal_that_asks_the_probes() {
    let fixture = mirrored(5).await;
    let leads = format!(
        "UPDATE clerk.leader SET holder = '{HOSTILE}', expires_at = now() + interval '1 hour', ttl = interval '2 hours'"
    );
    fixture.db.execute(&leads).await;
    let daemon = MonitoredDaemon::start(&fixture, &[]).await;
    daemon.wait_until_ready("FORGED").await;
    for path in ["/readyz", "/", "/metrics"] {
        assert_harmless(path, &daemon.get(path).await.body);
    }
    daemon.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
