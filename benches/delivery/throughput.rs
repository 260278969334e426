//! How fast waiting events are delivered, against wrk, and the CPU that each of them takes.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    endpoint::{EndpointFile, EndpointState, closed_address, wait_for},
    receiver::{Received, Receiver, time_of},
    table::{Table, seconds},
    world::World,
    wrk,
};

/// Waiting events, one of each user.
pub const EVENTS: usize = 10_000;

/// Measurements, of which the median counts.
const ROUNDS: usize = 3;

/// The time against that of wrk, at most.
const MAX_RATIO: f64 = 1.2;
/// CPU of an event in microseconds, at most.
const MAX_CPU: f64 = 60.0;

/// Time limit for what does not take long.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit for the events. The paused endpoint is tried every half minute.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(180);

/// The time that a sync may continue after it is noted.
const TAIL: Duration = Duration::from_secs(1);

/// What the delivery of all events took.
struct Round {
    took: Duration,
    /// User and system time of the daemon, in seconds.
    cpu: f64,
    /// The same requests by wrk.
    wrk: Option<Duration>,
}

pub async fn run(world: &mut World, table: &mut Table) -> Result<()> {
    let address = closed_address().await?;
    let endpoint = EndpointFile::write(address)?;
    // The endpoint begins with the events after those of now.
    world
        .restart_daemon(None, |command| endpoint.configure(command))
        .await?;
    wait_for(world, "the endpoint is registered", TIMEOUT, async |world| {
        Ok(EndpointState::read(&world.database).await?.is_some())
    })
    .await?;
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let_events_wait(world, &endpoint, round).await?;
        rounds.push(deliver(world, address).await?);
    }
    add_figures(&rounds, table);
    Ok(())
}

/// Changes each user while nobody receives events.
async fn let_events_wait(world: &mut World, endpoint: &EndpointFile, round: usize) -> Result<()> {
    world.stop_daemon().await?;
    let users = world.sim.user_ids();
    ensure!(users.len() == EVENTS, "there are {} users", users.len());
    for user in users {
        let is_known = world
            .sim
            .update(&user, |user| user["first_name"] = format!("Waiting {round}").into());
        ensure!(is_known, "there is no user {user}");
    }
    // Its first full sync writes the events.
    world
        .restart_daemon(None, |command| endpoint.configure(command))
        .await?;
    wait_for(world, "all events wait", TIMEOUT, async |world| {
        let state = EndpointState::read(&world.database).await?;
        Ok(state.is_some_and(|state| state.is_paused && usize::try_from(state.waiting) == Ok(EVENTS)))
    })
    .await?;
    world.sleep(TAIL).await
}

/// Receives all events, then sends the same requests by wrk.
async fn deliver(world: &mut World, address: SocketAddr) -> Result<Round> {
    let before = world.daemon()?.usage()?;
    let receiver = Receiver::start(address).await?;
    wait_for(world, "all events are delivered", DELIVERY_TIMEOUT, async |_| {
        Ok(receiver.count() >= EVENTS)
    })
    .await?;
    wait_for(world, "it is noted that no event waits", TIMEOUT, async |world| {
        let state = EndpointState::read(&world.database).await?;
        Ok(state.is_some_and(|state| state.waiting == 0))
    })
    .await?;
    let cpu = world.daemon()?.usage()?.cpu - before.cpu;
    world.stop_daemon().await?;
    let received = receiver.stop().await;
    check(&received)?;
    let took = time_of(&received, EVENTS).context("nothing was received")?;
    let bytes: usize = received.iter().map(|request| request.body.len()).sum();
    println!(
        "  {EVENTS} events of {} bytes on average, in {}, {cpu:.2} s CPU",
        bytes / EVENTS,
        seconds(took)
    );
    let wrk = match wrk::is_installed() {
        true => Some(wrk::send(&received, Receiver::start(address).await?).await?),
        false => None,
    };
    if let Some(wrk) = wrk {
        println!("  the same requests by wrk in {}", seconds(wrk));
    }
    Ok(Round { took, cpu, wrk })
}

/// Checks that each event came once.
fn check(received: &[Received]) -> Result<()> {
    let ids: HashSet<_> = received.iter().map(|request| request.headers.get("svix-id")).collect();
    let (count, different) = (received.len(), ids.len());
    ensure!(
        count == EVENTS && different == EVENTS,
        "{count} requests came, of {different} events"
    );
    Ok(())
}

fn add_figures(rounds: &[Round], table: &mut Table) {
    let took = median(rounds.iter().map(|round| round.took.as_secs_f64()));
    let what = format!("{EVENTS} waiting events, against wrk");
    let wanted = format!("≤ {MAX_RATIO} ×");
    let wrk: Option<Vec<f64>> = rounds
        .iter()
        .map(|round| round.wrk.map(|time| time.as_secs_f64()))
        .collect();
    match wrk {
        Some(wrk) => {
            let wrk = median(wrk.into_iter());
            let ratio = took / wrk;
            let measured = format!("{ratio:.2} × ({took:.2} s, {wrk:.2} s)");
            table.row(what, wanted, measured, ratio <= MAX_RATIO);
        }
        None => table.unmeasured(what, wanted, format!("{took:.2} s; no wrk")),
    }
    let cpu = median(rounds.iter().map(|round| round.cpu)) / EVENTS as f64 * 1e6;
    table.row(
        "CPU an event",
        format!("< {MAX_CPU} µs"),
        format!("{cpu:.1} µs"),
        cpu < MAX_CPU,
    );
}

/// The middle value. 0 if there is none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
