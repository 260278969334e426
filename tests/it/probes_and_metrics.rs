//! The daemon's probes, metrics and status page.

use std::{collections::BTreeMap, process::Stdio};

use clerk_sim::{Effect, Endpoint, ErrorAnswer, ErrorBody, OrganizationOptions, Quirks, Rule, Unstorable};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;

use crate::support::{
    app_table::AppTable,
    faults::error,
    fixture::{Fixture, mirrored},
    http_client::get,
    metrics::Metrics,
    monitored::MonitoredDaemon,
    organizations::company,
    process::EVERY_SECOND,
    proxy::{Proxy, upstream},
    receiver::Receiver,
    statement_counter::StatementCounter,
    summary::Exit,
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn ready_when_in_sync_and_not_during_an_outage() {
    let fixture = Fixture::new(30).await;
    let mut postgres = Proxy::open(upstream(&fixture.db.url));
    fixture.sim.set_faults(Rule::new(Effect::Stall).on([Endpoint::List]));
    let url = postgres.url(&fixture.db.url);
    let slow = ("CLERK2PG_CLERK__TIMEOUT", "60s");
    let watched = MonitoredDaemon::start(&fixture, &[("DATABASE_URL", &url), EVERY_SECOND, slow]).await;
    eventually("Clerk is asked", async || fixture.sim.requests() > 0).await;
    let first = "first full sync still running";
    assert_eq!(watched.probe("/readyz").await, (503, first.to_owned()));
    assert_eq!(watched.probe("/livez").await, (200, "alive".to_owned()));
    assert_eq!(watched.metrics().await.value("clerk2pg_ready"), 0.0);
    watched.daemon.kill().await;
    fixture.sim.clear_faults();

    let watched = MonitoredDaemon::start(&fixture, &[("DATABASE_URL", &url), EVERY_SECOND]).await;
    watched.wait_until_ready("in sync").await;
    assert_eq!(watched.metrics().await.value("clerk2pg_ready"), 1.0);

    fixture.sim.set_faults(Quirks {
        unauthorized: true,
        ..Quirks::default()
    });
    watched.wait_until_not_ready("Clerk refused the secret key").await;
    assert_eq!(watched.probe("/livez").await.0, 200);
    fixture.sim.clear_faults();
    watched.wait_until_ready("in sync").await;

    postgres.refuse().await;
    watched.wait_until_not_ready("Postgres cannot be reached").await;
    assert_eq!(watched.probe("/livez").await.0, 200);
    eventually("the database has nothing to report", async || {
        let metrics = watched.metrics().await;
        assert_eq!(metrics.value("clerk2pg_ready"), 0.0);
        metrics.find("clerk2pg_users").is_none()
    })
    .await;
    eventually("the page says so", async || {
        let page = watched.get("/").await;
        assert_eq!(page.status, 200);
        page.body.contains("<h1>Failing</h1>") && page.body.contains("Postgres cannot be reached")
    })
    .await;
    postgres.open_again();
    watched.wait_until_ready("in sync").await;
    let ran = watched.daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_ready() {
    let fixture = mirrored(10).await;
    fixture
        .db
        .execute(
            "UPDATE clerk.sync_state SET lease_holder = 'other:1', lease_epoch = lease_epoch + 1,
                 lease_ttl = '1 hour', lease_expires_at = now() + interval '1 hour'",
        )
        .await;
    let watched = MonitoredDaemon::start(&fixture, &[EVERY_SECOND]).await;
    let standby = "standing by: other:1 is syncing this database";
    watched.wait_until_ready(standby).await;
    let metrics = watched.metrics().await;
    let flags = ["ready", "standing_by", "lease_held"].map(|flag| metrics.value(&format!("clerk2pg_{flag}")));
    assert_eq!(flags, [1.0, 1.0, 0.0]);
    let page = watched.get("/").await.body;
    assert!(
        page.contains("<h1>Standing by</h1>") && page.contains("other:1"),
        "{page}"
    );

    let free =
        "UPDATE clerk.sync_state SET lease_holder = NULL, lease_epoch = lease_epoch + 1, lease_expires_at = NULL";
    fixture.db.execute(free).await;
    watched.wait_until_ready("in sync").await;
    assert_eq!(watched.metrics().await.value("clerk2pg_standing_by"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_shown_while_it_is_held() {
    let fixture = mirrored(10).await;
    let slow = ("CLERK2PG_CLERK__TIMEOUT", "60s");
    fixture
        .sim
        .set_faults(Rule::new(Effect::Stall).on([Endpoint::List]).skip(1));
    let watched = MonitoredDaemon::start(&fixture, &[slow]).await;
    eventually("the lease is held", async || {
        watched.metrics().await.value("clerk2pg_lease_held") == 1.0
    })
    .await;
    eventually("the page shows it", async || {
        watched
            .get("/")
            .await
            .body
            .contains("<dt>Lease</dt><dd>this daemon</dd>")
    })
    .await;
    let ran = watched.daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
}

/// Requests an incremental sync, waits for its end, and returns the metrics.
async fn sync_incrementally(watched: &MonitoredDaemon) -> Metrics {
    let count = |metrics: &Metrics| -> f64 {
        let syncs = metrics.all("clerk2pg_syncs_total");
        let count = syncs
            .iter()
            .filter(|(labels, _)| labels.contains("kind=\"incremental\""));
        count.map(|(_, count)| count).sum()
    };
    let before = count(&watched.metrics().await);
    watched.daemon.signal(Signal::USR1);
    let mut metrics = None;
    eventually("an incremental sync", async || {
        let now = watched.metrics().await;
        let is_done = count(&now) > before;
        metrics = Some(now);
        is_done
    })
    .await;
    metrics.unwrap()
}

/// Returns the database's counts of syncs, by kind and outcome.
async fn syncs(fixture: &Fixture) -> BTreeMap<String, f64> {
    let sql = "SELECT format('kind=\"%s\",outcome=\"%s\"', kind, outcome), count(*) FROM clerk.sync_runs GROUP BY 1";
    let rows = fixture.db.client.query(sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get::<_, i64>(1) as f64))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_done() {
    let fixture = Fixture::new(25).await;
    fixture.sim.insert_unstorable(Unstorable::ManyKeys);
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    watched.wait_until_ready("in sync").await;
    assert_eq!(
        watched
            .metrics()
            .await
            .value("clerk2pg_user_changes_total{change=\"created\"}"),
        25.0
    );

    fixture.sim.create_random();
    fixture.sim.create_random();
    let changed = fixture.sim.user_ids()[3].clone();
    fixture
        .sim
        .update(&changed, |user| user["first_name"] = "Changed".into());
    fixture.sim.delete(&fixture.sim.user_ids()[5]);
    let limited = Rule::new(Effect::Error(ErrorAnswer {
        status: 429,
        retry_after: Some(1),
        body: ErrorBody::Json,
    }));
    fixture.sim.set_faults(limited.on([Endpoint::List]).next(1));
    sync_incrementally(&watched).await;
    let metrics = sync_incrementally(&watched).await;

    for change in ["created", "updated", "deleted", "rejected"] {
        let counted = metrics.value(&format!("clerk2pg_user_changes_total{{change=\"{change}\"}}"));
        let listed = fixture
            .db
            .number(&format!("SELECT sum({change}) FROM clerk.sync_runs"))
            .await;
        assert_eq!(counted, listed as f64, "{change}");
    }
    let listed = syncs(&fixture).await;
    let mut counted = metrics.all("clerk2pg_syncs_total");
    assert!(counted.remove("kind=\"incremental\",outcome=\"idle\"") >= Some(1.0));
    counted.retain(|_, count| *count > 0.0);
    assert_eq!(counted, listed);

    eventually("every answer is counted", async || {
        let counted = watched.metrics().await.all("clerk2pg_clerk_requests_total");
        let mut answered: BTreeMap<String, f64> = BTreeMap::new();
        for request in fixture.sim.log() {
            *answered.entry(format!("status=\"{}\"", request.status)).or_default() += 1.0;
        }
        counted == answered
    })
    .await;
    assert_eq!(metrics.value("clerk2pg_clerk_rate_limited_total"), 1.0);
    // The limit of a production key, 1000 in ten seconds, in full.
    assert_eq!(metrics.value("clerk2pg_clerk_request_limit_per_second"), 100.0);
    let used = metrics.value("clerk2pg_clerk_request_limit_used_ratio");
    assert!(used > 0.0 && used < 0.1, "{used}");

    // For the first import, the age of changes is not known.
    let ages = "clerk2pg_freshness_seconds";
    metrics.assert_histogram(ages, "kind=\"incremental\"");
    assert_eq!(metrics.value(&format!("{ages}_count{{kind=\"full\"}}")), 0.0);
    assert_eq!(metrics.value(&format!("{ages}_count{{kind=\"incremental\"}}")), 3.0);
    let sum = metrics.value(&format!("{ages}_sum{{kind=\"incremental\"}}"));
    let median = "SELECT freshness_ms FROM clerk.sync_runs WHERE freshness_ms IS NOT NULL";
    let median = fixture.db.number(median).await as f64 / 1000.0;
    assert!(sum >= median && sum < 60.0, "{sum}, {median}");
    metrics.assert_histogram("clerk2pg_sync_duration_seconds", "kind=\"full\"");
    assert_eq!(
        metrics.value("clerk2pg_sync_duration_seconds_count{kind=\"full\"}"),
        1.0
    );

    let now = metrics_time();
    let time =
        |what: &str, kind: &str| metrics.value(&format!("clerk2pg_last_{what}_timestamp_seconds{{kind=\"{kind}\"}}"));
    let started = metrics.value("process_start_time_seconds");
    for kind in ["full", "incremental"] {
        let (attempt, success) = (time("attempt", kind), time("success", kind));
        assert!(
            started <= attempt && attempt <= success && success <= now,
            "{metrics:?}"
        );
    }
    assert_eq!(
        metrics.value(&format!(
            "clerk2pg_build_info{{version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        )),
        1.0
    );
    eventually("the counts of the database are up to date", async || {
        let metrics = watched.metrics().await;
        let shown =
            ["users", "rejected_users", "held_deletions"].map(|name| metrics.value(&format!("clerk2pg_{name}")));
        shown == [26.0, 1.0, 0.0]
    })
    .await;

    fixture.sim.set_faults(Rule::new(error(503, ErrorBody::Json)));
    let metrics = sync_incrementally(&watched).await;
    let failed = metrics.value("clerk2pg_syncs_total{kind=\"incremental\",outcome=\"failed\"}");
    assert!(failed >= 1.0);
    assert!(
        time("attempt", "incremental") < metrics.value("clerk2pg_last_attempt_timestamp_seconds{kind=\"incremental\"}")
    );
    let success = metrics.value("clerk2pg_last_success_timestamp_seconds{kind=\"incremental\"}");
    assert_eq!(time("success", "incremental"), success);
}

fn metrics_time() -> f64 {
    chrono::Utc::now().timestamp_millis() as f64 / 1000.0
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_accepted_by_promtool() {
    // With organizations, a table of the application and an endpoint, which have metrics of their own.
    let receiver = Receiver::start().await;
    let mapping = "[[tables]]\nname = \"people\"\nkey = \"id\"\n[tables.set]\nname = \"u.first_name\"";
    let endpoint = format!(
        "{}start = \"everything\"\nevents = [\"user.*\"]",
        receiver.endpoint("app")
    );
    let config = format!("{mapping}\n{endpoint}");
    let company = company(5, OrganizationOptions::number(1)).await;
    let table = "CREATE TABLE people (id text PRIMARY KEY, name text)";
    let app = AppTable::with_organizations(company, table, &config).await;
    let watched = app.monitored().await;
    watched.wait_until_ready("in sync").await;
    receiver.wait_for_accepted(5).await;
    eventually("the endpoint is shown", async || {
        let metrics = watched.metrics().await;
        metrics.value("clerk2pg_deliveries_total{endpoint=\"app\",status=\"200\"}") == 5.0
            && metrics
                .find("clerk2pg_endpoint_lag_seconds{endpoint=\"app\"}")
                .is_some()
    })
    .await;
    let metrics = watched.metrics().await;
    let read = |name: &str| std::fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let table = read("watching.md");
    for family in metrics.families() {
        assert!(
            table.contains(&format!("`{family}`")),
            "{family} is not in docs/watching.md"
        );
    }
    // The metrics that the examples use exist.
    for file in ["alerts.yaml", "grafana.json", "watching.md"] {
        let text = read(file);
        let names = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for name in names.filter(|name| name.starts_with("clerk2pg_")) {
            let parts = ["_bucket", "_sum", "_count"].map(|suffix| name.strip_suffix(suffix));
            let is_known = |name: &str| metrics.families().contains(&name);
            assert!(
                is_known(name) || parts.into_iter().flatten().any(is_known),
                "{file} speaks of {name}"
            );
        }
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 5);

    // promtool is part of Debian's package prometheus.
    let promtool = tokio::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else { return };
    let text = watched.get("/metrics").await.body;
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let output = promtool.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}\n{text}");
    let alerts = format!("{}/docs/alerts.yaml", env!("CARGO_MANIFEST_DIR"));
    let output = tokio::process::Command::new("promtool")
        .args(["check", "rules", &alerts])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletions_are_shown_and_the_daemon_stays_ready() {
    let fixture = mirrored(60).await;
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    watched.wait_until_ready("in sync").await;
    fixture
        .sim
        .user_ids()
        .iter()
        .take(15)
        .for_each(|id| assert!(fixture.sim.delete(id)));
    sync_incrementally(&watched).await;
    watched.wait_until_ready("in sync, but deletions are held").await;
    eventually("the metrics show it", async || {
        watched.metrics().await.value("clerk2pg_held_deletions") == 15.0
    })
    .await;
    let page = watched.get("/").await.body;
    assert!(
        page.contains("<dt>Held deletions</dt><dd class=\"warn\">15<small>"),
        "{page}"
    );
}

/// Returns every text in a document that identifies a person.
fn personal(document: &serde_json::Value) -> Vec<String> {
    let mut texts = vec![document["id"].as_str().unwrap().to_owned()];
    for address in document["email_addresses"].as_array().into_iter().flatten() {
        texts.extend(address["email_address"].as_str().map(str::to_owned));
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_mirror_without_personal_data() {
    let fixture = Fixture::new(200).await;
    fixture.sim.insert_unstorable(Unstorable::ManyKeys);
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    watched.wait_until_ready("in sync").await;
    (0..20).for_each(|_| drop((fixture.sim.create_random(), fixture.sim.update_random())));
    let gone = fixture.sim.delete_random().unwrap();
    sync_incrementally(&watched).await;
    fixture
        .db
        .execute(&format!(
            "INSERT INTO clerk.sync_runs (kind, holder, ended_at, outcome, error)
             VALUES ('full', 'other:1', now(), 'failed', 'GET users/{gone}: <b>not</b> for ann@example.com')"
        ))
        .await;
    // The earlier page is kept for a moment.
    let mut page = String::new();
    eventually("the last sync is there", async || {
        page = watched.get("/").await.body;
        page.contains("GET users/user_…: &lt;b&gt;not&lt;/b&gt; for …")
    })
    .await;
    assert!(
        page.contains("<h1>In sync, but 1 user is rejected</h1>") && page.contains(fixture.sim.instance_id()),
        "{page}"
    );
    assert!(
        page.contains("<dt>Rejected users</dt><dd class=\"warn\">1<small>"),
        "{page}"
    );
    assert!(
        page.contains("median") && page.matches("<svg ").count() == 2 && page.contains("<rect class=\"updated\""),
        "{page}"
    );

    let mut documents: Vec<_> = fixture.db.documents().await.into_values().collect();
    documents.extend(fixture.sim.user_ids().iter().filter_map(|id| fixture.sim.document(id)));
    assert!(documents.len() > 400);
    for text in documents.iter().flat_map(personal).chain([gone]) {
        assert!(!page.contains(&text), "{text} is on the page");
    }
    assert!(!page.replace(STYLE_RULES, "").contains('@'), "{page}");
    // Links lead to this page, and to its icon.
    let links = page
        .split(" href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    let links: Vec<&str> = links.collect();
    assert_eq!(
        links,
        [
            "favicon.svg",
            "?range=15m",
            "?range=6h",
            "?range=7d",
            "?range=6h&amp;reload=off"
        ]
    );
    for elsewhere in ["http:", "https:", "//", "src=", "url(", "@import", "<script", "style="] {
        assert!(!page.contains(elsewhere), "{elsewhere} in {page}");
    }
    assert!(page.len() < 64 << 10, "{} bytes", page.len());
}

/// The only at sign, which the style needs.
const STYLE_RULES: &str = "@media (";

#[tokio::test(flavor = "multi_thread")]
async fn frequent_probes_rarely_query_the_database() {
    let fixture = mirrored(10).await;
    let statements = StatementCounter::before(&fixture.db.url).await;
    let watched = MonitoredDaemon::start(&fixture, &[("DATABASE_URL", &statements.url)]).await;
    watched.wait_until_ready("in sync").await;
    let before = statements.executed();
    let looking: Vec<_> = (0..40)
        .map(|n| {
            let address = watched.address.clone();
            tokio::spawn(async move {
                let path = if n % 2 == 0 { "/" } else { "/metrics" };
                get(&address, path).await.unwrap().status
            })
        })
        .collect();
    for looking in looking {
        assert_eq!(looking.await.unwrap(), 200);
    }
    let asked = statements.executed() - before;
    assert!((1..40).contains(&asked), "{asked} statements for 40 requests");
    let connections = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'clerk2pg control' AND datname = current_database()";
    assert_eq!(fixture.db.number(connections).await, 1);
}
