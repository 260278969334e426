use super::*;
use crate::{
    mirror::{HeldItem, SyncKind, TableState},
    resource::{ORGANIZATIONS, USERS},
    watch::{condition::HeldKind, view::Range},
};

fn now() -> DateTime<Utc> {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn summary() -> Summary {
    Summary {
        now: now(),
        instance_id: Some("ins_a".to_owned()),
        environment_type: None,
        is_imported: true,
        users: 7,
        held: 0,
        approved: 0,
        rejected: 0,
        unexpected: 0,
        lease_holder: None,
        leader: None,
        standbys: Vec::new(),
    }
}

fn report() -> MirrorReport {
    MirrorReport {
        recent: RecentSyncs {
            last_full_at: None,
            freshness: None,
            runs: Vec::new(),
        },
        activity: Activity {
            begins_at: None,
            periods: Vec::new(),
        },
        resources: Vec::new(),
        tables: Vec::new(),
        endpoints: Vec::new(),
        held: Vec::new(),
        rejections: Vec::new(),
    }
}

fn page(condition: Condition) -> Page {
    Page {
        view: View::of_query(None),
        condition,
        since_success: None,
        progress: None,
        process: ProcessReport {
            holder: "host:1".to_owned(),
            started_at: now(),
            requests_per_second: 25.0,
            budget_used: 0.0,
            rate_limited: 0,
        },
        summary: Ok(summary()),
        report: Ok(report()),
    }
}

fn in_sync() -> Page {
    page(Condition::InSync(None))
}

fn table(state: TableState) -> TableStatus {
    TableStatus {
        table: "public.people".to_owned(),
        state,
        problem: None,
        compared_at: None,
        rows: None,
        repaired: None,
        rejected: 0,
        held: 0,
        mapping_plan: None,
    }
}

fn position(total: Option<u64>) -> Option<Position> {
    Some(Position {
        objects: "users".to_owned(),
        seen: 1_200,
        total,
    })
}

#[track_caller]
fn check_headline(page: &Page, title: &str, detail: &str) {
    let headline = Headline::of(page);
    assert_eq!((headline.title.as_str(), headline.detail.as_str()), (title, detail));
}

#[test]
fn the_headline_names_the_condition() {
    check_headline(
        &page(Condition::Stuck(Duration::from_secs(75))),
        "Stuck",
        "no heartbeat of the sync loop for 75 s",
    );
    let failing = Condition::Failing {
        why: "Clerk refused the key".to_owned(),
        since: now(),
    };
    let why = "Clerk refused the key; failing since 2026-01-02 03:04:05 UTC";
    check_headline(&page(failing), "Failing", why);
    let standby = page(Condition::StandingBy("other:1 leads".to_owned()));
    check_headline(&standby, "Standing by", "other:1 leads");
    check_headline(
        &page(Condition::Incomplete("two pages are gone".to_owned())),
        "Not in sync",
        "the last full sync was incomplete: two pages are gone",
    );
    let late = Condition::Late {
        kind: SyncKind::Incremental,
        without_success: Duration::from_secs(185),
    };
    let why = "no incremental sync has succeeded for 3 min, longer than the schedule allows";
    check_headline(&page(late), "Late", why);
    check_headline(&in_sync(), "In sync", "");

    // Nobody has noticed the failure but the page.
    for condition in [
        Condition::InSync(None),
        Condition::StandingBy("other:1 leads".to_owned()),
    ] {
        let mut page = page(condition);
        page.summary = Err(Unread::Failed("Postgres cannot be reached".to_owned()));
        page.report = Err(Unread::Failed("Postgres cannot be reached".to_owned()));
        let why = "the database cannot be read: Postgres cannot be reached";
        check_headline(&page, "Failing", why);
        let rendered = render(&page, "n").unwrap();
        assert!(
            !rendered.contains("Users in the mirror") && rendered.contains("Last sync in sync"),
            "{rendered}"
        );
    }

    // Only a part cannot be read.
    let mut page = in_sync();
    page.report = Err(Unread::Failed("Postgres did not answer".to_owned()));
    check_headline(&page, "In sync", "");
    let rendered = render(&page, "n").unwrap();
    let why = "<h2>The mirror cannot be read now</h2><p>Postgres did not answer</p>";
    assert!(
        rendered.contains("Users in the mirror") && rendered.contains(why),
        "{rendered}"
    );
}

#[test]
fn the_headline_follows_the_first_sync() {
    let mut page = page(Condition::FirstSync);
    page.summary = Err(Unread::NoMirror);
    page.report = Err(Unread::NoMirror);
    let nothing = "the first full sync asks Clerk; nothing is stored yet";
    check_headline(&page, "No sync yet", nothing);
    let rendered = render(&page, "n").unwrap();
    assert!(!rendered.contains("cannot be read"), "{rendered}");

    let mut new = summary();
    (new.is_imported, new.users) = (false, 0);
    page.summary = Ok(new);
    page.report = Ok(report());
    check_headline(&page, "No sync yet", nothing);
    page.progress = position(Some(5_000));
    check_headline(&page, "Importing", "1,200 of 5,000 users");
    let bar = "<progress max=\"5000\" value=\"1200\" aria-label=\"users\"></progress>";
    assert!(render(&page, "n").unwrap().contains(bar));
    page.progress = position(None);
    check_headline(&page, "Importing", "1,200 users so far");
    assert!(!render(&page, "n").unwrap().contains("<progress"));

    page.summary = Ok(summary());
    page.progress = position(Some(5_000));
    check_headline(
        &page,
        "Comparing",
        "the first full sync since the start compares everything with Clerk: 1,200 of 5,000 users",
    );
}

#[test]
fn the_headline_names_the_most_important_thing_to_look_at() {
    let mut page = page(Condition::InSync(Some(HeldKind::Deletions)));
    let mut tables = report();
    let mut rejected = table(TableState::Applied);
    rejected.rejected = 1;
    tables.tables.push(rejected);
    page.report = Ok(tables.clone());
    check_headline(&page, "In sync, but 1 row of a table is rejected", "");
    page.summary.as_mut().unwrap().rejected = 2;
    check_headline(&page, "In sync, but 2 users are rejected", "");
    tables.tables[0].held = 3;
    page.report = Ok(tables.clone());
    check_headline(&page, "In sync, but 3 rows of tables are held", "");
    tables.tables[0].state = TableState::Held;
    page.report = Ok(tables);
    check_headline(&page, "In sync, but a mapping is held", "");
    page.summary.as_mut().unwrap().held = 15;
    check_headline(&page, "In sync, but 15 deletions are held", "");
}

/// Returns the section of a page that says what waits; empty without one.
fn attention_of(report: MirrorReport) -> String {
    let mut page = in_sync();
    page.report = Ok(report);
    let rendered = render(&page, "n").unwrap();
    let section = rendered.split_once("<section class=\"attention\">");
    let section = section.map(|(_, rest)| rest.split("</section>").next().unwrap().to_owned());
    section.unwrap_or_default()
}

#[test]
fn what_waits_has_its_command() {
    assert_eq!(attention_of(report()), "", "nothing waits");

    let mut waiting = report();
    let set = |item, plan: Option<&str>| HeldSet {
        item,
        count: 15,
        plan: plan.map(str::to_owned),
    };
    waiting.held = vec![
        set(HeldItem::Deletions(&USERS), Some("abc123")),
        set(HeldItem::Deletions(&ORGANIZATIONS), None),
        set(HeldItem::Removals("public.people".to_owned()), Some("def456")),
    ];
    waiting.tables = vec![table(TableState::Held), table(TableState::Broken)];
    (waiting.tables[0].held, waiting.tables[0].mapping_plan) = (3, Some("123abc".to_owned()));
    waiting.tables[1].problem = Some("there is no <column>, says ann@example.com".to_owned());
    waiting.tables[1].rejected = 2;
    let mut endpoint = EndpointStatus::unknown("app");
    (endpoint.paused_at, endpoint.dead) = (Some(endpoint.now), 2);
    endpoint.last_error = Some("connection refused".to_owned());
    waiting.endpoints = vec![endpoint];
    let section = attention_of(waiting);
    let items: Vec<&str> = section
        .split("<li>")
        .skip(1)
        .map(|item| item.split("</li>").next().unwrap())
        .collect();
    assert_eq!(
        items,
        [
            "<strong>15 deletions are held</strong>\
             <p>To see them, run <code>clerk2pg --dry-run</code></p>\
             <p>If they are correct, run <code>clerk2pg approve abc123</code></p>",
            "<strong>organizations: 15 deletions are held</strong>\
             <p>To see them, run <code>clerk2pg --dry-run</code></p>\
             <p>To see the checksum that approves them, run <code>clerk2pg status</code></p>",
            "<strong>public.people: 15 removals are held</strong>\
             <p>To see them, run <code>clerk2pg --dry-run</code></p>\
             <p>If they are correct, run <code>clerk2pg approve def456</code></p>",
            "<strong>public.people: the new mapping is held, which changes 3 rows</strong>\
             <p>If that is correct, run <code>clerk2pg approve 123abc</code></p>",
            "<strong>public.people: not kept in sync: there is no &lt;column&gt;, says …</strong>\
             <p>To check it again, run <code>clerk2pg check</code></p>",
            "<strong>public.people: 2 rows are rejected</strong>\
             <p>To see each row with the reason, run <code>clerk2pg status</code></p>",
            "<strong>The endpoint app is paused for 0 s: connection refused</strong>\
             <p>It is tried again by itself. To try it now, and to see what to do, run <code>clerk2pg send-test app</code></p>",
            "<strong>The endpoint app: 2 events are dead</strong>\
             <p>To see them, run <code>clerk2pg endpoints</code></p>\
             <p>To deliver them again, run <code>clerk2pg redeliver app</code></p>",
        ]
    );
}

#[test]
fn few_reasons_are_listed_and_the_others_are_counted() {
    let mut many = report();
    many.rejections = (1..=12)
        .map(|number| RejectionReason {
            source: "organization_roles".to_owned(),
            reason: format!("reason {number}"),
            count: 100 - number,
        })
        .collect();
    let mut page = in_sync();
    page.report = Ok(many);
    let rendered = render(&page, "n").unwrap();
    let first = "<tr><th scope=\"row\">organization roles<td class=\"long\">reason 1<td>99</tr>";
    assert!(
        rendered.contains(first) && rendered.contains("reason 10<") && !rendered.contains("reason 11"),
        "{rendered}"
    );
    assert!(
        rendered.contains("<tr><th scope=\"row\">all<td class=\"long\">other reasons<td>177</tr>"),
        "{rendered}"
    );
}

#[test]
fn links_keep_what_the_reader_chose() {
    let mut page = in_sync();
    page.view = View {
        range: Range::Days,
        reloads: false,
    };
    let rendered = render(&page, "n").unwrap();
    for part in [
        "<h2>The last 7 days</h2>",
        "<a href=\"?range=15m&amp;reload=off\">15 minutes</a>",
        "<a href=\"?range=7d&amp;reload=off\" aria-current=\"true\">7 days</a>",
        "This page does not reload. <a href=\"?range=7d\">",
    ] {
        assert!(rendered.contains(part), "{part}: {rendered}");
    }
    assert_eq!(rendered.matches(" aria-current=").count(), 1);
}

#[test]
fn the_plots_say_if_they_begin_later_than_their_range() {
    let begins = |ago: chrono::TimeDelta| {
        let mut page = in_sync();
        page.report.as_mut().unwrap().activity.begins_at = Some(now() - ago);
        render(&page, "n").unwrap()
    };
    let note = "The first sync that is shown began 2 h ago; nothing is known from before.";
    assert!(begins(chrono::TimeDelta::hours(2)).contains(note));
    assert!(!begins(chrono::TimeDelta::hours(7)).contains("nothing is known"));
}
