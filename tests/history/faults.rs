//! What fails around the program: Clerk's answers, Postgres, and the network between.

use std::time::Duration;

use clerk_sim::{DeletedCursor, Effect, Endpoint, ErrorAnswer, ErrorBody, Quirks, Replicas, Rule, Sim, WrongCount};
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::{
    application::forgets_to_commit,
    replica::Replica,
    support::{postgres::RECOVERY, wait::within},
};

const ALL: &[Endpoint] = &[
    Endpoint::List,
    Endpoint::Count,
    Endpoint::Get,
    Endpoint::OrganizationList,
    Endpoint::OrganizationGet,
];
const LISTS: &[Endpoint] = &[Endpoint::List, Endpoint::OrganizationList];
const COUNTS: &[Endpoint] = &[Endpoint::Count];
const BY_ID: &[Endpoint] = &[Endpoint::Get, Endpoint::OrganizationGet];

/// Adds a fault to some of Clerk's next answers. They show an older state only if they `may_lag`, and
/// users who exist are not found by id only if they `may_deny`. Returns what it did.
pub fn of_clerk(sim: &Sim, dice: &mut Rng, may_lag: bool, may_deny: bool) -> &'static str {
    let mut faults = sim.faults();
    faults.rules.retain(|rule| rule.next != Some(0));
    let (what, effects) = loop {
        let chosen = effects(sim, dice);
        let has = |is_such: fn(&Effect) -> bool| chosen.1.iter().any(|(_, effect)| is_such(effect));
        if (may_lag || !has(lags_behind)) && (may_deny || !has(denies)) {
            break chosen;
        }
    };
    for (places, effect) in effects {
        // Misleading answers may last longer: syncs still end.
        let often = match effect {
            Effect::Quirks(_) => dice.u64(1..60),
            _ => dice.u64(1..6),
        };
        // A user that is left out of a list and not found by id cannot be told from a deleted one.
        if denies(&effect) {
            faults.rules.retain(|rule| !leaves_out(&rule.effect));
        } else if leaves_out(&effect) {
            faults.rules.retain(|rule| !denies(&rule.effect));
        }
        let rule = Rule::new(effect)
            .skip(dice.u64(0..3))
            .next(often)
            .probability(*dice.choice(&[0.2, 0.5, 1.0, 1.0]).unwrap());
        faults.rules.push(match dice.bool() {
            true => rule.on(places),
            false => rule.on([*dice.choice(places).unwrap()]),
        });
    }
    sim.set_faults(faults);
    what
}

/// Returns replicas that answer a part of all reads, up to two seconds late.
fn replicas(dice: &mut Rng) -> Replicas {
    Replicas {
        lag_ms: dice.u64(100..=2000),
        share: *dice.choice(&[0.2, 0.5, 0.8]).unwrap(),
    }
}

/// Lets replicas lag until all faults end.
pub fn lags(sim: &Sim, dice: &mut Rng) {
    let mut faults = sim.faults();
    faults.quirks.replicas = Some(replicas(dice));
    sim.set_faults(faults);
}

/// Whether answers show an older state.
fn lags_behind(effect: &Effect) -> bool {
    matches!(effect, Effect::Quirks(quirks) if quirks.stale_lists_ms > 0 || quirks.replicas.is_some())
}

/// Whether users who exist are not found by id.
fn denies(effect: &Effect) -> bool {
    matches!(effect, Effect::Quirks(quirks) if !quirks.not_found_by_id.is_empty())
}

/// Whether lists may lack any user, not only some listed ones.
fn leaves_out(effect: &Effect) -> bool {
    matches!(effect, Effect::Quirks(quirks) if !denies(effect) && quirks.hidden_from_lists.is_empty() && quirks.count.is_none()
        // This lasts no longer than answers need to count.
        && quirks.replicas.is_none())
}

type Effects = (&'static str, Vec<(&'static [Endpoint], Effect)>);

fn effects(sim: &Sim, dice: &mut Rng) -> Effects {
    let error = |status, retry_after, body| {
        Effect::Error(ErrorAnswer {
            status,
            retry_after,
            body,
        })
    };
    let quirks = |quirks| Effect::Quirks(Box::new(quirks));
    let none = Quirks::default();
    // Clerk may leave a user out of lists, or not find it by id, but never both: that could not be
    // told from a deletion.
    let some_of = |half: usize, dice: &mut Rng| -> Vec<String> {
        let ids = sim
            .user_ids()
            .into_iter()
            .filter(|id| id.bytes().map(usize::from).sum::<usize>() % 2 == half);
        ids.filter(|_| dice.u32(0..4) == 0).take(60).collect()
    };
    let hidden = |dice: &mut Rng| {
        let hidden_from_lists = some_of(0, dice);
        quirks(Quirks {
            hidden_from_lists,
            ..none.clone()
        })
    };
    let (what, places, effect) = match dice.u32(0..30) {
        0 | 1 => ("answers 429", ALL, error(429, Some(dice.u64(0..2)), ErrorBody::Json)),
        2 => ("answers 500", ALL, error(500, None, ErrorBody::Json)),
        3 => ("answers 503", ALL, error(503, Some(1), ErrorBody::Empty)),
        4 => ("answers 521 with HTML", ALL, error(521, None, ErrorBody::Html)),
        5 => ("answers 401", ALL, error(401, None, ErrorBody::Json)),
        6 => ("answers 404 with HTML", ALL, error(404, None, ErrorBody::Html)),
        7 => ("HTML with status 200", ALL, Effect::Html),
        8 => ("truncated bodies", ALL, Effect::Truncate),
        9 => ("connections dropped before an answer", ALL, Effect::DropBefore),
        10 => ("connections dropped in an answer", ALL, Effect::DropDuring),
        11 => ("stalled answers", ALL, Effect::Stall),
        12 => ("slow answers", ALL, Effect::LatencyMs(dice.u64(50..1200))),
        13 => {
            let ignore_starting_after = true;
            let effect = Quirks {
                ignore_starting_after,
                ..none
            };
            ("ignored cursors", LISTS, quirks(effect))
        }
        14 => {
            let cursor = [
                DeletedCursor::Unprocessable,
                DeletedCursor::EmptyPage,
                DeletedCursor::Restart,
            ];
            let deleted_cursor = *dice.choice(&cursor).unwrap();
            let effect = Quirks { deleted_cursor, ..none };
            ("vanished cursors", LISTS, quirks(effect))
        }
        15 => {
            let max_page = Some(dice.usize(1..20));
            ("clamped limits", LISTS, quirks(Quirks { max_page, ..none }))
        }
        16 => {
            let random_pages = true;
            ("short pages", LISTS, quirks(Quirks { random_pages, ..none }))
        }
        17 => {
            let empty_lists = true;
            ("empty lists", LISTS, quirks(Quirks { empty_lists, ..none }))
        }
        18 => {
            let stale_lists_ms = dice.u64(100..3000);
            (
                "lists that lag behind",
                LISTS,
                quirks(Quirks { stale_lists_ms, ..none }),
            )
        }
        19 => {
            let wrong = [
                WrongCount::Offset(-2),
                WrongCount::Offset(3),
                WrongCount::Fixed(0),
                WrongCount::Fixed(7),
            ];
            let count = dice.choice(&wrong).copied();
            ("wrong counts", COUNTS, quirks(Quirks { count, ..none }))
        }
        20 | 21 => ("users left out of lists", LISTS, hidden(dice)),
        22 => {
            let says_nothing = match dice.u32(0..4) {
                0 => error(404, None, ErrorBody::Html),
                1 => error(404, None, ErrorBody::Empty),
                2 => error(403, None, ErrorBody::Json),
                _ => Effect::Html,
            };
            let effects = vec![(LISTS, hidden(dice)), (BY_ID, says_nothing)];
            return ("users left out of lists, and answers by id that say nothing", effects);
        }
        23 | 24 => {
            let not_found_by_id = some_of(1, dice);
            let effect = Quirks {
                not_found_by_id,
                ..none
            };
            ("users not found by id", BY_ID, quirks(effect))
        }
        27..30 => {
            let replicas = Some(replicas(dice));
            ("replicas that lag behind", ALL, quirks(Quirks { replicas, ..none }))
        }
        25 => {
            let effect = Quirks {
                ignore_created_at: true,
                ignore_user_id: true,
                ..none
            };
            ("ignored filters", LISTS, quirks(effect))
        }
        _ => {
            let effect = Quirks {
                ignore_order_by: true,
                ignore_offset: true,
                ..none
            };
            ("ignored orders and offsets", LISTS, quirks(effect))
        }
    };
    (what, vec![(places, effect)])
}

/// Adds a fault to Postgres, or to one replica's connection to it. Longer ones run on in
/// `meanwhile`. Returns what it did.
pub async fn of_postgres(
    url: &str,
    replica: &mut Replica,
    dice: &mut Rng,
    meanwhile: &mut JoinSet<()>,
) -> &'static str {
    match dice.u32(0..12) {
        9..12 => forgets_to_commit(patient(url).await, dice, meanwhile),
        0 => {
            replica.postgres.cut();
            "connections to Postgres cut"
        }
        1 => {
            replica
                .postgres
                .cut_at(dice.usize(0..60_000), if dice.bool() { "COMMIT" } else { "" });
            "connections to Postgres cut in a transaction"
        }
        2 => {
            replica.postgres.refuse().await;
            "Postgres out of reach"
        }
        3 => {
            replica.postgres.hold();
            "packets to Postgres held back"
        }
        4 => {
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE 'replica%' AND random() < 0.5";
            patient(url).await.batch_execute(sql).await.unwrap();
            "sessions ended by an administrator"
        }
        5 => {
            let table = dice.choice(&["clerk.users", "clerk.events", "clerk.sync_state"]);
            let pause = Duration::from_millis(dice.u64(50..800));
            meanwhile.spawn(one_after_the_other(
                patient(url).await,
                table.map(|table| locked(table)).into_iter().collect(),
                pause,
            ));
            "tables locked by the application"
        }
        6 => {
            // Against the order in which rows are written, for a deadlock.
            let rows = ["DESC", "ASC"].map(|order| {
                format!("SELECT FROM (SELECT id FROM clerk.users ORDER BY id {order} LIMIT 3) t JOIN clerk.users u USING (id) FOR UPDATE OF u")
            });
            let pause = Duration::from_millis(dice.u64(20..300));
            meanwhile.spawn(one_after_the_other(patient(url).await, rows.to_vec(), pause));
            "rows locked by the application"
        }
        7 => {
            // Against the order in which tables are written. Who waits longest detects the deadlock
            // and loses it.
            let tables = ["clerk.user_events", "clerk.users"].map(locked);
            let pause = Duration::from_millis(dice.u64(100..900));
            meanwhile.spawn(one_after_the_other(patient(url).await, tables.to_vec(), pause));
            "tables locked in another order"
        }
        _ => {
            let client = patient(url).await;
            let milliseconds = dice.u32(1..40);
            // Another fault may change the database's settings at this moment.
            if client.batch_execute(&allow(milliseconds)).await.is_err() {
                return "nothing: the setting was being changed";
            }
            replica.postgres.cut();
            let (pause, back) = (Duration::from_millis(dice.u64(100..600)), allow(0));
            meanwhile.spawn(async move {
                tokio::time::sleep(pause).await;
                let _ = client.batch_execute(&back).await;
            });
            "statements that may take next to no time"
        }
    }
}

/// Returns a statement that locks a table for all writers.
pub fn locked(table: &str) -> String {
    format!("LOCK TABLE {table} IN EXCLUSIVE MODE")
}

/// Runs a transaction with a pause after each statement. Nothing of it stays: it may lose a
/// deadlock or its server.
pub async fn one_after_the_other(client: Client, statements: Vec<String>, pause: Duration) {
    let mut done = client.batch_execute("BEGIN").await;
    for sql in statements {
        if done.is_err() {
            return;
        }
        done = client.batch_execute(&sql).await;
        tokio::time::sleep(pause).await;
    }
}

/// Sets the statement timeout of later sessions; 0 means none.
pub fn allow(milliseconds: u32) -> String {
    format!(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = {milliseconds}', current_database()); END $$"
    )
}

/// Connects for the test itself, without a statement timeout, whatever the database's setting is.
/// The server may have to recover first.
pub async fn patient(url: &str) -> Client {
    let mut patient = None;
    within(RECOVERY, "the server lets the test in", async || {
        if let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await {
            tokio::spawn(connection);
            if client.batch_execute("SET statement_timeout = 0").await.is_ok() {
                patient = Some(client);
            }
        }
        patient.is_some()
    })
    .await;
    patient.unwrap()
}
