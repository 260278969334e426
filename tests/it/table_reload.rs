//! SIGHUP gives a running daemon new mappings of the application's tables.

use rustix::process::Signal;

use crate::support::{app_table::AppTable, process::Process, summary::Exit, wait::eventually};

const TABLE: &str = r#"CREATE TABLE "User" ("clerkId" text PRIMARY KEY, email text, name text)"#;

const SCHEDULE: &str = "[schedule]\nfull = \"\"\nincremental = \"* * * * * *\"\n";

fn mapping(set: &str) -> String {
    format!("{SCHEDULE}[[tables]]\nname = \"User\"\nkey = \"clerkId\"\nmax_change_percent = 100\n[tables.set]\n{set}\n")
}

async fn reload(app: &AppTable, daemon: &Process, text: &str, says: &str) {
    app.set_mapping(text);
    let before = daemon.count_in_log(says);
    daemon.signal(Signal::HUP);
    eventually(&format!("{says}, after {text:?}"), async || {
        daemon.count_in_log(says) > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_mapping_is_applied_and_a_broken_one_is_not() {
    let app = AppTable::new(10, TABLE, &mapping("email = \"u.primary_email\"")).await;
    let db = &app.fixture.db;
    let config = app.config();
    let daemon = Process::spawn(app.fixture.command(&["--config", config.to_str().unwrap()]));
    let filled = r#"SELECT count(*) FROM "User" t JOIN clerk.users u ON u.id = t."clerkId" AND u.primary_email IS NOT DISTINCT FROM t.email"#;
    app.fixture.syncs(1).await;
    eventually("the table is filled", async || db.number(filled).await == 10).await;

    for broken in [
        "[[tables]]\nname = \"User",
        &mapping("email = \"u.primary_email\"").replace("tables.set", "tables.sett"),
        &mapping("clerkId = \"u.id\""),
    ] {
        reload(&app, &daemon, broken, "the old one stays").await;
    }
    let id = app.fixture.sim.create_random();
    let row = format!(r#"SELECT count(*) FROM "User" WHERE "clerkId" = '{id}'"#);
    eventually("the old mapping still works", async || db.number(&row).await == 1).await;

    let named = mapping("email = \"u.primary_email\"\nname = \"'it is ' || u.id\"");
    reload(&app, &daemon, &named, "configuration reloaded").await;
    let named = r#"SELECT count(*) FROM "User" WHERE name = 'it is ' || "clerkId""#;
    eventually("all rows follow the new mapping", async || db.number(named).await == 11).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
