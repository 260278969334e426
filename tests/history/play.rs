//! A history from its seed to its end.

use std::{collections::BTreeMap, time::Duration};

use clerk_sim::Options;
use fastrand::Rng;
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::{
    clerk::Clerk,
    harness::{World, eventually},
    invariants,
    replica::Replica,
    trouble,
};

/// How much happens in a history.
const STEPS: usize = 60;

/// Plays a history, and tells what was tried.
pub async fn play(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut dice = Rng::with_seed(seed);
    let world = World::with(Options {
        users: *dice.choice(&[0, 1, 30, 200, 700]).unwrap(),
        seed,
        ..Options::default()
    })
    .await;
    let ran = world.run(&["migrate"]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    invariants::watch(&world).await;
    let settings = settings(&mut dice);
    let replicas = *dice.choice(&[1, 1, 2, 3]).unwrap();
    let replicas = (0..replicas)
        .map(|number| Replica::start(&world, format!("replica{number}"), settings.clone()))
        .collect();
    let mut history = History {
        seed,
        clerk: Clerk::new(world.sim.clone()),
        world,
        replicas,
        tried: BTreeMap::new(),
        meanwhile: JoinSet::new(),
    };
    for _ in 0..STEPS {
        history.step(&mut dice).await;
    }
    history.heals().await;
    history.comes_in_step().await;
    history.ends().await
}

fn settings(dice: &mut Rng) -> Vec<(&'static str, String)> {
    let mode = if dice.u32(0..4) == 0 { "mark" } else { "delete" };
    vec![
        ("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *".to_owned()),
        ("CLERK2PG_SCHEDULE__FULL", "*/3 * * * * *".to_owned()),
        ("CLERK2PG_CLERK__TIMEOUT", "500ms".to_owned()),
        ("CLERK2PG_CLERK__CONCURRENCY", dice.u32(1..5).to_string()),
        ("CLERK2PG_EVENTS__INITIAL", "true".to_owned()),
        ("CLERK2PG_DELETES__MODE", mode.to_owned()),
        // Small instances lose a large part of their users in a history; what is held is tested elsewhere.
        ("CLERK2PG_DELETES__MIN_COUNT", "100000".to_owned()),
    ]
}

struct History {
    seed: u64,
    world: World,
    clerk: Clerk,
    replicas: Vec<Replica>,
    tried: BTreeMap<&'static str, u64>,
    meanwhile: JoinSet<()>,
}

impl History {
    async fn step(&mut self, dice: &mut Rng) {
        let at = dice.usize(..self.replicas.len());
        let replica = &mut self.replicas[at];
        let what = match dice.u32(0..100) {
            0..65 => self.clerk.happen(dice),
            65..77 => trouble::of_clerk(&self.world.sim, dice),
            77..85 => trouble::of_postgres(&self.world.db.url, replica, dice, &mut self.meanwhile).await,
            85..88 => {
                replica.postgres.let_through();
                "the way to Postgres is open again"
            }
            88..91 => {
                replica.is_killed(&self.world).await;
                "killed outright"
            }
            91..93 if !replica.is_stopped => {
                replica.stands_still();
                "stopped by a signal"
            }
            91..95 => {
                replica.goes_on();
                "continued"
            }
            95 => {
                replica.postgres.let_through();
                replica.is_restarted(&self.world).await;
                "restarted"
            }
            96 => {
                replica.is_told(Signal::HUP);
                "reloaded"
            }
            97 => {
                replica.is_told(Signal::USR1);
                "asked by a signal"
            }
            98 => {
                self.world.db.execute("NOTIFY clerk2pg, 'full'").await;
                "full syncs asked for"
            }
            _ => {
                let id = dice.choice(&self.world.sim.user_ids()).cloned().unwrap_or_default();
                self.world.db.execute(&format!("NOTIFY clerk2pg, '{id}'")).await;
                "users asked for by name"
            }
        };
        *self.tried.entry(what).or_default() += 1;
        for replica in &mut self.replicas {
            if replica.comes_back(&self.world).await {
                *self.tried.entry("ended by itself over a refused key").or_default() += 1;
            }
        }
        // Sometimes much happens within one pass, and sometimes passes come in between.
        let pause = *dice.choice(&[0, 5, 40, 150, 400]).unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        invariants::nobody_left_who_exists(&self.world, &self.clerk, self.seed).await;
    }

    /// Nothing is wrong any more.
    async fn heals(&mut self) {
        self.world.sim.clear_faults();
        for replica in &mut self.replicas {
            replica.postgres.let_through();
            replica.goes_on();
            replica.comes_back(&self.world).await;
        }
        while let Some(done) = self.meanwhile.join_next().await {
            done.unwrap();
        }
    }

    /// The second full sync from here on leaves the mirror equal to Clerk, at the latest.
    async fn comes_in_step(&mut self) {
        let last = self.world.runs("true").await;
        let newest = if last == 0 {
            0
        } else {
            self.world.db.number("SELECT max(id) FROM clerk.sync_runs").await
        };
        let whole = format!("kind = 'full' AND id > {newest} AND outcome IN ('in_step', 'changed')");
        let mut passes = 0;
        while passes < 2 {
            let before = passes;
            eventually(
                &format!("seed {}: a full sync, {passes} so far", self.seed),
                async || {
                    self.replicas.iter().for_each(|replica| replica.is_told(Signal::USR1));
                    passes = self.world.runs(&whole).await;
                    passes > before
                },
            )
            .await;
        }
        if let Some(why) = invariants::difference(&self.world).await {
            let logs: Vec<String> = self.replicas.iter().map(Replica::log).collect();
            panic!(
                "seed {}: after {passes} full syncs {why}\n{}",
                self.seed,
                logs.join("\n---\n")
            );
        }
        let (versions, runs) = (self.world.db.versions().await, self.world.runs(&whole).await);
        eventually("a quiet full sync", async || self.world.runs(&whole).await > runs).await;
        assert_eq!(
            self.world.db.versions().await,
            versions,
            "seed {}: a quiet pass wrote",
            self.seed
        );
    }

    async fn ends(mut self) -> BTreeMap<&'static str, u64> {
        for replica in &mut self.replicas {
            replica.ends().await;
        }
        let (world, seed) = (&self.world, self.seed);
        invariants::nobody_left_who_exists(world, &self.clerk, seed).await;
        invariants::only_holders_wrote(world, &self.replicas, seed).await;
        invariants::counts_are_true(world, seed).await;
        invariants::events_tell_the_mirror(world, seed).await;
        for (condition, what) in [
            ("outcome <> 'failed'", "passes"),
            ("outcome = 'failed'", "passes that failed"),
        ] {
            let passes = world.runs(condition).await;
            *self.tried.entry(what).or_default() += passes.unsigned_abs();
        }
        // Dropping a database waits for clients that have not come as far as their password, and must not keep other histories waiting.
        let Self { world, tried, .. } = self;
        tokio::task::spawn_blocking(|| drop(world)).await.unwrap();
        tried
    }
}
