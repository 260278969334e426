//! The mirror while a million events wait for an endpoint where nobody listens.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    churn,
    endpoint::{EndpointFile, EndpointState, closed_address, wait_for},
    monitor::Monitor,
    table::{Table, percentile, seconds},
    world::{Schedule, World},
};

/// Nothing waits for the rate limit then, so that small delays are seen.
const SCHEDULE: Schedule = Schedule::EverySecondOnHalf;

/// Whether there is an endpoint, in the order in which that is measured. What changes in the course
/// of time is the same for both.
const ORDER: [bool; 4] = [false, true, true, false];

/// p99 with an endpoint against that without, at most.
const MAX_RATIO: f64 = 1.1;
/// Additional resident memory in MB, at most.
const MAX_MB: f64 = 10.0;

/// Time limit for what does not take long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The mirror with or without the endpoint.
struct Measured {
    has_endpoint: bool,
    /// The times of all changes.
    times: Vec<Duration>,
    /// The highest sample.
    resident_mb: f64,
}

pub async fn run(world: &mut World, table: &mut Table, seconds: u64) -> Result<()> {
    let endpoint = EndpointFile::write(closed_address().await?)?;
    // The endpoint begins with the events after those of now.
    world
        .restart_daemon(Some(SCHEDULE), |command| endpoint.configure(command))
        .await?;
    wait_for(world, "the endpoint is registered", TIMEOUT, async |world| {
        Ok(EndpointState::read(&world.database).await?.is_some())
    })
    .await?;
    let events = insert_events(world).await?;
    let mut measured = Vec::new();
    for has_endpoint in ORDER {
        let endpoint = has_endpoint.then_some(&endpoint);
        measured.push(measure(world, endpoint, seconds, table).await?);
        if has_endpoint {
            check(world, events).await?;
        }
    }
    add_figures(&measured, table);
    Ok(())
}

/// Inserts an event of each user, as a sync would. Returns their number.
async fn insert_events(world: &World) -> Result<u64> {
    let started = Instant::now();
    let client = &world.database.client;
    let sql = "INSERT INTO clerk.events (resource, type, object_id, occurred_at, changed, payload)
        SELECT 'users', 'user.updated', u.id, now(), '{first_name}',
            jsonb_build_object('object', 'event', 'type', 'user.updated', 'instance_id', s.instance_id,
                'data', clerk.user_document(u)::jsonb, 'timestamp', (extract(epoch FROM now()) * 1000)::bigint)
        FROM clerk.users u, clerk.sync_state s ORDER BY u.created_at, u.id";
    let events = client.execute(sql, &[]).await?;
    client.batch_execute("VACUUM ANALYZE clerk.events").await?;
    client.batch_execute("CHECKPOINT").await?;
    println!("{events} events inserted in {}", seconds(started.elapsed()));
    Ok(events)
}

async fn measure(
    world: &mut World,
    endpoint: Option<&EndpointFile>,
    seconds: u64,
    table: &mut Table,
) -> Result<Measured> {
    let metrics = closed_address().await?;
    world
        .restart_daemon(Some(SCHEDULE), |command| {
            command.env("CLERK2PG_HTTP__LISTEN", metrics.to_string());
            if let Some(endpoint) = endpoint {
                endpoint.configure(command);
            }
        })
        .await?;
    world.between_syncs().await?;
    let monitor = Monitor::start(world.daemon()?.pid(), metrics);
    let ledger = churn::run(world, seconds).await?;
    let resident_mb = monitor.stop().await?;
    churn::verify(world, &ledger, table).await?;
    let what = if endpoint.is_some() { "with" } else { "without" };
    println!("{what} the endpoint, at most {resident_mb:.1} MB resident");
    ledger.print();
    Ok(Measured {
        has_endpoint: endpoint.is_some(),
        times: ledger.sorted(),
        resident_mb,
    })
}

/// Checks that the events still wait.
async fn check(world: &World, events: u64) -> Result<()> {
    let state = EndpointState::read(&world.database).await?;
    let waits =
        |state: &EndpointState| state.is_paused && u64::try_from(state.waiting).is_ok_and(|count| count >= events);
    ensure!(
        state.as_ref().is_some_and(waits),
        "the events do not wait for the endpoint"
    );
    Ok(())
}

fn add_figures(measured: &[Measured], table: &mut Table) {
    let p99 = |has_endpoint| {
        let of = measured.iter().filter(|run| run.has_endpoint == has_endpoint);
        let mut times: Vec<Duration> = of.flat_map(|run| run.times.iter().copied()).collect();
        times.sort_unstable();
        percentile(&times, 99).unwrap_or_default()
    };
    let resident = |has_endpoint| {
        let of = measured.iter().filter(|run| run.has_endpoint == has_endpoint);
        let samples: Vec<f64> = of.map(|run| run.resident_mb).collect();
        samples.iter().sum::<f64>() / samples.len() as f64
    };
    let (with, without) = (p99(true), p99(false));
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    table.row(
        "p99 of a change with a dead endpoint, against none",
        format!("≤ {MAX_RATIO} ×"),
        format!("{ratio:.2} × ({}, {})", seconds(with), seconds(without)),
        ratio <= MAX_RATIO,
    );
    let (with, without) = (resident(true), resident(false));
    table.row(
        "resident with a dead endpoint, above none",
        format!("≤ {MAX_MB} MB"),
        format!("{:.1} MB ({with:.1} MB, {without:.1} MB)", with - without),
        with - without <= MAX_MB,
    );
}
