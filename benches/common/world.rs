//! A simulated Clerk instance, its mirror, and the daemon between them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clerk_sim::{Effect, OrganizationOptions, RateLimit, Rule, Sim};
use tokio::process::Command;

use crate::{
    daemon::{self, Daemon},
    events::Watcher,
    requests,
    server::{Database, Server},
    table::seconds,
};

/// The latency of Clerk's answers during a measurement.
const LATENCY_MS: u64 = 80;

/// Time limit for a full sync.
const FULL_SYNC_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The schedule of incremental syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Every five seconds.
    Default,
    EverySecond,
    /// Every second, with half of Clerk's rate limit instead of the default quarter.
    EverySecondOnHalf,
}

impl Schedule {
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "every 5 s",
            Self::EverySecond => "every second",
            Self::EverySecondOnHalf => "every second, half of the limit",
        }
    }

    pub fn period(self) -> Duration {
        match self {
            Self::Default => Duration::from_secs(5),
            Self::EverySecond | Self::EverySecondOnHalf => Duration::from_secs(1),
        }
    }

    /// The settings that differ from the defaults.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        const EVERY_SECOND: (&str, &str) = ("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *");
        match self {
            Self::Default => &[],
            Self::EverySecond => &[EVERY_SECOND],
            Self::EverySecondOnHalf => &[EVERY_SECOND, ("CLERK2PG_CLERK__REQUEST_BUDGET", "0.5")],
        }
    }

    /// Requests per ten seconds, of the 1000 of a production instance.
    pub fn budget(self) -> u64 {
        match self {
            Self::Default | Self::EverySecond => 250,
            Self::EverySecondOnHalf => 500,
        }
    }
}

/// A simulated instance with its mirror.
pub struct World {
    pub sim: Sim,
    pub database: Database,
    /// The running daemon. Without a schedule, it makes no incremental syncs.
    daemon: Option<(Option<Schedule>, Daemon)>,
}

impl World {
    /// Starts a production instance, and mirrors it into a new database.
    pub async fn production(users: usize, database: &str, server: &Server) -> Result<Self> {
        Self::with_organizations(users, OrganizationOptions::default(), database, server).await
    }

    /// The same with organizations.
    pub async fn with_organizations(
        users: usize,
        organizations: OrganizationOptions,
        database: &str,
        server: &Server,
    ) -> Result<Self> {
        let options = clerk_sim::Options {
            users,
            rate_limit: RateLimit::Production,
            secret_key: "sk_live_bench".to_owned(),
            organizations,
            ..clerk_sim::Options::default()
        };
        let world = Self::start(options, database, server).await?;
        world.load().await?;
        Ok(world)
    }

    /// Starts a development instance, without mirroring it.
    pub async fn development(users: usize, server: &Server) -> Result<Self> {
        let options = clerk_sim::Options {
            users,
            rate_limit: RateLimit::Development,
            secret_key: "sk_test_bench".to_owned(),
            ..clerk_sim::Options::default()
        };
        Self::start(options, "bench_development", server).await
    }

    async fn start(options: clerk_sim::Options, database: &str, server: &Server) -> Result<Self> {
        println!("Generating {} users", options.users);
        Ok(Self {
            sim: Sim::start(options).await.context("cannot start the simulator")?,
            database: server.create(database).await?,
            daemon: None,
        })
    }

    /// Runs the first full sync. It may use the whole rate limit, because it is not measured.
    async fn load(&self) -> Result<()> {
        let started = Instant::now();
        let status = daemon::command(&self.sim, &self.database.url)
            .arg("--once")
            .env("CLERK2PG_CLERK__REQUEST_BUDGET", "1.0")
            .status();
        let status = tokio::time::timeout(FULL_SYNC_TIMEOUT, status)
            .await
            .context("the first full sync did not end")??;
        ensure!(status.success(), "the first full sync ended with {status}");
        println!("Mirrored in {}", seconds(started.elapsed()));
        self.database.vacuum().await
    }

    /// Makes sure that a daemon runs on this schedule, and that its first full sync is complete.
    pub async fn ensure_daemon(&mut self, schedule: Schedule) -> Result<()> {
        match &self.daemon {
            Some((running, _)) if *running == Some(schedule) => Ok(()),
            _ => self.restart_daemon(Some(schedule), |_| {}).await,
        }
    }

    /// Starts the daemon, or starts it again, and waits until its first full sync is complete and
    /// its incremental syncs run. Without a schedule, there are none. `configure` may change the
    /// command.
    pub async fn restart_daemon(
        &mut self,
        schedule: Option<Schedule>,
        configure: impl FnOnce(&mut Command),
    ) -> Result<()> {
        self.stop_daemon().await?;
        // The full sync is not measured: it runs without latency.
        self.sim.clear_faults();
        let before = self.database.full_syncs().await?;
        let mut command = daemon::command(&self.sim, &self.database.url);
        command.env("CLERK2PG_SCHEDULE__FULL", "");
        // The changes delete more than the default limit of 500 users an hour.
        command.env("CLERK2PG_DELETES__MAX_COUNT", "100000");
        match schedule {
            None => drop(command.env("CLERK2PG_SCHEDULE__INCREMENTAL", "")),
            Some(schedule) => drop(command.envs(schedule.settings().iter().copied())),
        }
        configure(&mut command);
        self.daemon = Some((schedule, Daemon::start(command)?));
        let started = Instant::now();
        while self.database.full_syncs().await? == before {
            self.sleep(Duration::from_millis(500)).await?;
            if started.elapsed() > FULL_SYNC_TIMEOUT {
                bail!(
                    "the daemon's full sync did not end; the last sync: {}",
                    self.database.last_run().await?
                );
            }
        }
        println!(
            "\nDaemon, {}: its full sync took {}",
            schedule.map_or("without incremental syncs", Schedule::name),
            seconds(started.elapsed())
        );
        self.sim.set_faults(Rule::new(Effect::LatencyMs(LATENCY_MS)));
        match schedule {
            None => Ok(()),
            Some(_) => requests::wait_for_incremental_sync(&self.sim).await,
        }
    }

    /// Waits until an incremental sync is over and the next is not due.
    ///
    /// So each period begins and ends between two syncs.
    pub async fn between_syncs(&mut self) -> Result<()> {
        requests::wait_for_incremental_sync(&self.sim).await?;
        let (schedule, _) = self.daemon.as_ref().context("no daemon is running")?;
        let half = schedule.context("there are no incremental syncs")?.period() / 2;
        self.sleep(half).await
    }

    pub fn daemon(&mut self) -> Result<&mut Daemon> {
        let (_, daemon) = self.daemon.as_mut().context("no daemon is running")?;
        Ok(daemon)
    }

    pub async fn sleep(&mut self, duration: Duration) -> Result<()> {
        self.daemon()?.sleep(duration).await
    }

    /// Events from now on.
    pub async fn watch(&self) -> Result<Watcher> {
        Watcher::start(&self.database.own_url).await
    }

    pub async fn stop_daemon(&mut self) -> Result<()> {
        match self.daemon.take() {
            Some((_, daemon)) => daemon.stop().await,
            None => Ok(()),
        }
    }

    pub async fn end(mut self) -> Result<()> {
        self.stop_daemon().await?;
        self.sim.stop().await;
        Ok(())
    }
}
