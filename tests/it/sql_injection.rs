//! Text from outside never becomes SQL: from Clerk, the environment, other programs and the
//! application. SQL is built from parts in few places.

use std::{collections::BTreeSet, fs, path::Path};

use clerk_sim::{Options, Sim};
use rustix::process::Signal;

use crate::support::{database::Database, fixture::Fixture, summary::Exit};

const HOSTILE: &str = r#"x'"; DROP TABLE clerk.users CASCADE; --\"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_text_from_outside_is_executed() {
    let options = Options {
        users: 3,
        secret_key: "sk_live_test".to_owned(),
        instance_id: format!("ins_{HOSTILE}"),
        ..Options::default()
    };
    let (db, sim) = tokio::join!(Database::new(), Sim::start(options));
    let fixture = Fixture { db, sim: sim.unwrap() };
    let hostile = |id: &str| {
        let mut document = fixture.sim.document(&fixture.sim.user_ids()[0]).unwrap();
        document["id"] = id.into();
        for field in ["username", "first_name", "last_name", "external_id"] {
            document[field] = HOSTILE.into();
        }
        document["public_metadata"] = serde_json::json!({ HOSTILE: HOSTILE });
        document[HOSTILE] = HOSTILE.into();
        document
    };
    let odd = format!("user_{HOSTILE}");
    fixture.sim.insert(hostile(&odd));
    fixture.sim.insert(hostile("user_even"));
    let environment = [("PGAPPNAME", HOSTILE), ("CLERK2PG_SCHEDULE__FULL", "* * * * * *")];
    let daemon = fixture.start_daemon(&environment);
    fixture.syncs(2).await;
    fixture.age_rows().await;
    fixture.assert_in_sync().await;
    let named = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%DROP TABLE%'";
    assert!(fixture.db.number(named).await > 0);

    // Names of other programs, and their notifications.
    let quoted = HOSTILE.replace('\'', "''");
    for sql in [
        format!("INSERT INTO clerk.standbys (holder, expires_at) VALUES ('{quoted}', now() + interval '1 second')"),
        format!("SELECT pg_notify('clerk2pg', '{quoted}'), pg_notify('clerk2pg', 'user_{quoted}')"),
        format!("SELECT pg_notify('clerk_user_events', '{quoted}')"),
    ] {
        fixture.db.execute(&sql).await;
    }
    fixture.wait_for_next_sync().await;
    fixture.sim.delete(&odd);
    let approved = fixture.run(&["approve", HOSTILE]).await;
    approved.assert_exit(Exit::Failed);
    fixture.wait_for_next_sync().await;
    fixture.run(&["status"]).await.assert_exit(Exit::Ok);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

/// Returns all Rust files of a folder with their names.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false => found.push((path.display().to_string(), fs::read_to_string(&path).unwrap())),
        }
    }
    found
}

#[test]
fn sql_is_built_from_constants_in_few_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = [
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "LISTEN",
        "NOTIFY",
        "SET LOCAL",
        "CREATE",
        "ALTER",
        "FROM clerk.",
    ];
    let mut found = BTreeSet::new();
    for (file, text) in sources(&root.join("src/mirror")) {
        let text = text.split("#[cfg(test)]").next().unwrap();
        for call in text.split("format!(").skip(1) {
            let literal = call.split('"').nth(1).unwrap_or_default();
            if words.iter().any(|word| literal.contains(word)) {
                let places = literal.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
                let file = file.rsplit_once("mirror/").unwrap().1.to_owned();
                found.insert((file, places.collect::<Vec<_>>().join(" ")));
            }
        }
    }
    let found: Vec<_> = found
        .iter()
        .map(|(file, parts)| (file.as_str(), parts.as_str()))
        .collect();
    // Constants, names of a resource's tables and columns, quoted names, numbers, and in `projection/`
    // the expressions of the configuration. Review a place before you add it: values belong into
    // parameters.
    assert_eq!(
        found,
        [
            ("counts.rs", "rows difference"),
            ("counts.rs", "table"),
            ("counts.rs", "table IN_RANGE"),
            ("delete.rs", "table column"),
            ("delete.rs", "table data"),
            ("delete.rs", "table unmarked"),
            ("delivery/fencing.rs", "silence lock_wait most_time"),
            ("delivery/mod.rs", "name event table"),
            ("delivery/pending.rs", "FROM_MIRROR created condition"),
            ("delivery/pending.rs", "name event document table event name"),
            ("delivery/progress.rs", "HEADS change"),
            ("delivery/redelivery.rs", "AGAIN FROM_MIRROR types"),
            ("delivery/redelivery.rs", "FROM_MIRROR objects AGAIN"),
            ("delivery/redelivery.rs", "which AGAIN"),
            ("delivery/registration.rs", "FROM_MIRROR objects"),
            ("erasure.rs", "document table"),
            ("exchange.rs", "table sets key"),
            ("exchange.rs", "table table table table"),
            ("holds.rs", "HELD_LATELY"),
            ("holds.rs", "JUDGED"),
            ("holds.rs", "table"),
            ("holds.rs", "table of_these"),
            ("instance.rs", "table"),
            ("leadership.rs", ""),
            ("leadership.rs", "OWN OWN"),
            ("leadership.rs", "OWN OWN lasts OWN"),
            ("leadership.rs", "OWN OWN mine lasts OWN"),
            ("leadership.rs", "standby_lasts"),
            ("lease.rs", ""),
            ("lease.rs", "OWN OWN"),
            ("lease.rs", "ROW_WAIT lasts OWN OWN"),
            ("lease.rs", "condition"),
            ("lease.rs", "table if_true"),
            ("locks.rs", ""),
            ("locks.rs", "table"),
            ("locks.rs", "table strength table"),
            ("missing.rs", "HELD_LATELY"),
            ("missing.rs", "table"),
            ("missing.rs", "unless_kept unless_held"),
            ("notifications.rs", "CHANNEL"),
            ("notifications.rs", "CHANNEL "),
            ("places.rs", "table name"),
            ("places.rs", "user_id table witness"),
            ("projection/compare.rs", ""),
            ("projection/comparison.rs", " stored"),
            (
                "projection/comparison.rs",
                "address exists columns table is_row exists differs"
            ),
            (
                "projection/comparison.rs",
                "desired plan few link table has_key link source is_plain holders source"
            ),
            ("projection/comparison.rs", "desired plan few source"),
            ("projection/comparison.rs", "object"),
            ("projection/comparison.rs", "objects is_plain"),
            (
                "projection/comparison.rs",
                "surplus address exists columns is_known table is_row known object exists removed exists differs"
            ),
            ("projection/departures.rs", ""),
            ("projection/excluded.rs", ""),
            ("projection/expression.rs", " "),
            ("projection/expression.rs", "  from"),
            ("projection/facts.rs", "  objects"),
            ("projection/facts.rs", "LIMIT_MS"),
            ("projection/facts.rs", "name"),
            ("projection/facts.rs", "name column name column prefix"),
            ("projection/inspection.rs", "limit"),
            ("projection/inspection.rs", "source"),
            ("projection/inspection.rs", "source source"),
            ("projection/problems.rs", " "),
            ("projection/problems.rs", "  "),
            ("projection/problems.rs", "column"),
            ("projection/problems.rs", "columns"),
            ("projection/problems.rs", "owner table role"),
            (
                "projection/removals.rs",
                "PATH objects table  source condition  WRITTEN_KEYS"
            ),
            ("projection/removals.rs", "PATH table items condition key WRITTEN_KEYS"),
            ("projection/removals.rs", "key table items object condition removed"),
            ("projection/removals.rs", "key table object after removed is_known row"),
            ("projection/row_key.rs", ""),
            ("projection/row_key.rs", " "),
            ("projection/row_key.rs", "  which"),
            ("projection/row_key.rs", " column"),
            ("projection/row_key.rs", " source "),
            ("projection/row_key.rs", "key name table items condition"),
            ("projection/row_key.rs", "names objects has_heir named"),
            ("projection/row_key.rs", "objects table is_row object removed has_heir"),
            ("projection/row_key.rs", "of_object named source condition has_values"),
            ("projection/row_key.rs", "unknown source"),
            ("projection/row_key.rs", "values keys"),
            ("projection/row_key.rs", "values owner objects condition"),
            ("projection/row_key.rs", "values source groups is_row"),
            ("projection/scan.rs", "mirrored"),
            ("projection/state.rs", " "),
            ("projection/statements.rs", ""),
            ("projection/statements.rs", " "),
            ("projection/statements.rs", "PATH      WRITTEN_KEYS"),
            ("projection/statements.rs", "PATH  WRITTEN_KEYS"),
            (
                "projection/statements.rs",
                "PATH link table key is_plain link source table key key_cast source key is_row_plain link table key key_cast WRITTEN_KEYS"
            ),
            ("projection/statements.rs", "materialized address values   "),
            (
                "projection/statements.rs",
                "row table items condition strength key table items condition row"
            ),
            ("projection/statements.rs", "source"),
            ("projection/statements.rs", "table"),
            (
                "projection/statements.rs",
                "table columns values source objects condition is_missing key"
            ),
            ("projection/trial.rs", "  place"),
            ("rejected.rs", "table"),
            ("rows.rs", "document table"),
            ("rows.rs", "table"),
            ("rows.rs", "table IN_RANGE"),
            ("summary.rs", "table"),
            ("summary.rs", "table held standby_lasts"),
            (
                "sync_state.rs",
                "difference resource resource resource resource held resource"
            ),
            ("transaction.rs", "MOST_TIME usual silence first"),
            ("upsert.rs", "columns sets"),
            ("upsert.rs", "table columns values"),
        ]
    );
}
