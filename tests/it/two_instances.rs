//! Two Clerk instances in one database: the second mirror has a schema of its own, and neither daemon
//! touches the other's.

use std::collections::BTreeMap;

use clerk_sim::{Kind, Options, OrganizationOptions, Sim};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    compare::comparable,
    fixture::Fixture,
    on_demand::{DEBUG, LISTENING},
    organizations::{ALL, assert_all_in_sync, company, once_all},
    process::Process,
    program::{ProgramOutput, wait_for_exit},
    receiver::Receiver,
    summary::Exit,
    wait::eventually,
};

const SCHEMA: &str = "clerk_dev";

/// The second instance, beside the fixture's.
struct Second {
    sim: Sim,
    directory: tempfile::TempDir,
}

impl Second {
    async fn new(users: usize) -> Self {
        let options = Options {
            users,
            seed: 7,
            secret_key: "sk_live_second".to_owned(),
            instance_id: "ins_second".to_owned(),
            organizations: OrganizationOptions::number(3),
            ..Options::default()
        };
        let second = Self {
            sim: Sim::start(options).await.unwrap(),
            directory: tempfile::tempdir().unwrap(),
        };
        second.configure("");
        second
    }

    fn configure(&self, more: &str) {
        let text = format!(
            "[database]\nschema = \"{SCHEMA}\"\n[schedule]\nfull = \"\"\nincremental = \"* * * * * *\"\n{more}"
        );
        std::fs::write(self.directory.path().join("config.toml"), text).unwrap();
    }

    fn command(&self, fixture: &Fixture, arguments: &[&str]) -> Command {
        let mut command = fixture.command(arguments);
        command
            .env("CLERK_SECRET_KEY", self.sim.secret_key())
            .env("CLERK_API_URL", self.sim.url())
            .env(ALL.0, ALL.1)
            .env("CLERK2PG_HTTP__LISTEN", "127.0.0.1:0")
            .arg("--config")
            .arg(self.directory.path().join("config.toml"));
        command
    }

    async fn run(&self, fixture: &Fixture, arguments: &[&str]) -> ProgramOutput {
        wait_for_exit(self.command(fixture, arguments).spawn().unwrap()).await
    }

    async fn is_in_sync(&self, fixture: &Fixture) -> bool {
        let sql = format!("SELECT id, {SCHEMA}.user_document(u)::text FROM {SCHEMA}.users AS u");
        let rows = fixture.db.client.query(&sql, &[]).await.unwrap();
        let document = |row: &tokio_postgres::Row| -> Value { serde_json::from_str(row.get(1)).unwrap() };
        let mirror: BTreeMap<String, Value> = rows.iter().map(|row| (row.get(0), comparable(document(row)))).collect();
        let ids = self.sim.user_ids();
        let clerk = ids
            .iter()
            .map(|id| (id.clone(), comparable(self.sim.document(id).unwrap())));
        mirror == clerk.collect()
    }
}

/// Returns what the catalog says of a schema, with its name replaced.
async fn catalog(fixture: &Fixture, schema: &str) -> String {
    let sql = format!(
        "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
             SELECT concat_ws(' ', 'relation', c.relkind::text, c.relname, obj_description(c.oid, 'pg_class'),
                 CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) WHEN 'i' THEN pg_get_indexdef(c.oid) END) AS line
             FROM pg_class c WHERE c.relnamespace = '{schema}'::regnamespace
             UNION ALL SELECT concat_ws(' ', 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                 pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum), a.attnotnull)
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
             WHERE c.relnamespace = '{schema}'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
             UNION ALL SELECT concat_ws(' ', 'constraint', conname, pg_get_constraintdef(oid))
             FROM pg_constraint WHERE connamespace = '{schema}'::regnamespace
             UNION ALL SELECT concat_ws(' ', 'function', pg_get_functiondef(oid), obj_description(oid, 'pg_proc'))
             FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace
             UNION ALL SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid)) FROM pg_trigger t
             JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = '{schema}'::regnamespace AND NOT tgisinternal
         ) AS lines"
    );
    let text = fixture.db.text(&sql).await.unwrap();
    match schema {
        SCHEMA => {
            let foreign = text.lines().find(|line| line.contains("clerk."));
            assert_eq!(foreign, None, "it refers to the other schema");
            text.replace(&format!("\"{SCHEMA}\""), "clerk").replace(SCHEMA, "clerk")
        }
        _ => text,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_share_a_database() {
    let (fixture, second) = tokio::join!(company(30, OrganizationOptions::number(2)), Second::new(20));
    let db = &fixture.db;
    let once = second.run(&fixture, &["--once"]).await;
    once.assert_exit(Exit::Ok);
    assert!(once.stdout.contains("20 created"), "{once:#?}");
    assert!(once.stdout.contains(&format!("FROM {SCHEMA}.users")), "{once:#?}");
    assert_eq!(db.text("SELECT to_regnamespace('clerk')::text").await, None);
    once_all(&fixture).await;
    assert_eq!(catalog(&fixture, SCHEMA).await, catalog(&fixture, "clerk").await);

    let (first_daemon, second_daemon) = (
        fixture.start_daemon(&[ALL, ("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *")]),
        Process::spawn(second.command(&fixture, &[])),
    );
    first_daemon.wait_for_log("full sync").await;
    second_daemon.wait_for_log("full sync").await;
    for schema in ["clerk", SCHEMA] {
        db.execute(&format!(
            "UPDATE {schema}.users SET first_seen_at = first_seen_at - interval '1 hour', changed_at = changed_at - interval '1 hour'"
        ))
        .await;
    }
    for sim in [&fixture.sim, &second.sim] {
        sim.create_random();
        sim.update_random();
        sim.delete_random();
        let organization = sim.ids(Kind::Organizations)[0].clone();
        sim.update_object(Kind::Organizations, &organization, |organization| {
            organization["name"] = json!("Renamed");
        });
    }
    eventually("the first mirror equals its instance", async || {
        let mirror = db.documents().await;
        mirror.len() == fixture.sim.count() && mirror.keys().all(|id| fixture.sim.document(id).is_some())
    })
    .await;
    eventually("the second mirror equals its instance", async || {
        second.is_in_sync(&fixture).await
    })
    .await;
    for schema in ["clerk", SCHEMA] {
        let renamed = format!("SELECT count(*) FROM {schema}.organizations WHERE name = 'Renamed'");
        eventually("an organization is renamed", async || db.number(&renamed).await == 1).await;
    }
    first_daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    second_daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    once_all(&fixture).await;
    assert_all_in_sync(&fixture).await;
    // The key of one instance in the schema of the other.
    let mixed = fixture.once_with(&[("CLERK2PG_DATABASE__SCHEMA", SCHEMA)]).await;
    mixed.assert_error(
        Exit::Failed,
        "this database mirrors the Clerk instance ins_second",
        "use that instance's key",
    );
    assert!(second.is_in_sync(&fixture).await);

    // The schema gets another name.
    db.execute(&format!("ALTER SCHEMA {SCHEMA} RENAME TO clerk_renamed"))
        .await;
    let mut renamed = second.command(&fixture, &["--once", "--format", "json"]);
    renamed.env("CLERK2PG_DATABASE__SCHEMA", "clerk_renamed");
    let renamed = ProgramOutput::from(renamed.output().await.unwrap());
    renamed.assert_exit(Exit::Ok);
    assert_eq!(
        (&renamed.json()["unchanged"], &renamed.json()["updated"]),
        (&json!(20), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_tables_and_endpoints_follow_the_schema() {
    let (fixture, second) = tokio::join!(Fixture::new(5), Second::new(20));
    let db = &fixture.db;
    let receiver = Receiver::start().await;
    db.execute("CREATE TABLE account (id text PRIMARY KEY, clerk_id text UNIQUE NOT NULL, email text, note text)")
        .await;
    second.configure(&format!(
        "[[tables]]\nname = \"account\"\nkey = \"clerk_id\"\n[tables.set]\nemail = \"u.primary_email\"\nnote = \"'clerk'\"\n\
         [tables.insert]\nid = \"clerk.cuid()\"\n{}",
        receiver.endpoint("app")
    ));
    fixture.once().await.assert_exit(Exit::Ok);
    let mut command = second.command(&fixture, &[]);
    command.env(DEBUG.0, DEBUG.1);
    let mut daemon = Process::spawn(command);
    let filled = "SELECT count(*) FROM account WHERE note = 'clerk' AND length(id) > 20";
    eventually("the table is filled", async || db.number(filled).await == 20).await;
    daemon.wait_for_log(LISTENING).await;
    let id = second.sim.user_ids()[0].clone();
    second.sim.update(&id, |user| user["first_name"] = json!("Changed"));
    db.execute(&format!("NOTIFY {SCHEMA}2pg, '{id}'")).await;
    eventually("the event is delivered", async || {
        let accepted = receiver.accepted();
        accepted
            .iter()
            .any(|event| event.kind() == "user.updated" && event.object() == id)
    })
    .await;
    assert!(!daemon.has_ended());
    for (arguments, says) in [
        (&["status"][..], "20 users"),
        (&["check"], "clerk_dev"),
        (&["endpoints"], "app"),
        (&["migrate"], "The schema \"clerk_dev\" is up to date."),
        (&["print-schema", "--format", "prisma"], "@@schema(\"clerk_dev\")"),
    ] {
        let ran = second.run(&fixture, arguments).await;
        ran.assert_exit(Exit::Ok);
        assert!(ran.stdout.contains(says), "{arguments:?}: {ran:#?}");
        for other in ["clerk.", "\"clerk\"", "schema clerk ", "NOTIFY clerk2pg"] {
            let lines: Vec<&str> = ran.stdout.lines().filter(|line| !line.contains("clerk.com")).collect();
            assert!(!lines.join("\n").contains(other), "{arguments:?}: {ran:#?}");
        }
    }
    // The schema of a running daemon stays.
    second.configure("");
    let path = second.directory.path().join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace(SCHEMA, "clerk_other");
    std::fs::write(&path, text).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for_log("database.schema differs").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_eq!(fixture.users().await, 5);
    assert_eq!(
        db.number("SELECT count(*) FROM clerk.sync_runs WHERE kind <> 'full'")
            .await,
        0
    );
}
