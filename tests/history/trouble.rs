//! What breaks around the program: Clerk's answers, Postgres and the way to it.

use std::time::Duration;

use clerk_sim::{DeletedCursor, Effect, Endpoint, ErrorAnswer, ErrorBody, Quirks, Rule, Sim, WrongCount};
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::{harness::connect, replica::Replica};

/// Something is wrong with some of the next answers. Returns what.
pub fn of_clerk(sim: &Sim, dice: &mut Rng) -> &'static str {
    let (what, effect) = effect(sim, dice);
    let mut rule = Rule::new(effect)
        .skip(dice.u64(0..3))
        .next(dice.u64(1..6))
        .probability(*dice.choice(&[0.2, 0.5, 1.0]).unwrap());
    if dice.bool() {
        let all = [Endpoint::List, Endpoint::Count, Endpoint::Get];
        rule = rule.on([*dice.choice(&all).unwrap()]);
    }
    let mut faults = sim.faults();
    faults.rules.retain(|rule| rule.next != Some(0));
    faults.rules.push(rule);
    sim.set_faults(faults);
    what
}

fn effect(sim: &Sim, dice: &mut Rng) -> (&'static str, Effect) {
    let error = |status, retry_after, body| {
        Effect::Error(ErrorAnswer {
            status,
            retry_after,
            body,
        })
    };
    let quirks = |quirks| Effect::Quirks(Box::new(quirks));
    let none = Quirks::default();
    // Clerk may leave somebody out of lists, or say by id that there is nobody, but does not do both to one user at a time: then nobody
    // could tell that from a deletion.
    let some_of = |half: usize, dice: &mut Rng| -> Vec<String> {
        let ids = sim
            .user_ids()
            .into_iter()
            .filter(|id| id.bytes().map(usize::from).sum::<usize>() % 2 == half);
        ids.filter(|_| dice.u32(0..4) == 0).take(60).collect()
    };
    match dice.u32(0..24) {
        0 | 1 => ("answers 429", error(429, Some(dice.u64(0..2)), ErrorBody::Json)),
        2 => ("answers 500", error(500, None, ErrorBody::Json)),
        3 => ("answers 503", error(503, Some(1), ErrorBody::Empty)),
        4 => ("answers 521 with HTML", error(521, None, ErrorBody::Html)),
        5 => ("answers 401", error(401, None, ErrorBody::Json)),
        6 => ("HTML with status 200", Effect::Html),
        7 => ("truncated bodies", Effect::Truncate),
        8 => ("connections dropped before an answer", Effect::DropBefore),
        9 => ("connections dropped in an answer", Effect::DropDuring),
        10 => ("stalled answers", Effect::Stall),
        11 | 12 => ("slow answers", Effect::LatencyMs(dice.u64(50..1200))),
        13 => (
            "ignored cursors",
            quirks(Quirks {
                ignore_starting_after: true,
                ..none
            }),
        ),
        14 => {
            let cursor = [
                DeletedCursor::Unprocessable,
                DeletedCursor::EmptyPage,
                DeletedCursor::Restart,
            ];
            let deleted_cursor = *dice.choice(&cursor).unwrap();
            ("vanished cursors", quirks(Quirks { deleted_cursor, ..none }))
        }
        15 => (
            "clamped limits",
            quirks(Quirks {
                max_page: Some(dice.usize(1..20)),
                ..none
            }),
        ),
        16 => (
            "short pages",
            quirks(Quirks {
                random_pages: true,
                ..none
            }),
        ),
        17 => (
            "empty lists",
            quirks(Quirks {
                empty_lists: true,
                ..none
            }),
        ),
        18 => (
            "lists that lag behind",
            quirks(Quirks {
                stale_lists_ms: dice.u64(100..3000),
                ..none
            }),
        ),
        19 => {
            let wrong = [
                WrongCount::Offset(-2),
                WrongCount::Offset(3),
                WrongCount::Fixed(0),
                WrongCount::Fixed(7),
            ];
            (
                "wrong counts",
                quirks(Quirks {
                    count: dice.choice(&wrong).copied(),
                    ..none
                }),
            )
        }
        20 => (
            "users left out of lists",
            quirks(Quirks {
                hidden_from_lists: some_of(0, dice),
                ..none
            }),
        ),
        21 => (
            "users not found by id",
            quirks(Quirks {
                not_found_by_id: some_of(1, dice),
                ..none
            }),
        ),
        22 => (
            "ignored filters",
            quirks(Quirks {
                ignore_created_at: true,
                ignore_user_id: true,
                ..none
            }),
        ),
        _ => (
            "ignored orders and offsets",
            quirks(Quirks {
                ignore_order_by: true,
                ignore_offset: true,
                ..none
            }),
        ),
    }
}

/// Something happens to Postgres, or to the way of one replica to it. What takes a while goes on in `meanwhile`. Returns what.
pub async fn of_postgres(
    url: &str,
    replica: &mut Replica,
    dice: &mut Rng,
    meanwhile: &mut JoinSet<()>,
) -> &'static str {
    match dice.u32(0..9) {
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
            let table = dice.choice(&["clerk.users", "clerk.user_events", "clerk.sync_state"]);
            let pause = Duration::from_millis(dice.u64(50..800));
            meanwhile.spawn(one_after_the_other(
                patient(url).await,
                table.map(|table| locked(table)).into_iter().collect(),
                pause,
            ));
            "tables locked by the application"
        }
        6 => {
            // Against the order in which rows are written, so that a deadlock may come of it.
            let rows = ["DESC", "ASC"].map(|order| {
                format!("SELECT FROM (SELECT id FROM clerk.users ORDER BY id {order} LIMIT 3) t JOIN clerk.users u USING (id) FOR UPDATE OF u")
            });
            let pause = Duration::from_millis(dice.u64(20..300));
            meanwhile.spawn(one_after_the_other(patient(url).await, rows.to_vec(), pause));
            "rows locked by the application"
        }
        7 => {
            // Against the order in which they are written: who waits longest for a deadlock to end finds it, and loses.
            let tables = ["clerk.user_events", "clerk.users"].map(locked);
            let pause = Duration::from_millis(dice.u64(100..900));
            meanwhile.spawn(one_after_the_other(patient(url).await, tables.to_vec(), pause));
            "tables locked in another order"
        }
        _ => {
            let client = patient(url).await;
            let milliseconds = dice.u32(1..40);
            client.batch_execute(&allow(milliseconds)).await.unwrap();
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

fn locked(table: &str) -> String {
    format!("LOCK TABLE {table} IN EXCLUSIVE MODE")
}

/// A transaction with a pause behind each statement, of which nothing stays: it may lose a deadlock, or its server.
async fn one_after_the_other(client: Client, statements: Vec<String>, pause: Duration) {
    let mut done = client.batch_execute("BEGIN").await;
    for sql in statements {
        if done.is_err() {
            return;
        }
        done = client.batch_execute(&sql).await;
        tokio::time::sleep(pause).await;
    }
}

/// Sets the time that statements may take in sessions to come; 0 is any time.
pub fn allow(milliseconds: u32) -> String {
    format!(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = {milliseconds}', current_database()); END $$"
    )
}

/// A connection of the test's own, for whom statements may take as long as they do, whatever the database's setting is at this moment.
pub async fn patient(url: &str) -> Client {
    let client = connect(url).await;
    while client.batch_execute("SET statement_timeout = 0").await.is_err() {}
    client
}
