//! What the daemon's status page says: what waits for a person, ranges of time, and reasons.

use clerk_sim::Unstorable;
use rustix::process::Signal;

use crate::support::{
    fixture::{Fixture, mirrored},
    monitored::MonitoredDaemon,
    process::EVERY_SECOND,
    summary::Exit,
    wait::eventually,
};

#[track_caller]
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// Waits until the page at an address contains a text, and returns it.
async fn page_with(watched: &MonitoredDaemon, path: &str, text: &str) -> String {
    let mut page = String::new();
    eventually(&format!("{path} says {text:?}"), async || {
        page = watched.get(path).await.body;
        page.contains(text)
    })
    .await;
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletions_come_first_with_the_command_that_approves_them() {
    let fixture = mirrored(60).await;
    let watched = MonitoredDaemon::start(&fixture, &[EVERY_SECOND]).await;
    watched.wait_until_ready("in sync").await;
    let page = watched.get("/").await.body;
    assert!(!page.contains("Needs attention"), "nothing waits: {page}");

    let ids = fixture.sim.user_ids();
    ids.iter().take(15).for_each(|id| assert!(fixture.sim.delete(id)));
    watched.wait_until_ready("in sync, but deletions are held").await;
    let page = page_with(&watched, "/", "<h1>In sync, but 15 deletions are held</h1>").await;
    let section = "</header><main><section class=\"attention\"><h2>Needs attention</h2><ul><li><strong>15 deletions are held</strong>";
    assert_contains(&page, &[section]);
    let command = page
        .split("<code>clerk2pg ")
        .nth(2)
        .unwrap()
        .split("</code>")
        .next()
        .unwrap();
    let status = fixture.run(&["status", "--format", "json"]).await.json();
    assert_eq!(command, format!("approve {}", status["plan"].as_str().unwrap()));

    let arguments: Vec<&str> = command.split(' ').collect();
    fixture.run(&arguments).await.assert_exit(Exit::Ok);
    let page = page_with(&watched, "/", "<h1>In sync</h1>").await;
    assert!(!page.contains("Needs attention"), "{page}");
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_users_are_counted_by_reason_without_personal_data() {
    let fixture = mirrored(6).await;
    fixture
        .db
        .execute(
            "CREATE FUNCTION no_ada() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.first_name LIKE 'Ada%' THEN RAISE EXCEPTION 'no % here', NEW.first_name; END IF; RETURN NEW; END $$;
             CREATE TRIGGER no_ada BEFORE INSERT OR UPDATE ON clerk.users FOR EACH ROW EXECUTE FUNCTION no_ada();
             ALTER TABLE clerk.users ADD CONSTRAINT short CHECK (length(last_name) < 20)",
        )
        .await;
    for _ in 0..2 {
        fixture.sim.insert_unstorable(Unstorable::ManyKeys);
    }
    let ids = fixture.sim.user_ids();
    for (at, id) in ids.iter().take(5).enumerate() {
        let (field, value) = match at {
            0..3 => ("first_name", format!("Ada{at}")),
            _ => ("last_name", format!("Lovelace{at}").repeat(3)),
        };
        assert!(fixture.sim.update(id, |user| user[field] = value.clone().into()));
    }
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    watched.wait_until_ready("in sync").await;
    let page = page_with(&watched, "/", "Rejected, by reason").await;
    assert_contains(
        &page,
        &[
            "<h1>In sync, but 7 users are rejected</h1>",
            "<strong>7 users are rejected</strong><p>To see each user with the reason, run <code>clerk2pg status</code></p>",
            "<td class=\"long\">a trigger or function of the application raised an exception<td>3</tr>",
            "violates check constraint &quot;short&quot;<td>2</tr>",
            "keys<td>2</tr>",
        ],
    );
    for personal in ["Ada", "Lovelace", "user_"] {
        assert!(!page.contains(personal), "{personal} in {page}");
    }
}

/// Returns how many bars of a kind the page has, and what its plot of changes is called.
fn changes(page: &str) -> (usize, &str) {
    let name = page.split("aria-label=\"Users changed in ").nth(1).unwrap();
    (
        page.matches("<rect class=\"updated\"").count(),
        name.split('"').next().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_chooses_the_range_of_the_plots() {
    let fixture = mirrored(5).await;
    // Five minutes, five hours and five days ago; and syncs of another resource.
    fixture
        .db
        .execute(
            "UPDATE clerk.sync_runs SET started_at = now() - interval '6 days 23 hours';
             INSERT INTO clerk.sync_runs (kind, resource, holder, started_at, ended_at, outcome, updated, age_count, ages_ms, freshness_ms)
             SELECT 'incremental', resource, 'other:1', now() - age, now() - age, 'changed', users, users, ARRAY[100, 2000, 9000], 2000
             FROM (VALUES ('users', interval '5 minutes', 3), ('users', '5 hours', 40), ('users', '5 days', 500),
                          ('organizations', '5 minutes', 7)) AS runs(resource, age, users)",
        )
        .await;
    let watched = MonitoredDaemon::start(&fixture, &[("CLERK2PG_SCHEDULE__INCREMENTAL", "")]).await;
    watched.wait_until_ready("in sync").await;
    for (range, title, bars, changed) in [
        ("15m", "15 minutes", 1, "3"),
        ("6h", "6 hours", 2, "43"),
        ("7d", "7 days", 3, "543"),
    ] {
        let page = watched.get(&format!("/?range={range}")).await.body;
        let all = format!("the last {title}: 5 created, {changed} updated, 0 deleted");
        let all = if range == "7d" {
            all
        } else {
            all.replace("5 created", "0 created")
        };
        assert_eq!(changes(&page), (bars, all.as_str()));
        let current = format!("<a href=\"?range={range}\" aria-current=\"true\">{title}</a>");
        assert_contains(
            &page,
            &[&current, "2 s, at worst 9 s", &format!("<h2>The last {title}</h2>")],
        );
        assert_eq!(page.matches(" aria-current=").count(), 1);
    }
    // Six hours are the default.
    for path in [
        "/",
        "/?",
        "/?range=",
        "/?range=8d",
        "/?range=%3Cscript%3E",
        "/?other=7d",
    ] {
        let page = watched.get(path).await.body;
        assert_contains(&page, &["<a href=\"?range=6h\" aria-current=\"true\">6 hours</a>"]);
        assert!(!page.contains("script"), "{page}");
    }

    // The browser loads the same address again.
    assert_eq!(watched.get("/?range=7d").await.header("refresh"), Some("15"));
    let stopped = watched.get("/?range=7d&reload=off").await;
    assert_eq!(stopped.header("refresh"), None);
    assert_contains(&stopped.body, &["<a href=\"?range=15m&amp;reload=off\">15 minutes</a>"]);
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_where_its_data_begins() {
    let fixture = mirrored(5).await;
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    watched.wait_until_ready("in sync").await;
    for range in ["15m", "6h", "7d"] {
        let page = watched.get(&format!("/?range={range}")).await.body;
        assert_contains(
            &page,
            &[
                "The first sync that is shown began ",
                " ago; nothing is known from before.",
            ],
        );
    }
    let old = "UPDATE clerk.sync_runs SET started_at = now() - interval '1 hour' WHERE id = (SELECT min(id) FROM clerk.sync_runs)";
    fixture.db.execute(old).await;
    let nothing = "nothing is known from before";
    eventually("15 minutes are known", async || {
        !watched.get("/?range=15m").await.body.contains(nothing)
    })
    .await;
    page_with(&watched, "/?range=6h", "The first sync that is shown began 60 min ago").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_are_kept_for_as_long_as_the_longest_range() {
    let fixture = mirrored(5).await;
    fixture
        .db
        .execute(
            "INSERT INTO clerk.sync_runs (kind, resource, holder, started_at, ended_at, outcome)
             SELECT kind, 'users', 'other:1', now() - age, now() - age, 'changed'
             FROM (VALUES ('incremental', interval '6 days 23 hours'), ('incremental', '7 days 1 hour'),
                          ('full', '29 days'), ('full', '31 days')) AS runs(kind, age)",
        )
        .await;
    fixture.once().await.assert_exit(Exit::Ok);
    let left =
        "SELECT string_agg(kind || round(extract(epoch FROM now() - started_at) / 86400), ' ' ORDER BY started_at)
                FROM clerk.sync_runs WHERE holder = 'other:1'";
    assert_eq!(fixture.db.text(left).await.as_deref(), Some("full29 incremental7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_finds_the_icon() {
    let fixture = Fixture::new(1).await;
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    let page = watched.get("/").await;
    assert_contains(
        &page.body,
        &["<link rel=\"icon\" href=\"favicon.svg\" type=\"image/svg+xml\">"],
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("img-src 'self'"), "{policy}");
    for path in ["/favicon.svg", "/favicon.ico"] {
        let icon = watched.get(path).await;
        assert_eq!((icon.status, icon.header("content-type")), (200, Some("image/svg+xml")));
        assert!(icon.body.starts_with("<svg "), "{}", icon.body);
    }
}
