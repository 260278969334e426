//! Ids that the database makes: `clerk.cuid` and `clerk.nanoid`.

use tokio_postgres::error::SqlState;

use crate::support::{fixture::Fixture, summary::Exit};

const CUID: &str = "^[a-z][a-z0-9]{23}$";
const NANOID: &str = "^[A-Za-z0-9_-]{21}$";

/// Returns a fixture with the schema and no users.
async fn migrated() -> Fixture {
    let fixture = Fixture::new(0).await;
    fixture.run(&["migrate"]).await.assert_exit(Exit::Ok);
    fixture
}

/// Creates a table `ids` with this number of rows: `cuid`, and `nanoid` of the default size.
async fn fill(fixture: &Fixture, rows: usize) {
    let create = "CREATE UNLOGGED TABLE ids (cuid text COLLATE \"C\" NOT NULL, nanoid text COLLATE \"C\" NOT NULL)";
    fixture.db.execute(create).await;
    let insert = format!("INSERT INTO ids SELECT clerk.cuid(), clerk.nanoid() FROM generate_series(1, {rows})");
    fixture.db.execute(&insert).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_ids_are_distinct_and_in_form() {
    let fixture = migrated().await;
    fill(&fixture, 1_000_000).await;
    for (column, form) in [("cuid", CUID), ("nanoid", NANOID)] {
        let distinct = format!("SELECT count(DISTINCT {column}) FROM ids");
        assert_eq!(fixture.db.number(&distinct).await, 1_000_000, "{column}");
        let odd = format!("SELECT {column} FROM ids WHERE {column} !~ '{form}' LIMIT 1");
        assert_eq!(fixture.db.text(&odd).await, None, "{column}");
    }
}

/// The rows of a column's letters by place, with the letter's share of that place.
fn shares(column: &str) -> String {
    format!(
        "SELECT place, substr({column}, place, 1) AS letter, count(*)::float8 / (SELECT count(*) FROM ids) AS share
         FROM ids, generate_series(1, length({column})) AS place GROUP BY place, letter"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_place_has_every_letter_about_equally_often() {
    let fixture = migrated().await;
    fill(&fixture, 100_000).await;
    // In a cuid, a letter may be twice as frequent as another.
    for (column, place, places, letters, lowest, highest) in [
        ("cuid", "place = 1", 1, 26, 0.025, 0.07),
        ("cuid", "place > 1", 23, 36, 0.0125, 0.0375),
        ("nanoid", "true", 21, 64, 0.0125, 0.019),
    ] {
        let sql = format!(
            "SELECT count(DISTINCT place), count(*), min(share), max(share) FROM ({}) AS shares WHERE {place}",
            shares(column)
        );
        let row = fixture.db.client.query_one(&sql, &[]).await.unwrap();
        let found: (i64, i64, f64, f64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!((found.0, found.1), (places, places * letters), "{column}: {place}");
        assert!(found.2 > lowest && found.3 < highest, "{column}: {place}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_makes_an_id_of_its_own() {
    let fixture = migrated().await;
    for call in [
        "clerk.cuid()",
        "clerk.nanoid()",
        "clerk.nanoid(26)",
        "clerk.nanoid(100)",
    ] {
        let equal = format!(
            "SELECT count(*) FROM (SELECT {call} AS one, {call} AS other FROM generate_series(1, 1000)) AS ids WHERE one = other"
        );
        assert_eq!(fixture.db.number(&equal).await, 0, "{call}");
        // The key refuses a second row with the same id.
        fixture
            .db
            .execute(&format!(
                "CREATE TABLE chosen (id text PRIMARY KEY, n int);
                 INSERT INTO chosen SELECT {call}, n FROM generate_series(1, 1000) AS n;
                 CREATE TABLE filled_in (id text PRIMARY KEY DEFAULT {call}, n int);
                 INSERT INTO filled_in (n) SELECT n FROM chosen"
            ))
            .await;
        let rows = "SELECT count(*) FROM (TABLE chosen UNION TABLE filled_in) AS ids";
        assert_eq!(fixture.db.number(rows).await, 2000, "{call}");
        fixture.db.execute("DROP TABLE chosen, filled_in").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nanoid_has_the_size_asked_for() {
    let fixture = migrated().await;
    let odd = "SELECT string_agg(size || ' ' || id, ', ') FROM (SELECT size, clerk.nanoid(size) AS id FROM generate_series(0, 200) AS size) AS ids
        WHERE id IS NULL OR id !~ ('^[A-Za-z0-9_-]{' || size || '}$')";
    assert_eq!(fixture.db.text(odd).await, None);
    assert_eq!(fixture.db.text("SELECT clerk.nanoid(NULL)").await, None);
    let error = fixture
        .db
        .client
        .simple_query("SELECT clerk.nanoid(-1)")
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::SUBSTRING_ERROR), "{error}");
}

/// A function that PostgreSQL does not inline takes several times as long.
#[tokio::test(flavor = "multi_thread")]
async fn both_functions_are_inlined() {
    let fixture = migrated().await;
    for call in ["clerk.cuid()", "clerk.nanoid()"] {
        let explain = format!("EXPLAIN (VERBOSE, COSTS OFF) SELECT {call} FROM generate_series(1, 1000)");
        let rows = fixture.db.client.query(&explain, &[]).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(
            plan.contains("gen_random_uuid()") && !plan.contains("clerk."),
            "{call}: {plan}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_search_path_will_do() {
    let fixture = migrated().await;
    for path in ["''", "pg_temp", "public, pg_catalog", "clerk"] {
        fixture.db.execute(&format!("SET search_path = {path}")).await;
        for (call, form) in [
            ("clerk.cuid()", CUID),
            ("clerk.nanoid()", NANOID),
            ("clerk.nanoid(63)", "^[A-Za-z0-9_-]{63}$"),
        ] {
            let fits = format!("SELECT {call} OPERATOR(pg_catalog.~) '{form}'");
            assert_eq!(fixture.db.text(&fits).await.as_deref(), Some("t"), "{path}: {call}");
        }
    }
}
