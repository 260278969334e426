//! A long run of the program on many users that change all the time, while everything around it
//! fails. `SOAK=30m` is its length.

#[allow(dead_code, reason = "the suite of tests uses more of it")]
#[path = "../it/support/mod.rs"]
mod support;

mod application;
mod breaking;
mod clerk;
mod clock;
mod faults;
mod inbox;
mod invariants;
mod organizations;
#[allow(dead_code, reason = "the histories play whole stories")]
mod play;
mod replica;
#[allow(dead_code, reason = "the histories play them")]
mod scenes;
mod server;
mod subscriber;
mod subscriptions;
#[allow(dead_code, reason = "the histories have them")]
mod tables;

use std::time::{Duration, Instant};

use clerk_sim::OrganizationOptions;
use fastrand::Rng;
use play::History;
use replica::Replica;
use server::Server;
use subscriber::Subscriber;
use tokio::time::MissedTickBehavior;

const USERS: usize = 200_000;

/// Changes a second.
const CHURN: u32 = 50;

/// Requests in ten seconds, as by default.
const BUDGET: u32 = 250;

/// Size of the server's disk in megabytes.
const DISK: u32 = 6000;

/// Pause between two faults.
const PAUSE: Duration = Duration::from_secs(2);

/// Faults happen for this long, then all end for as long, as syncs must end well, too.
const SPELL: Duration = Duration::from_secs(30);

/// How long a sync of so many users may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Memory is reported for parts of this length.
const PART: Duration = Duration::from_secs(60);

fn duration() -> Duration {
    let text = std::env::var("SOAK").unwrap_or_else(|_| "30m".to_owned());
    humantime::parse_duration(&text).unwrap_or_else(|error| panic!("SOAK={text:?}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_long_time() {
    let duration = duration();
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let dice = &mut Rng::with_seed(seed);
    let server = Server::start(DISK).await;
    let mut history = History::begin(seed, USERS, OrganizationOptions::default(), Some(server)).await;
    // Runs from the beginning to the end, so that growth shows.
    history.spared = 1;
    let full = ("CLERK2PG_SCHEDULE__FULL", "0 */3 * * * *".to_owned());
    history.starts(3, BUDGET, vec![full]).await;
    history.syncs(PATIENCE, "the first").await;
    let mut subscribers = Vec::new();
    for (name, starts_with_users) in [("first", true), ("second", false)] {
        subscribers.push(Subscriber::start(name, 0, starts_with_users, dice).await);
    }
    history.has_subscribers(subscribers).await;

    let started = Instant::now();
    println!(
        "{USERS} users, {CHURN} changes a second for {}",
        humantime::format_duration(duration)
    );
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CHURN);
    // Faults take time, and missed changes are made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut memory = Vec::new();
    let (mut broke, mut part, mut spell, mut is_peace) = (started, started, started, false);
    let mut ticked = 0u32;
    while started.elapsed() < duration {
        ticks.tick().await;
        history.happens(dice);
        ticked += 1;
        if spell.elapsed() > SPELL {
            (spell, is_peace) = (Instant::now(), !is_peace);
            if is_peace {
                history.heals().await;
            }
        }
        if !is_peace && broke.elapsed() > PAUSE {
            broke = Instant::now();
            history.breaks(dice).await;
            history.subscribers_act(0, dice).await;
        }
        if ticked.is_multiple_of(CHURN) {
            history.no_user_was_deleted_wrongly().await;
        }
        if part.elapsed() > PART {
            part = Instant::now();
            let peaks: Vec<Option<u64>> = history.replicas.iter().map(Replica::peak_memory).collect();
            memory.extend(peaks[0]);
            let most = peaks.into_iter().flatten().max().unwrap_or_default();
            history.budget_is_kept();
            let (syncs, users) = (
                history.fixture.runs("ended_at IS NOT NULL").await,
                history.fixture.users().await,
            );
            let minutes = started.elapsed().as_secs() / 60;
            println!("{minutes:>4} min: {syncs} syncs, {users} users in the mirror, at most {most} kB of memory");
        }
    }
    history.heals().await;
    history.wait_for_next_sync(PATIENCE).await;
    history.delivers(PATIENCE, dice).await;
    let users = history.fixture.users().await;
    let [life] = &*history.replicas[0].lives else {
        panic!("the process that nobody kills has ended");
    };
    let syncs = history.fixture.runs("true").await;
    let own = history.fixture.runs(&format!("holder LIKE '%:{}:%'", life.pid)).await;
    let tried = history.ends().await;
    println!("{duration:?}, seed {seed}: {ticked} changes, {users} users at the end");
    println!("nobody was deleted wrongly, no change was lost");
    println!("{syncs} syncs, whole and failed, {own} of them by the process that lived through it all");
    println!("its peak memory by the minute, in kB: {memory:?}");
    for (what, times) in tried {
        println!("{times:>8}  {what}");
    }
    let third = memory.len() / 3;
    if third > 2 {
        let (first, last) = (median(&memory[..third]), median(&memory[memory.len() - third..]));
        println!("in the first third {first} kB, in the last {last} kB (medians)");
        assert!(last * 4 <= first * 5, "memory grows: {memory:?}");
    } else {
        println!("too short to tell whether memory grows");
    }
}

fn median(memory: &[u64]) -> u64 {
    let mut sorted = memory.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
