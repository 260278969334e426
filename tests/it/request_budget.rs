//! Clerk's rate limit is shared with the user's backend: clerk2pg uses the configured part and no
//! more.

use std::time::Duration;

use crate::support::{
    client::client_with,
    summary::{Exit, changed},
};
use crate::support::{
    fixture::Fixture,
    organizations::{ALL, company},
    wait::eventually,
};
use clerk_sim::{Options, OrganizationOptions, PerOrganization, Quirks, RateLimit, Sim};
use clerk2pg::{reconcile::range::Range, resource::USERS};
use rustix::process::Signal;

async fn spends(key: &str, limit: RateLimit, stated: Option<u32>, requests: usize, budget: u64) {
    let options = Options {
        users: 0,
        secret_key: key.to_owned(),
        rate_limit: limit,
        ..Options::default()
    };
    let sim = Sim::start(options).await.unwrap();
    let client = client_with(&sim.url(), key, stated, 0.25, Duration::from_secs(30));
    // Clones share one budget.
    let asking: Vec<_> = (0..5)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..requests / 5 {
                    client.count(&USERS, Range::ALL).await.unwrap();
                }
            })
        })
        .collect();
    for asking in asking {
        asking.await.unwrap();
    }
    let busiest = sim.busiest_window();
    assert_eq!(sim.requests(), requests as u64, "some were refused");
    assert_eq!(busiest, budget, "requests in ten seconds with {key}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_a_quarter_of_the_limit_of_the_kind_of_key() {
    tokio::join!(
        spends("sk_test_budget", RateLimit::Development, None, 30, 25),
        spends("sk_live_budget", RateLimit::Production, None, 300, 250),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_a_quarter_of_a_configured_limit() {
    spends("sk_live_budget", RateLimit::Off, Some(160), 45, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_completes_while_other_clients_use_up_the_limit() {
    let fixture = Fixture::with(Options {
        users: 60,
        rate_limit: RateLimit::Development,
        ..Options::default()
    })
    .await;
    fixture.sim.set_faults(Quirks {
        max_page: Some(2),
        ..Quirks::default()
    });
    let backend = client_with(
        &fixture.sim.url(),
        fixture.sim.secret_key(),
        None,
        1.0,
        Duration::from_secs(30),
    );
    for _ in 0..85 {
        backend.count(&USERS, Range::ALL).await.unwrap();
    }
    let run = fixture.start_full_sync(&[]);
    run.wait_for_log("Clerk asks to slow down").await;
    run.wait_for_exit().await.assert(Exit::Ok, changed().created(60));
    fixture.assert_in_sync().await;
    assert!(fixture.sim.log().iter().any(|request| request.status == 429));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_budget() {
    let fixture = Fixture::new(60).await;
    fixture.sim.set_faults(Quirks {
        max_page: Some(4),
        ..Quirks::default()
    });
    keeps_its_budget(&fixture, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_budget_of_all_resources() {
    let organizations = OrganizationOptions {
        members: PerOrganization::Sizes(vec![2]),
        ..OrganizationOptions::number(3)
    };
    keeps_its_budget(&company(10, organizations).await, &[ALL]).await;
}

/// Asserts that a daemon sends no more than 20 requests in ten seconds when it is reloaded again and again.
async fn keeps_its_budget(fixture: &Fixture, environment: &[(&str, &str)]) {
    let budget = [("CLERK2PG_CLERK__REQUEST_BUDGET", "0.02")];
    let daemon = fixture.start_daemon(&[&budget, environment].concat());
    fixture.syncs(1).await;
    for reloads in 1..4 {
        daemon.signal(Signal::HUP);
        eventually("it is reloaded", async || {
            daemon.count_in_log("configuration reloaded") == reloads
        })
        .await;
    }
    let before = fixture.sim.requests();
    eventually("a window more", async || fixture.sim.requests() > before + 15).await;
    let busiest = fixture.sim.busiest_window();
    assert!(busiest <= 20, "{busiest} requests in ten seconds");
}
