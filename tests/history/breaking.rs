//! What breaks around the program in a history, and how all of it ends.

use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use crate::{application, clock, faults, play::History, replica::Replica, subscriber::Subscriber};

impl History {
    /// Adds or ends a fault, or requests a sync.
    pub async fn breaks(&mut self, dice: &mut Rng) {
        let at = dice.usize(..self.replicas.len());
        let is_spared = at < self.spared;
        let replica = &mut self.replicas[at];
        let what = match dice.u32(0..100) {
            0..33 => faults::of_clerk(&self.fixture.sim, dice, self.may_lag, !self.is_old),
            33..56 => faults::of_postgres(&self.fixture.db.url, replica, dice, &mut self.meanwhile).await,
            56..61 if self.server.is_some() => self.server_breaks(dice).await,
            56..66 => {
                replica.postgres.open_again();
                "the way to Postgres is open again"
            }
            66..74 if !is_spared => {
                replica.is_killed(&self.fixture).await;
                "killed outright"
            }
            74..80 if !replica.is_stopped => {
                replica.stands_still();
                "stopped by a signal"
            }
            66..86 => {
                replica.goes_on();
                "continued"
            }
            86..89 if !is_spared => {
                replica.postgres.open_again();
                replica.is_restarted(&self.fixture).await;
                "restarted"
            }
            86..91 => {
                replica.is_told(Signal::HUP);
                "reloaded"
            }
            91..94 => {
                replica.is_told(Signal::USR1);
                "asked by a signal"
            }
            94 => {
                self.fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
                "full syncs asked for"
            }
            95 => {
                application::floods(&self.fixture, &self.clerk, dice).await;
                "floods of notifications"
            }
            96 | 97 => {
                replica.clock.jumps_to(clock::some_minutes(dice));
                "jumps of the program's clock"
            }
            98 => {
                clock::of_the_database_jumps(&self.fixture, clock::some_minutes(dice)).await;
                "jumps of the database's clock"
            }
            _ => {
                for _ in 0..5 {
                    let id = self.clerk.anybody(dice);
                    self.fixture.db.execute(&format!("NOTIFY clerk2pg, '{id}'")).await;
                }
                "users asked for by id"
            }
        };
        *self.tried.entry(what).or_default() += 1;
        for replica in &mut self.replicas {
            if replica.comes_back(&self.fixture).await {
                *self.tried.entry("ended by itself over a refused key").or_default() += 1;
            }
        }
    }

    async fn server_breaks(&mut self, dice: &mut Rng) -> &'static str {
        let Some(server) = &mut self.server else {
            return "nothing";
        };
        let pause = Duration::from_millis(dice.u64(0..1000));
        let what = match dice.u32(0..4) {
            0 => {
                server.restarts(true, pause).await;
                "PostgreSQL restarted"
            }
            1 => {
                server.restarts(false, pause).await;
                "PostgreSQL crashed"
            }
            _ if server.fills() => {
                // This writes more than fits into the allocated space.
                for _ in 0..150 {
                    *self.tried.entry(self.clerk.happen(dice)).or_default() += 1;
                }
                // A sync must reach the point where it writes.
                self.fixture.sim.clear_faults();
                for replica in &mut self.replicas {
                    replica.postgres.open_again();
                    replica.goes_on();
                }
                let met = || -> usize {
                    let logs = self.replicas.iter().map(Replica::log);
                    logs.map(|log| log.matches("No space left").count()).sum()
                };
                let (filled, before) = (Instant::now(), met());
                while met() == before && filled.elapsed() < Duration::from_secs(3) {
                    self.replicas.iter().for_each(|replica| replica.is_told(Signal::USR1));
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                let is_met = met() > before;
                server.is_emptied().await;
                if is_met {
                    "disk full, as a sync found out"
                } else {
                    "disk full"
                }
            }
            _ => "disk full: not tried, as nobody may mount one here",
        };
        self.fixture.db.client = faults::patient(&self.fixture.db.url).await;
        what
    }

    /// Ends all faults.
    pub async fn heals(&mut self) {
        self.fixture.sim.clear_faults();
        while let Some(done) = self.meanwhile.join_next().await {
            done.unwrap();
        }
        // The task that should do this may have lost the server.
        self.fixture.db.execute(&faults::allow(0)).await;
        for replica in &mut self.replicas {
            replica.postgres.open_again();
            replica.postgres.cut();
            replica.goes_on();
            replica.clock.jumps_to(0);
            replica.comes_back(&self.fixture).await;
        }
        self.subscribers.iter_mut().for_each(Subscriber::behaves);
    }
}
